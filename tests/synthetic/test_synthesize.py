"""The data set on disk: its structure, the same for any number of workers, resumed after a stop."""

import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from facedancer.core.images import read_image
from facedancer.core.marking import RENDERED
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
    assert main(["--out", str(folder), *FLAGS, "--pairs", "--workers", "1"]) == 0
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


def test_pairs_are_target_source_and_true_swap(world):
    pairs = [json.loads(line) for line in (world / "pairs.jsonl").read_text().splitlines()]
    assert len(pairs) == 3
    for pair in pairs:
        target, source, swapped = pair["target"], pair["source"], pair["swapped"]
        assert swapped["identity"] == source["identity"] != target["identity"]
        assert swapped["person"] == target["person"]
        assert swapped["scene"] == target["scene"]
        assert swapped["pose"] == target["pose"]
        assert (read_image(world / swapped["file"]) != read_image(world / target["file"])).any()


def test_pictures_are_marked_as_synthetic(world):
    assert RENDERED.source_type.encode() in (world / "pictures/00000/00.png").read_bytes()
    assert RENDERED.source_type.encode() in (world / "pairs/00000/swapped.png").read_bytes()


def test_a_stopped_run_goes_on_to_the_same_result(world, tmp_path):
    out = tmp_path / "world"
    assert main(["--out", str(out), *FLAGS, "--workers", "2"]) == 0
    whole = hashes(out)
    assert whole == {name: value for name, value in hashes(world).items() if "pairs" not in name}
    # Killed while it wrote the fourth line and the fifth picture.
    lines = (out / "truth.jsonl").read_bytes().splitlines(keepends=True)
    (out / "truth.jsonl").write_bytes(b"".join(lines[:3]) + lines[3][:40])
    # … and two files were lost since, one of them of a line that is there.
    for name in ("pictures/00000/01.png", "masks/00002/01.png"):
        (out / name).unlink()
    (out / "pictures/00002/.partial-x.png").write_bytes(b"torn")
    assert main(["--out", str(out), *FLAGS, "--workers", "1"]) == 0
    assert hashes(out) == whole


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--identities", "0"], "--identities"),
        (["--per_identity", "0"], "--per_identity"),
        (["--size", "8"], "--size"),
        (["--seed", "-1"], "--seed"),
        (["--workers", "0"], "--workers"),
        (["--identities", "1", "--pairs"], "--pairs"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, capsys, flags, said):
    assert main(["--out", str(tmp_path / "new"), *flags]) == 2
    message = capsys.readouterr().err
    assert said in message
    assert message.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_a_folder_of_something_else_is_refused(world, tmp_path, capsys):
    assert main(["--out", str(world), "--identities", "3", "--per_identity", "2", "--size", "48", "--seed", "4"]) == 2
    assert "other settings" in capsys.readouterr().err
    (tmp_path / "holiday.jpg").write_bytes(b"")
    assert main(["--out", str(tmp_path), *FLAGS]) == 2
    assert "not empty" in capsys.readouterr().err
