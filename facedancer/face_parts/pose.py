"""Head pose from the 468 landmarks of a face.

The mean face, 468 points in 3D, is rotated, scaled and shifted onto the landmarks under orthographic projection, by
least squares over points that facial expressions hardly move.
"""

import cv2
import numpy as np

from facedancer.core.alignment import estimate_similarity, landmark_template
from facedancer.face_parts import dense_landmarks

# Around the eyes, the bridge and sides of the nose, the temples, and the forehead.
STILL = (
    10, 67, 109, 297, 338, 54, 284, 21, 251, 162, 389, 127, 356, 234, 454, 33, 133, 362, 263, 168, 6, 197, 195, 5, 4,
    1, 98, 327, 45, 275, 48, 278, 122, 351, 193, 417, 8, 9, 151,
)  # fmt: skip
_BATCH = 32


def find_landmarks(faces, shrink_factor=1.0):
    """Finds the landmarks of aligned faces.

    Args:
        faces: aligned faces, (n, S, S, 3) uint8 RGB.
        shrink_factor: shrink factor that they were aligned with.

    Returns:
        (n, 468, 3) float32: x, y in pixels of the aligned face, and depth in the same unit, smaller toward the camera.
    """
    size = faces.shape[1]
    to_mesh = estimate_similarity(landmark_template(size, shrink_factor), dense_landmarks.TEMPLATE)
    from_mesh = cv2.invertAffineTransform(to_mesh)
    side = (dense_landmarks.CROP_SIZE,) * 2
    found = []
    for start in range(0, len(faces), _BATCH):
        crops = [cv2.warpAffine(face, to_mesh, side) for face in faces[start : start + _BATCH]]
        found.append(dense_landmarks.find_points_3d(np.stack(crops)))
    points = np.concatenate(found)
    places = points[..., :2] @ from_mesh[:, :2].T + from_mesh[:, 2]
    depth = points[..., 2:] * np.sqrt(abs(np.linalg.det(from_mesh[:, :2])))
    return np.concatenate([places, depth], -1).astype(np.float32)


def turn_back(points):
    """Moves landmarks (n, 468, 3) in pixels to the mean face's pose, position and size.

    Returns:
        The landmarks, (n, 468, 3) float64, and the rotations (n, 3, 3) of `estimate_pose`.
    """
    points = np.asarray(points, np.float64)
    rotations = estimate_pose(points)
    still = points[:, list(STILL)]
    model = dense_landmarks.load_mean_face()[list(STILL)].astype(np.float64)
    turned = (points - still.mean(1, keepdims=True)) @ rotations
    spread = np.linalg.norm(turned[:, list(STILL), :2], axis=(1, 2))
    scale = np.linalg.norm((model - model.mean(0))[:, :2]) / spread
    return turned * scale[:, None, None], rotations


def estimate_pose(points):
    """Returns the rotations (n, 3, 3) from the mean face to landmarks (n, 468, 2 or 3) in pixels."""
    model = dense_landmarks.load_mean_face()[list(STILL)].astype(np.float64)
    model = model - model.mean(0)
    still = np.asarray(points, np.float64)[:, list(STILL), :2]
    still = still - still.mean(1, keepdims=True)
    affine = np.swapaxes(np.linalg.pinv(model) @ still, 1, 2)  # (n, 2, 3), rows of the scaled rotation
    u, _, vt = np.linalg.svd(affine, full_matrices=False)
    rows = u @ vt
    return np.concatenate([rows, np.cross(rows[:, 0], rows[:, 1])[:, None]], 1)


def angle_between(a, b):
    """Returns the angles (n,) in degrees between rotations (n, 3, 3)."""
    trace = np.einsum("nij,nij->n", a, b)
    return np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1)))


def yaw_pitch_roll(rotations):
    """Returns yaw, pitch and roll (n, 3) in degrees: positive to the image's right, up, and clockwise."""
    yaw = np.arctan2(-rotations[:, 0, 2], np.hypot(rotations[:, 0, 0], rotations[:, 0, 1]))
    pitch = np.arctan2(rotations[:, 1, 2], rotations[:, 2, 2])
    roll = np.arctan2(rotations[:, 1, 0], rotations[:, 1, 1])
    return np.degrees(np.stack([yaw, pitch, roll], 1))
