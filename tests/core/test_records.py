"""Shards without TensorFlow: what one writes the other reads, in both directions, and damage is named."""

import contextlib
import struct

import google_crc32c
import numpy as np
import pytest

from facedancer.core.console import UserError
from facedancer.core.records import (
    FaceRecord,
    RecordWriter,
    count_records,
    encode_record,
    find_shards,
    parse_record,
    read_records,
    shard_name,
)

LANDMARKS = np.linspace(0.5, 200.25, 10, dtype=np.float32).reshape(5, 2)
RECORDS = [
    FaceRecord(b"\x89PNG" + bytes(range(256)) * 3, "anna", LANDMARKS, "anna/1.png"),
    FaceRecord(b"\xff\xd8\xff", "日本 人", None, "日本 人/é 1.jpg"),
    FaceRecord(b""),
    FaceRecord(b"x", "caf\udce9", LANDMARKS, "caf\udce9/1.png"),  # folder names that are no UTF-8 exist
]


def write(path, records):
    with open(path, "wb") as file:
        writer = RecordWriter(file)
        for record in records:
            writer.write(record)


def same(first, second):
    return (
        (first.face, first.identity, first.name) == (second.face, second.identity, second.name)
        and (first.landmarks is None) == (second.landmarks is None)
        and (first.landmarks is None or np.array_equal(first.landmarks, second.landmarks))
    )


@pytest.fixture
def shard(tmp_path):
    write(tmp_path / "x.records", RECORDS)
    return tmp_path / "x.records"


def test_round_trip(shard):
    found = list(read_records(shard))
    assert len(found) == len(RECORDS) and all(map(same, found, RECORDS))
    assert found[0].landmarks.dtype == np.float32 and found[0].landmarks.shape == (5, 2)
    assert count_records([shard, shard]) == 2 * len(RECORDS)


def test_shard_names():
    assert shard_name("vggface2", "train", 3, 10) == "vggface2_train_00003-of-00009.records"


def test_tensorflow_reads_ours(shard):
    import tensorflow as tf

    features = {
        "face": tf.io.FixedLenFeature([], tf.string),
        "identity": tf.io.FixedLenFeature([], tf.string, ""),
        "landmarks": tf.io.FixedLenFeature([10], tf.float32, [0.0] * 10),
        "name": tf.io.FixedLenFeature([], tf.string, ""),
    }
    found = [tf.io.parse_single_example(data, features) for data in tf.data.TFRecordDataset(str(shard))]
    assert [item["face"].numpy() for item in found] == [record.face for record in RECORDS]
    for item, record in zip(found, RECORDS, strict=True):
        assert item["identity"].numpy() == (record.identity or "").encode(errors="surrogateescape")
        assert item["name"].numpy() == (record.name or "").encode(errors="surrogateescape")
        if record.landmarks is not None:
            np.testing.assert_array_equal(item["landmarks"].numpy().reshape(5, 2), record.landmarks)
    example = tf.train.Example.FromString(encode_record(RECORDS[0]))
    assert set(example.features.feature) == {"face", "identity", "landmarks", "name"}


def test_ours_reads_tensorflows(tmp_path):
    """The original's shards hold `face` alone; others may hold features that we do not know."""
    import tensorflow as tf

    def feature(**kind):
        return tf.train.Feature(**kind)

    face = feature(bytes_list=tf.train.BytesList(value=[b"picture"]))
    others = {
        "identity": feature(bytes_list=tf.train.BytesList(value=["Bjørn".encode()])),
        "landmarks": feature(float_list=tf.train.FloatList(value=LANDMARKS.ravel())),
        "age": feature(int64_list=tf.train.Int64List(value=[-7, 1 << 40])),
        "nothing": tf.train.Feature(),
    }
    path = tmp_path / "tf.records"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for features in ({"face": face}, {"face": face, **others}):
            writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
    alone, full = read_records(path)
    assert same(alone, FaceRecord(b"picture"))
    assert same(full, FaceRecord(b"picture", "Bjørn", LANDMARKS))


def test_truncated_shards_are_named(shard):
    content = shard.read_bytes()
    second = 16 + len(encode_record(RECORDS[0]))
    for keep in (1, 11, 13, second - 1, second + 3, second + 14, len(content) - 1):
        shard.write_bytes(content[:keep])
        position = 0 if keep < second else second if keep < second + 15 else None
        with pytest.raises(UserError, match=rf"{shard}: truncated record at byte {position or ''}"):
            list(read_records(shard))
        with pytest.raises(UserError, match="truncated"):
            count_records([shard])


def test_every_flipped_byte_is_found(shard):
    write(shard, RECORDS[1:2])
    content = shard.read_bytes()
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 0x10
        shard.write_bytes(damaged)
        with pytest.raises(UserError, match="damaged record at byte 0"):
            list(read_records(shard))


def test_records_of_something_else_are_named(shard):
    def mask(data):
        crc = google_crc32c.value(data)
        return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)

    for data in (b"", b"no protocol buffer", encode_record(RECORDS[0])[:-40]):
        length = struct.pack("<Q", len(data))
        shard.write_bytes(length + mask(length) + data + mask(data))
        with pytest.raises(UserError, match=f"{shard}: record at byte 0 holds no aligned face"):
            list(read_records(shard))


def test_random_bytes_are_a_value_error():
    generator = np.random.default_rng(0)
    good = encode_record(RECORDS[0])
    for _ in range(500):
        data = bytearray(good)
        for place in generator.integers(0, 40, 2):
            data[place] = generator.integers(256)
        with contextlib.suppress(ValueError, IndexError):
            parse_record(bytes(data))


def test_find_shards(tmp_path):
    for index in (1, 0):
        write(tmp_path / shard_name("x", "train", index, 2), RECORDS)
    found = find_shards(tmp_path / "x_train_*-of-*.records")
    assert [path.rsplit("/", 1)[1] for path in found] == [shard_name("x", "train", i, 2) for i in (0, 1)]
    with pytest.raises(UserError, match=r"no records match .*x_val_\*"):
        find_shards(tmp_path / "x_val_*")


def test_own_source_truth_and_mask_come_back(tmp_path):
    record = FaceRecord(b"face", "anna", source=b"source", truth=b"truth", mask=b"mask")
    assert parse_record(encode_record(record)) == record
    assert parse_record(encode_record(FaceRecord(b"face", source=b"source"))).truth is None
    with pytest.raises(ValueError, match="`truth` without `source`"):
        parse_record(encode_record(FaceRecord(b"face", "anna", truth=b"truth")))
