"""Videos against their swaps: a steady one, one that trembles, one without a face."""

import json

import numpy as np
import pytest

from facedancer.core.console import UserError
from facedancer.core.weights import get_weights
from facedancer.evaluate import evaluate as command
from facedancer.evaluate.cases import read_list
from facedancer.evaluate.video import MEASURES, Steadiness
from facedancer.retinaface import FaceDetector
from facedancer.synthetic.synthesize_video import VideoSettings, render_frame


@pytest.fixture(scope="module")
def film():
    """Eight frames of one person, 160 x 160 pixels."""
    settings = VideoSettings(seconds=8 / 25, width=160, height=160)
    return [render_frame(settings, None, index)[0].image for index in range(settings.frame_count)]


def by_color(faces):
    return np.float32(faces.mean((1, 2)) + 1)


@pytest.fixture(scope="module")
def steadiness():
    for name in ("face_mesh", "retinaface_mobilenet025"):
        get_weights(name)
    return Steadiness(FaceDetector(), by_color)


def test_a_copy_is_as_steady_as_its_target(film, steadiness):
    found = steadiness(film, film)
    assert found["frames"] == len(film) and found["without_face"] == found["unseen"] == 0
    for name in MEASURES:
        assert found[name][0] == found[name][1] > 0


def test_each_unrest_moves_its_own_number(film, steadiness):
    rest = steadiness(film, film)
    brighter = steadiness(
        film, [np.uint8(np.minimum(frame + 12.0 * (index % 2), 255)) for index, frame in enumerate(film)]
    )
    assert brighter["warped_difference"][0] > 1.5 * rest["warped_difference"][0]
    assert brighter["warped_difference"][1] == rest["warped_difference"][1]
    trembling = steadiness(film, [np.roll(frame, 3 * (index % 2), 1) for index, frame in enumerate(film)])
    assert trembling["jitter"][0] > 3 * rest["jitter"][0]


def test_frames_without_a_face_are_counted(film, steadiness):
    empty = np.zeros_like(film[0])
    found = steadiness([*film[:3], empty, *film[4:]], [*film[:5], empty, *film[6:]])
    assert found["without_face"] == 1 and found["unseen"] == 1
    with pytest.raises(UserError, match="another number of frames"):
        steadiness(film, film[:-1])


def test_a_list_of_videos_is_checked(tmp_path):
    path = tmp_path / "pairs.jsonl"
    for text, message in (("", "is empty"), ('{"target": 1}\n', "a line of a list"), ("[", "a line of a list")):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            read_list(path)
    path.write_text(json.dumps({"target": "a.mp4", "source": "b.png"}))
    assert read_list(path) == [("a.mp4", "b.png")]
    words = ["--model", "lite", "--protocol", "video", "--data", str(tmp_path), "--output", str(tmp_path)]
    assert command.main(words) == 2
