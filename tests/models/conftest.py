"""Small networks with weights that tell every tensor from every other."""

from pathlib import Path

import numpy as np
import pytest

from facedancer.models.facedancer import Config

PUBLISHED = Path(__file__).resolve().parents[3] / "shared" / "fixtures" / "published_format"


@pytest.fixture(scope="session")
def published():
    """The folder of files in the published format; tests that use it skip without it."""
    if not PUBLISHED.is_dir():
        pytest.skip("needs ../shared/fixtures/published_format, which is not in the repository")
    return PUBLISHED


@pytest.fixture(scope="session")
def tiny_config():
    """Returns a function that makes a configuration of 32 pixels and three resolutions."""

    def make(**changes):
        defaults = {
            "image_size": 32,
            "embedding_dim": 6,
            "mapping_depth": 2,
            "mapping_size": 7,
            "widths": (4, 8, 12),
            "up_types": ("no_skip", "affa", "concat"),
            "discriminator_widths": (4, 8, 8),
        }
        return Config(**{**defaults, **changes})

    return make


@pytest.fixture
def randomize():
    """Returns a function that draws all weights of a layer or model anew, those that start as 0 or 1 too."""

    def draw(layer):
        generator = np.random.default_rng(5)
        layer.set_weights([generator.normal(0.1, 0.4, array.shape) for array in layer.get_weights()])
        return layer

    return draw


@pytest.fixture
def inputs_of():
    """Returns a function that makes inputs for a model, the same for the same shapes."""

    def make(model, batch=2):
        generator = np.random.default_rng(7)
        return [generator.normal(size=(batch, *x.shape[1:])).astype(np.float32) for x in model.inputs]

    return make
