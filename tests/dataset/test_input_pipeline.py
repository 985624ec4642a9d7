"""Batches: every record once an epoch, pairs as asked for, the same again for the same seed, from either reader."""

import hashlib
import io
import itertools
import os
import struct
import subprocess
import sys
import zlib
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from facedancer.core import records
from facedancer.core.console import UserError
from facedancer.core.images import encode_image
from facedancer.core.records import FaceRecord, RecordWriter, encode_record, shard_name
from facedancer.dataset import pairing
from facedancer.dataset.augment import change_colors, prepare_batch
from facedancer.dataset.input_pipeline import build_dataset, damage_named
from facedancer.dataset.pairing import StreamOptions
from facedancer.dataset.record_loader import iterate_batches

COUNT, PEOPLE = 90, 6


def write_shards(folder, labeled=True):
    """Pictures whose red is their number and whose green their person."""
    for index in range(3):
        with open(folder / shard_name("x", "train", index, 3), "wb") as file:
            writer = RecordWriter(file)
            for number in range(index, COUNT, 3):
                face = np.zeros((16, 16, 3), np.uint8)
                face[..., 0], face[..., 1] = number, 20 * (number % PEOPLE)
                identity = f"person {number % PEOPLE}" if labeled else None
                writer.write(FaceRecord(encode_image(face, ".png"), identity))
    return str(folder / "x_train_*-of-*.records")


def numbers(batch, name):
    return batch[name][:, 5, 5, 0].astype(int)


def batches(pattern, count, **options):
    options = {"augment": False, **options}
    return list(build_dataset(pattern, StreamOptions(8, 16, **options)).take(count).as_numpy_iterator())


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
    monkeypatch.setattr(pairing, "WINDOW", window)
    found = batches(write_shards(tmp_path), 45, same_ratio=0.3)
    target, source = (np.concatenate([numbers(batch, name) for batch in found]) for name in ("target", "source"))
    is_same = np.concatenate([batch["is_same"] for batch in found])
    assert ((target % PEOPLE == source % PEOPLE) == is_same.astype(bool)).all()
    assert all(batch["is_same"].sum() >= 1 for batch in found)
    assert 0.22 < is_same.mean() < 0.38
    # The label allows another picture of the same person.
    assert (target != source).mean() > (0.999 if window > COUNT else 0.95)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
@pytest.mark.parametrize("workers", [1, 3])
def test_the_share_of_same_pairs_holds_at_any_batch_size_and_in_every_worker(batch_size, workers):
    """No batch is further from it than whole numbers are; wherever a run begins, it draws the same."""
    size = 2400 // batch_size * batch_size
    options = StreamOptions(batch_size, 16, seed=7)
    drawn = [pairing.draw_same(0, size, replace(options, worker=(i, workers))) for i in range(workers)]
    assert np.abs(np.mean(drawn, axis=1) - 0.2).max() < 4 * (0.16 / size) ** 0.5
    of_all = sum(one.reshape(-1, batch_size).sum(1) for one in drawn)
    assert {*of_all} <= {int(0.2 * batch_size * workers), int(0.2 * batch_size * workers) + 1}
    for one in range(workers):
        later = pairing.draw_same(1021, 50, replace(options, worker=(one, workers)))
        assert (later == drawn[one][1021:1071]).all()
    assert all((a != b).any() for a, b in itertools.combinations(drawn, 2))
    assert (drawn[0] != pairing.draw_same(0, size, replace(options, worker=(0, workers), seed=8))).any()


@pytest.mark.parametrize("worker", [(0, 1), (1, 3)])
def test_batches_of_one_pair_swap_from_either_reader_and_after_a_start_in_the_middle(tmp_path, worker):
    pattern = write_shards(tmp_path)
    options = StreamOptions(1, 16, seed=2, worker=worker, augment=False)
    later = replace(options, start_step=140)
    found = list(itertools.islice(iterate_batches(pattern, options, processes=0), 300))
    assert 0.1 < np.mean([batch["is_same"][0] for batch in found]) < 0.3
    streams = (
        build_dataset(pattern, later).take(20).as_numpy_iterator(),
        itertools.islice(iterate_batches(pattern, later, processes=0), 20),
    )
    for stream in streams:
        assert_equal(found[140:160], list(stream))


@pytest.mark.parametrize(("ratio", "expected"), [(0.5, [1, 0, 1, 0, 1, 0]), (0.2, [1, 0, 0, 0, 0, 1])])
def test_pairs_of_one_identity_in_whole_batches(tmp_path, monkeypatch, ratio, expected):
    monkeypatch.setattr(pairing, "WINDOW", 20)
    pattern, options = write_shards(tmp_path), {"same_ratio": ratio, "same_batches": True}
    found = batches(pattern, 6, **options)
    assert [batch["is_same"].tolist() for batch in found] == [[value] * len(found[0]["is_same"]) for value in expected]
    for batch in found:
        is_same = numbers(batch, "target") % PEOPLE == numbers(batch, "source") % PEOPLE
        assert (is_same == batch["is_same"].astype(bool)).all()
    others = iterate_batches(pattern, StreamOptions(8, 16, augment=False, **options), processes=0)
    assert_equal(found, list(itertools.islice(others, 6)))


def test_without_labels_a_same_pair_is_the_same_picture(tmp_path):
    found = batches(write_shards(tmp_path, labeled=False), 20)
    for batch in found:
        same = numbers(batch, "target") == numbers(batch, "source")
        assert (same == batch["is_same"].astype(bool)).all()
        assert same.sum() >= 1


@pytest.mark.parametrize("window", [1024, 20])
def test_same_seed_same_batches_and_a_start_in_the_middle(tmp_path, monkeypatch, window):
    monkeypatch.setattr(pairing, "WINDOW", window)
    pattern = write_shards(tmp_path)
    first = batches(pattern, 30, augment=True, seed=5)
    assert_equal(first, batches(pattern, 30, augment=True, seed=5))
    other = batches(pattern, 1, augment=True, seed=6)
    assert not np.array_equal(first[0]["target"], other[0]["target"])
    for start in (7, 26):
        assert_equal(first[start : start + 4], batches(pattern, 4, augment=True, seed=5, start_step=start))


def assert_equal(some, others):
    for a, b in zip(some, others, strict=True):
        assert a.keys() == b.keys()
        assert all(np.array_equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("options", [{}, {"shuffle": False, "augment": True}, {"start_step": 26}, {"worker": (1, 3)}])
def test_the_reader_without_tensorflow_gives_the_same_batches(tmp_path, monkeypatch, options):
    monkeypatch.setattr(pairing, "WINDOW", 20)
    monkeypatch.setattr(pairing, "CYCLE", 2)
    pattern = write_shards(tmp_path)
    options = {"augment": True, "seed": 3, **options}
    loader = iterate_batches(pattern, StreamOptions(8, 16, **options), processes=0)
    assert_equal(batches(pattern, 40, **options), list(itertools.islice(loader, 40)))


def test_worker_processes_give_the_same_batches_and_know_no_tensorflow(tmp_path, repository):
    pattern = write_shards(tmp_path)
    code = (
        "import sys, itertools, hashlib\n"
        "from facedancer.dataset.pairing import StreamOptions\n"
        "from facedancer.dataset.record_loader import iterate_batches\n"
        "if __name__ == '__main__':\n"
        f"    batches = iterate_batches({pattern!r}, StreamOptions(8, 16, seed=4), processes=2)\n"
        "    for batch in itertools.islice(batches, 20):\n"
        "        print(hashlib.sha256(batch['target'].tobytes() + batch['source'].tobytes()).hexdigest())\n"
        "    assert not {'tensorflow', 'keras', 'jax', 'torch'} & set(sys.modules)\n"
    )
    (tmp_path / "script.py").write_text(code)
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py"], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(repository)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = [
        hashlib.sha256(batch["target"].tobytes() + batch["source"].tobytes()).hexdigest()
        for batch in iterate_batches(pattern, StreamOptions(8, 16, seed=4, repeat=False), processes=0)
    ]
    assert done.stdout.split()[: len(expected) - 1] == expected[:-1]


def test_workers_share_the_shards(tmp_path):
    pattern = write_shards(tmp_path)
    found = [
        np.concatenate([numbers(batch, "target") for batch in batches(pattern, 100, repeat=False, worker=(i, 2))])
        for i in range(2)
    ]
    assert sorted(np.concatenate(found)) == list(range(COUNT))
    assert set(found[0]) == {number for number in range(COUNT) if number % 3 in (0, 2)}  # shards 0 and 2
    with pytest.raises(UserError, match="3 shards for 4 workers"):
        batches(pattern, 1, worker=(0, 4))


def test_records_that_carry_their_source_keep_it_with_truth_and_mask(tmp_path):
    """The others are paired, have no truth, and may change anywhere."""
    with open(tmp_path / "pairs.records", "wb") as file:
        writer = RecordWriter(file)
        for number in range(24):
            target, source, truth = (np.full((16, 16, 3), number + 50 * part, np.uint8) for part in range(3))
            own = {}
            if number % 2:
                mask = np.full((16, 16, 3), 100 + number, np.uint8)
                own = {"source": encode_image(source, ".png"), "mask": encode_image(mask, ".png")}
            if number % 4 == 1:
                own["truth"] = encode_image(truth, ".png")
            writer.write(FaceRecord(encode_image(target, ".png"), f"person {number % PEOPLE}", **own))
    options = {"same_ratio": 0.3, "seed": 1}
    pattern = str(tmp_path / "pairs.records")
    found = batches(pattern, 9, **options)
    others = iterate_batches(pattern, StreamOptions(8, 16, augment=False, **options), processes=0)
    assert_equal(found, list(itertools.islice(others, 9)))
    target, source, truth, mask = (np.concatenate([numbers(batch, name) for batch in found])
                                   for name in ("target", "source", "truth", "mask"))  # fmt: skip
    is_same, has_truth = (np.concatenate([batch[name] for batch in found]) for name in ("is_same", "has_truth"))
    own, known = target % 2 == 1, target % 4 == 1
    assert not (own & (is_same == 1)).any() and (is_same[~own] == 1).any()
    assert (source[own] == target[own] + 50).all() and (source[~own] < 50).all()
    assert (has_truth == known).all()
    assert (truth[known] == target[known] + 100).all() and (truth[~known] == 0).all()
    assert (mask[own] == 100 + target[own]).all() and (mask[~own] == 255).all()


@pytest.mark.parametrize("size", [24, 12])
def test_faces_are_resized_alike(tmp_path, size):
    pattern = write_shards(tmp_path)
    batch = next(iter(build_dataset(pattern, StreamOptions(4, size))))
    assert batch["target"].shape == (4, size, size, 3) and batch["target"].dtype == tf.uint8
    other = next(iterate_batches(pattern, StreamOptions(4, size), processes=0))
    assert np.abs(batch["target"].numpy().astype(int) - other["target"]).max() <= 1


def test_colors_alone_change_and_nothing_does_without_augmentation(tmp_path):
    face = np.random.default_rng(0).uniform(0, 1, (2, 8, 8, 3)).astype(np.float32)
    found = np.asarray(change_colors(face, np.array([[0.1, 1.1, 0.9], [0.0, 1.0, 1.0]], np.float32)))
    assert np.abs(found[1] - face[1]).max() < 1e-6
    assert found.min() >= 0 and found.max() <= 1 and np.abs(found[0] - face[0]).max() > 0.05
    expected = tf.image.adjust_saturation(
        tf.clip_by_value(tf.image.adjust_contrast(tf.image.adjust_brightness(face[0], 0.1), 1.1), 0, 1), 0.9
    )
    assert np.abs(found[0] - expected).max() < 1e-5

    batch = batches(write_shards(tmp_path), 1)[0]
    prepared = prepare_batch(batch)
    assert "colors" not in prepared
    assert np.abs(np.asarray(prepared["target"]) - (batch["target"] / 127.5 - 1)).max() < 1e-5


def test_nothing_to_read_is_said(tmp_path):
    with pytest.raises(UserError, match="no records match"):
        build_dataset(str(tmp_path / "none_*.records"), StreamOptions(8, 16))


def test_a_truncated_shard_is_said_before_training_begins(tmp_path):
    pattern = write_shards(tmp_path)
    path = tmp_path / shard_name("x", "train", 1, 3)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(UserError, match=f"{path.name}: truncated"):
        build_dataset(pattern, StreamOptions(8, 16))


def tensorflow_says(pattern):
    with damage_named(pattern):
        return batches(pattern, 100, repeat=False, shuffle=False)


def loader_says(pattern):
    options = StreamOptions(8, 16, repeat=False, shuffle=False, augment=False)
    return list(iterate_batches(pattern, options, processes=0))


def with_sides(height, width):
    """A PNG whose header says another size than it has."""
    content = bytearray(encode_image(np.zeros((16, 16, 3), np.uint8), ".png"))
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


def with_chunk(kind, data, checksum=None):
    """A PNG with a chunk more, behind its header."""
    checksum = checksum or struct.pack(">I", zlib.crc32(kind + data))
    return WHOLE[:33] + struct.pack(">I", len(data)) + kind + data + checksum + WHOLE[33:]


WHOLE = encode_image(np.zeros((16, 16, 3), np.uint8), ".png")


def with_pixels(change, **header):
    """A PNG whose compressed pixels are changed, or a byte of its header, with right checksums."""
    content, pixels = bytearray(WHOLE[:33]), change(WHOLE[41:-16])
    for place, value in header.items():
        content[int(place[1:])] = value
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    chunk = b"IDAT" + pixels
    return bytes(content) + struct.pack(">I", len(pixels)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + WHOLE[-12:]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (FaceRecord(WHOLE[:-30]), "is no picture"),
        (FaceRecord(encode_image(np.zeros((16, 16, 3), np.uint8), ".jpg")[:-200]), "is no picture"),
        (FaceRecord(b"a text"), "its face is neither PNG nor JPEG"),
        (FaceRecord(b"\xff\xd8\xff\xe0"), "a JPEG without a frame"),
        (FaceRecord(encode_image(np.zeros((16, 16, 3), np.uint8), ".gif")), "its face is neither PNG nor JPEG"),
        (FaceRecord(with_sides(60_000, 60_000)), "60000×60000 pixels, aligned faces have up to 4096"),
        (FaceRecord(with_chunk(b"tEXt", b"a\0b", checksum=b"none")), "whose chunk at byte 33 is damaged"),
        (FaceRecord(with_chunk(b"IHDR", WHOLE[16:29])), "a PNG whose chunks are out of order"),
        (FaceRecord(with_chunk(b"ABCD", b"")), "a PNG whose chunks are out of order"),
        (FaceRecord(WHOLE + b"x"), "a PNG with something behind its end"),
        (FaceRecord(with_pixels(bytes, _26=16)), "a PNG of an unknown kind"),
        (FaceRecord(with_pixels(bytes, _28=2)), "a PNG of an unknown kind"),
        (FaceRecord(with_pixels(lambda pixels: pixels[:-1])), "is no picture"),
        (FaceRecord(with_pixels(lambda pixels: pixels[:-4] + bytes(4))), "is no picture"),
        (FaceRecord(with_sides(0, 16)), "pixels, aligned faces have up to 4096"),
        (FaceRecord(WHOLE, mask=b"a text"), "its mask is neither PNG nor JPEG"),
        (FaceRecord(WHOLE, source=WHOLE, truth=WHOLE[:40]), "is no picture"),
        (encode_record(FaceRecord(WHOLE))[:-1], "holds no aligned face"),
        (encode_record(FaceRecord(WHOLE)).replace(b"face", b"f\xff\xfee"), "holds no aligned face"),
        (b"", "holds no aligned face"),
        (bytes(40), "holds no aligned face"),
    ],
)
def test_both_readers_say_which_record_is_damaged_and_how(tmp_path, monkeypatch, record, reason):
    path = tmp_path / shard_name("x", "train", 0, 1)
    with open(path, "wb") as file:
        writer = RecordWriter(file)
        writer.write(FaceRecord(WHOLE, "anna"))
        place = file.tell()
        if isinstance(record, bytes):
            monkeypatch.setattr(records, "encode_record", lambda data: data)
        writer.write(record)
        monkeypatch.undo()
        writer.write(FaceRecord(WHOLE, "bert"))
    said = []
    for read in (tensorflow_says, loader_says):
        with pytest.raises(UserError) as caught:
            read(str(path))
        said.append(str(caught.value))
    for text in said:
        assert text.startswith(str(path)) and f"at byte {place}" in text and reason in text and "\n" not in text


def test_both_readers_look_at_pixels_alone(tmp_path):
    """A damaged profile, half of an animation, an orientation: one decoder would mind them, the other not."""
    face = np.arange(768, dtype=np.uint8).reshape(16, 16, 3)
    odd = Image.Exif()
    odd[0x112] = 6
    file = io.BytesIO()
    Image.fromarray(face).save(file, "JPEG", quality=100, exif=odd.tobytes(), comment=b"a text")
    path = tmp_path / shard_name("x", "train", 0, 1)
    with open(path, "wb") as shard:
        for encoded in (
            file.getvalue(), with_chunk(b"iCCP", b"x"), with_chunk(b"fdAT", bytes(8)), with_chunk(b"gAMA", b""),
        ):  # fmt: skip
            RecordWriter(shard).write(FaceRecord(encoded))
    (ours,), (theirs,) = loader_says(str(path)), tensorflow_says(str(path))
    for batch in (ours, theirs):
        assert np.abs(batch["target"][0].astype(int) - face).mean() < 30  # as it is stored, not turned
    np.testing.assert_array_equal(ours["target"][1:], theirs["target"][1:])


def test_errors_that_are_not_of_the_data_stay(tmp_path):
    with pytest.raises(tf.errors.InvalidArgumentError), damage_named(write_shards(tmp_path)):
        tf.reshape(tf.zeros(3), (2, 2))
