"""The parametric face, and MATLAB's files that hold its basis."""

import zlib
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import tensorflow as tf
from torch_recipe import relative

from facedancer.arcface_model.parametric_face import ParametricFace
from facedancer.core.console import UserError
from facedancer.core.mat_file import read_mat

FIXTURES = Path(__file__).resolve().parents[3] / "shared" / "fixtures" / "hififace"


@pytest.fixture(scope="session")
def fixtures():
    """The folder of small files in the published format; tests that use it skip without it."""
    if not FIXTURES.is_dir():
        pytest.skip("needs ../shared/fixtures/hififace, which is not in the repository")
    return FIXTURES


@pytest.fixture
def basis(tmp_path):
    """Returns a function that writes a basis of four vertices and two triangles, with changes."""

    def write(**changes):
        generator = np.random.default_rng(3)
        arrays = {
            "meanshape": generator.normal(size=(1, 12)),
            "idBase": generator.normal(size=(12, 80)).astype(np.float32),
            "exBase": generator.normal(size=(12, 64)),
            "meantex": generator.uniform(0, 255, (1, 12)),
            "texBase": generator.normal(size=(12, 80)),
            "tri": np.array([[1, 2, 3], [2, 3, 4]]),
            "point_buf": np.full((4, 8), 3),
            "keypoints": np.arange(68)[None] % 4 + 1,
            **changes,
        }
        path = tmp_path / "basis.mat"
        scipy.io.savemat(path, {name: array for name, array in arrays.items() if array is not None})
        return path

    return write


def test_faces_are_the_originals(fixtures):
    stored = np.load(fixtures / "face_model_io.npz")
    face = ParametricFace(fixtures / "BFM_model_front_small.mat")
    coefficients = tf.constant(stored["coefficients"])
    found = {
        "rotation": face.rotation,
        "shape": face.shape,
        "vertices_camera": face.vertices,
        "texture": face.texture,
    }
    for name, method in found.items():
        assert relative(method(coefficients), stored[name]) < 1e-4, name
    # Some made-up triangles have no area. In the original's sums those with their first corner for their last have
    # a normal all the same, a rounding error brought to length 1; their vertices are left out.
    basis = read_mat(fixtures / "BFM_model_front_small.mat", ["tri", "point_buf"])
    is_flat = np.append(basis["tri"][:, 0] == basis["tri"][:, 2], False)
    counts = ~is_flat[basis["point_buf"] - 1].any(axis=1)
    assert counts.sum() > 100
    assert relative(np.asarray(face.color(coefficients))[:, counts], stored["colour"][:, counts]) < 1e-4
    with tf.GradientTape() as tape:
        tape.watch(coefficients)
        landmarks = face.landmarks(coefficients)
        total = tf.reduce_sum(landmarks)
    assert relative(landmarks, stored["landmarks68"]) < 1e-4
    assert relative(tape.gradient(total, coefficients), stored["grad_of_landmark_sum"]) < 1e-4


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"exBase": None}, "lacks exBase"),
        ({"idBase": np.zeros((12, 79))}, "idBase has the shape"),
        ({"keypoints": np.full((1, 68), 5)}, "keypoints has an index that is not from 1 to 4"),
        ({"tri": np.array([[0, 1, 2]])}, "tri has an index"),
        ({"meantex": "words"}, "meantex is no array of real numbers"),
        ({"meantex": np.full((1, 12), 1j)}, "meantex is no array of real numbers"),
    ],
)
def test_a_basis_that_does_not_fit_is_named(basis, changes, said):
    with pytest.raises(UserError, match=said):
        ParametricFace(basis(**changes))


@pytest.mark.parametrize("compressed", [False, True])
def test_arrays_are_read_as_they_were_written(tmp_path, compressed):
    generator = np.random.default_rng(4)
    kinds = ("f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")
    arrays = {kind: (100 * generator.random((3, 5))).astype(kind) for kind in kinds}
    scipy.io.savemat(
        tmp_path / "a.mat", {**arrays, "text": "left", "cube": np.zeros((2, 3, 4))}, do_compression=compressed
    )
    found = read_mat(tmp_path / "a.mat", [*arrays, "cube"])
    assert found["cube"].shape == (2, 3, 4)
    for kind, array in arrays.items():
        assert found[kind].dtype == array.dtype
        np.testing.assert_array_equal(found[kind], array)


def test_damaged_files_are_one_line(basis, tmp_path):
    content = basis().read_bytes()
    path = tmp_path / "damaged.mat"
    with pytest.raises(UserError, match="no such file"):
        read_mat(path, ["tri"])
    generator = np.random.default_rng(5)
    for _ in range(300):
        damaged = bytearray(content[: generator.integers(len(content))])
        for place in generator.integers(0, max(len(damaged), 1), 3):
            if len(damaged) > 128:
                damaged[place] = generator.integers(256)
        path.write_bytes(damaged)
        with pytest.raises(UserError) as error:
            read_mat(path, ["tri", "meanshape", "keypoints"])
        assert "\n" not in str(error.value)
    bomb = zlib.compress(bytes(2**20))[:-8]
    path.write_bytes(content[:128] + np.array([15, len(bomb)], "<u4").tobytes() + bomb)
    with pytest.raises(UserError, match="does not end"):
        read_mat(path, ["tri"])
