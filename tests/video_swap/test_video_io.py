"""Videos in and out, on small ones made here: what a person sees and hears is kept."""

import os
import resource
from fractions import Fraction

import av
import numpy as np
import pytest
from small_videos import moving_frames, read_clip, read_planes, read_sound, write_clip

from facedancer.core.console import UserError
from facedancer.video_swap.marking import SOURCE_TYPE
from facedancer.video_swap.video_io import probe_video, read_frames, write_video


def copy(source, target, sample_rate=1, length=1.0):
    """Reads a video and writes it with nothing changed; returns its `Video`."""
    video = probe_video(source, length)
    with write_video(target, video, sample_rate=sample_rate) as writer:
        for frame in read_frames(video, sample_rate):
            writer.write(frame, frame.image, [])
    return video


def facts(path):
    with av.open(path) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        return {
            "size": (context.width, context.height),
            "rate": stream.average_rate,
            "duration": float(stream.duration * stream.time_base) if stream.duration else None,
            "format": context.pix_fmt,
            "codec": context.name,
            "colours": (context.colorspace, context.color_range, context.color_primaries, context.color_trc),
            "aspect": stream.sample_aspect_ratio,
            "languages": [track.language for track in container.streams.audio],
        }


def test_a_video_comes_out_as_it_went_in(tmp_path):
    source, target = tmp_path / "source.mp4", tmp_path / "new folder" / "target.mp4"
    frames = moving_frames(70)
    write_clip(source, frames, rate=Fraction(30000, 1001), sound=2)
    video = copy(source, target)
    assert (video.width, video.height, video.frame_count, video.rate) == (64, 48, 70, Fraction(30000, 1001))

    before, after = facts(source), facts(target)
    assert after["size"] == (64, 48) and after["rate"] == Fraction(30000, 1001)
    assert (after["codec"], after["format"]) == ("h264", "yuv420p")
    assert after["duration"] == pytest.approx(before["duration"], abs=1e-3)
    assert read_clip(target)[1] == read_clip(source)[1]
    assert len(read_sound(source)) == 2 and len(read_sound(source)[0]) > 20
    assert read_sound(target) == read_sound(source)

    difference = read_planes(target) - read_planes(source)
    assert abs(difference.mean()) < 0.15  # no shift of the levels
    assert (difference**2).mean() < 3  # only coding
    with open(target, "rb") as file:
        assert file.read(4096).find(b"moov") > 0  # plays before it is loaded
    with av.open(target) as container:
        assert SOURCE_TYPE in container.metadata["comment"]
    assert os.listdir(target.parent) == ["target.mp4"]


def test_only_the_regions_change(tmp_path):
    source, target = tmp_path / "source.mp4", tmp_path / "target.mp4"
    write_clip(source, moving_frames(5, 70, 50), sound=0)
    video = probe_video(source)
    with write_video(target, video) as writer:
        for frame in read_frames(video):
            image = np.full_like(frame.image, 255)
            image[11:21, 21:32] = (200, 30, 60)
            writer.write(frame, image, [(21, 11, 32, 21)])
    before, after = read_clip(source)[0].astype(int), read_clip(target)[0].astype(int)
    assert np.abs(after[:, 13:19, 23:30] - (200, 30, 60)).mean() < 6
    before[:, 8:24, 18:36] = after[:, 8:24, 18:36] = 0
    assert np.abs(after - before).mean() < 3 and np.abs(after - before).max() < 45


@pytest.mark.parametrize(
    "matrix, colour_range, pix_fmt",
    [(1, 1, "yuv420p"), (5, 1, "yuv420p"), (1, 2, "yuv420p"), (9, 1, "yuv422p"), (5, 2, "yuv444p")],
)
def test_colours_are_read_and_kept_by_their_tags(tmp_path, matrix, colour_range, pix_fmt):
    source, target = tmp_path / "source.mkv", tmp_path / "target.mp4"
    frames = np.broadcast_to(np.array([[220, 40, 60], [20, 200, 90]], np.uint8)[:, None, None], (2, 48, 64, 3))
    tags = {
        "colorspace": 6 if matrix == 5 else matrix,
        "color_range": colour_range,
        "color_primaries": 1,
        "color_trc": 13,
    }
    write_clip(source, frames, sound=0, pix_fmt=pix_fmt, tags=tags, colours=(matrix, colour_range))
    video = probe_video(source)
    read = [frame.image for frame in read_frames(video)]
    assert np.abs(np.stack(read).astype(int) - frames).max() <= 4
    with write_video(target, video) as writer:
        for frame in read_frames(video):
            writer.write(frame, frame.image, None if frame.pts else [])  # once through RGB, once not
    again = [frame.image for frame in read_frames(probe_video(target))]
    assert np.abs(np.stack(again).astype(int) - frames).max() <= 5
    assert facts(target)["colours"] == tuple(tags.values())


def test_without_tags_players_guess_and_so_do_we(tmp_path):
    """Small pictures are taken for BT.601 and stay without tags."""
    source, target = tmp_path / "source.mp4", tmp_path / "target.mp4"
    frames = np.full((2, 48, 64, 3), (220, 40, 60), np.uint8)
    write_clip(source, frames, sound=0, colours=(5, 1))
    copy(source, target)
    (first, _) = (frame.image for frame in read_frames(probe_video(target)))
    assert np.abs(first.astype(int) - frames[0]).max() <= 5
    assert facts(target)["colours"] == facts(source)["colours"]


def test_rgb_video(tmp_path):
    source, target = tmp_path / "source.mkv", tmp_path / "target.mp4"
    frames = np.full((2, 48, 64, 3), (220, 40, 60), np.uint8)
    write_clip(source, frames, sound=0, codec="libx264rgb", pix_fmt="rgb24")
    copy(source, target)
    read = [frame.image for frame in read_frames(probe_video(target))]
    assert np.abs(np.stack(read).astype(int) - frames).max() <= 5


TURNS = {
    "quarter left": ([0, -65536, 0, 65536, 0, 0, 0, 0, 1 << 30], lambda image: np.rot90(image)),
    "quarter right": ([0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30], lambda image: np.rot90(image, -1)),
    "half": ([-65536, 0, 0, 0, -65536, 0, 0, 0, 1 << 30], lambda image: np.rot90(image, 2)),
    "mirror": ([-65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30], lambda image: image[:, ::-1]),
}


@pytest.mark.parametrize("turn", TURNS)
def test_rotation_is_applied(tmp_path, turn):
    matrix, expected = TURNS[turn]
    source, target = tmp_path / "source.mp4", tmp_path / "target.mp4"
    frames = moving_frames(3, 64, 32)
    write_clip(source, frames, sound=0, matrix=matrix, tags={"sample_aspect_ratio": Fraction(4, 3)})
    video = copy(source, target)
    upright = np.stack([expected(image) for image in frames]).astype(int)
    assert (video.width, video.height) == upright.shape[2:0:-1]
    assert np.abs(np.stack([frame.image for frame in read_frames(video)]) - upright).mean() < 6
    again = probe_video(target)
    assert again.turn == (False, False, False)
    assert np.abs(np.stack([frame.image for frame in read_frames(again)]) - upright).mean() < 6
    assert again.sample_aspect_ratio == (Fraction(3, 4) if "quarter" in turn else Fraction(4, 3))


@pytest.mark.parametrize("width, height", [(63, 48), (64, 47), (63, 47)])
def test_odd_sides_grow_by_a_pixel(tmp_path, width, height):
    source, target = tmp_path / "source.mkv", tmp_path / "target.mp4"
    frames = moving_frames(4, width, height)
    write_clip(source, frames, pix_fmt="yuv444p", sound=1)
    video = probe_video(source)
    assert (video.width, video.height) == (width, height)
    with write_video(target, video) as writer:
        for frame in read_frames(video):
            image = frame.image.copy()
            image[-9:, -9:] = 255
            writer.write(frame, image, [(width - 9, height - 9, width, height)])
    after = read_clip(target)[0]
    assert after.shape == (4, height + height % 2, width + width % 2, 3)
    assert np.abs(after[:, : height - 12, : width - 12].astype(int) - frames[:, : height - 12, : width - 12]).mean() < 6
    assert after[:, -7:, -7:].min() > 225


def test_variable_frame_rate(tmp_path):
    source, target = tmp_path / "source.mp4", tmp_path / "target.mp4"
    ticks = [0, 40, 80, 95, 110, 300, 301, 350, 500]
    write_clip(source, moving_frames(len(ticks)), ticks=ticks, time_base=Fraction(1, 600), rate=30)
    copy(source, target)
    assert read_clip(target)[1] == [Fraction(tick, 600) for tick in ticks]
    assert read_sound(target) == read_sound(source)


def test_a_rate_that_the_file_rounds_is_found_again(tmp_path):
    """Matroska counts whole milliseconds."""
    source, target = tmp_path / "source.mkv", tmp_path / "target.mp4"
    write_clip(source, moving_frames(40), rate=Fraction(30000, 1001), sound=0)
    assert read_clip(source)[1][1] == Fraction(33, 1000)
    copy(source, target)
    assert facts(target)["rate"] == Fraction(30000, 1001)
    assert read_clip(target)[1] == [Fraction(1001 * i, 30000) for i in range(40)]


def test_a_stream_that_begins_late_begins_at_zero(tmp_path):
    source, target = tmp_path / "source.ts", tmp_path / "target.mp4"
    write_clip(source, moving_frames(30), ticks=range(100, 130))
    assert read_clip(source)[1][0] > 4
    copy(source, target)
    times = read_clip(target)[1]
    assert 0 <= times[0] < 6 and times[-1] - times[0] == Fraction(29, 25)
    assert len(times) == 30


def test_a_stream_without_time_stamps(tmp_path):
    source, target = tmp_path / "source.h264", tmp_path / "target.mp4"
    write_clip(source, moving_frames(30), sound=0)
    copy(source, target)
    assert read_clip(target)[1] == [Fraction(i, 25) for i in range(30)]


def test_a_size_that_changes(tmp_path):
    source, other = tmp_path / "source.h264", tmp_path / "other.h264"
    write_clip(source, moving_frames(25), sound=0)
    write_clip(other, moving_frames(25, 80, 64), sound=0)
    source.write_bytes(source.read_bytes() + other.read_bytes())
    with pytest.raises(UserError, match=r"its size changes after 1\.0 s"):
        copy(source, tmp_path / "target.mp4")
    assert sorted(os.listdir(tmp_path)) == ["other.h264", "source.h264"]


@pytest.mark.parametrize("count", [50, 51])
def test_sample_rate_keeps_the_speed(tmp_path, count):
    source, target = tmp_path / "source.mp4", tmp_path / "target.mp4"
    write_clip(source, moving_frames(count))
    copy(source, target, sample_rate=3)
    assert read_clip(target)[1] == [Fraction(i, 25) for i in range(0, count, 3)]
    assert facts(target)["duration"] == pytest.approx(count / 25, abs=2e-3)
    assert read_sound(target) == read_sound(source)


def test_length_is_a_fraction_of_the_video(tmp_path):
    source, target = tmp_path / "source.mp4", tmp_path / "target.mp4"
    write_clip(source, moving_frames(50))
    assert copy(source, target, length=0.4).frame_count == 20
    assert read_clip(target)[1] == [Fraction(i, 25) for i in range(20)]
    assert facts(target)["duration"] == pytest.approx(0.8, abs=2e-3)
    (before,), (after,) = read_sound(source), read_sound(target)
    assert before[: len(after)] == after
    assert 0.8 <= (after[-1][0] + 1024) / 22050 < 0.9


def test_edit_lists_are_followed(real_faces):
    """A real video of which an edit list shows a part; players show 55 of its 158 frames."""
    video = probe_video(real_faces.parent / "videos" / "talking_720p.mp4")
    assert (video.frame_count, video.rate, video.width, video.height) == (55, 25, 1280, 720)
    assert float(video.end) == pytest.approx(2.186, abs=1e-3)


class TestBadInput:
    def fails(self, path, message):
        with pytest.raises(UserError, match=message) as raised:
            probe_video(path)
        assert "\n" not in str(raised.value) and str(path) in str(raised.value)

    def test_not_there(self, tmp_path):
        self.fails(tmp_path / "absent.mp4", "No such file")

    def test_folder(self, tmp_path):
        self.fails(tmp_path, "directory")

    def test_no_video_file(self, tmp_path):
        path = tmp_path / "text.mp4"
        path.write_text("this is no video " * 99)
        self.fails(path, "Invalid data")

    def test_sound_alone(self, tmp_path):
        path = tmp_path / "sound.m4a"
        with av.open(path, "w") as container:
            track = container.add_stream("aac", rate=22050)
            tone = av.AudioFrame.from_ndarray(np.zeros((1, 22050), np.float32), "fltp", layout="mono")
            tone.sample_rate, tone.pts = 22050, 0
            container.mux(track.encode(tone))
            container.mux(track.encode(None))
        self.fails(path, "no video stream")

    @pytest.mark.parametrize("suffix", ["mp4", "mkv"])
    def test_cut_off(self, tmp_path, suffix):
        path = tmp_path / f"clip.{suffix}"
        write_clip(path, moving_frames(75), container_options={"movflags": "+faststart"} if suffix == "mp4" else {})
        whole = path.read_bytes()
        probe_video(path)
        path.write_bytes(whole[: len(whole) * 6 // 10])
        self.fails(path, "cut off")


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
            with pytest.raises(UserError, match=r"cannot write the video .*target\.mp4: File too large"):  # noqa: SIM117
                with write_video(target, video) as writer:
                    for frame, image in zip(read_frames(video), noise, strict=True):
                        writer.write(frame, image)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
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

    def test_sound_that_the_file_cannot_hold(self, tmp_path):
        source = tmp_path / "source.mkv"
        write_clip(source, moving_frames(5), sound_codec="wavpack")
        with pytest.raises(UserError, match=r"cannot keep the sound .*\.mkv"):
            copy(source, tmp_path / "target.mp4")
        copy(source, tmp_path / "target.mkv")
        assert [data for _, data in read_sound(tmp_path / "target.mkv")[0]] == [
            data for _, data in read_sound(source)[0]
        ]
        assert sorted(os.listdir(tmp_path)) == ["source.mkv", "target.mkv"]


def test_frames_are_read_as_they_are_asked_for(tmp_path):
    """A long video is never held as a whole."""
    source = tmp_path / "source.mp4"
    write_clip(source, moving_frames(3), sound=0)
    frames = read_frames(probe_video(source))
    assert next(frames).pts == 0
    source.unlink()
    assert sum(1 for _ in frames) == 2
