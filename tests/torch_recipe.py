"""Weights that follow from the names of tensors, as ../shared/fixtures describes them, and comparisons."""

import zlib

import numpy as np


def made_weights(described, scaled=()):
    """Returns the state dict of a `tensors_*.json`; what begins with one of `scaled` is multiplied by 0.03."""
    state = {}
    for name, shape, *_ in described["tensors"]:
        generator = np.random.RandomState(zlib.crc32(f"0:{name}".encode()))
        leaf = name.split(".")[-1]
        if leaf == "running_var":
            state[name] = generator.uniform(0.5, 1.5, shape).astype(np.float32)
            continue
        drawn = np.float32(generator.standard_normal(shape))
        if len(shape) > 1:
            drawn = drawn * np.float32(1.2 / np.sqrt(np.prod(shape[1:])))
        elif leaf == "weight":
            drawn = 1 + np.float32(0.15) * drawn
        else:
            drawn = np.float32(0.1) * drawn
        state[name] = drawn * np.float32(0.03) if name.startswith(tuple(scaled)) else drawn
    return state


def last(array):
    """Channels last."""
    return np.asarray(array).transpose(0, 2, 3, 1)


def relative(found, expected):
    """The largest difference in units of the largest value."""
    return np.abs(np.asarray(found) - expected).max() / np.abs(expected).max()
