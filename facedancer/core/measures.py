"""Measures of a swap on pixels and embeddings, shared by validation in training and by `evaluate`."""

import numpy as np

# Differences above this many gray levels count as a change; smaller ones come from compression.
CHANGED = 8


def cosines(a, b):
    """Returns the cosine similarities (n,) of embeddings (n, d) and (n, d)."""
    return (unit_rows(a) * unit_rows(b)).sum(1)


def unit_rows(embeddings):
    """Returns embeddings (n, d), each normalized to length 1."""
    embeddings = np.asarray(embeddings, np.float64)
    return embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)


def mean_difference(a, b, where=None):
    """Returns the mean absolute difference of pictures (S, S, 3) uint8, share of the range.

    Args:
        where: (S, S) bool, the pixels to include; if there are none, returns 0.
    """
    apart = np.abs(np.float32(a) - np.float32(b))
    if where is not None:
        if not where.any():
            return 0.0
        apart = apart[where]
    return float(apart.mean()) / 255


def changed_pixels(a, b):
    """Returns where pictures (S, S, 3) uint8 differ, (S, S) bool."""
    return np.abs(np.int16(a) - np.int16(b)).max(-1) > CHANGED


def errors_against_truth(swap, target, truth):
    """Returns the errors of a swap and of its target against the true swap, where target and truth differ.

    Args:
        swap, target, truth: (S, S, 3) uint8.

    Returns:
        Both mean differences, share of the range; None if target and truth do not differ.
    """
    changed = changed_pixels(target, truth)
    if not changed.any():
        return None
    return mean_difference(swap, truth, changed), mean_difference(target, truth, changed)
