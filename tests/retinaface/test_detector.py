import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from facedancer.core.console import UserError
from facedancer.core.images import read_image
from facedancer.retinaface import DetectedFace, FaceDetector, largest_face

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not there")


def face(x1, y1, x2, y2, score=0.9):
    return DetectedFace(np.array([x1, y1, x2, y2], np.float32), np.zeros((5, 2), np.float32), score)


def test_largest_face():
    small, large = face(0, 0, 10, 10), face(0, 0, 5, 30, 0.7)
    assert (small.area, large.area) == (100.0, 150.0)
    assert largest_face([small, large]) is large
    assert largest_face([]) is None


def test_importing_the_package_loads_no_network_library():
    code = "import sys, facedancer.retinaface; print({'keras', 'tensorflow', 'onnx'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


@pytest.mark.parametrize("size", [40, 80, 160, 280])
def test_landmarks_lie_where_they_were_drawn(detector, draw_picture, size):
    picture, [landmarks] = draw_picture(360, 420, [(220, 170, size)])
    [found] = detector.detect([picture])[0]
    assert found.score > 0.9
    assert (found.landmarks.dtype, found.bounding_box.dtype) == (np.float32, np.float32)
    distance = np.linalg.norm(found.landmarks - landmarks, axis=-1) / (0.36 * size)
    assert distance[:2].max() < 0.15  # eyes; of the rest it is a matter of opinion where on the drawing they are
    assert distance.max() < 0.25
    x1, y1, x2, y2 = found.bounding_box
    assert x1 < landmarks[:, 0].min() < landmarks[:, 0].max() < x2
    assert y1 < landmarks[:, 1].min() < landmarks[:, 1].max() < y2


def test_a_moved_face_is_found_moved(detector, draw_picture):
    """By 32 pixels, after which every level of the pyramid sees the same."""
    here, there = (draw_picture(320, 384, [(150 + move, 160 + move, 100)])[0] for move in (0, 32))
    [[first], [second]] = detector.detect([here, there])
    np.testing.assert_allclose(second.landmarks - first.landmarks, 32, atol=0.5)
    np.testing.assert_allclose(second.bounding_box - first.bounding_box, 32, atol=1.0)


def test_a_picture_twice_as_large_gives_the_same_face(detector, draw_picture):
    picture, _ = draw_picture(256, 288, [(140, 120, 90)])
    [[small], [large]] = detector.detect([picture, cv2.resize(picture, None, fx=2, fy=2)])
    np.testing.assert_allclose(
        (large.landmarks + 0.5) / 2 - 0.5, small.landmarks, atol=0.1 * 32
    )  # a tenth of the eye distance


def test_a_large_picture_is_reduced(detector, draw_picture):
    """Sides that do not reduce by the same factor, and landmarks in the pixels of the whole picture."""
    picture, [landmarks] = draw_picture(1011, 1903, [(1500, 400, 500)])
    [found] = detector.detect([picture])[0]
    distance = np.linalg.norm(found.landmarks - landmarks, axis=-1) / 180
    assert distance[:2].max() < 0.15
    assert detector.working_size(*picture.shape[:2]) == (340, 640)


def test_small_faces_of_a_large_picture_are_found_beside_a_large_one(draw_picture):
    """Where the picture's size says how large it is looked at, and where the caller does."""
    small = [(x, y, 80) for x in range(200, 3200, 600) for y in (150, 350)]
    picture, landmarks = draw_picture(1600, 3200, [*small, (1200, 1000, 900)])
    usual = FaceDetector().detect([picture])[0]
    assert len(usual) < len(landmarks) / 2
    for side, size in ((None, (800, 1600)), (1280, (640, 1280))):
        detector = FaceDetector(max_side=side)
        assert detector.working_size(*picture.shape[:2]) == size
        found = detector.detect([picture[:300, :300], picture])[1]
        assert len(found) == len(landmarks)
        assert [face.score for face in found] == sorted((face.score for face in found), reverse=True)
        middles = np.array([face.landmarks.mean(0) for face in found])
        for points in landmarks[:-1]:
            assert np.linalg.norm(middles - points.mean(0), axis=-1).min() < 12
        np.testing.assert_array_equal(largest_face(found).landmarks, largest_face(usual).landmarks)


def test_a_picture_is_looked_at_by_its_size():
    detector = FaceDetector(max_side=None)
    sizes = {(480, 600): (480, 600), (720, 1280): (360, 640), (4000, 6000): (2000, 3000), (9000, 100): (3072, 34)}
    assert {size: detector.working_size(*size) for size in sizes} == sizes


def test_several_faces_come_by_falling_score(detector, draw_picture):
    drawn = [(90, 90, 100), (300, 110, 140), (480, 90, 60), (130, 300, 120), (420, 300, 160)]
    picture, landmarks = draw_picture(420, 560, drawn)
    found = detector.detect([picture])[0]
    scores = [face.score for face in found]
    assert scores == sorted(scores, reverse=True)
    assert len(found) == len(drawn)
    centers = np.array([face.landmarks.mean(0) for face in found])
    for points in landmarks:
        assert np.linalg.norm(centers - points.mean(0), axis=-1).min() < 8
    np.testing.assert_allclose(largest_face(found).landmarks.mean(0), landmarks[4].mean(0), atol=8)


def test_a_batch_of_mixed_sizes_gives_what_single_pictures_give(detector, draw_picture):
    sizes = [(200, 205), (360, 640), (201, 199), (96, 110), (720, 1280), (200, 205), (224, 224)]
    pictures = [draw_picture(h, w, [(w * 0.45, h * 0.5, int(h * 0.5))])[0] for h, w in sizes]
    pictures.append(np.full((150, 90, 3), 200, np.uint8))
    together = detector.detect(pictures)
    assert [len(faces) for faces in together] == [1] * len(sizes) + [0]
    for picture, faces in zip(pictures, together, strict=True):
        for one, other in zip(detector.detect([picture])[0], faces, strict=True):
            np.testing.assert_allclose(one.landmarks, other.landmarks, atol=1e-2)
            np.testing.assert_allclose(one.bounding_box, other.bounding_box, atol=1e-2)
            assert one.score == pytest.approx(other.score, abs=1e-5)


def test_many_pictures_are_split_into_batches(detector, draw_picture, monkeypatch):
    sizes = []
    run = detector._run
    monkeypatch.setattr(detector, "_run", lambda batch: sizes.append(batch.shape) or run(batch))
    picture, _ = draw_picture(512, 512, [(256, 256, 200)])
    assert [len(faces) for faces in detector.detect([picture] * 10)] == [1] * 10
    assert [shape[0] for shape in sizes] == [4, 4, 2]


def test_the_threshold_holds(detector, draw_picture):
    picture = cv2.GaussianBlur(draw_picture(200, 200, [(100, 100, 60)])[0], (0, 0), 5)
    strict = FaceDetector(score_threshold=0.999999)
    loose = FaceDetector(score_threshold=0.01)
    assert strict.detect([picture]) == [[]]
    faces = loose.detect([picture])[0]
    assert faces
    assert all(0.01 < face.score <= 1 for face in faces)


def test_nothing_in_nothing_out(detector):
    assert detector.detect([]) == []
    pictures = [np.zeros((1, 1, 3), np.uint8), np.zeros((1, 9000, 3), np.uint8), np.zeros((700, 3, 3), np.uint8)]
    assert detector.detect(pictures) == [[], [], []]


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (np.zeros((20, 20), np.uint8), r"\(20, 20\) uint8"),
        (np.zeros((20, 20, 1), np.uint8), r"\(20, 20, 1\) uint8"),
        (np.zeros((20, 20, 4), np.uint8), r"\(20, 20, 4\) uint8"),
        (np.zeros((20, 20, 3), np.float32), r"\(20, 20, 3\) float32"),
        (np.zeros((0, 20, 3), np.uint8), r"\(0, 20, 3\) uint8"),
        ("picture.png", "str"),
    ],
)
def test_what_is_no_color_picture_is_refused(detector, image, found):
    with pytest.raises(ValueError, match=rf"^images\[1\] is {found}, expected an array \(H, W, 3\) uint8"):
        detector.detect([np.zeros((20, 20, 3), np.uint8), image])


def test_absent_weights_are_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.h5"):
        FaceDetector(tmp_path / "nowhere.h5")


@needs_data
def test_faces_of_real_photographs_are_found(detector):
    paths = sorted((DATA / "faces").rglob("*.jpg"))[::24]
    found = detector.detect([read_image(path) for path in paths])
    assert np.mean([len(faces) > 0 for faces in found]) >= 0.98


@needs_data
def test_real_landmarks_do_not_depend_on_how_the_face_is_shown(detector):
    """Twice as large, mirrored, and further right: no shift in the mean, little distance in the median."""
    pictures = [read_image(path) for path in sorted((DATA / "faces").rglob("*.jpg"))[::48]]

    def landmarks(images):
        return np.stack([faces[0].landmarks for faces in detector.detect(images)])

    plain = landmarks(pictures)
    eyes = np.linalg.norm(plain[:, 1] - plain[:, 0], axis=-1)[:, None, None]
    larger = landmarks([cv2.resize(picture, None, fx=2, fy=2) for picture in pictures])
    mirrored = landmarks([picture[:, ::-1].copy() for picture in pictures])[:, [1, 0, 2, 4, 3]]
    mirrored[..., 0] = np.array([picture.shape[1] - 1 for picture in pictures])[:, None] - mirrored[..., 0]
    moved = landmarks([cv2.copyMakeBorder(picture, 5, 0, 11, 0, cv2.BORDER_REPLICATE) for picture in pictures])
    for other in ((larger + 0.5) / 2 - 0.5, mirrored, moved - [11, 5]):
        difference = (other - plain) / eyes
        assert np.abs(difference.mean((0, 1))).max() < 0.03
        assert np.median(np.linalg.norm(difference, axis=-1)) < 0.05
