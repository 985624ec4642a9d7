"""Masks on the aligned face: how much of the swapped face is shown where."""

from math import erf, sqrt

import numpy as np

# FaceDancer's box on a 256-pixel face: it leaves out forehead and crop border, and ends in a Gaussian slope.
_ROWS, _COLUMNS, _SIGMA, _SIZE = (77, 240), (32, 224), 7.0, 256


def soft_box(size, shrink_factor=1.0):
    """Returns FaceDancer's soft box, (size, size, 1) float32 in [0, 1].

    The box convolved with the Gaussian in closed form, so that it covers the same part of the face at every size.
    Values too small to move a grey level are 0: beyond them a frame stays as it is.

    Args:
        size: side of the aligned face in pixels.
        shrink_factor: of the landmark template (see `core.alignment`); below 1 the face fills less of the crop.
    """
    mask = _soft_step(_ROWS, size, shrink_factor)[:, None] * _soft_step(_COLUMNS, size, shrink_factor)
    mask[mask < 1 / 255] = 0
    return mask[..., None].astype(np.float32)


def _soft_step(interval, size, shrink_factor):
    """A slice of pixels, blurred: the share of a Gaussian about each pixel's centre that lies within it."""
    scale = shrink_factor * size / _SIZE
    # Pixel i of a slice reaches from i - 0.5 to i + 0.5; the crop shrinks about `size / 2`, as the template does.
    low, high = ((edge - 0.5 - _SIZE / 2) * scale + size / 2 for edge in interval)
    width = _SIGMA * scale * sqrt(2)
    return np.array([(erf((high - i) / width) - erf((low - i) / width)) / 2 for i in range(size)])
