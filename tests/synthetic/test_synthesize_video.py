"""Videos of people who do not exist: smooth movement, a voice with the mouth, and the true swap."""

import errno
import json
import os

import av
import numpy as np
import pytest

from facedancer.core.images import read_image
from facedancer.core.marking import RENDERED
from facedancer.synthetic import synthesize_video
from facedancer.synthetic.performance import SOUND_RATE, draw_performances
from facedancer.synthetic.synthesize_video import VideoSettings, main, render_frame


def test_movement_is_smooth_and_there_is_some():
    (performance,) = draw_performances(3, 1, 8.0, 1.0)
    scenes = [performance.at(t) for t in np.arange(0, 8, 1 / 25)]
    poses = np.array([scene.pose for scene in scenes])
    assert np.abs(np.diff(poses, axis=0)).max() < 5
    assert np.ptp(poses[:, 0]) > 10
    jaw = np.array([scene.expression.get("jawOpen", 0) for scene in scenes])
    assert np.ptp(jaw) > 0.1
    assert np.abs(np.diff(jaw)).max() < 0.25
    blinks = np.array([scene.expression["eyeBlinkLeft"] for scene in scenes])
    assert blinks.max() > 0.9
    assert (blinks == 0).mean() > 0.6
    lamps = np.array([scene.light.lobes[0, :3] for scene in scenes])
    assert np.allclose(np.linalg.norm(lamps, axis=1), 1)
    assert np.ptp(lamps[:, 0]) > 0.05


def test_the_voice_sounds_while_the_mouth_moves():
    (performance,) = draw_performances(3, 1, 8.0, 1.0)
    voice = performance.voice(8.0, 3)
    assert voice.shape == (8 * SOUND_RATE,)
    assert 0.3 < np.abs(voice).max() <= 1.0
    loud = np.abs(voice[: 8 * SOUND_RATE]).reshape(-1, SOUND_RATE // 25).max(1)
    talking = np.array([sum(s.weight((i + 0.5) / 25) for s in performance.syllables) for i in range(200)])
    assert np.corrcoef(loud, talking)[0, 1] > 0.5
    assert loud[talking == 0].max(initial=0) < 0.1


def test_people_keep_who_they_are_and_a_swap_changes_that_alone():
    settings = VideoSettings(people=2, seconds=1.0, rate=5, height=48, width=96, seed=1)
    first, later = render_frame(settings, None, 0), render_frame(settings, None, 4)
    swapped = render_frame(settings, 41, 4)
    assert [face.identity_number for face in first] == [face.identity_number for face in later]
    assert [face.identity_number for face in swapped] == [41, 41]
    assert [face.person_number for face in swapped] == [face.person_number for face in later]
    assert [face.pose for face in swapped] == [face.pose for face in later] != [face.pose for face in first]
    assert first[0].landmarks[:, 0].max() < first[1].landmarks[:, 0].min()
    background = swapped[0].labels == 0
    same = (swapped[0].image == later[0].image).all(-1)
    assert same[background].mean() > 0.98
    assert not same.all()


def test_files(tmp_path):
    out = tmp_path / "talk.mp4"
    flags = ["--people", "1", "--seconds", "0.6", "--rate", "5", "--size", "64", "48", "--source", "9"]
    assert main(["--output", str(out), *flags, "--workers", "1"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "talk_truth.jsonl").read_text().splitlines()]
    assert [line["time"] for line in lines] == [0.0, 0.2, 0.4]
    assert all(len(line["faces"]) == 1 for line in lines)
    frames = {}
    for name in ("talk", "talk_swapped"):
        with av.open(tmp_path / f"{name}.mp4") as film:
            assert RENDERED.source_type in film.metadata["comment"]
            frames[name] = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
            assert film.streams.audio[0].duration * film.streams.audio[0].time_base == pytest.approx(0.6, abs=0.1)
        assert [frame.shape for frame in frames[name]] == [(48, 64, 3)] * 3
    assert any((a != b).any() for a, b in zip(frames["talk"], frames["talk_swapped"], strict=True))
    assert read_image(tmp_path / "talk_source.png").shape == (512, 512, 3)


def test_what_fails_late_leaves_an_earlier_video_with_its_own_truth(tmp_path, monkeypatch, capsys):
    for name in ("talk.mp4", "talk_truth.jsonl"):
        (tmp_path / name).write_text("earlier")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(synthesize_video, "write_marked_image", full)
    flags = ["--seconds", "0.2", "--rate", "5", "--size", "64", "48", "--source", "9", "--workers", "1"]
    assert main(["--output", str(tmp_path / "talk.mp4"), *flags]) == 2
    assert f"{tmp_path / 'talk_source.png'}: " in capsys.readouterr().err
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "talk.mp4": "earlier",
        "talk_truth.jsonl": "earlier",
    }


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--people", "0"], "--people"),
        (["--seconds", "0"], "--seconds"),
        (["--size", "65", "48"], "--size"),
        (["--source", "-1"], "--source"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, capsys, flags, said):
    assert main(["--output", str(tmp_path / "a.mp4"), *flags]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_other_files_than_videos_are_refused(tmp_path, capsys):
    assert main(["--output", str(tmp_path / "a.gif")]) == 2
    assert ".mp4" in capsys.readouterr().err
