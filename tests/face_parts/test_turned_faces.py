"""Faces that lie or stand on their head get landmarks in their own orientation; upright ones keep the detector's."""

import functools

import cv2
import numpy as np
import pytest

from facedancer.core.alignment import transform_points
from facedancer.core.weights import get_weights
from facedancer.face_parts import turned_faces
from facedancer.face_parts.turned_faces import settle
from facedancer.retinaface import DetectedFace, FaceDetector
from facedancer.synthetic.draws import draw_identity, draw_person
from facedancer.synthetic.render import render
from facedancer.synthetic.scenes import portrait_scene

SIZE = 256


@pytest.fixture(scope="module")
def detector():
    for name in ("face_mesh", "retinaface_mobilenet025"):
        get_weights(name)
    return FaceDetector()


@functools.cache
def rendered(seed):
    face = render(draw_identity(seed), draw_person(seed), portrait_scene(seed), size=SIZE)
    return face.image, face.landmarks


def turned(seed, angle):
    """Returns a picture of somebody, turned, and where the landmarks are."""
    image, landmarks = rendered(seed)
    matrix = cv2.getRotationMatrix2D(((SIZE - 1) / 2,) * 2, angle, 1.0)
    picture = cv2.warpAffine(image, matrix, (SIZE, SIZE), borderMode=cv2.BORDER_REPLICATE)
    return picture, transform_points(matrix, landmarks)


def error(face, landmarks):
    return np.linalg.norm(face.landmarks - landmarks, axis=1).mean() / np.linalg.norm(landmarks[1] - landmarks[0])


@pytest.fixture
def crops_seen(monkeypatch):
    seen = []
    look = turned_faces.find_faces
    monkeypatch.setattr(turned_faces, "find_faces", lambda crops: seen.append(len(crops)) or look(crops))
    return seen


@pytest.mark.parametrize("angle", [45, 90, 180, 270])
def test_landmarks_lie_where_the_turned_face_has_them(detector, angle):
    for seed in (3, 5):
        picture, landmarks = turned(seed, angle)
        (faces,) = detector.detect([picture])
        (face,) = settle(picture, faces, detect=detector.detect)
        assert error(face, landmarks) < 0.15
        if angle == 180 and faces:
            assert error(faces[0], landmarks) > 0.3


def test_an_upright_face_keeps_what_the_detector_found(detector, crops_seen):
    picture, _ = turned(5, 0)
    (faces,) = detector.detect([picture])
    (face,) = settle(picture, faces)
    assert face is faces[0]
    assert crops_seen == []  # nothing that the detector says of it is in doubt


def test_a_face_that_was_upright_before_is_not_looked_at_again(detector, crops_seen, monkeypatch):
    picture, landmarks = turned(5, 0)
    (faces,) = detector.detect([picture])
    monkeypatch.setattr(turned_faces, "DOUBT", -100.0)
    assert settle(picture, faces, before=landmarks[None] + 3) == faces
    assert crops_seen == []
    settle(picture, faces, before=landmarks[None] + 100)  # somebody else's
    assert crops_seen == [1]


def test_a_face_that_was_turned_before_is_looked_at_where_it_was(detector, crops_seen):
    picture, landmarks = turned(5, 180)
    (faces,) = detector.detect([picture])
    (face,) = settle(picture, faces, before=landmarks[None] + 2)
    assert error(face, landmarks) < 0.15
    assert crops_seen == [1]


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_picture_without_a_face_is_looked_at_turned(detector, turns):
    """Here the detector finds faces in the upright picture alone."""
    image, landmarks = rendered(5)
    picture = np.rot90(image, -turns)
    asked = []

    def finds_upright(images):
        asked.append(images)
        return detector.detect(images) if np.array_equal(images[0], image) else [[]]

    (face,) = settle(np.ascontiguousarray(picture), [], detect=finds_upright)
    for _ in range(turns):  # by a quarter clockwise
        landmarks = np.stack([SIZE - 1 - landmarks[:, 1], landmarks[:, 0]], axis=1)
    assert error(face, landmarks) < 0.15
    assert settle(picture, []) == []


def test_what_is_no_face_stays_and_costs_little(detector, crops_seen):
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    picture, _ = turned(5, 0)
    (shape,) = detector.detect([picture])[0]
    faces = [DetectedFace(shape.bounding_box * 0.1 + 4 * i, shape.landmarks * 0.1 + 4 * i, 0.7) for i in range(40)]
    assert settle(noise, faces) == faces
    assert crops_seen[0] == 16
    assert len(crops_seen) <= 3 and sum(crops_seen) <= 16 * 10


def test_landmarks_in_one_point_are_left(detector):
    face = DetectedFace(np.float32([1, 1, 9, 9]), np.full((5, 2), 4, np.float32), 0.9)
    assert settle(np.zeros((20, 20, 3), np.uint8), [face]) == [face]


def test_a_turned_face_that_the_detector_loses_is_found_where_it_was(detector, crops_seen):
    picture, landmarks = turned(5, 120)
    (face,) = settle(picture, [], before=landmarks[None] + 4)
    assert error(face, landmarks) < 0.15
    x1, y1, x2, y2 = face.bounding_box
    assert (face.landmarks > (x1, y1)).all() and (face.landmarks < (x2, y2)).all()
    assert 0.5 < (x2 - x1) / np.ptp(rendered(5)[1][:, 1]) / 2 < 2 and 0.5 < face.score <= 1
    assert crops_seen == [1]

    assert settle(picture, [face], before=landmarks[None]) and len(settle(picture, [face], before=landmarks[None])) == 1
    gone = np.full_like(picture, 120)
    assert settle(gone, [], before=landmarks[None]) == []
    assert settle(turned(5, 0)[0], [], before=rendered(5)[1][None]) == []  # upright faces are the detector's to find
