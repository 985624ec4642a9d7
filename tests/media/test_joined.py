"""Recordings joined byte by byte, whose time stamps start anew: all pictures, at their times, with sound in step."""

from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest
from av.format import Flags
from copied_videos import copy
from small_videos import moving_frames, read_clip, write_clip

from facedancer.core.console import UserError
from facedancer.media.containers import read_packets
from facedancer.media.joins import JoinFinder
from facedancer.media.probe import probe_video
from facedancer.media.read import read_frames
from facedancer.media.tracks import late_tracks

OPTIONS = {"crf": "20", "preset": "medium", "g": "25"}  # with B frames


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Two recordings, 50 and 40 frames long: one from 0 s on, and one from 5,000 s on."""
    folder = tmp_path_factory.mktemp("parts")
    write_clip(folder / "a.ts", moving_frames(50), options=OPTIONS)
    write_clip(
        folder / "b.ts", moving_frames(40)[::-1], options=OPTIONS, container_options={"output_ts_offset": "5000"}
    )
    return (folder / "a.ts").read_bytes(), (folder / "b.ts").read_bytes()


def times_of(path):
    """Returns the times of the packets of each stream, in seconds, sorted."""
    with av.open(path) as container:
        times = [[] for _ in container.streams]
        for packet in container.demux():
            if packet.size:
                times[packet.stream_index].append(float(packet.pts * packet.time_base))
    return [sorted(every) for every in times]


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (0, 0, 1)])
def test_joined_recordings(tmp_path, parts, order):
    source, target = tmp_path / "joined.ts", tmp_path / "target.mp4"
    source.write_bytes(b"".join(parts[index] for index in order))
    video = copy(source, target)
    count = sum((50, 40)[index] for index in order)
    assert not video.damage and len(video.joins.starts) == len(order) - 1
    often = "2 times, first after 2.1" if len(order) == 3 else f"after {(2.1, 1.7)[order[0]]}"
    assert str(video.joins) == f"its time stamps jump {often} s, as in joined recordings: the parts are put together"
    pictures, sound = times_of(target)
    assert len(pictures) == count
    steps = np.diff(pictures)
    # The last picture of a part stays until its sound ends.
    assert np.sum(np.abs(steps - 0.04) > 0.001) == len(order) - 1 and steps.max() < 0.2
    assert np.diff(sound).min() > 0.046 and np.diff(sound).max() < 0.07
    # Within each part, sound and pictures are as far apart as before.
    assert abs(sound[-1] - pictures[-1]) < 0.12
    expected = [picture for index in order for picture in (moving_frames(50), moving_frames(40)[::-1])[index]]
    found = read_clip(target)[0]
    assert max(np.abs(one.astype(int) - two).mean() for one, two in zip(found, expected, strict=True)) < 14


def test_a_cut_in_a_later_part(tmp_path, parts):
    source = tmp_path / "joined.ts"
    source.write_bytes(parts[1] * 2 + parts[0] + parts[1])
    whole = probe_video(source)
    begin = float(whole.joins.times[1] - whole.start)  # of the third part
    cut = copy(source, tmp_path / "target.mkv", start=begin + 1.5, end=begin + 3)
    pictures, sound = times_of(tmp_path / "target.mkv")
    assert len(pictures) == pytest.approx(36, abs=2) and pictures[0] < 0.05 and sound[0] < 0.06
    assert pictures[-1] == pytest.approx(1.46, abs=0.04) and sound[-1] == pytest.approx(1.46, abs=0.05)
    frames = [
        frame for frame in read_frames(whole) if frame.pts * whole.time_base + whole.start > cut.start - Fraction(1, 50)
    ]
    found = next(read_frames(probe_video(tmp_path / "target.mkv"))).image
    assert np.abs(found.astype(int) - frames[0].image).mean() < 6


def test_parts_that_were_cut_anywhere(tmp_path, parts):
    """Pictures at the start of a part that need some from before it are counted, not decoded with those of another."""
    source = tmp_path / "joined.ts"
    write_clip(tmp_path / "c.ts", moving_frames(50, 64, 48)[::-1], options=OPTIONS)
    content = (tmp_path / "c.ts").read_bytes()
    source.write_bytes(parts[0] + content[len(content) // 5 // 188 * 188 :])
    frames = list(read_frames(probe_video(source)))
    assert 70 <= len(frames) < 90
    assert sum(frame.lost for frame in frames) == frames[49].lost > 5
    expected = moving_frames(50)[::-1][-(len(frames) - 50) :]
    for frame, picture in zip(frames[50:], expected, strict=True):
        assert np.abs(frame.image.astype(int) - picture).mean() < 14


def test_a_program_stream(tmp_path):
    source, options = tmp_path / "joined.mpg", {"qscale": "3"}
    write_clip(tmp_path / "a.mpg", moving_frames(30), codec="mpeg2video", sound_codec="mp2", options=options)
    source.write_bytes((tmp_path / "a.mpg").read_bytes() * 2)
    copy(source, tmp_path / "target.mkv")
    pictures, sound = times_of(tmp_path / "target.mkv")
    assert len(pictures) == 60 and np.diff(pictures).min() > 0.038 and np.diff(sound).max() < 0.06


def test_a_clock_that_overflows(tmp_path):
    """After 26.5 hours, the 33 bits of MPEG's clock start anew. FFmpeg knows that."""
    source = tmp_path / "source.ts"
    late = {"output_ts_offset": str(2**33 / 90_000 - 1)}
    write_clip(source, moving_frames(50), options=OPTIONS, container_options=late)
    assert not probe_video(source).joins.starts
    copy(source, tmp_path / "target.mp4", start=0.5)
    pictures, sound = times_of(tmp_path / "target.mp4")
    assert len(pictures) == pytest.approx(37, abs=1) and np.diff(pictures).max() < 0.07
    assert sound[0] > -0.05 and sound[-1] < 1.6


def finder():
    """A finder for a file of a kind whose time stamps may jump."""
    return JoinFinder("a.ts", SimpleNamespace(format=SimpleNamespace(flags=Flags.ts_discont.value)))


def packet_of(index, kind, time):
    """A packet that is shown at a time in hundredths of a second, 2 long if it is sound and 4 if not."""
    return SimpleNamespace(
        stream_index=index, stream=SimpleNamespace(type=kind), pts=time, dts=time, is_corrupt=False,
        duration=2 if kind == "audio" else 4, time_base=Fraction(1, 100),
    )  # fmt: skip


def test_a_file_whose_times_jump_on_and_on_is_refused():
    seen = finder()
    with pytest.raises(UserError, match=r"a\.ts: its time stamps jump more than 10000 times"):
        for number in range(20_000):
            seen.see(packet_of(0, "video", number % 2 * 100_000), number)


def test_sound_that_jumps_later_than_the_pictures():
    """As where a broadcaster goes on to another program."""
    seen = finder()
    times = {"video": [*range(0, 100, 4), *range(9000, 9100, 4)], "audio": [*range(0, 98, 2), *range(8998, 9098, 2)]}
    packets = []
    for index, kind in enumerate(("video", "audio")):
        for number, time in enumerate(times[kind]):
            place = number * (4 if kind == "video" else 2) + 30 * index  # pictures lie earlier in the file
            packets.append((place, index, kind, time))
    for place, index, kind, time in sorted(packets):
        seen.see(packet_of(index, kind, time), place)
    joins = seen.joins()
    assert len(joins.starts) == 1 and joins.starts[0][2] == pytest.approx(-89)
    assert joins.place_of(0, 100)[0] == 1 and joins.place_of(1, 110)[0] == 0 and joins.place_of(1, 128)[0] == 1


def test_a_stream_that_appears_midway():
    """PyAV marks its end too, in a list that lacks it."""
    end = SimpleNamespace(size=0, pts=None, dts=None, pos=None)
    whole = [SimpleNamespace(size=9, pts=0, dts=0, pos=0), SimpleNamespace(size=0, pts=None, dts=None, pos=9)]

    def demux(*_):
        yield from [*whole, end]
        raise IndexError("list index out of range")

    assert list(read_packets(SimpleNamespace(demux=demux))) == whole


def test_a_stream_that_appears_midway_is_named():
    listing = "  Stream #0:0[0x100]: Video: h264 (High)\n  Stream #0:1[0x101]: Audio: aac (LC)\n"
    container = SimpleNamespace(streams=[None], dumps_format=lambda: listing)
    assert late_tracks(container) == ["track 1 (aac) begins midway and is left out"]
