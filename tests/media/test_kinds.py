"""Kinds of videos other than films, what a person chooses of them, and files that cannot be read or written."""

import os
import resource
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
from copied_videos import copy, facts, write_video
from PIL import ExifTags, Image
from small_videos import moving_frames, read_clip, read_sound, write_clip

from facedancer.core.console import UserError
from facedancer.core.images import read_image, write_image
from facedancer.media.encoding import CODECS, choose_encoding
from facedancer.media.matroska import ROOM, set_pixel_aspect
from facedancer.media.probe import probe_video
from facedancer.media.read import read_frames


class TestOtherKinds:
    def durations(self, path):
        with Image.open(path) as picture:
            found = []
            for index in range(picture.n_frames):
                picture.seek(index)
                picture.load()
                found.append(picture.info["duration"])
            return found

    @pytest.mark.parametrize("suffix", [".gif", ".webp"])
    @pytest.mark.parametrize("source_suffix", [".gif", ".webp", ".mp4"])
    def test_animations(self, tmp_path, source_suffix, suffix):
        source, target = tmp_path / f"source{source_suffix}", tmp_path / f"target{suffix}"
        frames = moving_frames(6)
        if source_suffix == ".mp4":
            write_clip(source, frames, ticks=[0, 4, 12, 16, 24, 28], time_base=Fraction(1, 100), rate=20, sound=1)
        else:
            pictures = [Image.fromarray(frame) for frame in frames]
            pictures[0].save(
                source, save_all=True, append_images=pictures[1:], duration=[40, 80] * 3, quality=95, loop=0
            )
        copy(source, target)
        assert self.durations(target)[:-1] == [40, 80, 40, 80, 40]
        with Image.open(target) as picture:
            for index, frame in enumerate(frames):
                picture.seek(index)
                error = np.abs(np.asarray(picture.convert("RGB")).astype(int) - frame)
                assert error.mean() < 14
            assert picture.info["loop"] == 0

    def test_gif_to_video(self, tmp_path):
        source, target = tmp_path / "source.gif", tmp_path / "target.mp4"
        pictures = [Image.fromarray(frame) for frame in moving_frames(6, 63, 47)]
        pictures[0].save(source, save_all=True, append_images=pictures[1:], duration=[40, 80] * 3)
        copy(source, target)
        assert [float(time) for time in read_clip(target)[1]] == [0, 0.04, 0.12, 0.16, 0.24, 0.28]

    def test_sequences(self, tmp_path):
        (tmp_path / "in").mkdir()
        frames = moving_frames(5, 63, 47)
        for index, frame in enumerate(frames):
            write_image(tmp_path / "in" / f"{index + 1:03d}.png", frame)
        copy(tmp_path / "in" / "%03d.png", tmp_path / "out" / "frame_%04d.png")
        names = sorted(os.listdir(tmp_path / "out"))
        assert names == [f"frame_{index:04d}.png" for index in range(1, 6)]
        for name, frame in zip(names, frames, strict=True):
            np.testing.assert_array_equal(read_image(tmp_path / "out" / name), frame)

    def test_photographs_that_say_their_orientation(self, tmp_path):
        exif, frames = Image.Exif(), moving_frames(2)
        exif[ExifTags.Base.Orientation] = 6
        for index, frame in enumerate(frames):
            turned = Image.fromarray(frame).rotate(90, expand=True)
            turned.save(tmp_path / f"{index}.jpg", exif=exif, quality=95)
        copy(tmp_path / "%d.jpg", tmp_path / "out" / "%d.png")
        for index, frame in enumerate(frames, start=1):
            assert np.abs(read_image(tmp_path / "out" / f"{index}.png").astype(int) - frame).mean() < 5

    def test_per_cent_signs_in_names(self, tmp_path):
        """One number makes a sequence; other per cent signs are parts of names, in folders too."""
        frames = moving_frames(2)
        (tmp_path / "50%").mkdir()
        for index, frame in enumerate(frames):
            write_image(tmp_path / "50%" / f"%_{index}.png", frame)
        copy(tmp_path / "50%" / "%%_%d.png", tmp_path / "100%" / "%%_%03d.png")
        assert sorted(os.listdir(tmp_path / "100%")) == ["%_001.png", "%_002.png"]
        copy(tmp_path / "50%" / "%%_%d.png", tmp_path / "100%" / "100%.mkv")
        copy(tmp_path / "100%" / "100%.mkv", tmp_path / "100%" / "99% d.mp4")
        assert len(read_clip(tmp_path / "100%" / "99% d.mp4")[0]) == 2
        with pytest.raises(UserError, match="its name must end in"):
            copy(tmp_path / "100%" / "100%.mkv", tmp_path / "%d_%d.png")

    def test_a_part_of_a_raw_stream(self, tmp_path):
        """It has no time stamps and cannot be searched."""
        frames = moving_frames(75)
        write_clip(tmp_path / "raw.h264", frames, sound=0)
        copy(tmp_path / "raw.h264", tmp_path / "part.mkv", start=1.4, end=2.0, codec="ffv1")
        found, times = read_clip(tmp_path / "part.mkv")
        assert len(found) == 15 and float(times[-1]) == pytest.approx(0.56, abs=0.001)
        assert np.abs(found.astype(int) - frames[35:50]).mean() < 6

    @pytest.mark.parametrize("mode", ["L", "LA", "P", "1"])
    def test_sequences_of_gray_and_of_palettes(self, tmp_path, mode):
        pictures = [Image.fromarray(frame).convert(mode) for frame in moving_frames(3, 62, 46)]
        for index, picture in enumerate(pictures):
            picture.save(tmp_path / f"{index}.png")
        copy(tmp_path / "%d.png", tmp_path / "out" / "%d.png")
        copy(tmp_path / "%d.png", tmp_path / "out.mkv", codec="ffv1")
        written = [read_image(tmp_path / "out" / f"{index + 1}.png") for index in range(3)]
        for picture, *found in zip(pictures, written, read_clip(tmp_path / "out.mkv")[0], strict=True):
            exact, coded = (np.abs(np.asarray(picture.convert("RGB")).astype(int) - image) for image in found)
            assert exact.max() <= 1 and coded.mean() < 3


class TestChoices:
    @pytest.fixture
    def source(self, tmp_path_factory):
        path = tmp_path_factory.mktemp("choices") / "source.mp4"
        write_clip(path, moving_frames(4), sound=0)
        return path

    @pytest.mark.parametrize(
        "suffix, codec, pixel_format, found",
        [
            (".mp4", "hevc", None, ("hevc", "yuv420p")),
            (".mkv", "hevc", "yuv420p10le", ("hevc", "yuv420p10le")),
            (".mkv", "av1", None, ("libdav1d", "yuv420p")),
            (".webm", None, None, ("libvpx-vp9", "yuv420p")),
            (".mov", "prores", None, ("prores", "yuv422p10le")),
            (".mkv", "ffv1", None, ("ffv1", "yuv420p")),
        ],
    )
    def test_codecs(self, source, tmp_path, suffix, codec, pixel_format, found):
        target = tmp_path / f"target{suffix}"
        copy(source, target, codec=codec, pixel_format=pixel_format)
        assert facts(target)["format"] == found[1]
        assert facts(target)["codec"] in (found[0], found[0].removeprefix("lib").removeprefix("vpx-"))
        before, after = read_clip(source)[0].astype(int), read_clip(target)[0]
        assert len(after) == 4 and np.abs(before - after).mean() < 6
        if hasattr(os, "sched_getscheduler"):  # SVT-AV1, opened by root, takes the whole machine for itself
            assert os.sched_getscheduler(0) == os.SCHED_OTHER

    @pytest.mark.parametrize("codec", CODECS)
    def test_a_change_has_its_color_in_every_pixel_format(self, source, tmp_path, codec):
        """Those that an encoder lists and whose planes hold two components were given wrong chroma."""
        video = probe_video(source)
        with pytest.raises(UserError) as refused:
            choose_encoding("target.mkv", video, codec=codec, pixel_format="none")
        formats = str(refused.value).partition("it has ")[2].split(", ")
        assert not {"nv12", "nv16", "nv20le", "yuv410p", "ya8"} & {*formats}
        for name in formats:
            if name.startswith(("yuv4", "gbrp1", "bgr0")):
                with write_video(tmp_path / "target.mkv", video, codec=codec, pixel_format=name) as writer:
                    for frame in read_frames(video):
                        image = frame.image.copy()
                        image[10:30, 20:40] = (250, 30, 60)
                        writer.write(frame, image, [(20, 10, 40, 30)])
                inside = next(read_frames(probe_video(tmp_path / "target.mkv"))).image[13:27, 23:37]
                assert np.abs(inside.astype(int) - (250, 30, 60)).mean() < 10, name

    @pytest.mark.parametrize(
        "suffix, codec",
        [
            *((".mp4", codec) for codec in ("h264", "vp9", "av1")),
            (".mov", "prores"),
            *((".mkv", codec) for codec in ("h264", "hevc", "prores", "ffv1")),
            *((".webm", codec) for codec in ("vp9", "av1")),
        ],
    )
    def test_the_shape_of_a_pixel(self, tmp_path, suffix, codec):
        source, target = tmp_path / "source.mp4", tmp_path / f"target{suffix}"
        aspect = {"sample_aspect_ratio": Fraction(16, 11)}
        write_clip(source, moving_frames(3), sound=suffix != ".webm", tags=aspect)
        copy(source, target, codec=codec)
        found = probe_video(target).sample_aspect_ratio
        assert found == Fraction(16, 11) or (suffix == ".webm" and abs(found - Fraction(16, 11)) < 0.01)
        sounds = [[data for track in read_sound(path) for _, data in track] for path in (source, target)]
        assert len(read_clip(target)[0]) == 3 and sounds[0] == sounds[1]
        with av.open(target) as container:
            assert "title" not in container.streams.video[0].metadata

    @pytest.mark.parametrize(
        "kept, pixel_format, suffix, found, said",
        [
            (
                "vp9",
                "yuv420p10le",
                ".webm",
                ("libsvtav1", "yuv420p10le"),
                "coded as av1: our encoder of vp9",
            ),
            ("av1", "yuv444p10le", ".mkv", ("libx265", "yuv444p10le"), "coded as hevc"),
            ("vp9", "yuv444p10le", ".webm", ("libsvtav1", "yuv420p10le"), "yuv444p10le becomes yuv420p10le"),
            ("prores", "yuva444p10le", ".mov", ("prores_ks", "yuva444p10le"), None),
            ("prores", "yuva444p10le", ".mp4", ("libx264", "yuv444p10le"), "its transparency is left out"),
            ("qtrle", "argb", ".mov", ("prores_ks", "yuva444p10le"), "coded as prores"),
            ("h264", "yuv420p", ".mp4", ("libx264", "yuv420p"), None),
        ],
    )
    def test_the_codec_that_loses_least(self, source, kept, pixel_format, suffix, found, said):
        video = replace(probe_video(source), codec=kept, pixel_format=pixel_format)
        encoding = choose_encoding(f"target{suffix}", video)
        assert (encoding.encoder, encoding.pixel_format) == found
        assert (said in " ".join(encoding.notes)) if said else not encoding.notes

    def test_the_shape_of_a_pixel_changes_one_track_alone(self, tmp_path):
        """Its bytes, and the sum of them that Matroska keeps; all else of the file is the same."""
        write_clip(tmp_path / "plain.mkv", moving_frames(3), codec="ffv1", options={})
        with av.open(tmp_path / "plain.mkv") as old, av.open(tmp_path / "named.mkv", "w") as new:
            streams = [new.add_stream_from_template(stream) for stream in old.streams]
            streams[0].metadata["title"], streams[1].metadata["title"] = ROOM, "a title"
            for packet in old.demux():
                if packet.size:
                    packet.stream = streams[packet.stream_index]
                    new.mux(packet)
        before = (tmp_path / "named.mkv").read_bytes()
        set_pixel_aspect(tmp_path / "named.mkv", (64, 48), Fraction(3, 2))
        after = (tmp_path / "named.mkv").read_bytes()
        differ = np.flatnonzero(np.frombuffer(before, np.uint8) != np.frombuffer(after, np.uint8))
        assert len(before) == len(after) and np.ptp(differ) < 400 and b"a title" in after
        with av.open(tmp_path / "named.mkv", options={"err_detect": "crccheck+explode"}) as container:
            assert container.streams.video[0].sample_aspect_ratio == Fraction(3, 2)
            assert container.streams.audio[0].metadata["title"] == "a title"
        with pytest.raises(UserError, match="its header is not as expected"):
            set_pixel_aspect(tmp_path / "named.mkv", (64, 48), Fraction(3, 2))

    def test_quality(self, source, tmp_path):
        sizes = []
        for quality in (5, 40):
            copy(source, tmp_path / "target.mp4", quality=quality)
            sizes.append((tmp_path / "target.mp4").stat().st_size)
        assert sizes[0] > 1.5 * sizes[1]

    def test_what_does_not_go_together(self, source, tmp_path):
        with pytest.raises(UserError, match=r"\.mp4 files do not hold prores; \.mov, \.mkv files do"):
            copy(source, tmp_path / "target.mp4", codec="prores")
        with pytest.raises(UserError, match="h264 has no pixel format yuv420p12le; it has yuv420p,"):
            copy(source, tmp_path / "target.mp4", pixel_format="yuv420p12le")
        for target, choices in (("target.gif", {}), ("%d.png", {}), ("target.mkv", {"codec": "ffv1"})):
            with pytest.raises(UserError, match="--quality"):
                copy(source, tmp_path / target, quality=5, **choices)


class TestBadInput:
    def fails(self, path, message):
        with pytest.raises(UserError, match=message) as raised:
            probe_video(path)
        assert "\n" not in str(raised.value) and str(path) in str(raised.value)

    def test_not_there(self, tmp_path):
        self.fails(tmp_path / "absent.mp4", "No such file")

    def test_folder(self, tmp_path):
        self.fails(tmp_path, "not a file")

    def test_no_video_file(self, tmp_path):
        path = tmp_path / "text.mp4"
        path.write_text("this is no video " * 99)
        self.fails(path, "Invalid data")

    def test_another_picture_named_webp(self, tmp_path):
        Image.fromarray(moving_frames(1)[0]).save(tmp_path / "picture.jpg")
        (tmp_path / "picture.jpg").rename(tmp_path / "picture.webp")
        self.fails(tmp_path / "picture.webp", "not a WebP image")

    def test_sound_alone(self, tmp_path):
        path = tmp_path / "sound.m4a"
        with av.open(path, "w") as container:
            track = container.add_stream("aac", rate=22050)
            tone = av.AudioFrame.from_ndarray(np.zeros((1, 22050), np.float32), "fltp", layout="mono")
            tone.sample_rate, tone.pts = 22050, 0
            container.mux(track.encode(tone))
            container.mux(track.encode(None))
        self.fails(path, "no video stream")


class TestBadOutput:
    @pytest.fixture
    def source(self, tmp_path):
        path = tmp_path / "source.mp4"
        write_clip(path, moving_frames(30, 320, 240), options={"qp": "0", "preset": "ultrafast"})
        return path

    def test_a_name_that_says_no_kind_of_video(self, source, tmp_path):
        with pytest.raises(UserError, match=r"\.mp4, \.mov"):
            copy(source, tmp_path / "target.avi")

    def test_a_file_in_the_way(self, source, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(UserError, match="cannot make the folder"):
            copy(source, tmp_path / "file" / "target.mp4")

    def test_a_folder_in_the_way(self, source, tmp_path):
        (tmp_path / "target.mp4").mkdir()
        with pytest.raises(UserError, match="it is a folder"):
            copy(source, tmp_path / "target.mp4")

    def test_a_full_disk(self, source, tmp_path):
        video, target = probe_video(source), tmp_path / "target.mp4"
        target.write_text("what was there before")
        noise = np.random.default_rng(0).integers(0, 256, (30, 240, 320, 3)).astype(np.uint8)
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
        try:
            with pytest.raises(OSError, match="File too large") as raised, write_video(target, video) as writer:
                for frame, image in zip(read_frames(video), noise, strict=True):
                    writer.write(frame, image)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        assert raised.value.filename == str(target)  # which the command's one line then names
        assert target.read_text() == "what was there before"
        assert sorted(os.listdir(tmp_path)) == ["source.mp4", "target.mp4"]

    def test_stopped_half_way(self, source, tmp_path):
        video = probe_video(source)
        with pytest.raises(KeyboardInterrupt), write_video(tmp_path / "target.mp4", video) as writer:
            for index, frame in enumerate(read_frames(video)):
                if index == 20:
                    raise KeyboardInterrupt
                writer.write(frame, frame.image, [])
        assert os.listdir(tmp_path) == ["source.mp4"]

    def test_two_commands_do_not_write_the_same_file(self, source, tmp_path):
        video = probe_video(source)
        with write_video(tmp_path / "target.mp4", video) as writer:
            for index, frame in enumerate(read_frames(video)):
                if index in (0, 20):
                    with pytest.raises(UserError, match=r"another command is writing .*target\.mp4"):
                        copy(source, tmp_path / "target.mp4")
                writer.write(frame, frame.image, [])
        assert len(read_clip(tmp_path / "target.mp4")[0]) == 30
        copy(source, tmp_path / "target.mp4")
        assert sorted(os.listdir(tmp_path)) == ["source.mp4", "target.mp4"]

    def test_killed_while_the_work_was_removed(self, source, tmp_path):
        """What is left of it is of no use to the next command, and not in its way."""
        folder = tmp_path / ".target.mp4.work"
        folder.mkdir()
        (folder / "seen.jsonl").write_text("of some other work\n")
        (folder / "000000.mkv").write_text("")
        with write_video(tmp_path / "target.mp4", probe_video(source)) as writer:
            assert (writer.frames_done, sorted(os.listdir(folder))) == (0, [".lock", "journal.jsonl"])
            for frame in read_frames(writer.video):
                writer.write(frame, frame.image, [])
        assert sorted(os.listdir(tmp_path)) == ["source.mp4", "target.mp4"]
