"""The data set on disk: its structure, the same for any number of workers, resumed after a stop."""

import hashlib
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from facedancer.core.images import read_image
from facedancer.core.marking import RENDERED
from facedancer.dataset.true_pairs import read_pairs
from facedancer.synthetic import truth
from facedancer.synthetic.synthesize import main

FLAGS = ["--identities", "3", "--per_identity", "2", "--size", "32", "--seed", "4"]


def hashes(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic") / "world"
    assert main(["--output", str(folder), *FLAGS, "--swaps", "2", "--workers", "1"]) == 0
    return folder


def test_structure(world):
    lines = [json.loads(line) for line in (world / "truth.jsonl").read_text().splitlines()]
    assert [line["file"] for line in lines] == [f"pictures/{i:05d}/{k:02d}.png" for i in range(3) for k in range(2)]
    for line in lines:
        assert read_image(world / line["file"]).shape == (32, 32, 3)
        with Image.open(world / line["mask"]) as picture:
            mask = np.asarray(picture)
        assert mask.shape == (32, 32)
        assert truth.HAIR in mask or truth.SKIN in mask
        assert np.shape(line["landmarks"]) == (5, 2)
        assert np.shape(line["landmarks_68"]) == (68, 2)
        assert len(line["pose"]) == 3
    assert [line["identity"] for line in lines] == [4000000, 4000000, 4000001, 4000001, 4000002, 4000002]
    assert len({line["scene"] for line in lines}) == 6
    assert len({hashlib.sha256((world / line["file"]).read_bytes()).digest() for line in lines}) == 6


def test_a_scene_shows_several_identities_and_nothing_else_changes(world):
    scenes = [json.loads(line) for line in (world / "swaps.jsonl").read_text().splitlines()]
    assert len(scenes) == 3
    for number, scene in enumerate(scenes):
        own, *others = scene["pictures"]
        assert own["file"] == f"swaps/{number:05d}/0.png" and own["identity"] == own["person"] == 4000000 + number
        assert len({picture["identity"] for picture in scene["pictures"]}) == 3
        for other in others:
            assert all(other[name] == own[name] for name in ("person", "scene", "pose"))
            assert (read_image(world / other["file"]) != read_image(world / own["file"])).any()


def test_any_two_pictures_of_a_scene_are_a_pair(world):
    pairs = read_pairs(world)
    assert len(pairs) == 3 * 3 * 2 and list(pairs)[:2] == ["swaps/00000/0-1", "swaps/00000/0-2"]
    for pair in pairs.values():
        target, source, swapped = pair["target"], pair["source"], pair["swapped"]
        assert swapped.identity == source.identity != target.identity
        assert swapped.scene == target.scene != source.scene
        assert source.file == f"portraits/{source.identity - 4000000:05d}.png"


def test_pictures_are_marked_as_synthetic(world):
    assert RENDERED.source_type.encode() in (world / "pictures/00000/00.png").read_bytes()
    assert RENDERED.source_type.encode() in (world / "swaps/00000/1.png").read_bytes()


def test_a_stopped_run_goes_on_to_the_same_result(world, tmp_path):
    out = tmp_path / "world"
    assert main(["--output", str(out), *FLAGS, "--workers", "2"]) == 0
    whole = hashes(out)
    more = ("swaps", "portraits", "settings")
    assert {name: value for name, value in whole.items() if not name.startswith(more)} == {
        name: value for name, value in hashes(world).items() if not name.startswith(more)
    }
    # Killed while it wrote the fourth line and the fifth picture.
    lines = (out / "truth.jsonl").read_bytes().splitlines(keepends=True)
    (out / "truth.jsonl").write_bytes(b"".join(lines[:3]) + lines[3][:40])
    # … and two files were lost since, one of them of a line that is there.
    for name in ("pictures/00000/01.png", "masks/00002/01.png"):
        (out / name).unlink()
    (out / "pictures/00002/.partial-x.png").write_bytes(b"torn")
    assert main(["--output", str(out), *FLAGS, "--workers", "1"]) == 0
    assert hashes(out) == whole


def test_a_scene_that_was_being_written_is_done_again(world, tmp_path):
    out = tmp_path / "world"
    shutil.copytree(world, out)
    lines = (out / "swaps.jsonl").read_bytes().splitlines(keepends=True)
    (out / "swaps.jsonl").write_bytes(b"".join(lines[:2]) + lines[2][:50])
    (out / "swaps/00001/2.png").unlink()
    (out / "swaps/00002/1_mask.png").unlink()
    assert main(["--output", str(out), *FLAGS, "--swaps", "2", "--workers", "1"]) == 0
    assert hashes(out) == hashes(world)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--identities", "0"], "--identities"),
        (["--per_identity", "0"], "--per_identity"),
        (["--size", "8"], "--size"),
        (["--seed", "-1"], "--seed"),
        (["--workers", "0"], "--workers"),
        (["--identities", "2", "--swaps", "2"], "--swaps"),
        (["--swaps", "-1"], "--swaps"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, capsys, flags, said):
    assert main(["--output", str(tmp_path / "new"), *flags]) == 2
    message = capsys.readouterr().err
    assert said in message
    assert message.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_a_folder_of_something_else_is_refused(world, tmp_path, capsys):
    assert (
        main(["--output", str(world), "--identities", "3", "--per_identity", "2", "--size", "48", "--seed", "4"]) == 2
    )
    assert "other settings" in capsys.readouterr().err
    (tmp_path / "holiday.jpg").write_bytes(b"")
    assert main(["--output", str(tmp_path), *FLAGS]) == 2
    assert "not empty" in capsys.readouterr().err
