"""The side-by-side view of target and swap."""

import cv2
import numpy as np


def compare_view(target, swapped, source_face):
    """Returns the target on the left, the swap on the right, and a small source face at the bottom left.

    Args:
        target, swapped: (H, W, 3) uint8 RGB.
        source_face: (S, S, 3) uint8 RGB, or None to show none.

    Returns:
        (H, 2 W, 3) uint8 RGB.
    """
    view = np.concatenate([target, swapped], axis=1)
    if source_face is None:
        return view
    side = max(1, min(target.shape[:2]) // 4)
    view[-side:, :side] = cv2.resize(source_face, (side, side), interpolation=cv2.INTER_AREA)
    return view
