"""RetinaFace's anchors, the decoding of its outputs relative to them, and non-maximum suppression, in NumPy.

Coordinates are pixels of the network's input. The picture's left and top edges are at 0, so the center of the first
pixel is at (0.5, 0.5).
"""

import functools

import numpy as np

# For each level: the stride, and the sides of the two square anchors of each cell, in pixels.
ANCHOR_LEVELS = ((8, (16, 32)), (16, (64, 128)), (32, (256, 512)))
CENTER_VARIANCE, SIZE_VARIANCE = 0.1, 0.2
MAX_OVERLAP = 0.4


@functools.lru_cache(maxsize=64)
def build_anchors(height, width):
    """Returns the anchors for an input size, (anchors, 4) float32: center x, y, width, height in pixels.

    They are in the order of the network's outputs: by level, row, column, size. The array is shared and read-only.
    """
    levels = []
    for stride, sides in ANCHOR_LEVELS:
        rows, columns = -(-height // stride), -(-width // stride)
        y, x, side = np.meshgrid(
            (np.arange(rows) + 0.5) * stride, (np.arange(columns) + 0.5) * stride, sides, indexing="ij"
        )
        levels.append(np.stack([x, y, side, side], axis=-1).reshape(-1, 4))
    anchors = np.concatenate(levels).astype(np.float32)
    anchors.flags.writeable = False
    return anchors


def decode_boxes(offsets, anchors):
    """Decodes the network's `boxes` (..., 4) on anchors (..., 4) to corners x1, y1, x2, y2 (..., 4), in pixels."""
    center = anchors[..., :2] + offsets[..., :2] * CENTER_VARIANCE * anchors[..., 2:]
    half = anchors[..., 2:] * np.exp(offsets[..., 2:] * SIZE_VARIANCE) / 2
    return np.concatenate([center - half, center + half], axis=-1)


def decode_landmarks(offsets, anchors):
    """Decodes the network's `landmarks` (..., 10) on anchors (..., 4) to points (..., 5, 2), in pixels."""
    offsets = offsets.reshape(*offsets.shape[:-1], 5, 2)
    return anchors[..., None, :2] + offsets * CENTER_VARIANCE * anchors[..., None, 2:]


def box_overlaps(box, boxes):
    """Returns the intersection over union (n,) of a box (4,) with boxes (n, 4), all given by corners."""
    shared = _areas(np.concatenate([np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])], axis=-1))
    return shared / np.maximum(_areas(box) + _areas(boxes) - shared, np.finfo(np.float32).tiny)


def suppress(boxes, scores, max_overlap=MAX_OVERLAP):
    """Greedy non-maximum suppression.

    Args:
        boxes: (n, 4) corners.
        scores: (n,).
        max_overlap: a box is dropped if its intersection over union with a better box that was kept exceeds this.

    Returns:
        (k,) indices of the boxes kept, by descending score; ties keep their order.
    """
    left, kept = np.argsort(-scores, kind="stable"), []
    while left.size:
        best, left = left[0], left[1:]
        kept.append(best)
        left = left[box_overlaps(boxes[best], boxes[left]) <= max_overlap]
    return np.array(kept, np.int64)


def _areas(boxes):
    return np.prod(np.maximum(boxes[..., 2:] - boxes[..., :2], 0), axis=-1)
