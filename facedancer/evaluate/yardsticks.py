"""Baselines that need no training; a useful swap model beats both."""

import cv2
import numpy as np

from facedancer.face_parts import drawing
from facedancer.face_parts.dense_landmarks import load_mean_face
from facedancer.face_parts.pose import find_landmarks


class LeaveTarget:
    """Returns the target unchanged."""

    name, key = "the target, left as it is", "leave_target"

    def __call__(self, cases):
        return np.stack([case.target for case in cases])


class TrueSwap:
    """Returns the truth: its scores show the measures' own error, or their upper limit."""

    name, key = "the true swap", "true_swap"

    def __call__(self, cases):
        return np.stack([case.truth for case in cases])


class CopyPaste:
    """Draws the source's face onto the target's by landmarks, in the target's colors, blended by seamless cloning.

    Pérez et al., "Poisson image editing", 2003.

    Args:
        shrink_factor: of the aligned faces.
    """

    name, key = "copy and paste", "copy_and_paste"

    def __init__(self, shrink_factor):
        self._shrink_factor = shrink_factor

    def __call__(self, cases):
        """Swaps a list of n `Case`; returns (n, S, S, 3) uint8."""
        targets, sources = (np.stack([getattr(case, side) for case in cases]) for side in ("target", "source"))
        places, points = (find_landmarks(faces, self._shrink_factor)[..., :2] for faces in (targets, sources))
        triangles = drawing.triangulate(load_mean_face()[:, :2])
        return np.stack([self._swap(*one, triangles) for one in zip(targets, sources, places, points, strict=True)])

    def _swap(self, target, source, places, points, triangles):
        drawn, mask = drawing.draw_onto(source, points, places, triangles)
        # The clone must not touch the border.
        mask[[0, 1, -2, -1]] = 0
        mask[:, [0, 1, -2, -1]] = 0
        if mask.sum() < 100:
            return target
        drawn = drawing.match_colors(drawn, target, mask)
        drawn = np.where(mask[..., None] > 0, drawn, target).astype(np.uint8)
        x, y, width, height = cv2.boundingRect(mask)
        return cv2.seamlessClone(drawn, target, mask * 255, (x + width // 2, y + height // 2), cv2.NORMAL_CLONE)
