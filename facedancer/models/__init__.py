"""Swap networks: graphs that can be exported, no losses. Importing this registers their layers with Keras."""

from facedancer.models import layers  # noqa: F401, registers the layers
from facedancer.models.published import load_swapper  # noqa: F401

# The families of swap networks: name -> module with `PRESETS`, `build_networks` and `build_swapper`.
FAMILIES = {"facedancer": "facedancer.models.facedancer"}
