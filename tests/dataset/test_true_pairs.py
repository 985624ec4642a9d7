"""Pairs of a synthetic world become records that a training with `--truth_lambda` reads."""

import json

import numpy as np
import pytest
from drawn_faces import draw_face

from facedancer.core.alignment import align_matrix, warp_to_aligned
from facedancer.core.console import UserError
from facedancer.core.images import decode_image, read_image, write_image
from facedancer.core.records import find_shards, read_records
from facedancer.dataset.dataset_sharding import main
from facedancer.dataset.true_pairs import read_pairs

LANDMARKS = {"target": (30, 40), "source": (36, 42), "swapped": (30, 40)}


@pytest.fixture
def world(tmp_path):
    """Three pairs; a true swap is its target with another mouth."""
    folder, lines = tmp_path / "world", []
    for number in range(3):
        target, source = draw_face(number, 96), draw_face(number + 1, 96)
        swapped = target.copy()
        swapped[60:70, 40:60] = source[60:70, 40:60]
        line = {}
        for name, image in (("target", target), ("source", source), ("swapped", swapped)):
            line[name] = {"file": f"pairs/{number:05d}/{name}.png"}
            (folder / line[name]["file"]).parent.mkdir(parents=True, exist_ok=True)
            write_image(folder / line[name]["file"], image)
            x, y = LANDMARKS[name]
            line[name]["landmarks"] = [[x, y], [x + 34, y], [x + 17, y + 18], [x + 4, y + 34], [x + 30, y + 34]]
        lines.append(line)
    (folder / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_the_truth_lies_on_the_target(tmp_path, world):
    shards = tmp_path / "shards"
    flags = ["--data_dir", str(world), "--target_dir", str(shards), "--data_name", "pairs", "--im_size", "48"]
    assert main([*flags, "--pairs", "True"]) == 0
    records = [record for path in find_shards(shards / "pairs_train_*.records") for record in read_records(path)]
    assert sorted(record.name for record in records) == [f"pairs/{i:05d}/target.png" for i in range(3)]
    for record in records:
        line = read_pairs(world)[record.identity]
        for name, content in (("target", record.face), ("source", record.source), ("swapped", record.truth)):
            placed_by = line["target" if name == "swapped" else name]["landmarks"]
            matrix = align_matrix(np.array(placed_by, np.float32), 48)
            expected = warp_to_aligned(read_image(world / line[name]["file"]), matrix, 48)
            np.testing.assert_array_equal(decode_image(content), expected)
        assert (decode_image(record.truth) != decode_image(record.face)).any(-1).mean() < 0.3


def test_a_lost_picture_is_left_out_and_named(tmp_path, world, capsys):
    (world / "pairs/00001/source.png").write_bytes(b"")
    flags = ["--data_dir", str(world), "--target_dir", str(tmp_path / "shards"), "--pairs", "True"]
    assert main(flags) == 0
    assert "wrote 2 of 3 files: train 2; left out 1" in capsys.readouterr().out


def test_a_world_without_pairs_is_refused(tmp_path, world):
    (world / "pairs.jsonl").unlink()
    with pytest.raises(UserError, match="synthesize --pairs"):
        read_pairs(world)
    for content in ('{"target": 3}\n', '{"target": {"file": "a/b.png"}}\n', "[]\n", "{"):
        (world / "pairs.jsonl").write_text(content)
        with pytest.raises(UserError, match="damaged"):
            read_pairs(world)


@pytest.mark.parametrize("flags", [["--pairs", "True", "--validation_fraction", "0.5"], ["--im_size", "64"]])
def test_flags_that_do_not_go_together(tmp_path, world, flags, capsys):
    assert main(["--data_dir", str(world), "--target_dir", str(tmp_path / "shards"), *flags]) == 2
    assert "--pairs" in capsys.readouterr().err
    assert not (tmp_path / "shards").exists()
