"""The 468 landmarks of aligned faces, rotated to face the camera: like `face_parts.pose`, but differentiable."""

import numpy as np
from keras import layers, ops

from facedancer.arcface_model.face_window import FaceWindow, Window
from facedancer.core.keras_h5 import load_by_layer_name
from facedancer.core.weights import find_weights
from facedancer.face_parts import dense_landmarks, pose
from facedancer.face_parts.face_mesh import build_face_mesh

_STEP = dense_landmarks.SIDE / dense_landmarks.CROP_SIZE
_WINDOW = Window(
    dense_landmarks.CROP_SIZE,
    *(start - dense_landmarks.CROP_SIZE / 2 * _STEP for start in dense_landmarks.CENTER),
    step=_STEP,
)


def find_frontal_landmarks(faces, shrink_factor):
    """Connects the face mesh to aligned faces; for use in builders of frozen networks.

    Args:
        faces: symbolic tensor (n, S, S, 3) in [-1, 1].
        shrink_factor: that the faces are aligned with.

    Returns:
        Landmarks (n, 468, 3) and angles (n, 3) of `turned_back`.

    Raises:
        UserError: if the face mesh's weights are missing.
    """
    mesh = load_by_layer_name(build_face_mesh(), find_weights("face_mesh"))
    x = FaceWindow(**vars(_WINDOW), shrink_factor=shrink_factor, name="window")(faces)
    x = layers.Rescaling(0.5, 0.5, name="to_unit")(x)
    return turned_back(mesh(x)["points"])


def turned_back(points):
    """Rotates landmarks back like `pose.turn_back`, but differentiably.

    Args:
        points: (n, 468, 3), x, y and depth in pixels.

    Returns:
        Landmarks (n, 468, 3) at the mean face's position, size and pose, and angles (n, 3) in radians (see
        `head_shape.rotation`).
    """
    places = list(pose.STILL)
    model = dense_landmarks.load_mean_face()[places].astype(np.float64)
    model = model - model.mean(0)
    still = ops.take(points, places, axis=1)
    middle = ops.mean(still, axis=1, keepdims=True)
    affine = ops.einsum("ip,npj->nji", np.float32(np.linalg.pinv(model)), (still - middle)[..., :2])  # (n, 2, 3)
    # The nearest pair of orthogonal unit rows, since sum and difference of unit vectors are orthogonal.
    first, second = (ops.normalize(affine[:, row], axis=-1) for row in range(2))
    along, across = ops.normalize(first + second, axis=-1), ops.normalize(first - second, axis=-1)
    rows = [(along + across) / 2**0.5, (along - across) / 2**0.5]
    turn = ops.stack([*rows, ops.cross(*rows)], axis=1)
    turned = ops.einsum("npi,nij->npj", points - middle, turn)
    spread = ops.sqrt(ops.sum(ops.square(ops.take(turned, places, axis=1)[..., :2]), axis=(1, 2), keepdims=True))
    turned = turned * (float(np.linalg.norm(model[:, :2])) / spread)
    # The landmarks' y points down and depth away; the head's point up and forward.
    yaw = ops.arctan2(turn[:, 2, 0], turn[:, 2, 2])
    pitch = -ops.arctan2(turn[:, 2, 1], ops.sqrt(ops.square(turn[:, 2, 0]) + ops.square(turn[:, 2, 2])))
    roll = ops.arctan2(turn[:, 0, 1], turn[:, 1, 1])
    return turned, ops.stack([yaw, pitch, roll], axis=-1)
