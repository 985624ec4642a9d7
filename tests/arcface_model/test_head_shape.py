"""Coefficients of our own head: turning back, pose, landmarks, and gradients through all of it."""

import keras
import numpy as np
import pytest
from keras import ops

from facedancer.arcface_model import frontal_landmarks, head_shape
from facedancer.arcface_model.face_shapes import load_face_shapes
from facedancer.core.weights import get_weights
from facedancer.face_parts import pose
from facedancer.face_parts.dense_landmarks import load_mean_face
from facedancer.synthetic.geometry import rotation


def turned_mean_face(angles):
    """The mean face's landmarks, which go down and away, under a head's rotation."""
    flip = np.diag([1.0, -1, -1])
    return (0.7 * load_mean_face() @ (flip @ rotation(*angles) @ flip).T + [90, 100, 0]).astype(np.float32)


@pytest.mark.parametrize("angles", [(0, 0, 0), (30, 0, 0), (0, -20, 0), (0, 0, 15), (25, 15, -10)])
def test_a_turned_face_is_turned_back(angles):
    """As `pose` does it, and by the angles that it was turned by."""
    points = turned_mean_face(angles)[None]
    turned, found = (np.asarray(x) for x in frontal_landmarks.turned_back(points))
    np.testing.assert_allclose(np.degrees(found[0]), angles, atol=0.2)
    np.testing.assert_allclose(turned, pose.turn_back(points)[0], atol=0.05)
    np.testing.assert_allclose(head_shape.rotation(np.radians([angles]))[0], rotation(*angles), atol=1e-5)


def test_landmarks_follow_shape_and_pose():
    """Those of the mean lie as a face in a picture does; every coefficient of the shape moves some of them."""
    basis = head_shape.load_basis()
    dim, shape_dim = len(basis["coefficients_mean"]) + head_shape.ANGLES, len(basis["identity"])
    mean = np.asarray(head_shape.landmarks(np.zeros((1, dim), np.float32)))[0]
    left_eye, right_eye, chin = mean[36:42].mean(0), mean[42:48].mean(0), mean[8]
    assert left_eye[0] < right_eye[0] - 40 and chin[1] > left_eye[1] + 60
    assert mean.min() > 0 and mean.max() < 224
    each = np.asarray(head_shape.landmarks(np.eye(dim, dtype=np.float32)))
    assert (np.abs(each[:shape_dim] - mean).max((1, 2)) > 0.1).all()
    turned = np.zeros((1, dim), np.float32)
    turned[0, -3] = 0.5  # to the picture's right, where the nose then goes
    assert head_shape.landmarks(turned)[0, 30, 0] > mean[30, 0] + 10


def test_an_aligned_face_has_coefficients_whose_gradient_reaches_it():
    tf = pytest.importorskip("tensorflow")
    get_weights("face_mesh")
    shapes = load_face_shapes("head", 64, 0.9)
    assert not any(model.trainable_variables for model in shapes.models)
    face = tf.Variable(np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 3)).astype(np.float32))
    with tf.GradientTape() as tape:
        coefficients = shapes.coefficients(face)
        loss = ops.sum(ops.square(shapes.landmarks(coefficients)))
    assert coefficients.shape == (2, shapes.dim) and 0 < shapes.shape_dim < shapes.dim - head_shape.ANGLES
    gradient = keras.ops.convert_to_numpy(tape.gradient(loss, face))
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0
