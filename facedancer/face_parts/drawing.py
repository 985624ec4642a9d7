"""Draws one person's face into another picture: by the triangles of the 468 landmarks, in the picture's own colors.

This is a swap without learning. Triplets are made with it (`dataset.triplets`), and `evaluate` uses it as a baseline
that a trained swapper must beat.
"""

import cv2
import numba
import numpy as np

from facedancer.face_parts.dense_landmarks import LEFT_EYE, LIPS, RIGHT_EYE

INNER_LIPS = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95)
_NOSE, _LEFT_SIDE, _RIGHT_SIDE = 1, 234, 454

_KNOTS = 25  # side of the grid on which `bend` moves a picture
_BEND_WIDTH = 9.0 / 192  # how far a landmark pulls its surroundings along, as a share of the picture's side
_STILLNESS = 0.6  # weight of staying in place; a landmark at its own place weighs 1


def triangulate(points):
    """Returns the landmarks' triangles (n, 3) int64, without eyes and inner mouth.

    Those parts keep the picture's own pixels, and with them gaze and teeth.

    Args:
        points: (468, 2) landmarks of a frontal face; a mean of many faces has no folded triangles.
    """
    points = np.float32(points)
    low, high = points.min(0) - 2, points.max(0) + 2
    subdivision = cv2.Subdiv2D((*np.floor(low).astype(int).tolist(), *np.ceil(high - low).astype(int).tolist()))
    number_of = {}
    for number, (x, y) in enumerate(points.tolist()):
        number_of.setdefault(subdivision.insert((x, y)), number)
    place = {(x, y): number for number, (x, y) in enumerate(points.tolist())}
    corners = subdivision.getTriangleList().reshape(-1, 3, 2)
    mesh = np.array([[place.get((x, y), -1) for x, y in triangle] for triangle in corners.tolist()])
    mesh = mesh[(mesh >= 0).all(1)]
    centers = points[mesh].mean(1)
    for contour in (INNER_LIPS, LEFT_EYE, RIGHT_EYE):
        outline = points[list(contour)]
        outside = [cv2.pointPolygonTest(outline, (float(x), float(y)), False) < 0 for x, y in centers]
        mesh, centers = mesh[outside], centers[outside]
    return mesh


def turn_of(points):
    """Returns how far heads are turned, -1 to 1: the nose's position between the sides of the face (..., 468, 2)."""
    left, right, nose = (points[..., index, 0] for index in (_LEFT_SIDE, _RIGHT_SIDE, _NOSE))
    return (2 * nose - left - right) / np.maximum(right - left, 1)


def draw_onto(image, points, places, triangles):
    """Draws a face onto other landmarks.

    Args:
        image: (S, S, C) picture, uint8 or float32.
        points: (468, 2) landmarks in it, pixels.
        places: (468, 2) their new positions.
        triangles: (n, 3), from `triangulate`.

    Returns:
        The drawn picture (S, S, C), undefined where nothing was drawn, and the mask (S, S) uint8 of what was.
    """
    x, y, mask = _source_places(np.float64(points), np.float64(places), triangles, image.shape[0])
    return cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101), mask


def bend(image, points, places):
    """Warps a whole picture (S, S, C) smoothly, so that its landmarks move approximately from `points` to `places`.

    The motion fades with distance from the face.
    """
    size = image.shape[0]
    knots = np.linspace(0, size - 1, _KNOTS, dtype=np.float32)
    near, shift = np.float32(places[::3]), np.float32(points - places)[::3]  # every third landmark is enough
    scale = -1 / (2 * (_BEND_WIDTH * size) ** 2)
    weights_y = np.exp(scale * (knots[:, None] - near[:, 1]) ** 2)
    weights_x = np.exp(scale * (knots[:, None] - near[:, 0]) ** 2)
    weights = weights_y[:, None] * weights_x[None]
    moved = (weights @ shift) / (weights.sum(-1, keepdims=True) + _STILLNESS)
    moved = cv2.resize(moved, (size, size), interpolation=cv2.INTER_CUBIC)
    columns, rows = np.meshgrid(np.arange(size, dtype=np.float32), np.arange(size, dtype=np.float32))
    x, y = columns + moved[..., 0], rows + moved[..., 1]
    return cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def bring_onto(points, onto):
    """Returns landmarks (468, 2) aligned to others by a least-squares similarity transform."""
    a, b = points - points.mean(0), onto - onto.mean(0)
    u, singular, vt = np.linalg.svd(b.T @ a)
    sign = np.array([1.0, np.sign(np.linalg.det(u @ vt))])
    return (singular * sign).sum() / (a**2).sum() * a @ (u * sign @ vt).T + onto.mean(0)


def match_colors(image, like, mask):
    """Matches a picture's mean and deviation to another's in each CIELAB channel, within a mask.

    Args:
        image, like: (S, S, 3) RGB in [0, 255], uint8 or float32.
        mask: (S, S), nonzero for pixels to include.

    Returns:
        (S, S, 3) float32 in [0, 255].
    """
    a, b = (cv2.cvtColor(np.float32(picture) / 255, cv2.COLOR_RGB2LAB) for picture in (image, like))
    inside = mask > 0
    mean_a, mean_b = a[inside].mean(0), b[inside].mean(0)
    spread = np.clip((b[inside].std(0) + 1) / (a[inside].std(0) + 1), 0.5, 2)
    return np.clip(cv2.cvtColor((a - mean_a) * spread + mean_b, cv2.COLOR_LAB2RGB) * 255, 0, 255)


def lips():
    """Returns the indices of the lips' landmarks, outer and inner edge."""
    return sorted({*LIPS, *INNER_LIPS})


@numba.njit(cache=True)
def _source_places(points, places, triangles, size):
    """Returns each pixel's origin, x and y (size, size) float32, and the mask of pixels inside a triangle."""
    x, y = np.zeros((size, size), np.float32), np.zeros((size, size), np.float32)
    mask = np.zeros((size, size), np.uint8)
    for t in range(len(triangles)):
        i, j, k = triangles[t]
        ax, ay = places[i]
        bx, by = places[j, 0] - ax, places[j, 1] - ay
        cx, cy = places[k, 0] - ax, places[k, 1] - ay
        area = bx * cy - by * cx
        if abs(area) < 1e-3:  # seen from the side
            continue
        left = max(0, int(np.floor(ax + min(0.0, bx, cx))))
        right = min(size - 1, int(np.ceil(ax + max(0.0, bx, cx))))
        top = max(0, int(np.floor(ay + min(0.0, by, cy))))
        bottom = min(size - 1, int(np.ceil(ay + max(0.0, by, cy))))
        for row in range(top, bottom + 1):
            for column in range(left, right + 1):
                px, py = column - ax, row - ay
                u = (px * cy - py * cx) / area
                v = (bx * py - by * px) / area
                if u < -1e-6 or v < -1e-6 or u + v > 1 + 1e-6:
                    continue
                w = 1 - u - v
                x[row, column] = w * points[i, 0] + u * points[j, 0] + v * points[k, 0]
                y[row, column] = w * points[i, 1] + u * points[j, 1] + v * points[k, 1]
                mask[row, column] = 1
    return x, y, mask
