"""`head`: coefficients of shape, expression and pose of our own head, from the 468 landmarks of the face mesh.

The landmarks (`face_parts.face_mesh`) are rotated back by the pose that fits the mean face to them. One matrix then
maps them to coefficients of a basis of our CC0 head: of the neutral faces that `synthetic` draws, and of expressions.
Basis and matrix are fitted to rendered people, whose truth is known (`face_parts.fit_head_shape`). Everything is
differentiable. Head and people are synthetic, so no license restricts their use.
"""

import functools
from pathlib import Path

import keras
import numpy as np
from keras import layers, ops

from facedancer.arcface_model.face_shapes import FaceShapes
from facedancer.arcface_model.frontal_landmarks import find_frontal_landmarks
from facedancer.arcface_model.frozen import frozen

WEIGHTS = Path(__file__).with_name("head_shape.npz")
ANGLES = 3
# Pixels per decimeter and center of the 224-pixel image for landmarks; the face is about as large as in ArcFace's crop.
_PIXELS, _MIDDLE = 108.0, 112.0


@functools.cache
def load_basis():
    """Returns the fitted arrays by name.

    All are float32. `mean` (204,), `identity` (k, 204), `expression` (m, 204): 68 landmarks in decimeters relative to
    their centroid, x to the image's right, y up, z toward the camera; coefficients have variance 1 over the people, or
    expressions, that are drawn. `points_mean` (1404,), `to_coefficients` (1404, k + m), `coefficients_mean` (k + m,):
    the linear map from landmarks that were rotated back.
    """
    with np.load(WEIGHTS, allow_pickle=False) as found:
        return {name: found[name].astype(np.float32) for name in found.files}


def load(image_size, shrink_factor):
    """Returns the `FaceShapes`, whose coefficients are shape, expression, and yaw, pitch and roll in radians.

    Args:
        image_size, shrink_factor: side in pixels and shrink factor of the aligned faces.
    """
    basis = load_basis()
    return FaceShapes(_connect(image_size, shrink_factor), len(basis["identity"]), landmarks)


def landmarks(coefficients):
    """Returns 68 landmarks (n, 68, 2) of coefficients (n, dim), in pixels of a 224-pixel image, x right, y down.

    The projection is orthographic; size and position are fixed.
    """
    basis = load_basis()
    vectors = np.concatenate([basis["identity"], basis["expression"]])
    points = ops.matmul(coefficients[:, :-ANGLES], vectors) + basis["mean"]
    turned = ops.einsum("nij,npj->npi", rotation(coefficients[:, -ANGLES:]), ops.reshape(points, (-1, 68, 3)))
    return turned[..., :2] * np.float32([_PIXELS, -_PIXELS]) + _MIDDLE


def rotation(angles):
    """Returns rotation matrices (n, 3, 3) for yaw, pitch and roll (n, 3) in radians, as `synthetic` has them.

    Yaw turns the head to the image's right, pitch up, and roll, applied last, counterclockwise.
    """
    yaw, pitch, roll = angles[:, 0], -angles[:, 1], angles[:, 2]
    (sy, sp, sr), (cy, cp, cr) = ([function(x) for x in (yaw, pitch, roll)] for function in (ops.sin, ops.cos))
    rows = [
        [cr * cy - sr * sp * sy, -sr * cp, cr * sy + sr * sp * cy],
        [sr * cy + cr * sp * sy, cr * cp, sr * sy - cr * sp * cy],
        [-cp * sy, sp, cp * cy],
    ]
    return ops.stack([ops.stack(row, axis=-1) for row in rows], axis=1)


@frozen
def _connect(image_size, shrink_factor):
    """Builds the model: aligned faces (n, S, S, 3) in [-1, 1] -> coefficients (n, dim)."""
    basis = load_basis()
    faces = keras.Input((image_size, image_size, 3), name="aligned_signed")
    turned, angles = find_frontal_landmarks(faces, shrink_factor)
    flat = layers.Flatten(name="turned")(turned)
    found = ops.matmul(flat - basis["points_mean"], basis["to_coefficients"]) + basis["coefficients_mean"]
    return keras.Model(faces, layers.Concatenate(name="coefficients")([found, angles]), name="head_shape")
