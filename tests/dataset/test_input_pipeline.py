"""Batches: every record once an epoch, pairs as asked for, the same again for the same seed."""

import numpy as np
import pytest
import tensorflow as tf

from facedancer.core.console import UserError
from facedancer.core.images import encode_image
from facedancer.core.records import FaceRecord, RecordWriter, shard_name
from facedancer.dataset import input_pipeline
from facedancer.dataset.augment import augment_face
from facedancer.dataset.input_pipeline import build_dataset

COUNT, PEOPLE = 90, 6


def write_shards(folder, labelled=True):
    """Pictures whose red is their number and whose green their person."""
    for index in range(3):
        with open(folder / shard_name("x", "train", index, 3), "wb") as file:
            writer = RecordWriter(file)
            for number in range(index, COUNT, 3):
                face = np.zeros((16, 16, 3), np.uint8)
                face[..., 0], face[..., 1] = number, 20 * (number % PEOPLE)
                identity = f"person {number % PEOPLE}" if labelled else None
                writer.write(FaceRecord(encode_image(face, ".png"), identity))
    return str(folder / "x_train_*-of-*.records")


def numbers(batch, name):
    return np.rint((batch[name][:, 5, 5, 0] + 1) * 127.5).astype(int)


def batches(pattern, count, **options):
    options = {"augment": False, **options}
    return list(build_dataset(pattern, 8, 16, **options).take(count).as_numpy_iterator())


def test_every_record_is_a_target_once_an_epoch(tmp_path):
    pattern = write_shards(tmp_path)
    found = np.concatenate([numbers(batch, "target") for batch in batches(pattern, 45)])  # 360 = 4 epochs
    for epoch in range(4):
        assert sorted(found[epoch * COUNT : (epoch + 1) * COUNT]) == list(range(COUNT))
    assert (found[:COUNT] != found[COUNT : 2 * COUNT]).any()


def test_no_record_is_lost_at_the_end_of_a_stream_that_ends(tmp_path):
    found = batches(write_shards(tmp_path), 100, repeat=False, shuffle=False)
    assert [len(batch["is_same"]) for batch in found] == [8] * 11 + [2]


@pytest.mark.parametrize("window", [1024, 20])
def test_pairs(tmp_path, monkeypatch, window):
    monkeypatch.setattr(input_pipeline, "WINDOW", window)
    found = batches(write_shards(tmp_path), 45, same_ratio=0.3)
    target, source = (np.concatenate([numbers(batch, name) for batch in found]) for name in ("target", "source"))
    is_same = np.concatenate([batch["is_same"] for batch in found])
    assert ((target % PEOPLE == source % PEOPLE) == is_same.astype(bool)).all()
    assert all(batch["is_same"].sum() >= 1 for batch in found)
    assert 0.22 < is_same.mean() < 0.38
    # The label allows another picture of the same person.
    assert (target != source).mean() > (0.999 if window > COUNT else 0.95)


def test_without_labels_a_same_pair_is_the_same_picture(tmp_path):
    found = batches(write_shards(tmp_path, labelled=False), 20)
    for batch in found:
        same = numbers(batch, "target") == numbers(batch, "source")
        assert (same == batch["is_same"].astype(bool)).all()
        assert same.sum() >= 1


def test_same_seed_same_batches_and_a_start_in_the_middle(tmp_path):
    pattern = write_shards(tmp_path)
    first = batches(pattern, 30, augment=True, seed=5)
    again = batches(pattern, 30, augment=True, seed=5)
    assert all(np.array_equal(a[name], b[name]) for a, b in zip(first, again, strict=True) for name in a)
    other = batches(pattern, 1, augment=True, seed=6)
    assert not np.array_equal(first[0]["target"], other[0]["target"])
    late = batches(pattern, 4, augment=True, seed=5, start_step=26)
    for a, b in zip(first[26:], late, strict=True):
        assert all(np.array_equal(a[name], b[name]) for name in a)


def test_faces_are_resized_and_in_range(tmp_path):
    batch = next(iter(build_dataset(write_shards(tmp_path), 4, 24)))
    assert batch["target"].shape == (4, 24, 24, 3) and batch["target"].dtype == tf.float32
    assert float(tf.reduce_max(tf.abs(batch["source"]))) <= 1.0


def test_augmentation_changes_colours_alone_and_is_seeded():
    face = tf.constant(np.random.default_rng(0).uniform(0, 1, (8, 8, 3)), tf.float32)
    one, again, other = (augment_face(face, (seed, 1)) for seed in (1, 1, 2))
    assert np.array_equal(one, again) and not np.array_equal(one, other)
    assert float(tf.reduce_min(one)) >= 0 and float(tf.reduce_max(one)) <= 1
    grey = tf.ones((8, 8, 3)) * 0.5
    assert float(tf.math.reduce_std(augment_face(grey, (3, 3)))) < 1e-6  # a flat picture stays flat


def test_nothing_to_read_is_said(tmp_path):
    with pytest.raises(UserError, match="no records match"):
        build_dataset(str(tmp_path / "none_*.records"), 8, 16)


def test_a_truncated_shard_is_said_before_training_begins(tmp_path):
    pattern = write_shards(tmp_path)
    path = tmp_path / shard_name("x", "train", 1, 3)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(UserError, match=f"{path.name}: truncated"):
        build_dataset(pattern, 8, 16)
