"""Triplets of portraits: what a record holds, who is seen in it, and that shards come out the same in any way.

The portraits are color fields, with the mean face's landmarks: what is drawn where is known without a network.
"""

import json
from dataclasses import asdict

import cv2
import numpy as np
import pytest

from facedancer.core.alignment import landmark_template
from facedancer.core.console import UserError
from facedancer.core.images import decode_image, write_image
from facedancer.core.records import read_records
from facedancer.dataset import triplet_records
from facedancer.dataset.crop_align import MANIFEST_NAME, SETTINGS_NAME, AlignSettings
from facedancer.dataset.triplets import CANVAS_SIZE, DRAWN, FACE_SIZE, SHRINK_FACTOR, main, write_triplets
from facedancer.face_parts import drawing
from facedancer.face_parts.dense_landmarks import load_mean_face

PEOPLE = 12


def mean_points():
    points = load_mean_face()[:, :2]
    return np.float32((points - points.mean(0)) * (90 / np.ptp(points[:, 1])) + CANVAS_SIZE / 2)


@pytest.fixture(scope="module")
def portraits(tmp_path_factory):
    """A folder as `crop_align` writes it, and what is known of it, as `find_portraits` does."""
    folder = tmp_path_factory.mktemp("portraits")
    rng = np.random.default_rng(0)
    names = [f"{person:02d}/0.png" for person in range(PEOPLE)]
    for name in names:
        coarse = rng.integers(20, 236, (8, 8, 3), dtype=np.uint8)
        write_image(folder / name, cv2.resize(coarse, (CANVAS_SIZE, CANVAS_SIZE), interpolation=cv2.INTER_CUBIC))
    settings = AlignSettings("there", CANVAS_SIZE, 64, SHRINK_FACTOR, "largest", 0.5, "png")
    (folder / SETTINGS_NAME).write_text(json.dumps(asdict(settings)))
    points = landmark_template(CANVAS_SIZE).tolist()
    lines = [{"file": name, "faces": [{"file": name, "aligned_landmarks": points}]} for name in names]
    (folder / MANIFEST_NAME).write_text("".join(json.dumps(line) + "\n" for line in lines))
    points = mean_points() + rng.normal(0, 1.5, (PEOPLE, 1, 2)) + rng.normal(0, 0.3, (PEOPLE, 468, 2))
    known = {
        "names": np.array(names),
        "points": points.astype(np.float32),
        "shown": np.full((PEOPLE, 128, 128), 255, np.uint8),
        "triangles": drawing.triangulate(mean_points()),
    }
    return folder, known


def make(portraits, target, **options):
    folder, known = portraits
    target.mkdir(exist_ok=True)
    if not (target / "x.landmarks.npz").exists():
        np.savez(target / "x.landmarks.npz", **known)
    options = {"count": 40, "validation_count": 20, "validation_fraction": 0.25, "workers": 1, **options}
    return write_triplets(folder, target, "x", **options)


def read(target, part):
    return [record for path in sorted(target.glob(f"x_{part}_*")) for record in read_records(path)]


@pytest.fixture(scope="module")
def shards(portraits, tmp_path_factory):
    target = tmp_path_factory.mktemp("shards")
    assert make(portraits, target) == {"train": 40, "val": 20}
    return target


def test_records_have_what_a_swapper_learns_from(shards):
    records = read(shards, "train")
    assert len(records) == 40
    for record in records:
        target, source, mask = (decode_image(part) for part in (record.face, record.source, record.mask))
        assert target.shape == source.shape == mask.shape == (FACE_SIZE, FACE_SIZE, 3)
        assert set(np.unique(mask)) == {0, 255} and 0.2 < (mask > 0).mean() < 0.9
        if record.truth is not None:
            apart = np.abs(decode_image(record.truth).astype(int) - target).max(-1)
            # Beyond the mask only what bending drags along, and compression.
            assert np.percentile(apart[mask[..., 0] == 0], 95) < 12
    drawn = [record for record in records if record.truth is not None and DRAWN in record.name]
    apart = [np.abs(decode_image(r.truth).astype(int) - decode_image(r.face)).mean() for r in drawn]
    assert len(drawn) > 15 and np.median(apart) > 2
    assert any(record.truth is None for record in records) and any(record.truth == record.face for record in records)


def test_people_for_validation_are_seen_nowhere_else(shards, portraits, tmp_path):
    seen = {}
    for part in ("train", "val"):
        names = [name for record in read(shards, part) for name in record.name.split(DRAWN)]
        seen[part] = {name.split("/")[0] for name in names}
        seen[part] |= {record.identity for record in read(shards, part) if record.identity}
    assert len(seen["val"]) == 3 and not seen["train"] & seen["val"]
    # And another seed draws other triplets of the same people.
    make(portraits, tmp_path, seed=1, count=1)
    other = {name.split("/")[0] for record in read(tmp_path, "val") for name in record.name.split(DRAWN)}
    assert other == seen["val"]
    assert (next(tmp_path.glob("x_val_*"))).read_bytes() != (next(shards.glob("x_val_*"))).read_bytes()


def test_an_interrupted_run_goes_on_and_gives_the_same(shards, portraits, tmp_path, monkeypatch):
    monkeypatch.setattr("facedancer.dataset.triplets.RECORDS_A_SHARD", 16)  # in this process: the split into shards
    make(portraits, tmp_path, workers=2)
    names = sorted(path.name for path in tmp_path.glob("*.records"))
    assert len(names) == 3 + 2
    before = {name: (tmp_path / name).read_bytes() for name in names}
    (tmp_path / names[1]).unlink()
    kept = (tmp_path / names[0]).stat().st_mtime_ns
    make(portraits, tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in names} == before
    assert (tmp_path / names[0]).stat().st_mtime_ns == kept
    assert [r.face for r in read(tmp_path, "train")][:16] == [r.face for r in read(shards, "train")][:16]


def test_what_cannot_be_made_is_said_in_one_line(portraits, tmp_path, capsys):
    folder, _ = portraits
    make(portraits, tmp_path)
    with pytest.raises(UserError, match="other settings"):
        make(portraits, tmp_path, seed=5)
    with pytest.raises(UserError, match="--validation_fraction"):
        make(portraits, tmp_path / "b", validation_fraction=0.05)
    (tmp_path / "y.landmarks.npz").write_bytes(b"PK rubbish")
    with pytest.raises(UserError, match="is damaged; remove it"):
        triplet_records.read_portraits(folder, tmp_path / "y.landmarks.npz")
    assert main(["--data_dir", str(tmp_path), "--target_dir", str(tmp_path / "c")]) == 2
    assert "crop_align did not write it" in capsys.readouterr().err
    assert main(["--data_dir", str(folder), "--target_dir", str(tmp_path / "c"), "--count", "0"]) == 2
    assert "--count 0: give at least 1" in capsys.readouterr().err


def test_tight_faces_are_refused(tmp_path):
    settings = AlignSettings("there", 128, 64, 1.0, "largest", 0.5, "png")
    (tmp_path / SETTINGS_NAME).write_text(json.dumps(asdict(settings)))
    with pytest.raises(UserError, match=r"align with crop_align --im_size 192 --shrink_factor 0.6667"):
        write_triplets(tmp_path, tmp_path / "out")
