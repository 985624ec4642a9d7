"""Videos in and out, on small ones made here: what a person sees and hears is kept."""

import errno
import os
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
from copied_videos import copy, facts, write_video
from drawn_faces import draw_face
from small_videos import lose_packet, moving_frames, read_clip, read_planes, read_sound, write_clip

from facedancer.core.console import UserError
from facedancer.core.files import Journal
from facedancer.core.marking import SWAPPED
from facedancer.media.colors import planes_of
from facedancer.media.containers import errors_of, open_video
from facedancer.media.job import KeptWork
from facedancer.media.probe import probe_video
from facedancer.media.read import read_frames


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
        assert SWAPPED.source_type in container.metadata["comment"]
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
    "matrix, color_range, pix_fmt",
    [(1, 1, "yuv420p"), (5, 1, "yuv420p"), (1, 2, "yuv420p"), (9, 1, "yuv422p"), (5, 2, "yuv444p")],
)
def test_colors_are_read_and_kept_by_their_tags(tmp_path, matrix, color_range, pix_fmt):
    source, target = tmp_path / "source.mkv", tmp_path / "target.mp4"
    frames = np.broadcast_to(np.array([[220, 40, 60], [20, 200, 90]], np.uint8)[:, None, None], (2, 48, 64, 3))
    tags = {
        "colorspace": 6 if matrix == 5 else matrix,
        "color_range": color_range,
        "color_primaries": 1,
        "color_trc": 13,
    }
    write_clip(source, frames, sound=0, pix_fmt=pix_fmt, tags=tags, colors=(matrix, color_range))
    video = probe_video(source)
    read = [frame.image for frame in read_frames(video)]
    assert np.abs(np.stack(read).astype(int) - frames).max() <= 4
    with write_video(target, video) as writer:
        for frame in read_frames(video):
            writer.write(frame, frame.image, None if frame.pts else [])  # once through RGB, once not
    again = [frame.image for frame in read_frames(probe_video(target))]
    assert np.abs(np.stack(again).astype(int) - frames).max() <= 5
    assert facts(target)["colors"] == tuple(tags.values())


def test_without_tags_players_guess_and_so_do_we(tmp_path):
    """Small pictures are taken for BT.601 and stay without tags."""
    source, target = tmp_path / "source.mp4", tmp_path / "target.mp4"
    frames = np.full((2, 48, 64, 3), (220, 40, 60), np.uint8)
    write_clip(source, frames, sound=0, colors=(5, 1))
    copy(source, target)
    (first, _) = (frame.image for frame in read_frames(probe_video(target)))
    assert np.abs(first.astype(int) - frames[0]).max() <= 5
    assert facts(target)["colors"] == facts(source)["colors"]


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
    "upside down": ([65536, 0, 0, 0, -65536, 0, 0, 0, 1 << 30], lambda image: image[::-1]),
    "quarter and mirror": ([0, 65536, 0, 65536, 0, 0, 0, 0, 1 << 30], lambda image: image.swapaxes(0, 1)),
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
    assert again.turn == video.turn and again.display_matrix[:2] == tuple(matrix[:2])
    assert np.abs(np.stack([frame.image for frame in read_frames(again)]) - upright).mean() < 6
    assert again.sample_aspect_ratio == Fraction(4, 3)


@pytest.mark.parametrize("turn", TURNS)
def test_a_region_of_a_turned_video(tmp_path, turn):
    matrix, _ = TURNS[turn]
    source, target = tmp_path / "source.mp4", tmp_path / "target.mp4"
    write_clip(source, moving_frames(2, 64, 32), sound=0, matrix=matrix)
    video = probe_video(source)
    with write_video(target, video) as writer:
        for frame in read_frames(video):
            image = frame.image.copy()
            image[6:16, 10:20] = 255
            writer.write(frame, image, [(10, 6, 20, 16)])
    for before, after in zip(read_frames(video), read_frames(probe_video(target)), strict=True):
        assert after.image[8:14, 12:18].min() > 225
        untouched = np.ones(after.image.shape[:2], bool)
        untouched[4:18, 8:22] = False
        assert np.abs(after.image.astype(int) - before.image)[untouched].mean() < 6


@pytest.mark.parametrize("width, height", [(63, 48), (64, 47), (63, 47)])
def test_odd_sides(tmp_path, width, height):
    """They stay where chroma has the full resolution, and grow by a pixel elsewhere."""
    source, target = tmp_path / "source.mkv", tmp_path / "target.mp4"
    frames = moving_frames(4, width, height)
    write_clip(source, frames, pix_fmt="yuv444p", sound=1)
    copy(source, target)
    assert read_clip(target)[0].shape == (4, height, width, 3)
    video = probe_video(source)
    assert (video.width, video.height) == (width, height)
    with write_video(target, video, pixel_format="yuv420p") as writer:
        for frame in read_frames(video):
            image = frame.image.copy()
            image[-9:, -9:] = 255
            writer.write(frame, image, [(width - 9, height - 9, width, height)])
    after = read_clip(target)[0]
    assert after.shape == (4, height + height % 2, width + width % 2, 3)
    assert np.abs(after[:, : height - 12, : width - 12].astype(int) - frames[:, : height - 12, : width - 12]).mean() < 6
    assert after[:, -7:, -7:].min() > 225


@pytest.mark.parametrize("width, height", [(63, 48), (64, 47), (63, 47)])
def test_a_part_that_reaches_an_odd_side(tmp_path, width, height):
    source = tmp_path / "source.mkv"
    write_clip(source, moving_frames(1, width, height), codec="ffv1", sound=0)
    (frame,) = read_frames(probe_video(source))
    part, (x1, y1, x2, y2) = frame.part((width - 20, height - 20, width, height))
    assert (x2, y2) == (width, height)
    assert np.abs(part.astype(int) - frame.image[y1:y2, x1:x2]).mean() < 2  # chroma is scaled by parts


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
    with pytest.raises(UserError, match=r"its size changes after 1\.00 s; --end 1 takes"):
        copy(source, tmp_path / "target.mp4")
    assert sorted(os.listdir(tmp_path)) == ["other.h264", "source.h264"]
    copy(source, tmp_path / "target.mp4", end=1)
    assert len(read_clip(tmp_path / "target.mp4")[1]) == 25


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


def levels(path):
    """Returns the luma of every frame of a 10-bit video, as decoded, (n, H, W) int."""
    with av.open(path) as container:
        return np.stack([planes_of(frame)[0].astype(int) for frame in container.decode(video=0)])


def write_ramps(path, codec, pix_fmt, options, tags, count=3, width=96, height=64):
    """Writes a video of slow ramps whose levels 8 bits cannot tell apart."""
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
        for index in range(count):
            picture = av.VideoFrame(width, height, pix_fmt)
            for number, plane in enumerate(planes_of(picture)):
                plane[...] = 400 + 3 * index + np.arange(plane.shape[1]) if number == 0 else 500
            picture.pts = index
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


BT2020_PQ = {"colorspace": 9, "color_range": 1, "color_primaries": 9, "color_trc": 16}


class TestTenBits:
    @pytest.mark.parametrize(
        "codec, name, error", [("libx264", "h264", 1), ("libx265", "hevc", 4), ("ffv1", "ffv1", 0)]
    )
    def test_unchanged_pixels_keep_their_ten_bits(self, tmp_path, codec, name, error):
        source, target = tmp_path / "source.mkv", tmp_path / "target.mkv"
        lossless = {"libx264": {"qp": "0"}, "libx265": {"x265-params": "lossless=1:log-level=none"}}.get(codec, {})
        write_ramps(source, codec, "yuv420p10le", lossless, {})
        video = probe_video(source)
        with write_video(target, video, quality=None if codec == "ffv1" else 0) as writer:
            for frame in read_frames(video):
                image = frame.image.copy()
                image[20:30, 20:30] = 200
                writer.write(frame, image, [(10, 10, 40, 40)])  # a region larger than what changes
        assert facts(target)["format"] == "yuv420p10le" and facts(target)["codec"] == name
        before, after = levels(source), levels(target)
        assert len(np.unique(before[0])) == 96
        unchanged = np.ones(before.shape[1:], bool)
        unchanged[18:32, 18:32] = False
        assert np.abs(after - before)[:, unchanged].max() <= error
        assert (after - before)[:, 22:28, 22:28].min() > 100

    def test_hdr10(self, tmp_path):
        """Depth, tags, mastering display and light levels go through; a swap is seen through a curve and back."""
        source, target = tmp_path / "source.mkv", tmp_path / "target.mkv"
        display = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
        parameters = f"hdr10=1:repeat-headers=1:master-display={display}:max-cll=1000,400:log-level=none"
        write_ramps(source, "libx265", "yuv420p10le", {"crf": "4", "x265-params": parameters}, BT2020_PQ)
        video = probe_video(source)
        assert video.mastering == {"master-display": display, "max-cll": "1000,400"}
        with write_video(target, video) as writer:
            for frame in read_frames(video):
                assert 60 < frame.image.mean() < 200
                image = frame.image.copy()
                image[20:40, 20:40] = image[20, 60]  # of another part of the ramp, 40 columns away
                writer.write(frame, image, [(20, 20, 40, 40)])
        again = probe_video(target)
        assert again.mastering == video.mastering and again.colors.tags == video.colors.tags
        before, after = levels(source), levels(target)
        unchanged = np.ones(before.shape[1:], bool)
        unchanged[12:48, 12:48] = False
        assert np.abs(after - before)[:, unchanged].max() <= 6
        assert np.abs(after[:, 26:34, 26:34] - before[:, 26:34, 60:61]).mean() < 6


def test_everything_at_once(tmp_path):
    """Two sound tracks, a subtitle track, 10 bits, a variable frame rate and a rotation go in and come out."""
    plain, source, target = tmp_path / "plain.mkv", tmp_path / "source.mkv", tmp_path / "target.mkv"
    ticks = [0, 40, 80, 95, 110, 300, 301, 350, 500, 520]
    write_clip(plain, moving_frames(len(ticks)), ticks=ticks, time_base=Fraction(1, 600), rate=30, sound=2,
               pix_fmt="yuv420p10le", tags=BT2020_PQ | {"color_trc": 14})  # fmt: skip
    with av.open(plain) as old, av.open(source, "w") as new:
        copies = {stream.index: new.add_stream_from_template(stream) for stream in old.streams}
        copies[0].set_display_matrix(TURNS["quarter right"][0])
        subtitles = new.add_mux_stream("subrip")
        subtitles.metadata["language"] = "fra"
        for packet in old.demux():
            if packet.pts is not None:
                packet.stream = copies[packet.stream_index]
                new.mux(packet)
        for text, at in (("Bonjour", 100), ("Au revoir", 500)):
            packet = av.Packet(text.encode())
            packet.stream, packet.time_base = subtitles, Fraction(1, 1000)
            packet.pts = packet.dts = at
            packet.duration = 300
            new.mux(packet)
    copy(source, target)

    def subtitles_of(path):
        with av.open(path) as container:
            (stream,) = container.streams.subtitles
            said = [(packet.pts, packet.duration, bytes(packet)) for packet in container.demux(stream) if packet.size]
            return stream.language, said

    before, after = probe_video(source), probe_video(target)
    assert after.pixel_format == "yuv420p10le" and after.turn == before.turn != (False, False, False)
    assert after.colors.tags == before.colors.tags and after.display_matrix[:2] == before.display_matrix[:2]
    assert read_sound(target) == read_sound(source) and len(read_sound(target)) == 2
    assert subtitles_of(target) == subtitles_of(source)
    assert [said for _, _, said in subtitles_of(target)[1]] == [b"Bonjour", b"Au revoir"]
    assert read_clip(target)[1] == read_clip(source)[1]
    assert np.abs(levels(target) - levels(source)).mean() < 8


def test_from_here_to_there(tmp_path):
    source, target = tmp_path / "source.mp4", tmp_path / "target.mp4"
    write_clip(source, moving_frames(100), sound=1)
    copy(source, target, start=2.0, end=3.0)
    before, after = read_clip(source)[0], read_clip(target)
    assert after[1] == [Fraction(i, 25) for i in range(25)]
    assert np.abs(after[0].astype(int) - before[50:75]).mean() < 4
    (sound,), (cut,) = read_sound(source), read_sound(target)
    assert [data for _, data in cut] == [data for pts, data in sound if 2 <= pts / 22050 < 3]
    assert (
        abs(cut[0][0] - (next(pts for pts, _ in sound if pts >= 44100) - 44100)) <= 22
    )  # an edit list counts milliseconds
    with pytest.raises(UserError, match=r"lasts 4\.00 s: nothing lies from 5 s on"):
        probe_video(source, start=5)


ENCODE = """
import sys
from facedancer.media.probe import probe_video
from facedancer.media.read import read_frames
from facedancer.media.encoding import choose_encoding
from facedancer.media.segments import SegmentWriter

video = probe_video(sys.argv[1])
writer = SegmentWriter(sys.argv[2], choose_encoding(sys.argv[2], video), video.rate)
for frame in read_frames(video):
    writer.write(frame, frame.image)
writer.finish()
"""


def test_what_lies_in_memory_does_not_show(tmp_path, repository):
    """The same frames are the same bits in another process, whatever it finds in its memory (with glibc)."""
    source = tmp_path / "source.mp4"
    faces = np.concatenate([draw_face(1, 160), draw_face(2, 160)], axis=1)
    write_clip(source, np.stack([np.roll(faces, index % 23, axis=1) for index in range(20)]), sound=0)
    targets = [tmp_path / f"{fill}.mp4" for fill in (1, 85)]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", ENCODE, source, target],
            env={**os.environ, "MALLOC_PERTURB_": target.stem, "PYTHONPATH": str(repository)},
        )
        for target in targets
    ]
    assert [process.wait() for process in running] == [0, 0]
    assert targets[0].read_bytes() == targets[1].read_bytes()


def test_more_segments_than_one(tmp_path, monkeypatch):
    """Where a segment ends nothing is seen: times, order and pictures are those of one."""
    monkeypatch.setattr("facedancer.media.job.SEGMENT_FRAMES", 7)
    source, target = tmp_path / "source.mp4", tmp_path / "target.mp4"
    ticks = np.cumsum(np.random.default_rng(0).integers(1, 60, 30)).tolist()
    write_clip(source, moving_frames(30), ticks=ticks, time_base=Fraction(1, 600), rate=30)
    copy(source, target)
    (before, times), (after, new_times) = read_clip(source), read_clip(target)
    assert new_times == times
    assert np.abs(before.astype(int) - after).mean(axis=(1, 2, 3)).max() < 5
    assert facts(target)["duration"] == pytest.approx(facts(source)["duration"], abs=5e-3)


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p"])
def test_a_part_of_a_frame(tmp_path, turn, pix_fmt):
    """It is what the whole shows there, and a change of it alone is written as one of the whole."""
    source = tmp_path / "source.mkv"
    write_clip(source, moving_frames(2, 64, 48), pix_fmt=pix_fmt, matrix=TURNS[turn][0], sound=0)
    video = probe_video(source)
    targets = [tmp_path / "whole.mkv", tmp_path / "part.mkv"]
    region = (19, 13, 30, 24)
    for target in targets:
        with write_video(target, video, codec="ffv1") as writer:
            for frame in read_frames(video):
                part, (x1, y1, x2, y2) = frame.part((17, 11, 33, 26))
                assert x1 <= 17 and y1 <= 11 and x2 >= 33 and y2 >= 26 and (x2 - x1) * (y2 - y1) < 600
                inside = frame.image[y1:y2, x1:x2]
                # At the part's edge chroma is not mixed with what lies beyond.
                np.testing.assert_array_equal(part[2:-2, 2:-2], inside[2:-2, 2:-2])
                whole = frame.image.copy()
                whole[region[1] : region[3], region[0] : region[2]] //= 2
                if target == targets[0]:
                    writer.write(frame, whole, [region])
                else:
                    changed = np.where(whole == frame.image, 0, 1)[y1:y2, x1:x2]
                    writer.write(
                        frame, np.where(changed, whole[y1:y2, x1:x2], part), [region], (part, (x1, y1, x2, y2))
                    )
    np.testing.assert_array_equal(*(read_clip(target)[0] for target in targets))


def test_damaged_packets_are_passed_over(tmp_path):
    source, damaged, target = tmp_path / "source.mkv", tmp_path / "damaged.mkv", tmp_path / "target.mkv"
    write_clip(source, moving_frames(12), codec="mjpeg", pix_fmt="yuvj420p", options={"qmin": "2"}, sound=0)
    lose_packet(source, damaged, 5)
    copy(damaged, target)
    expected = [Fraction(i, 25) for i in range(12) if i != 5]
    assert read_clip(target)[1] == expected
    frames = list(read_frames(probe_video(damaged)))
    assert [frame.lost for frame in frames] == [0, 0, 0, 0, 1] + [0] * 6
    assert [frame.duration * probe_video(damaged).time_base for frame in frames[3:6]] == [
        Fraction(n, 25) for n in (1, 2, 1)
    ]


def test_frames_are_read_as_they_are_asked_for(tmp_path):
    """A long video is never held as a whole."""
    source = tmp_path / "source.mp4"
    write_clip(source, moving_frames(3), sound=0)
    frames = read_frames(probe_video(source))
    assert next(frames).pts == 0
    source.unlink()
    assert sum(1 for _ in frames) == 2


def test_a_full_disk_is_one_of_the_output(tmp_path, monkeypatch):
    """Also while a video is read, and nothing is kept where nothing was done."""
    write_clip(tmp_path / "source.mp4", np.zeros((2, 32, 32, 3), np.uint8))
    with pytest.raises(OSError) as raised, errors_of(tmp_path / "out.mp4"), open_video(tmp_path / "source.mp4"):
        raise av.error.OSError(errno.ENOSPC, "no space", "a segment")
    assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, str(tmp_path / "out.mp4"))

    def is_full(self, entry):
        raise OSError(errno.ENOSPC, "no space", str(self.path))

    monkeypatch.setattr(Journal, "append", is_full)
    with pytest.raises(OSError, match="no space"):
        KeptWork(tmp_path / "out.mp4", "key")
    assert [path.name for path in tmp_path.iterdir()] == ["source.mp4"]
