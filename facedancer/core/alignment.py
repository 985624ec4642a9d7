"""Landmark templates of aligned faces, and the similarity transforms to them.

Points are (x, y) in pixels, with the center of the first pixel at (0, 0), as in OpenCV. Matrices are (2, 3) float64 and
named by both ends: `frame_to_aligned @ (x, y, 1)` is a point on the aligned face.
"""

import cv2
import numpy as np

# ArcFace's template on a 112-pixel crop: image-left and image-right eye, nose, image-left and image-right mouth corner.
ARCFACE_TEMPLATE_112 = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)


def landmark_template(size, shrink_factor=1.0):
    """Returns the (5, 2) landmarks on an aligned face of `size` pixels.

    Args:
        size: side of the crop in pixels.
        shrink_factor: 1.0 is ArcFace's crop; smaller values show more background, with ArcFace's crop as the central
            part of that fraction.
    """
    shrunk = ARCFACE_TEMPLATE_112 * shrink_factor + 56.0 * (1.0 - shrink_factor)
    return shrunk * (size / 112.0)


def estimate_similarity(source, target):
    """Returns the least-squares (2, 3) similarity (rotation, uniform scale, shift) from `source` to `target`.

    Umeyama, PAMI 1991, equations 34 to 43, without reflection.

    Args:
        source, target: (n, 2) points, n at least 2.

    Raises:
        ValueError: if the source points coincide.
    """
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    source_mean, target_mean = source.mean(0), target.mean(0)
    source_centered, target_centered = source - source_mean, target - target_mean
    variance = (source_centered**2).sum() / len(source)
    if variance < 1e-12:
        raise ValueError("the landmarks coincide")
    u, singular, vt = np.linalg.svd(target_centered.T @ source_centered / len(source))
    sign = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt)) or 1.0])
    rotation = (u * sign) @ vt
    scale = (singular * sign).sum() / variance
    return np.column_stack([scale * rotation, target_mean - scale * rotation @ source_mean])


def align_matrix(landmarks, size, shrink_factor=1.0):
    """Returns `frame_to_aligned` (2, 3) for (5, 2) landmarks in the frame."""
    return estimate_similarity(landmarks, landmark_template(size, shrink_factor))


def invert_affine(matrix):
    """Returns the (2, 3) inverse of a (2, 3) affine map."""
    return cv2.invertAffineTransform(np.asarray(matrix, np.float64))


def compose_affine(second, first):
    """Returns the (2, 3) map that applies `first`, then `second`."""
    return np.asarray(second, np.float64) @ np.vstack([first, [0.0, 0.0, 1.0]])


def transform_points(matrix, points):
    """Applies a (2, 3) affine map to (..., 2) points."""
    matrix = np.asarray(matrix, np.float64)
    return np.asarray(points, np.float64) @ matrix[:, :2].T + matrix[:, 2]


def scale_of(matrix):
    """Returns the scale of a (2, 3) similarity."""
    return float(np.sqrt(abs(np.linalg.det(np.asarray(matrix)[:, :2]))))


def warp_to_aligned(frame, frame_to_aligned, size, border=cv2.BORDER_CONSTANT):
    """Crops the aligned face from a frame.

    If the face shrinks to less than half, the frame is first reduced by area averaging: bilinear sampling would alias.

    Args:
        frame: (H, W, 3) uint8.
        frame_to_aligned: (2, 3).
        size: side of the crop in pixels.
        border: OpenCV's border mode beyond the frame, black by default.

    Returns:
        (size, size, 3) uint8.
    """
    factor = int(1.0 / max(scale_of(frame_to_aligned), 1e-6))
    matrix = np.asarray(frame_to_aligned, np.float64)
    if factor >= 2:
        frame, matrix = _reduce(frame, matrix, size, factor)
    return cv2.warpAffine(frame, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=border)


def _reduce(frame, matrix, size, factor):
    """Reduces the cropped part of the frame by an integer factor, and adapts the matrix."""
    height, width = frame.shape[:2]
    corners = transform_points(invert_affine(matrix), [[0, 0], [size, 0], [0, size], [size, size]])
    low = np.clip(np.floor(corners.min(0)).astype(int) - 2 * factor, 0, [width, height])
    high = np.clip(np.ceil(corners.max(0)).astype(int) + 2 * factor, 0, [width, height])
    span = (high - low) // factor
    if (span < 1).any():  # the crop lies outside the frame
        return frame, matrix
    x, y = low
    part = frame[y : y + span[1] * factor, x : x + span[0] * factor]
    reduced = cv2.resize(part, tuple(int(n) for n in span), interpolation=cv2.INTER_AREA)
    # The center of reduced pixel i lies at factor * i + (factor - 1) / 2 of the part.
    reduced_to_frame = np.array([[factor, 0, x + (factor - 1) / 2], [0, factor, y + (factor - 1) / 2], [0, 0, 1.0]])
    return reduced, matrix @ reduced_to_frame
