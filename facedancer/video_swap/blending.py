"""Pastes a swapped face back into its frame."""

from math import ceil, sqrt

import cv2
import numpy as np

from facedancer.core.alignment import scale_of, transform_points

BLENDINGS = ("mix", "poisson")
_RING = 4  # pixels


def paste_face(frame, face, mask, aligned_to_frame, blending="mix"):
    """Pastes an aligned face into a frame, in place, under a mask. Works only on the face's region.

    Where the mask is 0 the frame keeps its values exactly.

    Args:
        frame: (H, W, 3) uint8.
        face: (S, S, 3) float32 in [0, 255].
        mask: (S, S, 1) float32 in [0, 1].
        aligned_to_frame: (2, 3) similarity.
        blending: "mix", or "poisson": where the mask exceeds one half, the face is first matched to the frame's colors
            at that edge and keeps its gradients (Pérez et al., SIGGRAPH 2003).

    Returns:
        The region `(x1, y1, x2, y2)` outside of which nothing changed, in whole pixels, end excluded; None
        if the face lies outside the frame or the mask is 0.
    """
    region = _region(frame, mask, aligned_to_frame)
    if region is None:
        return None
    x1, y1, x2, y2 = region
    size = (x2 - x1, y2 - y1)
    aligned_to_region = np.array(aligned_to_frame, np.float64)
    aligned_to_region[:, 2] -= x1, y1

    face = _smooth_for(face, scale_of(aligned_to_frame))
    face = cv2.warpAffine(face, aligned_to_region, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    face = np.clip(face, 0, 255)  # cubic interpolation overshoots
    mask = cv2.warpAffine(mask, aligned_to_region, size, flags=cv2.INTER_LINEAR)[..., None]
    part = frame[y1:y2, x1:x2]
    if blending == "poisson":
        face = _clone(face, part, mask)
    part[...] = np.rint(part + mask * (face - part))
    return region


def _clone(face, part, mask):
    """Solves Poisson's equation for the face in its part of the frame; returns (h, w, 3), unchanged elsewhere."""
    # OpenCV reads a ring around the mask, so the frame's border is replicated.
    face, part = (cv2.copyMakeBorder(image, *[_RING] * 4, cv2.BORDER_REPLICATE) for image in (face, part))
    inside = cv2.copyMakeBorder(np.uint8(mask > 0.5) * 255, *[_RING] * 4, cv2.BORDER_CONSTANT, value=0)
    x, y, width, height = cv2.boundingRect(inside)
    cloned = part
    if width > 2 * _RING and height > 2 * _RING:
        middle = (x + width // 2, y + height // 2)
        cloned = cv2.seamlessClone(np.uint8(np.rint(face)), part, inside, middle, cv2.NORMAL_CLONE)
    return np.float32(cloned[_RING:-_RING, _RING:-_RING])


def _region(frame, mask, aligned_to_frame):
    rows, columns = np.flatnonzero(mask.any((1, 2))), np.flatnonzero(mask.any((0, 2)))
    if not len(rows):
        return None
    # Linear interpolation spreads values by less than one pixel beyond the last nonzero one.
    top, bottom, left, right = rows[0] - 1, rows[-1] + 1, columns[0] - 1, columns[-1] + 1
    corners = transform_points(aligned_to_frame, [[left, top], [right, top], [left, bottom], [right, bottom]])
    height, width = frame.shape[:2]
    x1, y1 = (int(n) for n in np.clip(np.floor(corners.min(0)), 0, [width, height]))
    x2, y2 = (int(n) for n in np.clip(np.ceil(corners.max(0)) + 1, 0, [width, height]))
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None


def _smooth_for(face, scale):
    """Low-pass filters a face that will shrink, to prevent aliasing.

    The Gaussian vanishes as the scale approaches 1, so that nothing jumps when a face in a video comes closer.
    """
    if scale >= 1:
        return face
    sigma = 0.5 * sqrt(1 / scale**2 - 1)
    radius = ceil(3 * sigma)
    return cv2.GaussianBlur(face, (2 * radius + 1, 2 * radius + 1), sigma, borderType=cv2.BORDER_REPLICATE)
