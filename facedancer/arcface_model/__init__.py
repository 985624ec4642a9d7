"""Frozen networks for aligned faces: identity, expression, and perceptual similarity.

Importing this package imports no deep-learning library; its names load one on first use.
"""

import importlib

_MODULES = {
    "IdentityEncoder": "facedancer.arcface_model.encoder",
    "ExpressionEmbedder": "facedancer.arcface_model.encoder",
}
__all__ = list(_MODULES)


def __getattr__(name):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(importlib.import_module(_MODULES[name]), name)
