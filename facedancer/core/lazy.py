"""Modules that are imported when they are first used.

A family's flags stand beside the networks that they shape, and a command's help must not wait for Keras.
"""

import importlib


class LazyModule:
    """Stands for a module until something of it is asked for: `keras = LazyModule("keras")` for `import keras`."""

    def __init__(self, name):
        self._name = name

    def __getattr__(self, attribute):
        return getattr(importlib.import_module(self._name), attribute)
