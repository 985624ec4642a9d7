"""What is measured of a swap, pixel by pixel and embedding by embedding: the same in training's validation and in
`evaluate`.
"""

import numpy as np

# Differences of more than so many grey levels count as a change; less is what compression does.
CHANGED = 8


def cosines(a, b):
    """Returns the cosine similarities (n,) of embeddings (n, d) and (n, d)."""
    return (unit_rows(a) * unit_rows(b)).sum(1)


def unit_rows(embeddings):
    """Returns embeddings (n, d), each divided by its length."""
    embeddings = np.asarray(embeddings, np.float64)
    return embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)


def mean_difference(a, b, where=None):
    """Returns the mean absolute difference of pictures (S, S, 3) uint8, share of the range.

    Args:
        where: (S, S) of bool, the pixels that count; if there is none, 0 is returned.
    """
    apart = np.abs(np.float32(a) - np.float32(b))
    if where is not None:
        if not where.any():
            return 0.0
        apart = apart[where]
    return float(apart.mean()) / 255


def changed_pixels(a, b):
    """Returns where pictures (S, S, 3) uint8 differ: (S, S) of bool."""
    return np.abs(np.int16(a) - np.int16(b)).max(-1) > CHANGED


def errors_against_truth(swap, target, truth):
    """Returns how far a swap, and its target, are from the true swap where target and truth differ.

    Args:
        swap, target, truth: (S, S, 3) uint8.

    Returns:
        Both mean differences, share of the range; None if target and truth do not differ.
    """
    changed = changed_pixels(target, truth)
    if not changed.any():
        return None
    return mean_difference(swap, truth, changed), mean_difference(target, truth, changed)
