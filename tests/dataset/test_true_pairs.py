"""The true swaps of a synthetic world become records."""

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

PLACES = {"scene": (30, 40), "portrait": (36, 42)}


def landmarks(x, y):
    return [[x, y], [x + 34, y], [x + 17, y + 18], [x + 4, y + 34], [x + 30, y + 34]]


@pytest.fixture
def world(tmp_path):
    """Three scenes of two identities each, which differ by the mouth, and a portrait of each identity."""
    folder = tmp_path / "world"

    def write(file, image, identity, place):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        write_image(folder / file, image)
        return {"file": file, "identity": identity, "landmarks": landmarks(*PLACES[place])}

    portraits = [write(f"portraits/{i:05d}.png", draw_face(i, 96), i, "portrait") for i in range(3)]
    scenes = []
    for number in range(3):
        own, other = draw_face(number, 96), draw_face(number, 96)
        other[60:70, 40:60] = draw_face((number + 1) % 3, 96)[60:70, 40:60]
        pictures = [
            write(f"swaps/{number:05d}/{index}.png", image, (number + index) % 3, "scene")
            for index, image in enumerate((own, other))
        ]
        scenes.append({"pictures": pictures})
    for name, lines in (("swaps", scenes), ("portraits", portraits)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_the_truth_lies_on_the_target(tmp_path, world):
    shards = tmp_path / "shards"
    flags = ["--data_dir", str(world), "--target_dir", str(shards), "--data_name", "pairs", "--im_size", "48"]
    assert main([*flags, "--pairs", "True"]) == 0
    records = [record for path in find_shards(shards / "pairs_train_*.records") for record in read_records(path)]
    assert sorted(record.name for record in records) == [f"swaps/{i:05d}/{a}-{1 - a}" for i in range(3) for a in (0, 1)]
    for record in records:
        pair = read_pairs(world)[record.name]
        for name, content in (("target", record.face), ("source", record.source), ("swapped", record.truth)):
            matrix = align_matrix(np.array(pair[name].landmarks, np.float32), 48)
            expected = warp_to_aligned(read_image(world / pair[name].file), matrix, 48)
            np.testing.assert_array_equal(decode_image(content), expected)
        changed = (decode_image(record.truth) != decode_image(record.face)).any(-1)
        mask = decode_image(record.mask)[..., 0] > 0
        assert 0 < changed.mean() < mask.mean() < 0.4 and mask[changed].all()
        assert record.identity == record.name.rpartition("/")[0]


def test_a_lost_picture_is_left_out_and_named(tmp_path, world, capsys):
    (world / "swaps/00001/0.png").write_bytes(b"")
    flags = ["--data_dir", str(world), "--target_dir", str(tmp_path / "shards"), "--pairs", "True"]
    assert main(flags) == 0
    assert "wrote 4 of 6 files: train 4; left out 2" in capsys.readouterr().out


def test_a_world_without_true_swaps_is_refused(tmp_path, world):
    portraits = (world / "portraits.jsonl").read_text()
    (world / "portraits.jsonl").write_text(portraits.splitlines(keepends=True)[0])
    with pytest.raises(UserError, match="lacks identity 1"):
        read_pairs(world)
    (world / "portraits.jsonl").write_text(portraits)
    (world / "swaps.jsonl").unlink()
    with pytest.raises(UserError, match="synthesize --swaps"):
        read_pairs(world)
    for content in ('{"pictures": 3}\n', '{"pictures": [{"file": "a/b.png"}]}\n', "[]\n", "{"):
        (world / "swaps.jsonl").write_text(content)
        with pytest.raises(UserError, match="make the world again"):
            read_pairs(world)


@pytest.mark.parametrize("flags", [["--pairs", "True", "--validation_fraction", "0.5"], ["--im_size", "64"]])
def test_flags_that_do_not_go_together(tmp_path, world, flags, capsys):
    assert main(["--data_dir", str(world), "--target_dir", str(tmp_path / "shards"), *flags]) == 2
    assert "--pairs" in capsys.readouterr().err
    assert not (tmp_path / "shards").exists()
