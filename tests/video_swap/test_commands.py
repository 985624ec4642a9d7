"""The commands as a person runs them: real detector, real encoder, a small untrained swapper, drawn faces."""

import contextlib
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

import av
import numpy as np
import pytest
from drawn_faces import draw_face
from PIL import Image
from small_exports import write_small_export
from small_videos import BreaksAt, lose_packet, read_clip, read_sound, write_clip

from facedancer import cli
from facedancer.core.images import read_image, write_image
from facedancer.media import job
from facedancer.media.probe import probe_video
from facedancer.video_swap import FaceSwapper, multi_face_single_source, swap_image

pytestmark = pytest.mark.usefixtures("networks_loaded_once")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An export, a source, a picture of two people, one of none, and a video in which one comes in late."""
    folder = tmp_path_factory.mktemp("swap")
    write_small_export(folder / "export")
    write_image(folder / "source.png", draw_face(5, 160))
    two = np.concatenate([draw_face(1, 160), draw_face(2, 160)], axis=1)
    write_image(folder / "two.png", two)
    empty = np.full((160, 320, 3), (90, 120, 100), np.uint8)
    write_image(folder / "empty.png", empty)
    write_clip(folder / "video.mp4", np.stack([empty] * 3 + [two] * 9), sound=1)
    write_clip(folder / "empty.mp4", np.stack([empty] * 5), sound=1)
    return folder


@pytest.fixture
def run(folder, tmp_path, monkeypatch, capsys):
    """Runs a command in an empty folder; returns its exit status, what it said, and what it left there."""

    def run(command, *flags, **paths):
        monkeypatch.chdir(tmp_path)
        paths = {"facedancer_path": "export/facedancer_0.h5", "swap_source": "source.png", **paths}
        given = [text for name, path in paths.items() for text in (f"--{name}", str(folder / path))]
        status = command.main([*given, *flags])
        said = capsys.readouterr()
        left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
        return status, said.out, said.err, left

    return run


def region_of_change(before, after, least=12):
    return (np.abs(after.astype(int) - before).max(-1) > least).any(0)


def breaks_at(monkeypatch, places):
    """Lets the swap network give no numbers for some of the faces that it gets, counted from 0."""
    build = FaceSwapper.from_export.__func__

    def from_export(cls, *args, **options):
        swapper = build(cls, *args, **options)
        swapper.model = BreaksAt(swapper.model, places)
        return swapper

    monkeypatch.setattr(FaceSwapper, "from_export", classmethod(from_export))


class TestVideo:
    def test_every_face_of_a_video(self, run, folder, tmp_path):
        status, out, err, left = run(multi_face_single_source, vid_path="video.mp4")
        assert status == 0 and left == ["results/swapped_video.mp4"], err
        assert re.search(r"^device: (CPU|GPU 0)", out)
        assert re.search(r"swapped_video.mp4: 12 frames, 18 faces swapped, 3 frames without a face, .* frames/s", out)

        output = tmp_path / "results" / "swapped_video.mp4"
        (before, times), (after, new_times) = read_clip(folder / "video.mp4"), read_clip(output)
        assert after.shape == before.shape and new_times == times
        assert read_sound(output) == read_sound(folder / "video.mp4")
        changed = region_of_change(before[3:], after[3:])
        assert changed[60:110, 60:100].mean() > 0.5 and changed[60:110, 220:260].mean() > 0.5  # both faces
        assert not changed[:, :20].any() and not changed[:, 150:170].any() and not changed[:, -20:].any()
        assert not region_of_change(before[:3], after[:3]).any()

    def test_compare_and_sample_rate_and_length(self, run, tmp_path):
        flags = ("--compare", "--sample_rate", "2", "--length", "0.5", "--output", "view.mp4", "--device_id", "-1")
        status, out, err, left = run(multi_face_single_source, *flags, vid_path="video.mp4")
        assert status == 0 and left == ["view.mp4"], err
        assert "device: CPU" in out and "view.mp4: 3 frames, 2 faces swapped, 2 frames without a face" in out
        frames, times = read_clip(tmp_path / "view.mp4")
        assert frames.shape == (3, 160, 640, 3)
        assert [float(time) for time in times] == [0, 0.08, 0.16]

    def test_small_faces_of_a_large_video(self, run, folder):
        two = np.asarray(Image.open(folder / "two.png").resize((260, 130)))
        frames = np.full((2, 720, 2560, 3), (90, 120, 100), np.uint8)
        frames[:, 300:430, 600:860] = two
        write_clip(folder / "large.mp4", frames)
        status, out, err, _ = run(multi_face_single_source, "--det_size", "1280", vid_path="large.mp4")
        assert status == 0 and "2 frames, 4 faces swapped" in out, err

    def test_contact_sheet(self, run, tmp_path):
        flags = ["--output", "out.mp4", "--contact_sheet", "sheet.jpg", "--contact_every", "4"]
        status, said, _, left = run(multi_face_single_source, *flags, vid_path="video.mp4")
        assert status == 0 and left == ["out.mp4", "sheet.jpg"] and said.endswith("sheet.jpg\n")
        assert read_image(tmp_path / "sheet.jpg").shape[1] > 320

    def test_each_person_with_a_source(self, run, folder, tmp_path):
        """The person at the right gets a face, the other one keeps theirs; a saved embedding does the same."""
        write_image(tmp_path / "person.png", draw_face(2, 160, variation=1))
        pair = f"{tmp_path / 'person.png'}={folder / 'source.png'}"
        given = ["--facedancer_path", str(folder / "export/facedancer_0.h5"), "--vid_path", str(folder / "video.mp4")]
        np.save(tmp_path / "beard.npy", np.random.default_rng(0).normal(size=128))
        results = []
        for flags in (["--map", pair], ["--swap_source", str(folder / "source.png"), "--reference",
                      str(tmp_path / "person.png"), "--save_embedding", str(tmp_path / "saved.npz")],
                      ["--swap_source", str(tmp_path / "saved.npz"), "--faces", "2"],
                      ["--swap_source", str(tmp_path / "saved.npz"), "--faces", "2", "--face_attribute_direction",
                       str(tmp_path / "beard.npy"), "--face_attribute_steps", "3"]):  # fmt: skip
            output = tmp_path / "out.mp4"
            assert multi_face_single_source.main([*given, *flags, "--output", str(output)]) == 0
            before, after = read_clip(folder / "video.mp4")[0], read_clip(output)[0]
            changed = region_of_change(before[3:], after[3:])
            assert changed[60:110, 220:260].mean() > 0.5 and changed[60:110, 60:100].mean() < 0.02
            results.append(after)
        assert np.abs(results[0].astype(int) - results[1]).max() == 0
        assert np.abs(results[0].astype(int) - results[2]).max() == 0
        assert np.abs(results[2].astype(int) - results[3]).max() > 4

    @pytest.mark.parametrize(
        "flags, message",
        [
            ((), "give --swap_source, --anonymize, or --map"),
            (("--map", "a=b", "--swap_source", "c"), "give --swap_source, --anonymize, or --map"),
            (("--anonymize", "--swap_source", "c"), "--anonymize draws the sources; it does not go with --swap_source"),
            (("--swap_source", "c", "--reference", "d", "--faces", "2"), "--reference says whom to swap"),
            (("--map", "a=b", "--faces", "2"), "--map says whom to swap"),
            (("--map", "absent.jpg=b"), "absent.jpg: there is no such file"),
            (("--decoder", "ann"), "has no decoders: give --swap_source"),
        ],
    )
    def test_who_is_swapped_must_be_clear(self, folder, tmp_path, capsys, monkeypatch, flags, message):
        monkeypatch.chdir(tmp_path)
        given = ["--facedancer_path", str(folder / "export/facedancer_0.h5"), "--vid_path", str(folder / "video.mp4")]
        assert multi_face_single_source.main([*given, *flags]) == 2
        assert message in capsys.readouterr().err

    def test_a_part_as_another_kind(self, run, tmp_path):
        flags = ("--start", "0:00.2", "--end", "0.4", "--output", "part.gif")
        status, out, err, _ = run(multi_face_single_source, *flags, vid_path="video.mp4")
        assert status == 0, err
        assert "part.gif: 5 frames, 10 faces swapped" in out
        with Image.open(tmp_path / "part.gif") as picture:
            assert picture.n_frames == 5

    def test_an_aligned_source(self, run, folder, tmp_path):
        write_image(tmp_path / "aligned.png", draw_face(5, 160)[30:130, 30:130])
        status, _, err, _ = run(
            multi_face_single_source,
            "--align_source",
            "False",
            vid_path="video.mp4",
            swap_source=tmp_path / "aligned.png",
        )
        assert status == 0, err

    def test_a_frame_that_cannot_be_decoded(self, run, folder, tmp_path):
        """It is counted and named, and the others are swapped."""
        write_clip(
            tmp_path / "whole.mkv", read_clip(folder / "video.mp4")[0], codec="mjpeg", pix_fmt="yuvj420p", sound=0
        )
        lose_packet(tmp_path / "whole.mkv", tmp_path / "damaged.mkv", 6)
        flags = ("--output", "out.mkv", "--codec", "h264")
        status, out, err, _ = run(multi_face_single_source, *flags, vid_path=tmp_path / "damaged.mkv")
        assert status == 4, err
        assert "out.mkv: 11 frames, 16 faces swapped" in out
        assert "frames not decodable (1), shown in their place: 6\n" in out

    def test_recordings_that_are_joined(self, run, folder, tmp_path):
        write_clip(tmp_path / "one.ts", read_clip(folder / "video.mp4")[0][-4:])
        (tmp_path / "joined.ts").write_bytes((tmp_path / "one.ts").read_bytes() * 2)
        status, out, err, _ = run(multi_face_single_source, "--output", "out.mp4", vid_path=tmp_path / "joined.ts")
        assert status == 0, out + err
        assert "joined.ts: its time stamps jump after 0.2 s, as in joined recordings" in out
        assert "out.mp4: 8 frames, 16 faces swapped" in out

    def test_a_frame_whose_face_gets_no_numbers(self, run, folder, tmp_path, monkeypatch):
        """It is passed through, counted and named; the others are swapped, and the exit status says partly."""
        breaks_at(monkeypatch, {5})
        flags = ("--output", "out.mkv", "--codec", "ffv1")
        status, out, err, left = run(multi_face_single_source, *flags, vid_path="video.mp4")
        assert (status, left) == (4, ["out.mkv"]), err
        assert "out.mkv: 12 frames, 17 faces swapped" in out
        assert re.search(r"damaged frames left unchanged \(1\): \d+\n", out)

    def test_no_face_gets_numbers(self, run, folder, monkeypatch):
        breaks_at(monkeypatch, set(range(100)))
        status, _, err, left = run(multi_face_single_source, "--output", "out.mp4", vid_path="video.mp4")
        assert (status, left) == (3, [])
        assert (
            err == f"nothing swapped: none of the faces in the 12 frames of {folder / 'video.mp4'} could be swapped\n"
        )

    def test_stopped_while_the_video_is_looked_through(self, run, folder, tmp_path, monkeypatch):
        """Ctrl-C before the first segment is closed: what was seen is not looked at again."""
        looked_at = []

        class Stops(multi_face_single_source.Watcher):
            def detect(self, images, first=0, frames=None):
                looked_at.append(first)
                if looked_at == [0, 8]:
                    raise KeyboardInterrupt
                return super().detect(images, first, frames)

        monkeypatch.setattr(multi_face_single_source, "Watcher", Stops)
        status, _, err, left = run(multi_face_single_source, "--output", "out.mp4", vid_path="video.mp4")
        assert (status, err) == (130, "interrupted\n") and ".out.mp4.work/seen.jsonl" in left
        status, _, err, left = run(multi_face_single_source, "--output", "out.mp4", vid_path="video.mp4")
        assert (status, left) == (0, ["out.mp4"]) and looked_at == [0, 8, 8]

    def test_what_makes_work_begin_anew(self, run, folder, tmp_path, monkeypatch):
        """A flag, a network's file or a picture that changes the frames, and nothing else."""
        shutil.copytree(folder / "export", tmp_path / "export")
        frames = read_clip(folder / "video.mp4")[0]
        for index, image in enumerate(frames):
            write_image(tmp_path / f"{index:02d}.png", image)
        paths = {"vid_path": tmp_path / "%02d.png", "facedancer_path": tmp_path / "export" / "facedancer_0.h5"}
        looked_at = []

        class Stops(multi_face_single_source.Watcher):
            def detect(self, images, first=0, frames=None):
                looked_at.append(first)
                if first:
                    raise KeyboardInterrupt
                return super().detect(images, first, frames)

        monkeypatch.setattr(multi_face_single_source, "Watcher", Stops)

        def goes_on(*flags):
            looked_at.clear()
            assert run(multi_face_single_source, "--output", "out.mp4", *flags, **paths)[0] == 130
            return looked_at == [8]

        assert not goes_on() and goes_on()
        assert goes_on("--contact_sheet", "sheet.jpg") and goes_on("--save_embedding", "saved.npz")
        assert not goes_on("--color_transfer", "mean") and not goes_on()
        write_image(tmp_path / "05.png", frames[4])
        assert not goes_on() and goes_on()
        os.utime(tmp_path / "export" / "card.json", (1, 1))
        assert not goes_on() and goes_on()

    def test_few_frames_are_held_however_seldom_faces_are_looked_for(self, tmp_path, monkeypatch):
        """All frames between two detections would be as many as a person asks for."""
        write_clip(tmp_path / "long.mp4", np.full((120, 32, 32, 3), 99, np.uint8), sound=0)
        video = probe_video(tmp_path / "long.mp4")
        most, seen_by_detector = 0, []

        class Nobody:
            def detect(self, images):
                seen_by_detector.extend(images)
                return [[] for _ in images]

        class Counts(multi_face_single_source.Watcher):
            def detect(self, images, first=0, frames=None):
                nonlocal most
                most = max(most, len(images))
                return super().detect(images, first, frames)

        seen = multi_face_single_source.look_through(video, 1, Counts(Nobody(), 50), (32, 32), tmp_path / "seen.jsonl")
        assert (len(seen), most, len(seen_by_detector)) == (120, 8, 3)

    @pytest.mark.parametrize("limit, named", [(1500, r"seen\.jsonl: "), (6000, r"out\.mp4: ")])
    def test_a_full_disk(self, run, tmp_path, limit, named):
        """One line, in either pass; with room again the same command goes on."""
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            status, _, err, left = run(multi_face_single_source, "--output", "out.mp4", vid_path="video.mp4")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        assert status == 2 and re.fullmatch(rf"error: .*{named}File too large(; write to another disk.*)?\n", err), err
        assert left == [f".out.mp4.work/{name}" for name in ("journal.jsonl", "seen.jsonl")]
        status, _, err, left = run(multi_face_single_source, "--output", "out.mp4", vid_path="video.mp4")
        assert (status, left) == (0, ["out.mp4"]), err

    def test_nothing_to_swap(self, run):
        status, _, err, left = run(multi_face_single_source, vid_path="empty.mp4")
        assert (status, left) == (3, [])
        assert err.startswith("nothing swapped: no face to swap was found in the 5 frames of") and err.count("\n") == 1

    @pytest.mark.parametrize(
        "paths, flags, message",
        [
            ({"vid_path": "absent.mp4"}, (), r"cannot read the video .*absent\.mp4: No such file"),
            ({"vid_path": "export/card.json"}, (), r"cannot read the video .*card\.json"),
            ({"swap_source": "export/card.json"}, (), r"cannot read the picture .*card\.json: not a picture"),
            ({"swap_source": "empty.png"}, (), r"empty\.png: there is no face in the source picture"),
            ({"swap_source": "two.png"}, ("--align_source", "False"), r"two\.png: an aligned source is square"),
            ({"facedancer_path": "absent.h5"}, (), r"absent\.h5"),
            ({}, ("--retina_path", "absent.h5"), r"absent\.h5 is not there"),
            ({}, ("--arcface_path", "absent.h5"), r"absent\.h5 is not there"),
            ({}, ("--output", "video.avi"), r"cannot write video\.avi: its name must end in one of \.mp4"),
            ({}, ("--device_id", "99"), r"GPU 99 was asked for, TensorFlow finds"),
        ],
    )
    def test_bad_input_is_one_line(self, run, paths, flags, message):
        status, _, err, left = run(multi_face_single_source, *flags, **{"vid_path": "video.mp4", **paths})
        assert (status, left) == (2, [])
        assert re.match(f"error: .*{message}", err) and err.count("\n") == 1, err

    def test_the_input_is_not_overwritten(self, run, folder):
        before = (folder / "video.mp4").read_bytes()
        output = str(folder / "export" / ".." / "video.mp4")
        status, _, err, _ = run(multi_face_single_source, "--output", output, vid_path="video.mp4")
        assert status == 2 and "would replace an input" in err
        assert (folder / "video.mp4").read_bytes() == before

    def test_pictures_of_a_sequence_are_not_overwritten(self, run, folder, tmp_path):
        (tmp_path / "in").mkdir()
        for index in range(3):
            Image.open(folder / "two.png").save(tmp_path / "in" / f"{index:02d}.png")
        before = (tmp_path / "in" / "01.png").read_bytes()
        for pattern in ("%02d.png", "0%d.png"):
            output = str(tmp_path / "in" / ".." / "in" / pattern)
            status, _, err, _ = run(multi_face_single_source, "--output", output, vid_path=tmp_path / "in" / "%02d.png")
            assert status == 2 and "would replace an input" in err
        assert (tmp_path / "in" / "01.png").read_bytes() == before

    def test_the_contact_sheet_does_not_replace_the_video(self, run):
        flags = ("--output", "a.webp", "--contact_sheet", "./a.webp")
        status, _, err, left = run(multi_face_single_source, *flags, vid_path="video.mp4")
        assert (status, left) == (2, []) and "would replace the output" in err

    @pytest.mark.parametrize(
        "flags",
        [
            *(["--length", "0"], ["--length", "1.5"], ["--length", "x"], ["--sample_rate", "0"]),
            *(["--compare", "perhaps"], ["--identity_threshold", "nan"], ["--identity_threshold", "1.5"]),
            *(["--quality", "-5"], ["--quality", "64"], ["--anonymize", "x"]),
            *(["--start", "nan"], ["--end", "inf"], ["--start", "-1"]),
            *(["--rate", "0"], ["--rate", "-5"], ["--rate", "1/0"], ["--rate", "x"]),
        ],
    )
    def test_flags_out_of_range(self, run, flags, capsys):
        with pytest.raises(SystemExit) as stopped:
            run(multi_face_single_source, *flags, vid_path="video.mp4")
        assert stopped.value.code == 2
        assert f"argument {flags[0]}" in capsys.readouterr().err


class TestPicture:
    def test_small_faces_of_a_large_picture(self, run, folder):
        two = Image.open(folder / "two.png").resize((260, 130))
        group = Image.new("RGB", (4000, 2000), (90, 120, 100))
        for x in range(100, 4000, 1000):
            group.paste(two, (x, 200))
        group.save(folder / "group.png")
        status, out, err, _ = run(swap_image, "--output", "out.png", img_path="group.png")
        assert status == 0 and "out.png: 8 faces swapped" in out, err

    def test_every_face_of_a_picture(self, run, folder, tmp_path):
        status, out, err, left = run(swap_image, img_path="two.png")
        assert status == 0 and left == ["results/swapped_image.png"], err
        assert "swapped_image.png: 2 faces swapped" in out
        before, after = read_image(folder / "two.png"), read_image(tmp_path / "results" / "swapped_image.png")
        changed = (before != after).any(-1)
        assert changed[60:110, 60:100].mean() > 0.9 and changed[60:110, 220:260].mean() > 0.9
        assert not changed[:, :20].any() and not changed[:, 150:170].any()
        with Image.open(tmp_path / "results" / "swapped_image.png") as picture:
            assert b"compositeWithTrainedAlgorithmicMedia" in picture.info["xmp"]

    def test_compare(self, run, tmp_path):
        status, _, err, left = run(swap_image, "--compare", "--output", "a/view.jpg", img_path="two.png")
        assert status == 0 and left == ["a/view.jpg"], err
        assert read_image(tmp_path / "a" / "view.jpg").shape == (160, 640, 3)

    def test_nothing_to_swap(self, run):
        status, _, err, left = run(swap_image, img_path="empty.png")
        assert (status, left) == (3, [])
        assert "no face to swap was found" in err and err.count("\n") == 1

    @pytest.mark.parametrize(("broken", "status", "written"), [({1}, 4, ["out.png"]), ({0, 1}, 3, [])])
    def test_a_face_gets_no_numbers(self, run, monkeypatch, broken, status, written):
        breaks_at(monkeypatch, broken)
        found, out, err, left = run(swap_image, "--output", "out.png", img_path="two.png")
        assert (found, left) == (status, written)
        assert ("1 face swapped" in out) == bool(written)
        assert re.fullmatch(r"left unchanged, faces in .*two.png: .* is not finite\n", err)

    def test_a_folder_of_pictures(self, run, folder, tmp_path):
        (tmp_path / "in" / "deeper").mkdir(parents=True)
        for name in ("two.png", "empty.png", "source.png"):
            Image.open(folder / name).save(tmp_path / "in" / "deeper" / name)
        source = Image.open(folder / "source.png").convert("RGB")
        source.save(tmp_path / "in" / "anim.gif", save_all=True, append_images=[source.rotate(3)], duration=90, loop=0)
        (tmp_path / "in" / "broken.jpg").write_text("no picture")
        # First in the folder, and with .png behind it longer than file systems take.
        Image.open(folder / "source.png").save(tmp_path / "in" / ("a" * 250 + ".bmp"))
        status, out, err, left = run(swap_image, "--output", "out", img_path=tmp_path / "in")
        assert status == 4, err
        assert "out: 3 of 6 pictures, 5 faces swapped" in out and "broken.jpg: not a picture" in out
        assert "aaa.bmp.png: File name too long" in out
        written = [name for name in left if name.startswith("out")]
        assert written == ["out/anim.gif", "out/deeper/source.png", "out/deeper/two.png"]
        with Image.open(tmp_path / "out" / "anim.gif") as picture:
            assert (picture.n_frames, picture.info["duration"], picture.info["loop"]) == (2, 90, 0)
        status, _, err, _ = run(swap_image, "--output", str(tmp_path / "in"), img_path=tmp_path / "in")
        assert status == 2 and "would replace the inputs" in err

    def test_a_folder_says_once_what_its_pictures_lose(self, run, folder, tmp_path):
        (tmp_path / "in").mkdir()
        for name, kept in (
            ("a", {"comment": b"mine"}),
            ("b", {"comment": b"yours"}),
            ("c", {}),
            ("d", {"dpi": (72, 72)}),
        ):
            Image.open(folder / "two.png").convert("RGB").save(tmp_path / "in" / f"{name}.jpg", **kept)
        status, out, err, _ = run(swap_image, "--output", "out", img_path=tmp_path / "in")
        assert status == 0, out
        assert [line for line in out.splitlines() if "warning" in line] == [
            f"warning: {tmp_path / 'in' / 'a.jpg'} and 1 more: left out of it: its comment"
        ]
        status, _, err, _ = run(swap_image, "--output", "out.jpg", img_path=tmp_path / "in" / "a.jpg")
        assert (status, err) == (0, f"warning: {tmp_path / 'in' / 'a.jpg'}: left out of it: its comment\n")

    def test_what_a_folder_became_is_not_swapped_again(self, run, folder, tmp_path):
        (tmp_path / "in").mkdir()
        Image.open(folder / "two.png").save(tmp_path / "in" / "two.png")
        for _ in range(2):
            status, out, err, left = run(swap_image, "--output", "in/out", img_path=tmp_path / "in")
            assert status == 0 and "1 of 1 pictures" in out, err
        assert left == ["in/out/two.png", "in/two.png"]
        shutil.rmtree(tmp_path / "in" / "out")
        status, out, err, left = run(swap_image, "--output", ".", img_path=tmp_path / "in")
        assert status == 0 and left == ["in/two.png", "two.png"], err
        (tmp_path / "file").write_text("")
        status, _, err, _ = run(swap_image, "--output", "file", img_path=tmp_path / "in")
        assert status == 2 and "file must be a folder" in err

    def test_a_source_is_not_overwritten(self, run, folder, tmp_path):
        """Neither by a folder's result of the same name nor by the embedding of another source."""
        for name in ("in", "out"):
            (tmp_path / name).mkdir()
            shutil.copy(folder / "source.png", tmp_path / name)
        before = (tmp_path / "out" / "source.png").read_bytes()
        flags = {"img_path": tmp_path / "in", "swap_source": tmp_path / "out" / "source.png"}
        status, _, err, _ = run(swap_image, "--output", "out", **flags)
        assert status == 2 and err == "error: out/source.png would replace an input; give it another name\n"
        assert (tmp_path / "out" / "source.png").read_bytes() == before
        assert run(swap_image, "--save_embedding", "ann.npz", img_path="two.png")[0] == 0
        before = (tmp_path / "ann.npz").read_bytes()
        flags = ("--reference", "ann.npz", "--save_embedding", "ann.npz")
        status, _, err, _ = run(swap_image, *flags, img_path="two.png")
        assert status == 2 and err == "error: ann.npz would replace an input; give it another name\n"
        assert (tmp_path / "ann.npz").read_bytes() == before

    def test_bad_input(self, run):
        status, _, err, left = run(swap_image, img_path="video.mp4")
        assert (status, left) == (2, []) and "video.mp4: not a picture" in err
        status, _, err, left = run(swap_image, "--output", "picture.bmp", img_path="two.png")
        assert (status, left) == (2, []) and "picture.bmp" in err


@pytest.mark.parametrize("least", [2, pytest.param(20, marks=pytest.mark.campaign)])
def test_killed_at_random_moments(folder, tmp_path, repository, monkeypatch, least):
    """SIGKILL, again and again: the same command goes on, and its frames are those of an unbroken run."""
    source = tmp_path / "source.mp4"
    faces = np.concatenate([draw_face(1, 160), draw_face(2, 160)], axis=1)
    frames = np.stack([np.roll(faces, index % 23, axis=1) for index in range(24 * least)])
    write_clip(source, frames, sound=1)
    words = ["swap_video", "--facedancer_path", str(folder / "export" / "facedancer_0.h5"), "--vid_path", str(source)]
    words += ["--swap_source", str(folder / "source.png"), "--detect_every", "2", "--output"]
    whole = tmp_path / "whole.mp4"
    monkeypatch.setattr(job, "SEGMENT_FRAMES", 8)
    assert cli.main([*words, str(whole)]) == 0

    code = "import sys\nfrom facedancer import cli\nfrom facedancer.media import job\njob.SEGMENT_FRAMES = 8\n"
    code += "sys.exit(cli.main(sys.argv[1:]))"

    def start(output):
        command = [sys.executable, "-c", code, *words, output]
        return subprocess.Popen(command, cwd=repository, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    output, work = tmp_path / "out.mp4", tmp_path / ".out.mp4.work"
    draw, kills = np.random.default_rng(0), 0
    while not output.exists():
        process = start(output)
        if kills < least:
            # Each time it is let go on a little further than it was, to a moment of its own.
            before = size_of(work)
            while process.poll() is None and size_of(work) <= before:
                time.sleep(0.01)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(draw.uniform(0, 0.6))
            if process.poll() is None:
                process.kill()
                kills += 1
        _, said = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), said
    assert kills >= least
    if work.exists():  # killed after the file was moved to its place, before the folder was gone
        assert start(output).wait() == 0
    (frames, times), (expected, expected_times) = read_clip(output), read_clip(whole)
    np.testing.assert_array_equal(frames, expected)
    assert times == expected_times and read_sound(output) == read_sound(whole)
    assert sorted(os.listdir(tmp_path)) == ["out.mp4", "source.mp4", "whole.mp4"]


def size_of(work):
    """How much has been written in the journals of a folder of work."""
    return sum(path.stat().st_size for path in work.glob("*.jsonl")) if work.is_dir() else 0


def test_a_launcher_from_another_folder(folder, tmp_path, repository):
    """A process of its own, as a person starts it, with a name that is not ASCII."""
    output = tmp_path / "Ergebnis für Zoë.mp4"
    done = subprocess.run(
        [
            *(sys.executable, repository / "video_swap" / "multi_face_single_source.py"),
            *("--facedancer_path", folder / "export" / "facedancer_0.h5", "--vid_path", folder / "video.mp4"),
            *("--swap_source", folder / "source.png", "--output", output),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "12 frames, 18 faces swapped" in done.stdout and "Traceback" not in done.stderr
    with av.open(output) as container:
        assert container.streams.video[0].frames == 12
    assert os.listdir(tmp_path) == [output.name]
