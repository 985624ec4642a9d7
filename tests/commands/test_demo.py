"""The main job, from pictures of drawn people to a swapped video, as `make demo` runs it."""

from dataclasses import replace

import av
import pytest
from drawn_faces import write_dataset

from facedancer.commands.demo import main
from facedancer.core.images import read_image
from facedancer.core.weights import REGISTRY, get_weights
from facedancer.models.facedancer import PRESETS

pytestmark = pytest.mark.usefixtures("networks_loaded_once")


@pytest.fixture(scope="module")
def weights():
    for name, entry in REGISTRY.items():
        if entry.is_embedded:
            get_weights(name)


def test_demo_from_pictures_to_a_swapped_video(weights, tmp_path, capsys, monkeypatch):
    """With a small network to train: that `lite` itself trains and is exported, test_train_command.py shows."""
    small = {"image_size": 64, "mapping_size": 8, "widths": (8, 8, 8), "up_types": ("no_skip", "affa", "concat")}
    small |= {"mapping_depth": 1, "identity_blocks": (1,), "discriminator_widths": (4, 8)}
    monkeypatch.setitem(PRESETS, "lite", replace(PRESETS["lite"], **small))
    monkeypatch.setattr("facedancer.commands.demo.TRIPLETS", 16)
    monkeypatch.setattr("facedancer.commands.demo.VALIDATION_TRIPLETS", 8)
    monkeypatch.setattr("facedancer.commands.demo.FRAMES_A_PICTURE", 4)
    write_dataset(tmp_path / "people", identities=4, per_identity=2, size=160)
    words = ["--data_dir", str(tmp_path / "people"), "--run_dir", str(tmp_path / "run"), "--num_steps", "1"]
    assert main(words) == 0
    assert "8 of 8 pictures" in capsys.readouterr().out
    for ending in ("", "_by_the_demo"):
        with (
            av.open(tmp_path / f"run/swapped_video{ending}.mp4") as swapped,
            av.open(tmp_path / "run/video.mp4") as original,
        ):
            video = swapped.streams.video[0]
            assert swapped.streams.audio and (video.width, video.height) == (1280, 480)
            frames = [sum(1 for _ in container.decode(video=0)) for container in (swapped, original)]
        assert frames[0] == frames[1] == 8
        assert read_image(tmp_path / f"run/swapped_image{ending}.png").shape == (160, 320, 3)
    page = (tmp_path / "run/report.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg") == 5 and "validation/truth_error" in page
    assert 'href="swapped_video.mp4"' in page and 'href="swapped_video_by_the_demo.mp4"' in page

    # Again: nothing is trained or exported anew.
    assert main(words) == 0
    assert "facedancer train" not in capsys.readouterr().out


def test_too_few_people_are_said(tmp_path, capsys):
    write_dataset(tmp_path / "one", identities=1, per_identity=1, size=32)
    assert main(["--data_dir", str(tmp_path / "one"), "--run_dir", str(tmp_path / "run")]) == 2
    assert "at least 3 people" in capsys.readouterr().err
