"""The surface that hair lies on: the head's radius in every direction, and the height of the shoulders."""

import math
from typing import NamedTuple

import cv2
import numpy as np

from facedancer.synthetic.compiled import compiled_part
from facedancer.synthetic.head import EARS, load_head

# Directions start here, roughly midway between the ears.
CENTER = np.array([0.0, 7.30, 0.35])
ROWS, COLUMNS = 48, 96
_HEAD_BOTTOM, _SHOULDER_TOP = 6.3, 5.95
_SHOULDER_LEFT, _SHOULDER_BACK, _SHOULDER_STEP, _SHOULDER_GRID = -2.8, -1.2, 0.1, (30, 56)


class Skull(NamedTuple):
    """The volume that hair must stay outside of.

    Attributes:
        reach: (ROWS, COLUMNS) float32, the head's radius by polar angle from the zenith and by azimuth.
        shoulders: (30, 56) float32, the shoulders' height by z and x.
    """

    reach: np.ndarray
    shoulders: np.ndarray


def build_skull(vertices):
    """Returns the `Skull` of a head's (n, 3) vertices."""
    head = load_head()
    fine = head.subdivide(vertices)
    body = np.zeros(len(fine), bool)
    body[head.fine_triangles[head.fine_parts == 0]] = True
    x, y, z = fine.T
    is_head = body & (y > _HEAD_BOTTOM) & (head.fine_masks[:, EARS] < 0.3)
    arrows = fine[is_head] - CENTER
    radius = np.linalg.norm(arrows, axis=1)
    row = np.clip(np.arccos(arrows[:, 1] / radius) / np.pi * ROWS, 0, ROWS - 1).astype(int)
    column = ((np.arctan2(arrows[:, 0], arrows[:, 2]) / (2 * np.pi) + 1) * COLUMNS).astype(int) % COLUMNS
    reach = np.zeros((ROWS, COLUMNS), np.float32)
    np.maximum.at(reach, (row, column), radius.astype(np.float32))
    # Fills cells between the vertices, then blurs with wraparound in azimuth.
    wide = np.concatenate([reach[:, -16:], reach, reach[:, :16]], axis=1)
    for _ in range(12):
        known = (wide > 0).astype(np.float32)
        mean = cv2.blur(wide, (3, 3)) / np.maximum(cv2.blur(known, (3, 3)), 1e-6)
        wide = np.where(wide > 0, wide, mean).astype(np.float32)
    reach = cv2.GaussianBlur(wide, (0, 0), 0.8)[:, 16:-16]

    is_shoulder = body & (y < _SHOULDER_TOP)
    rows = ((z[is_shoulder] - _SHOULDER_BACK) / _SHOULDER_STEP).astype(int)
    columns = ((x[is_shoulder] - _SHOULDER_LEFT) / _SHOULDER_STEP).astype(int)
    shoulders = np.full(_SHOULDER_GRID, 3.0, np.float32)
    inside = (rows >= 0) & (rows < _SHOULDER_GRID[0]) & (columns >= 0) & (columns < _SHOULDER_GRID[1])
    np.maximum.at(shoulders, (rows[inside], columns[inside]), y[is_shoulder][inside])
    shoulders = cv2.GaussianBlur(cv2.dilate(shoulders, np.ones((3, 3))), (0, 0), 1.0)
    return Skull(np.ascontiguousarray(reach), np.ascontiguousarray(shoulders))


@compiled_part
def reach_at(reach, x, y, z):
    """Returns the head's radius in the direction (x, y, z) from its center, bilinear."""
    length = math.sqrt(x * x + y * y + z * z) + 1e-9
    row = math.acos(min(max(y / length, -1.0), 1.0)) / math.pi * reach.shape[0] - 0.5
    column = (math.atan2(x, z) / (2 * math.pi) + 1.0) * reach.shape[1] - 0.5
    i, j = math.floor(row), math.floor(column)
    fi, fj = row - i, column - j
    i0, i1 = min(max(int(i), 0), reach.shape[0] - 1), min(max(int(i) + 1, 0), reach.shape[0] - 1)
    j0, j1 = int(j) % reach.shape[1], (int(j) + 1) % reach.shape[1]
    top = reach[i0, j0] + fj * (reach[i0, j1] - reach[i0, j0])
    bottom = reach[i1, j0] + fj * (reach[i1, j1] - reach[i1, j0])
    return top + fi * (bottom - top)


@compiled_part
def shoulder_at(shoulders, x, z):
    """Returns the shoulders' height below a point."""
    i = min(max(int((z + 1.2) / 0.1), 0), shoulders.shape[0] - 1)
    j = min(max(int((x + 2.8) / 0.1), 0), shoulders.shape[1] - 1)
    return shoulders[i, j]
