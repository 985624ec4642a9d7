"""Swap networks: exportable graphs, without losses. Importing this package imports no deep-learning library."""

from facedancer.models.families import FAMILIES, load_swapper

__all__ = ["FAMILIES", "load_swapper"]
