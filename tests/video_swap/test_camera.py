"""The camera: faces of its pictures are swapped and shown until the person ends it; without one, a line."""

import contextlib

import cv2
import numpy as np
import pytest
from small_videos import BreaksAt, moving_frames, similarity

from facedancer.core.console import UserError
from facedancer.video_swap import multi_face_single_source
from facedancer.video_swap.camera import open_camera, swap_camera
from facedancer.video_swap.common import Plan
from facedancer.video_swap.sources import Source


class FakeCapture:
    """Stands in for `cv2.VideoCapture`: a few pictures in BGR."""

    def __init__(self, number):
        self.is_open, self.left = number == 0, list(moving_frames(4, 160, 120)[..., ::-1])
        self.released = False
        FakeCapture.last = self

    def isOpened(self):
        return self.is_open

    def set(self, *_):
        return True

    def read(self):
        return (True, self.left.pop(0)) if self.left else (False, None)

    def release(self):
        self.released = True


@pytest.fixture
def screen(monkeypatch):
    """What is shown in the window, RGB; keys to be pressed after each picture."""
    shown, keys = [], [255, 255, ord("q")]
    monkeypatch.setattr(cv2, "VideoCapture", FakeCapture)
    monkeypatch.setattr(cv2, "namedWindow", lambda *_: None)
    monkeypatch.setattr(cv2, "destroyWindow", lambda *_: None)
    monkeypatch.setattr(cv2, "imshow", lambda _, image: shown.append(image[..., ::-1].copy()))
    monkeypatch.setattr(cv2, "waitKey", lambda _: keys.pop(0))
    monkeypatch.setattr(cv2, "getWindowProperty", lambda *_: 1.0)
    return shown, keys


def plan():
    return Plan([Source(np.array([1.0, -1, -1], np.float32), np.full((8, 8, 3), 250, np.uint8))])


def swapper_of(make_swapper):
    swapper = make_swapper(similarity(1.5, 0.1, (80, 60)))
    swapper.detector.detect = lambda images, detect=swapper.detector.detect: detect(
        [np.where(np.arange(3) == 0, 1, image).astype(np.uint8) for image in images]
    )
    return swapper


def test_faces_are_swapped_until_the_key(screen, make_swapper):
    shown, _ = screen
    with open_camera(0) as (pictures, show):
        count = swap_camera(swapper_of(make_swapper), plan(), pictures, show)
    assert count == len(shown) == 3 and FakeCapture.last.released
    for image, before in zip(shown, moving_frames(4, 160, 120), strict=False):
        assert np.abs(image[63, 80].astype(int) - (255, 0, 0)).max() <= 2  # red, so RGB and BGR are not exchanged
        assert (image[:20] == before[:20]).all()


def test_compare_view(screen, make_swapper):
    with open_camera(0) as (pictures, show):
        swap_camera(swapper_of(make_swapper), plan(), pictures, show, compare=True)
    assert screen[0][0].shape == (120, 320, 3)


def test_a_face_that_could_not_be_swapped_is_not_shown(screen, make_swapper):
    swapper = swapper_of(make_swapper)
    swapper.model = BreaksAt(swapper.model, {1})
    with open_camera(0) as (pictures, show):
        assert swap_camera(swapper, plan(), pictures, show) == 3
    assert all(np.abs(image[63, 80].astype(int) - (255, 0, 0)).max() <= 2 for image in screen[0])


def test_a_camera_that_is_unplugged(screen, make_swapper):
    screen[1][:] = [255] * 9
    with pytest.raises(UserError, match="no more pictures"), open_camera(0) as (pictures, show):
        swap_camera(swapper_of(make_swapper), plan(), pictures, show)
    assert FakeCapture.last.released


def test_no_such_camera_is_one_line(screen, tmp_path, capsys):
    picture = tmp_path / "source.png"
    cv2.imwrite(str(picture), np.zeros((8, 8, 3), np.uint8))
    flags = ["--camera", "7", "--swap_source", str(picture)]
    assert multi_face_single_source.main(flags) == 2
    assert capsys.readouterr().err == "error: --camera 7: OpenCV finds no such camera\n"
    assert multi_face_single_source.main(["--camera", "7", "--anonymize"]) == 2
    assert "--anonymize does not go with --camera" in capsys.readouterr().err


def test_an_opencv_without_windows(screen, monkeypatch):
    def raise_error(*_):
        raise cv2.error("The function is not implemented")

    monkeypatch.setattr(cv2, "namedWindow", raise_error)
    with pytest.raises(UserError, match="opencv-python"), contextlib.ExitStack() as stack:
        stack.enter_context(open_camera(0))
    assert FakeCapture.last.released
