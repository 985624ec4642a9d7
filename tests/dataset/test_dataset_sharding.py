"""Every aligned face is in the shards once, with its identity and landmarks; shards are whole or absent."""

import os
import signal
import subprocess
import sys
import textwrap
import tracemalloc
from itertools import groupby

import numpy as np
import pytest
from drawn_faces import draw_face, write_dataset
from PIL import Image

from facedancer.core.console import UserError
from facedancer.core.files import Journal
from facedancer.core.images import decode_image, encode_image, read_image, write_image
from facedancer.core.records import find_shards, read_records
from facedancer.dataset.dataset_sharding import identity_of, main, shard_dataset, split_names


@pytest.fixture
def people(tmp_path):
    write_dataset(tmp_path / "data", 5, 6, 16)
    return tmp_path / "data"


def read(target, kind="train"):
    return [record for shard in find_shards(target / f"*_{kind}_*-of-*.records") for record in read_records(shard)]


def contents(target):
    return {path.name: path.read_bytes() for path in target.iterdir()}


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("num_shards", [1, 7, 30])
def test_every_picture_once(tmp_path, people, shuffle, num_shards):
    target = tmp_path / "shards"
    written, refused = shard_dataset(people, target, "faces", shuffle=shuffle, num_shards=num_shards)
    assert (written, refused) == ({"train": 30}, {})
    shards = find_shards(target / f"faces_train_*-of-{num_shards - 1:05d}.records")
    sizes = [len(list(read_records(shard))) for shard in shards]
    assert len(sizes) == num_shards == len(list(target.iterdir()))
    assert max(sizes) - min(sizes) <= 1
    records = read(target)
    files = sorted(path.relative_to(people).as_posix() for path in people.rglob("*.png"))
    assert (sorted if shuffle else list)(record.name for record in records) == files
    if shuffle:
        assert [record.name for record in records] != files
    for record in records:
        assert record.face == (people / record.name).read_bytes()
        assert record.identity == record.name.rpartition("/")[0]
        assert record.landmarks is None


def test_equal_seeds_give_equal_shards(tmp_path, people):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        shard_dataset(people, tmp_path / name, num_shards=4, validation_fraction=0.4, seed=seed)
    a, b, c = (contents(tmp_path / name) for name in "abc")
    assert a == b
    assert a.keys() == c.keys() and a != c


def test_landmarks_come_from_the_manifest(tmp_path, people):
    rows = {f"person_00/{i:02d}.png": np.arange(10).reshape(5, 2) + i / 4 for i in range(3)}
    with Journal(people / "manifest.jsonl") as journal:
        for name, points in rows.items():
            journal.append({"file": "x.jpg", "faces": [{"file": name, "aligned_landmarks": points.tolist()}]})
        journal.append({"file": "gone.jpg", "faces": [{"file": "gone.png", "aligned_landmarks": [[0, 0]] * 5}]})
        journal.append({"file": "dark.jpg", "faces": [], "refused": "no face"})
    (people / "settings.json").write_text("{}")
    with open(people / "manifest.jsonl", "a") as file:
        file.write('{"file": "torn')
    written, refused = shard_dataset(people, tmp_path / "shards")
    assert (written, refused) == ({"train": 30}, {})
    for record in read(tmp_path / "shards"):
        if record.name in rows:
            np.testing.assert_array_equal(record.landmarks, rows[record.name].astype(np.float32))
        else:
            assert record.landmarks is None


def test_validation_keeps_people_apart(tmp_path, people):
    written, _ = shard_dataset(people, tmp_path / "s", num_shards=8, validation_fraction=0.4, validation_type="test")
    assert written == {"train": 18, "test": 12}
    train, test = read(tmp_path / "s"), read(tmp_path / "s", "test")
    assert not {record.identity for record in train} & {record.identity for record in test}
    assert len({record.name for record in train + test}) == 30
    assert len(find_shards(tmp_path / "s" / "vggface2_test_*")) == 5  # 8 shards for 18 pictures, 5 for 12


@pytest.mark.parametrize("fraction", [0.1, 0.5])
def test_one_person_less_leaves_the_others_on_their_side(fraction):
    """So that nobody who is held out was trained on before the data changed a little."""
    names = [f"p{number}/{picture}.png" for number in range(95) for picture in "ab"]
    before = split_names(names, "train", fraction, "val", 0)
    assert before["val"] != split_names(names, "train", fraction, "val", 1)["val"]
    for gone in ("p0", "p47", "p94"):
        kept = [name for name in names if identity_of(name) != gone]
        after = split_names(kept, "train", fraction, "val", 0)
        moved = {name for part in after for name in set(after[part]) - set(before[part])}
        assert len({identity_of(name) for name in moved}) <= 1


def test_a_small_fraction_is_one_person(tmp_path, people):
    written, _ = shard_dataset(people, tmp_path / "s", validation_fraction=0.01)
    assert written == {"train": 24, "val": 6}


def test_the_number_of_shards_fits_the_data(tmp_path):
    content = encode_image(draw_face(0, 16), ".png")
    (tmp_path / "data").mkdir()
    for number in range(600):
        (tmp_path / "data" / f"{number}.png").write_bytes(content)
    shard_dataset(tmp_path / "data", tmp_path / "s")
    assert sorted(contents(tmp_path / "s")) == [f"vggface2_train_0000{i}-of-00001.records" for i in (0, 1)]


def test_identities_are_folders():
    assert identity_of("anna/1.png") == "anna"
    assert identity_of("film a/anna/1.png") == "film a/anna"
    assert identity_of("1.png") is None


def test_a_flat_folder_has_no_identities(tmp_path):
    """Pictures of nobody knows whom: each may be another person, and is one in the split, too."""
    for seed in range(6):
        write_image(tmp_path / "data" / f"{seed}.png", draw_face(seed, 16))
    written, _ = shard_dataset(tmp_path / "data", tmp_path / "s", validation_fraction=0.5)
    assert written == {"train": 3, "val": 3}
    assert {record.identity for record in read(tmp_path / "s")} == {None}


def test_people_are_mixed_in_runs(tmp_path):
    """Pictures of one person come in eights, so that a window of the stream holds partners; the eights are mixed."""
    content = encode_image(draw_face(0, 16), ".png")
    for number in range(800):
        path = tmp_path / "data" / f"person {number // 16}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    shard_dataset(tmp_path / "data", tmp_path / "s", num_shards=1)
    records = read(tmp_path / "s")
    runs = [(identity, len(list(run))) for identity, run in groupby(records, key=lambda record: record.identity)]
    assert {length for _, length in runs} <= {8, 16} and len(runs) > 85
    order = [int(identity.split()[1]) for identity, _ in runs]
    assert abs(np.corrcoef(order, range(len(order)))[0, 1]) < 0.4


def test_what_is_no_aligned_face_is_left_out(tmp_path, people):
    (people / "person_00" / "text.png").write_text("no picture")
    (people / "person_00" / "notes.txt").write_text("no picture")
    (people / "person_01" / "cut.png").write_bytes((people / "person_01" / "00.png").read_bytes()[:300])
    write_image(people / "wide.png", draw_face(0, 32)[:20])
    written, refused = shard_dataset(people, tmp_path / "s", num_shards=3)
    assert written == {"train": 30}
    assert refused == {"not a picture": 1, "no picture by its suffix": 1, "damaged picture": 1, "not square": 1}
    assert len(read(tmp_path / "s")) == 30


def test_tensorflow_sees_every_face_as_we_do(tmp_path):
    """Formats that its decoder does not know, or reads otherwise, are recorded as PNG; others byte for byte."""
    import tensorflow as tf

    face = Image.fromarray(draw_face(2, 24))
    exif = Image.Exif()
    exif[0x0112] = 6
    sixteen = np.asarray(face.convert("L")).astype(np.uint16) * 257
    for name, picture, options in (
        ("plain.png", face, {}),
        ("gray.png", face.convert("L"), {}),
        ("alpha.png", face.convert("RGBA"), {}),
        ("palette.png", face.convert("P"), {}),
        ("sixteen.png", Image.fromarray(sixteen), {}),
        ("plain.jpg", face, {"subsampling": 0}),
        ("turned.jpg", face, {"exif": exif, "subsampling": 0}),
        ("inks.jpg", face.convert("CMYK"), {}),
        ("web.webp", face, {}),
        ("bits.bmp", face, {}),
        ("scan.tiff", face, {}),
    ):
        path = tmp_path / "data" / "anna" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, **options)
    written, refused = shard_dataset(tmp_path / "data", tmp_path / "s", num_shards=1)
    assert (written.total(), refused) == (11, {})
    for record in read(tmp_path / "s"):
        path = tmp_path / "data" / record.name
        ours = read_image(path)
        theirs = tf.io.decode_image(record.face, channels=3, expand_animations=False).numpy()
        np.testing.assert_array_equal(decode_image(record.face), ours)
        assert np.abs(theirs.astype(int) - ours).max() <= 4, record.name  # two JPEG decoders round differently
        if path.name.startswith(("plain", "gray")):
            assert record.face == path.read_bytes()


def test_stale_shards_are_refused(tmp_path, people):
    """Shards of another number would match the same glob, and faces would be read twice."""
    target = tmp_path / "s"
    shard_dataset(people, target, "x", num_shards=3)
    before = contents(target)
    with pytest.raises(UserError, match=r"holds x_train_00000-of-00002\.records of an earlier run"):
        shard_dataset(people, target, "x", num_shards=4)
    assert contents(target) == before
    shard_dataset(people, target, "x", num_shards=3, seed=5)  # of the same number: replaced
    assert contents(target).keys() == before.keys() and contents(target) != before
    shard_dataset(people, target, "y", num_shards=4)
    shard_dataset(people, target, "x", "test", num_shards=4)
    assert len(contents(target)) == 3 + 4 + 4


def test_a_killed_run_leaves_no_shards(tmp_path, people):
    target = tmp_path / "s"
    code = f"""
        import os, signal
        from facedancer.core import records
        from facedancer.dataset import dataset_sharding

        class Killed(records.RecordWriter):
            written = 0

            def write(self, record):
                Killed.written += 1
                if Killed.written == 20:
                    os.kill(os.getpid(), signal.SIGKILL)
                super().write(record)

        dataset_sharding.RecordWriter = Killed
        dataset_sharding.shard_dataset({str(people)!r}, {str(target)!r}, num_shards=3)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)])
    assert done.returncode == -signal.SIGKILL
    assert sorted(path.name for path in target.iterdir()) == [".partial-vggface2_train", ".vggface2_train.lock"]
    shard_dataset(people, target, num_shards=3)
    assert len(read(target)) == 30 and len(contents(target)) == 3


def test_a_failed_run_leaves_nothing(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.png").write_text("no picture")
    write_image(tmp_path / "data" / "b.png", draw_face(0, 32)[:20])
    with pytest.raises(UserError, match=r"holds no aligned faces \(not a picture 1, not square 1\)"):
        shard_dataset(tmp_path / "data", tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_memory_does_not_grow(tmp_path):
    """300 pictures of 100 kB pass through a few megabytes."""
    noise = np.random.default_rng(0).integers(0, 256, (300, 186, 186, 3), dtype=np.uint8)
    (tmp_path / "data").mkdir()
    for number, face in enumerate(noise):
        (tmp_path / "data" / f"{number}.png").write_bytes(encode_image(face, ".png"))
    del noise
    tracemalloc.start()
    shard_dataset(tmp_path / "data", tmp_path / "s")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(map(len, contents(tmp_path / "s").values())) > 30_000_000
    assert peak < 10_000_000


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"num_shards": 31}, "--num_shards 31: there are 30 pictures"),
        ({"num_shards": 0}, "--num_shards 0"),
        ({"validation_fraction": 1.0}, "--validation_fraction 1.0"),
        ({"validation_fraction": 0.5, "validation_type": "train"}, "--validation_type train"),
        ({"data_name": "a/b"}, "is no file name"),
    ],
)
def test_senseless_options(tmp_path, people, options, text):
    with pytest.raises(UserError, match=text):
        shard_dataset(people, tmp_path / "s", **options)
    assert not (tmp_path / "s").exists()


def test_masks_lie_under_the_same_names(tmp_path, people):
    """Gray ones are white in the face, colored ones show its parts; who has none is left out."""
    names = sorted(path.relative_to(people) for path in people.rglob("*.png"))
    gray, colored = np.zeros((2, 32, 32, 3), np.uint8)
    gray[8:] = 200
    colored[:, :8], colored[:, 8:20], colored[:, 20:] = (0, 0, 204), (204, 0, 0), (51, 51, 255)  # hair, skin, an eye
    masks = tmp_path / "masks"
    for name, mask in zip(names[:2], (gray, colored), strict=True):
        (masks / name).parent.mkdir(parents=True, exist_ok=True)
        write_image((masks / name).with_suffix(".bmp"), mask)
    flags = ["--data_dir", str(people), "--target_dir", str(tmp_path / "s"), "--shuffle", "False"]
    assert main([*flags, "--mask_dir", str(masks)]) in (0, None)
    records = read(tmp_path / "s")
    assert [record.name for record in records] == [name.as_posix() for name in names[:2]]
    found = [decode_image(record.mask)[..., 0] for record in records]
    size = len(found[0])
    assert size == len(decode_image(records[0].face))
    rows, columns = np.mgrid[:size, :size] * 32 // size
    np.testing.assert_array_equal(found[0], 255 * (rows >= 8))
    np.testing.assert_array_equal(found[1], 255 * (columns >= 8))


def test_empty_and_absent_folders(tmp_path):
    with pytest.raises(UserError, match="cannot read the folder"):
        shard_dataset(tmp_path / "none", tmp_path / "s")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no pictures"):
        shard_dataset(tmp_path / "empty", tmp_path / "s")
    write_image(tmp_path / "one" / "anna" / "1.png", draw_face(0, 16))
    with pytest.raises(UserError, match="one identity alone"):
        shard_dataset(tmp_path / "one", tmp_path / "s", validation_fraction=0.5)


def test_a_manifest_that_is_none(tmp_path, people):
    (people / "manifest.jsonl").write_text("nonsense\n")
    with pytest.raises(UserError, match=r"manifest\.jsonl, line 1: not JSON"):
        shard_dataset(people, tmp_path / "s")


def test_the_command(tmp_path, people, repository):
    """As a person runs it, from another folder."""
    (people / "notes.txt").write_text("")
    command = [sys.executable, repository / "dataset" / "dataset_sharding.py", "--data_dir", "data"]
    command += ["--target_dir", "made/shards", "--data_name", "drawn", "--shuffle", "False", "--num_shards", "2"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "wrote 30 of 31 files: train 30; left out 1: no picture by its suffix 1\n"
    records = read(tmp_path / "made" / "shards")
    assert [record.name for record in records] == sorted(record.name for record in records)
    done = subprocess.run([*command, "--num_shards", "1000"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("error: --num_shards 1000: ")


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, people):
    """The limit on a file's size stands for a full disk."""
    code = f"""
        import resource
        from facedancer.dataset.dataset_sharding import main
        resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))
        raise SystemExit(main(["--data_dir", {str(people)!r}, "--target_dir", {str(tmp_path / "s")!r}]))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path / 's'}: File too large; ") and done.stderr.count("\n") == 1
    assert not (tmp_path / "s").exists()


def test_no_tensorflow(tmp_path, people):
    code = f"""
        import sys
        from facedancer.dataset.dataset_sharding import main
        assert main(["--data_dir", {str(people)!r}, "--target_dir", {str(tmp_path / "s")!r}]) == 0
        assert not {{"tensorflow", "keras"}} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_names_that_are_no_utf8(tmp_path):
    folder = os.fsencode(tmp_path / "data") + b"/caf\xe9"
    os.makedirs(folder)
    with open(folder + b"/\xff.png", "wb") as file:
        file.write(encode_image(draw_face(0, 16), ".png"))
    assert main(["--data_dir", str(tmp_path / "data"), "--target_dir", str(tmp_path / "s")]) == 0
    (record,) = read(tmp_path / "s")
    assert record.identity.encode(errors="surrogateescape") == b"caf\xe9"
