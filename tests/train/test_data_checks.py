"""Data in which no pair would swap anybody is refused, in one line, before the first step."""

import numpy as np
import pytest

from facedancer.core.console import UserError
from facedancer.core.images import encode_image
from facedancer.core.records import FaceRecord, RecordWriter
from facedancer.dataset import pairing
from facedancer.train import data_checks
from facedancer.train.config import parse_config

FACE = encode_image(np.zeros((16, 16, 3), np.uint8), ".png")


def check(folder, shards, *words, worker=(0, 1)):
    """Writes shards, lists of records' (identity, whether they carry a source), and checks them."""
    for index, records in enumerate(shards):
        with open(folder / f"{index}.records", "wb") as file:
            writer = RecordWriter(file)
            for identity, has_source in records:
                writer.write(FaceRecord(FACE, identity, source=FACE if has_source else None))
    config = parse_config(["--data_dir", str(folder / "*.records"), "--preset", "facedancer", *words])
    data_checks.check_data(config, worker)


@pytest.mark.parametrize(
    "records",
    [
        [("a", False)] * 5 + [("b", False)],
        [(None, False)] * 2,  # the original's: each is somebody else
        [("a", False)] * 5 + [("a", True)],
    ],
)
def test_what_can_swap_is_trained(tmp_path, records):
    check(tmp_path, [records])


def test_one_identity_without_truth_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"the records show only one person .* add people .*`facedancer triplets`"):
        check(tmp_path, [[("a", False)] * 5])


def test_the_order_of_the_records_may_leave_one_identity_alone(tmp_path, monkeypatch):
    """Partners are sought in a window; two people in two shards are read by turns, in one shard one after another."""
    for module in (pairing, data_checks):
        monkeypatch.setattr(module, "WINDOW", 5)
    one, other = [("a", False)] * 6, [("b", False)] * 6
    with pytest.raises(UserError, match="the first 5 records show only one person"):
        check(tmp_path, [one + other])
    check(tmp_path, [one, other])
    with pytest.raises(UserError, match="show only one person"):
        check(tmp_path, [one, other], worker=(1, 2))


def test_a_share_of_1_is_refused_unless_a_record_carries_a_truth(tmp_path):
    people = [("a", False), ("b", False)]
    with pytest.raises(UserError, match=r"--same_ratio 1\.0 pairs people only with themselves"):
        check(tmp_path, [people], "--same_ratio", "1")
    check(tmp_path, [[*people, ("b", True)]], "--same_ratio", "1")


def test_masks_that_a_loss_learns_from_must_be_there(tmp_path):
    """Without one a face would count as face all over."""
    write = [(tmp_path / f"{number}.records", number) for number in range(2)]
    for path, number in write:
        with open(path, "wb") as file:
            writer = RecordWriter(file)
            writer.write(FaceRecord(FACE, "a", name="a/1.png", mask=FACE))
            writer.write(FaceRecord(FACE, "b", name="b/2.png", mask=None if number else FACE))
    flags = ["--family", "hififace", "--data_dir", str(tmp_path / "*.records")]
    message = r"1\.records: b/2\.png has no face mask, which --lambda_mask needs: pass --mask_dir"
    with pytest.raises(UserError, match=message):
        data_checks.check_data(parse_config(flags))
    data_checks.check_data(parse_config([*flags, "--lambda_mask", "0"]))
