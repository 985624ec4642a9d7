"""Pictures of every kind become aligned faces or a reason; a killed run goes on; threads change nothing."""

import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from drawn_faces import draw_face, write_dataset
from PIL import Image

from facedancer.core.alignment import landmark_template, transform_points, warp_to_aligned
from facedancer.core.console import UserError
from facedancer.core.images import read_image, write_image
from facedancer.dataset import crop_align as module
from facedancer.dataset.crop_align import AlignSettings, crop_align, main, read_manifest, submit_ahead, summarize
from facedancer.retinaface import DetectedFace


class FakeDetector:
    """Finds a face of half the picture's size, a smaller one of a higher score left above it; none in dark pictures."""

    def detect(self, images):
        return [self._find(image) for image in images]

    def _find(self, image):
        if image.mean() < 8:
            return []
        side = min(image.shape[:2])
        turn = [[0.98, 0.17], [-0.17, 0.98]]
        large = side / 4 + landmark_template(side / 2) @ turn
        small = landmark_template(side / 4)
        return [self._face(small, 0.9, side / 4), self._face(large, 0.8, side / 2)]

    def _face(self, landmarks, score, side):
        low = landmarks.min(0)
        box = np.array([*low, *low + side], np.float32)
        return DetectedFace(box, landmarks.astype(np.float32), score)


def settings_for(folder, **changes):
    return replace(AlignSettings(str(folder), image_size=32, min_size=48), **changes)


def align(folder, target, workers=2, detector=FakeDetector, **changes):
    return crop_align(settings_for(folder, **changes), target, detector, workers)


def tree(folder):
    """Every file's content by name, also of hidden files."""
    files = (path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def manifest(target):
    lines = (target / "manifest.jsonl").read_text(errors="surrogateescape").splitlines()
    assert len(list(read_manifest(target / "manifest.jsonl"))) == len(lines)
    return {entry["file"]: entry for entry in map(json.loads, lines)}


@pytest.fixture
def people(tmp_path):
    write_dataset(tmp_path / "data", 2, 3, 64)
    return tmp_path / "data"


def write_odd_files(folder):
    """Writes pictures of every kind and returns name -> None, or why it is refused."""
    face = Image.fromarray(draw_face(1, 64))
    wide = Image.fromarray(np.concatenate([draw_face(1, 64), draw_face(2, 64)], axis=1))
    exif = Image.Exif()
    exif[0x0112] = 6
    files = {
        "gray.png": (face.convert("L"), {}, None),
        "alpha.png": (face.convert("RGBA"), {}, None),
        "palette.png": (face.convert("P"), {}, None),
        "16 bit.png": (Image.fromarray(np.asarray(face.convert("L")).astype(np.uint16) * 257), {}, None),
        "deep/er/turned.jpg": (wide, {"exif": exif}, None),
        "日本 語/é.JPG": (face, {}, None),
        "web.webp": (face, {}, None),
        "a b.tiff": (wide, {}, None),
        "large enough.bmp": (face.resize((48, 90)), {}, None),
        "small.png": (face.resize((47, 90)), {}, "too small (47x90)"),
        "dark.png": (Image.new("RGB", (64, 64)), {}, "no face"),
    }
    for name, (picture, options, _) in files.items():
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, **options)
    content = io.BytesIO()
    face.save(content, "PNG")
    Path(folder, "cut.png").write_bytes(content.getvalue()[:-900])
    Path(folder, "text.jpg").write_text("no picture")
    Path(folder, "notes.txt").write_text("no picture")
    Path(folder, ".DS_Store").write_text("not seen")
    reasons = {name: reason for name, (_, _, reason) in files.items()}
    return reasons | {
        "cut.png": "damaged picture",
        "text.jpg": "not a picture",
        "notes.txt": "not a picture",
    }


def test_every_kind_of_file(tmp_path):
    reasons = write_odd_files(tmp_path / "data")
    target = tmp_path / "aligned"
    counts = align(tmp_path / "data", target)
    entries = manifest(target)
    assert entries.keys() == reasons.keys()
    for name, reason in reasons.items():
        entry = entries[name]
        if reason is None:
            assert entry["refused"] is None
            (face,) = entry["faces"]
            assert face["file"] == os.path.splitext(name)[0] + ".png"
            assert read_image(target / face["file"]).shape == (32, 32, 3)
        else:
            assert entry["refused"].startswith(reason) and entry["faces"] == []
    assert (entries["deep/er/turned.jpg"]["width"], entries["deep/er/turned.jpg"]["height"]) == (64, 128)
    assert counts[None] == 9 and counts.total() == 14
    assert counts["too small"] == counts["damaged picture"] == counts["no face"] == 1 and counts["not a picture"] == 2
    assert summarize(counts).startswith("aligned 9 of 14 pictures; refused 5: ")
    pictures = {name for name in tree(target) if name.endswith(".png")}
    assert pictures == {face["file"] for entry in entries.values() for face in entry["faces"]}


def test_the_manifest_tells_the_crop(tmp_path, people):
    """Matrix, landmarks and picture agree, and the landmarks are on the template."""
    target = tmp_path / "aligned"
    align(people, target, shrink_factor=0.8)
    for entry in manifest(target).values():
        (face,) = entry["faces"]
        matrix = np.array(face["frame_to_aligned"])
        image = read_image(people / entry["file"])
        assert (entry["height"], entry["width"]) == image.shape[:2]
        np.testing.assert_allclose(
            transform_points(matrix, face["landmarks"]), landmark_template(32, 0.8), atol=0.02
        )  # the fake landmarks are a turned template
        np.testing.assert_allclose(face["aligned_landmarks"], landmark_template(32, 0.8), atol=0.02)
        np.testing.assert_array_equal(warp_to_aligned(image, matrix, 32), read_image(target / face["file"]))
        assert face["score"] == 0.8 and len(face["bounding_box"]) == 4


def test_largest_or_all(tmp_path, people):
    align(people, tmp_path / "one")
    assert [face["score"] for face in manifest(tmp_path / "one")["person_00/00.png"]["faces"]] == [0.8]
    align(people, tmp_path / "all", faces="all", format="jpg")
    faces = manifest(tmp_path / "all")["person_00/00.png"]["faces"]
    assert [(face["file"], face["score"]) for face in faces] == [
        ("person_00/00_1.jpg", 0.9),
        ("person_00/00_2.jpg", 0.8),
    ]
    assert len([name for name in tree(tmp_path / "all") if name.endswith(".jpg")]) == 12


def test_no_two_pictures_share_an_output(tmp_path):
    names = ["a.jpg", "a.png", "a.jpg.png", "b.png", "b_1.png", "x/a.png"]
    for seed, name in enumerate(names):
        write_image(tmp_path / "data" / name, draw_face(seed, 64))
    for which in ("largest", "all"):
        target = tmp_path / which
        align(tmp_path / "data", target, faces=which)
        outputs = [face["file"] for entry in manifest(target).values() for face in entry["faces"]]
        assert len(outputs) == len(set(outputs)) == len(names) * (1 if which == "largest" else 2)
        assert all((target / name).is_file() for name in outputs)
    entries = manifest(tmp_path / "largest")
    assert entries["a.jpg"]["faces"][0]["file"] == "a.jpg.png"
    assert entries["x/a.png"]["faces"][0]["file"] == "x/a.png"


def test_a_flat_folder(tmp_path):
    for seed in range(3):
        write_image(tmp_path / "data" / f"{seed}.png", draw_face(seed, 64))
    align(tmp_path / "data", tmp_path / "aligned")
    assert {"0.png", "1.png", "2.png"} < tree(tmp_path / "aligned").keys()


def test_threads_change_nothing(tmp_path):
    write_odd_files(tmp_path / "data")
    write_dataset(tmp_path / "data", 4, 6, 64)
    for workers in (1, 5):
        align(tmp_path / "data", tmp_path / str(workers), workers)
    assert tree(tmp_path / "1") == tree(tmp_path / "5")


def test_the_manifest_is_sorted_by_file(tmp_path):
    for name in ("b/1.png", "a/2.png", "a.png", "a b/1.png", "a/10.png"):
        write_image(tmp_path / "data" / name, draw_face(0, 64))
    align(tmp_path / "data", tmp_path / "aligned")
    names = list(manifest(tmp_path / "aligned"))
    assert names == ["a/10.png", "a/2.png", "a b/1.png", "a.png", "b/1.png"]


def test_a_killed_run_goes_on(tmp_path, monkeypatch):
    """Killed in the third batch, with its threads in the middle of their work; then everything is as in one run."""
    write_dataset(tmp_path / "data", 8, 6, 64)
    target = tmp_path / "killed"
    code = f"""
        import os, signal, sys
        sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[1])]!r}
        from test_crop_align import FakeDetector, align

        class Killed(FakeDetector):
            calls = 0

            def detect(self, images):
                self.calls += 1
                if self.calls == 3:
                    os.kill(os.getpid(), signal.SIGKILL)
                return super().detect(images)

        align({str(tmp_path / "data")!r}, {str(target)!r}, detector=Killed)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)])
    assert done.returncode == -signal.SIGKILL
    before = len(list(read_manifest(target / "manifest.jsonl")))
    assert 16 <= before < 48
    with open(target / "manifest.jsonl", "ab") as file:
        file.write(b'{"file": "person_')  # a line torn by the kill
    (target / "person_00" / ".partial-abc.png").write_bytes(b"half a picture")

    seen = []

    class Counting(FakeDetector):
        def detect(self, images):
            seen.extend(images)
            return super().detect(images)

    counts = align(tmp_path / "data", target, detector=Counting)
    assert len(seen) == 48 - before
    assert counts == {None: 48}
    align(tmp_path / "data", tmp_path / "whole")
    assert tree(target) == tree(tmp_path / "whole")


def test_lost_outputs_and_new_pictures_are_made(tmp_path, people):
    target = tmp_path / "aligned"
    align(people, target)
    whole = tree(target)
    (target / "person_00" / "01.png").unlink()
    write_image(people / "person_00" / "new.png", draw_face(0, 64, 9))
    assert align(people, target) == {None: 7}
    again = tree(target)
    assert again.pop("person_00/new.png")
    assert again.keys() == whole.keys()
    assert again["person_00/01.png"] == whole["person_00/01.png"]
    names = list(manifest(target))
    assert names == sorted(names) and len(names) == 7


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"image_size": 64}, "image_size 32, not 64"),
        ({"shrink_factor": 0.5}, "shrink_factor 1.0, not 0.5"),
        ({"faces": "all"}, "faces largest, not all"),
        ({"format": "jpg"}, "format png, not jpg"),
    ],
)
def test_other_settings_are_refused(tmp_path, people, changes, text):
    align(people, tmp_path / "aligned")
    before = tree(tmp_path / "aligned")
    with pytest.raises(UserError, match=text):
        align(people, tmp_path / "aligned", **changes)
    assert tree(tmp_path / "aligned") == before


def test_folders_that_are_not_ours(tmp_path, people):
    with pytest.raises(UserError, match="lies inside --data_dir"):
        align(people, people / "aligned")
    with pytest.raises(UserError, match="cannot read the folder"):
        align(tmp_path / "none", tmp_path / "aligned")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no files"):
        align(tmp_path / "empty", tmp_path / "aligned")
    assert not (tmp_path / "aligned").exists()
    write_image(tmp_path / "others" / "holiday.png", draw_face(0, 64))
    with pytest.raises(UserError, match="is not empty"):
        align(people, tmp_path / "others")
    (tmp_path / "others" / "settings.json").write_text('{"theme": "dark"}')
    with pytest.raises(UserError, match="not written by crop_align"):
        align(people, tmp_path / "others")


def test_no_target_is_made_where_the_detector_cannot_be(tmp_path, people):
    def build_detector():
        raise UserError("GPU 7 was asked for")

    with pytest.raises(UserError, match="GPU 7"):
        crop_align(settings_for(people), tmp_path / "aligned", build_detector)
    assert not tree(tmp_path / "aligned") if (tmp_path / "aligned").exists() else True


def test_coinciding_landmarks_are_a_reason(tmp_path, people):
    class Degenerate(FakeDetector):
        def _find(self, image):
            return [DetectedFace(np.zeros(4, np.float32), np.full((5, 2), 9, np.float32), 0.9)]

    assert align(people, tmp_path / "aligned", detector=Degenerate) == {"the landmarks coincide": 6}


@pytest.mark.parametrize(
    "flags", [["--im_size", "4"], ["--shrink_factor", "1.5"], ["--score", "2"], ["--workers", "0"]]
)
def test_senseless_numbers_are_one_line(tmp_path, people, flags, capsys):
    assert main(["--data_dir", str(people), "--target_dir", str(tmp_path / "aligned"), *flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {flags[0]} {flags[1]}") and error.count("\n") == 1


def test_faces_are_settled_before_they_are_cut_out(tmp_path, people):
    """The largest alone, where it alone is wanted; and where the detector found none, what is found turned."""
    given = []

    def settle(image, faces, detect):
        given.append(len(faces))
        return [replace(face, landmarks=face.landmarks + 3) for face in faces or detect([image])[0]]

    align(people, tmp_path / "before")
    target = tmp_path / "aligned"
    crop_align(settings_for(people), target, FakeDetector, settle=settle)
    before = {name: entry["faces"] for name, entry in manifest(tmp_path / "before").items() if entry["faces"]}
    after = {name: entry["faces"] for name, entry in manifest(target).items() if entry["faces"]}
    assert set(given) <= {0, 1} and before.keys() == after.keys() and before
    for name, (face,) in after.items():
        moved = np.array(before[name][0]["landmarks"]) + 3
        assert np.allclose(face["landmarks"], moved, atol=0.02)


def run(repository, name, *flags, folder):
    command = [sys.executable, repository / "dataset" / f"{name}.py", *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder)


def test_the_command_with_the_real_detector(tmp_path, repository):
    """As a person runs it, from another folder; found again, the landmarks are where the manifest says."""
    write_dataset(tmp_path / "data", 3, 4, 160)
    write_image(tmp_path / "data" / "wall.png", np.full((200, 200, 3), 90, np.uint8))
    done = run(
        repository, "crop_align", "--data_dir", "data", "--target_dir", "aligned", "--device_id", -1, folder=tmp_path
    )
    assert done.returncode == 4 and done.stderr == ""
    assert "not aligned: wall.png: no face" in done.stdout
    assert done.stdout.splitlines()[-1] == "aligned 12 of 13 pictures; refused 1: no face 1"

    from facedancer.retinaface import FaceDetector, largest_face

    faces = [face for entry in manifest(tmp_path / "aligned").values() for face in entry["faces"]]
    found = FaceDetector().detect([read_image(tmp_path / "aligned" / face["file"]) for face in faces])
    template = landmark_template(256)
    eye_distance = np.linalg.norm(template[1] - template[0])
    again = np.array([largest_face(each).landmarks for each in found])
    expected = np.array([face["aligned_landmarks"] for face in faces])
    assert np.median(np.linalg.norm(again - expected, axis=-1)) < 0.06 * eye_distance
    # A drawn face is no average face, so that its parts lie near the template's, and its center on it.
    assert np.linalg.norm(expected - template, axis=-1).mean() < 0.15 * eye_distance
    assert np.linalg.norm((expected - template).mean(1), axis=-1).max() < 0.01 * eye_distance


def test_the_command_without_faces(tmp_path, repository):
    write_image(tmp_path / "data" / "wall.png", np.full((200, 200, 3), 90, np.uint8))
    (tmp_path / "data" / "small.png").write_bytes((tmp_path / "data" / "wall.png").read_bytes()[:60])
    done = run(
        repository, "crop_align", "--data_dir", "data", "--target_dir", "aligned", "--device_id", -1, folder=tmp_path
    )
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: data: aligned 0 of 2 pictures; refused 2: ") and "no face 1" in last


def test_photographs(real_faces, tmp_path):
    """Of 60 photographs nearly all are aligned, and found again where they should be."""
    from facedancer.retinaface import FaceDetector, largest_face

    for folder in sorted(real_faces.iterdir())[:60]:
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / f"{folder.name}.jpg").symlink_to(sorted(folder.iterdir())[0])
    detector = FaceDetector()
    counts = crop_align(AlignSettings(str(tmp_path / "data")), tmp_path / "aligned", lambda: detector)
    assert counts[None] >= 0.98 * 60
    faces = [face for entry in manifest(tmp_path / "aligned").values() for face in entry["faces"]]
    found = detector.detect([read_image(tmp_path / "aligned" / face["file"]) for face in faces])
    again = np.array([largest_face(each).landmarks for each in found])
    expected = np.array([face["aligned_landmarks"] for face in faces])
    template = landmark_template(256)
    eye_distance = np.linalg.norm(template[1] - template[0])
    assert np.median(np.linalg.norm(again - expected, axis=-1)) < 0.04 * eye_distance


def test_help_is_quick(repository):
    done = run(repository, "crop_align", "--help", folder="/")
    assert done.returncode == 0 and "--shrink_factor" in done.stdout
    code = "import sys, facedancer.dataset.crop_align; print('tensorflow' in sys.modules or 'keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_settings_are_kept(tmp_path, people):
    align(people, tmp_path / "aligned", shrink_factor=0.9)
    kept = json.loads((tmp_path / "aligned" / "settings.json").read_text())
    assert kept["shrink_factor"] == 0.9 and kept["image_size"] == 32


def test_pixels_at_work_do_not_grow_with_the_number_of_threads():
    """Work that waits weighs no more than the limit; what alone weighs more waits alone."""
    lock, now, most = threading.Lock(), [], []

    def work(weight):
        with lock:
            now.append(weight)
            most.append(list(now))
        time.sleep(0.002)
        with lock:
            now.remove(weight)
        return -weight

    weights = [3, 1, 9, 2, 2, 2, 5, 9, 9, 1] * 3
    with ThreadPoolExecutor(16) as pool:
        done = [(item, future.result()) for item, future in submit_ahead(pool, work, weights, 32, abs, most=6)]
    assert done == [(weight, -weight) for weight in weights]
    assert max(sum(group) for group in most if len(group) > 1) <= 6 and max(map(len, most)) > 1
    assert all(len(group) == 1 for group in most if 9 in group)


def test_a_large_picture_is_gone_before_the_next_is_decoded(tmp_path, monkeypatch):
    """Each of the pictures is above the limit, so that at most one is held at any time, whoever holds it."""
    write_dataset(tmp_path / "data", 2, 3, 64)
    monkeypatch.setattr(module, "AHEAD_PIXELS", 1)
    monkeypatch.setattr(module, "BATCH_PIXELS", 1)
    alive, most = weakref.WeakSet(), []

    class Held(np.ndarray):
        __hash__ = object.__hash__

    def read(path):
        deadline = time.monotonic() + 5
        while len(alive) and time.monotonic() < deadline:
            time.sleep(0.001)  # a thread lets go of its work a moment after it told the result
        image = read_image(path).view(Held)
        alive.add(image)
        most.append(len(alive))
        return image

    monkeypatch.setattr(module, "read_image", read)
    assert align(tmp_path / "data", tmp_path / "aligned", workers=8) == {None: 6}
    assert most == [1] * 6
