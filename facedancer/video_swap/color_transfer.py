"""Matches a swapped face's colors to those of the face it replaces.

`mean` shifts and scales each channel of CIE Lab to the target's mean and deviation (Reinhard et al., 2001); `histogram`
matches each channel's whole distribution. Both use only the pixels that the mask shows, and return the network's image
unchanged if there is nothing to do.
"""

import cv2
import numpy as np

COLOR_TRANSFERS = ("none", "mean", "histogram")


def transfer_colors(face, target, mask, kind):
    """Returns the face with the target's colors.

    Args:
        face: the swapped face, (S, S, 3) float32 in [0, 255].
        target: the aligned target, (S, S, 3) uint8.
        mask: (S, S, 1) in [0, 1], the part that is shown.
        kind: one of `COLOR_TRANSFERS`.

    Returns:
        (S, S, 3) float32 in [0, 255].
    """
    if kind == "none":
        return face
    seen = mask[..., 0] > 0.5
    if not seen.any():
        return face
    lab, wanted = (cv2.cvtColor(np.float32(image) / 255, cv2.COLOR_RGB2Lab) for image in (face, target))
    match = {"mean": _match_moments, "histogram": _match_histogram}[kind]
    for channel in range(3):
        lab[..., channel] = match(lab[..., channel], lab[..., channel][seen], wanted[..., channel][seen])
    return np.clip(cv2.cvtColor(lab, cv2.COLOR_Lab2RGB) * 255, 0, 255)


def _match_moments(values, seen, wanted):
    # Limited, or a flat face would be stretched to the target's contrast, amplifying noise.
    scale = np.clip(wanted.std() / max(seen.std(), 1e-3), 0.5, 2)
    return (values - seen.mean()) * scale + wanted.mean()


def _match_histogram(values, seen, wanted):
    levels = np.linspace(0, 1, 65)
    have, want = np.quantile(seen, levels), np.quantile(wanted, levels)
    rising = np.concatenate([[True], np.diff(have) > 1e-4])
    inside = np.interp(values, have[rising], want[rising])
    # Beyond the visible range, extrapolate with slope 1.
    return inside + np.minimum(values - have[0], 0) + np.maximum(values - have[-1], 0)
