"""Encoders of face shapes on aligned faces."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops
from torch_recipe import last, relative

from facedancer.arcface_model.face_shapes import DEEP3D_WINDOW, load_face_shapes
from facedancer.arcface_model.face_window import FaceWindow
from facedancer.core.alignment import landmark_template
from facedancer.core.console import UserError
from facedancer.core.images import to_signed

FIXTURES = Path(__file__).resolve().parents[3] / "shared" / "fixtures" / "hififace"


@pytest.fixture
def fixtures(monkeypatch, tmp_path):
    """The folder of small files, whose basis is the registry's."""
    if not FIXTURES.is_dir():
        pytest.skip("needs ../shared/fixtures/hififace, which is not in the repository")
    (tmp_path / "arcface_model").mkdir()
    (tmp_path / "arcface_model/BFM_model_front.mat").symlink_to(FIXTURES / "BFM_model_front_small.mat")
    monkeypatch.setenv("FACEDANCER_HOME", str(tmp_path))
    return FIXTURES


def test_a_checkpoints_encoder_sees_the_whole_face(fixtures):
    stored = np.load(fixtures / "identity_vector_small_io.npz")
    faces = last(stored["target"])
    shapes = load_face_shapes(fixtures / "hififace_opensouce_299999_small.ckpt", faces.shape[1], 1.0)
    assert (shapes.dim, shapes.shape_dim) == (257, 80)
    assert relative(shapes.coefficients(faces * 2 - 1), stored["c_target"]) < 1e-4


@pytest.mark.parametrize("shrink_factor", [1.0, 0.6])
def test_deep3d_sees_its_own_crop_whatever_the_alignment(shrink_factor):
    """The eyes and the mouth lie where its mean face has them: 102 pixels of its unit about the middle of 224."""
    size = 224
    places = np.rint(landmark_template(size, shrink_factor)).astype(int)
    face = np.zeros((1, size, size, 5), np.float32)
    for index, (x, y) in enumerate(places):
        face[0, y, x, index] = 1
    crop = np.asarray(FaceWindow(**vars(DEEP3D_WINDOW), shrink_factor=shrink_factor)(face))[0]
    expected = 111.5 + 102 * np.array(
        [[-0.3115, -0.2904], [0.3098, -0.2897], [0, 0.0462], [-0.2522, 0.3813], [0.2485, 0.3813]]
    )
    for index in (0, 1, 3, 4):
        y, x = np.mean(np.nonzero(crop[..., index] > 0.5 * crop[..., index].max()), axis=1)
        assert np.linalg.norm([x, y] - expected[index]) < 4.5  # eyes and mouth are nearer in ArcFace's template


def test_arrays_and_tensors_give_the_same_and_gradients_reach_the_face(fixtures):
    shapes = load_face_shapes(fixtures / "epoch_20_small.pth", 64, 0.8)
    faces = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    found = shapes(faces)
    assert found.shape == (3, 257) and found.dtype == np.float32
    np.testing.assert_allclose(found, shapes.coefficients(to_signed(faces)), rtol=1e-5, atol=1e-5)
    assert not any(model.trainable_variables for model in shapes.models)
    assert shapes(faces[:0]).shape == (0, 257)
    tf = pytest.importorskip("tensorflow")
    variable = tf.Variable(to_signed(faces[:1]))
    with tf.GradientTape() as tape:
        landmarks = shapes.landmarks(shapes.coefficients(variable))
        loss = ops.sum(landmarks)
    assert landmarks.shape == (1, 68, 2)
    assert np.abs(tape.gradient(loss, variable)).max() > 0


def test_a_missing_basis_is_one_line(fixtures, monkeypatch, tmp_path):
    monkeypatch.setenv("FACEDANCER_HOME", str(tmp_path / "empty"))
    shapes = load_face_shapes(fixtures / "epoch_20_small.pth", 64, 0.8)
    with pytest.raises(UserError, match=r"BFM_model_front\.mat is not there; it cannot be fetched, bring it yourself"):
        shapes.landmarks(keras.ops.zeros((1, 257)))
    with pytest.raises(UserError, match=r"epoch_20\.pth is not there"):
        load_face_shapes("deep3d", 64, 0.8)
