"""Damaged, cut off and wrongly headed videos: read as far as FFmpeg can, and what is missing is said."""

import io
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from copied_videos import copy
from small_videos import lose_packet, moving_frames, write_clip

from facedancer.core.console import UserError
from facedancer.media.decode import decoded_frames
from facedancer.media.probe import probe_video
from facedancer.media.read import read_frames


def transport_packets(path):
    """The packets of a transport stream, 188 bytes each, and the number of the track that each is of."""
    content = path.read_bytes()
    packets = [content[i : i + 188] for i in range(0, len(content), 188)]
    return packets, [(packet[1] & 31) << 8 | packet[2] for packet in packets]


@pytest.fixture
def broadcast(tmp_path):
    path = tmp_path / "clip.ts"
    write_clip(path, moving_frames(50), options={"crf": "5", "preset": "ultrafast", "g": "25"})
    return path


@pytest.mark.parametrize("track", [0x100, 0x101])
def test_a_lost_packet(broadcast, track):
    packets, tracks = transport_packets(broadcast)
    places = [index for index, number in enumerate(tracks) if number == track]
    packets.pop(places[len(places) // 2])
    broadcast.write_bytes(b"".join(packets))
    video = probe_video(broadcast)
    if track == 0x100:  # a packet of sound may be a whole piece of it, which nobody misses
        assert len(video.damage) == 1 and "lost or damaged" in video.damage[0]
    frames = list(read_frames(video))
    assert len(frames) == 50
    assert any(frame.is_damaged for frame in frames) == (track == 0x100)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_cut_off(tmp_path, suffix):
    path = tmp_path / f"clip{suffix}"
    write_clip(path, moving_frames(75), container_options={"movflags": "+faststart"} if suffix == ".mp4" else {})
    whole = path.read_bytes()
    assert not probe_video(path).damage
    path.write_bytes(whole[: len(whole) * 6 // 10])
    video = copy(path, tmp_path / "out.mkv")
    assert video.damage
    assert 30 < len(list(read_frames(video))) < 60
    assert float(video.end) == pytest.approx(1.8, abs=0.6)


@pytest.mark.parametrize("kind", ["matroska", "flv"])
def test_a_stream_that_states_no_duration(tmp_path, kind):
    """As recorders write it that cannot go back in a file."""

    class OneWay(io.RawIOBase):
        def __init__(self):
            self.content = bytearray()

        def writable(self):
            return True

        def write(self, content):
            self.content += content
            return len(content)

    file, path = OneWay(), tmp_path / "stream"
    with av.open(file, "w", format=kind) as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for image in moving_frames(10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode(None))
    path.write_bytes(file.content)
    assert not probe_video(path).damage and float(probe_video(path).end) == pytest.approx(0.4, abs=0.001)
    assert len(list(read_frames(probe_video(path, start=0.2)))) == 5


def test_a_header_that_promises_more(tmp_path):
    path = tmp_path / "clip.mp4"
    write_clip(path, moving_frames(50), sound=0, container_options={"movflags": "frag_keyframe+empty_moov"})
    content = bytearray(path.read_bytes())
    for name, at in ((b"mvhd", 20), (b"tkhd", 24), (b"mdhd", 20)):
        place = content.index(name)
        scale = 1000 if name == b"tkhd" else struct.unpack_from(">I", content, place + 16)[0]
        struct.pack_into(">I", content, place + at, 3900 * scale)
    path.write_bytes(content)
    video = probe_video(path)
    assert video.damage == ("2.0 of the 3900.0 s that its header says are there",)
    assert video.end == 2 and len(list(read_frames(video))) == 50


@pytest.fixture(scope="module")
def long_broadcast(tmp_path_factory):
    path = tmp_path_factory.mktemp("long") / "clip.ts"
    write_clip(path, moving_frames(125), options={"crf": "20", "preset": "ultrafast", "g": "60"})
    return path


@pytest.mark.parametrize("start", [0, 0.4, 2.5, 4.2])
def test_beginning_in_a_transport_stream(long_broadcast, start):
    """Its seeks land after the time that was asked for."""
    video = probe_video(long_broadcast, start=start)
    frames = list(read_frames(video))
    assert len(frames) == pytest.approx(125 - start * 25, abs=1.6)
    assert frames[0].pts * video.time_base == pytest.approx(0, abs=0.05)


def test_a_beginning_within_a_still(tmp_path):
    path = tmp_path / "clip.mkv"
    write_clip(path, moving_frames(4), ticks=[0, 100, 3000, 3100], time_base=Fraction(1, 1000), sound=0)
    frames = list(read_frames(probe_video(path, start=1)))
    assert [round(frame.pts * float(frame.video.time_base), 2) for frame in frames] == [0, 2, 2.1]
    assert np.abs(frames[0].image.astype(int) - moving_frames(2)[1]).mean() < 6


@pytest.mark.parametrize("index", [20, 46, 47, 49])
def test_what_comes_after_a_damaged_packet(tmp_path, index):
    """With several threads, the last frames came after the end."""
    path = tmp_path / "damaged.mkv"
    write_clip(tmp_path / "clip.mkv", moving_frames(50), sound=0, options={"preset": "ultrafast", "g": "1"})
    lose_packet(tmp_path / "clip.mkv", path, index)
    found = list(decoded_frames(path))
    assert len(found) == 49 and sum(lost for _, lost in found) == 1


def test_empty_packets(tmp_path):
    """Theora repeats a picture by one."""
    path = tmp_path / "clip.mkv"
    write_clip(tmp_path / "whole.mkv", moving_frames(12), sound=0, options={"preset": "ultrafast", "g": "1"})
    with av.open(tmp_path / "whole.mkv") as old, av.open(path, "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(old.demux(video=0)):
            if packet.size:
                if number == 5:
                    empty = av.Packet(b"")
                    empty.pts, empty.dts, empty.time_base = packet.pts, packet.dts, packet.time_base
                    packet = empty
                packet.stream = stream
                new.mux(packet)
    frames = list(read_frames(probe_video(path)))
    assert len(frames) == 11 and frames[4].duration == 2 * frames[3].duration


@pytest.mark.parametrize("text", ["ffconcat version 1.0\nfile clip.mp4\n", "#EXTM3U\n#EXTINF:1,\nclip.ts\n"])
def test_playlists_are_no_videos(tmp_path, text):
    write_clip(tmp_path / "clip.mp4", moving_frames(3), sound=0)
    (tmp_path / "list.mp4").write_text(text)
    with pytest.raises(UserError, match=r"list\.mp4"):
        probe_video(tmp_path / "list.mp4")


@pytest.mark.parametrize("name", ["http://127.0.0.1:9/a.mp4", "concat:clip.mp4", "subfile,,start,0,end,99,,:clip.mp4"])
def test_addresses_are_names_of_files(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_clip("clip.mp4", moving_frames(3), sound=0)
    with pytest.raises(UserError, match="No such file"):
        probe_video(name)


@pytest.mark.parametrize("name", ["12:30.mp4", "a*[1].mp4", "50%.mp4", "-v.mkv", "ä" * 123 + ".mp4"])
def test_signs_in_names(tmp_path, monkeypatch, name):
    """Also 254 bytes with what comes before, for which the name of the folder of work is too long."""
    monkeypatch.chdir(tmp_path)
    write_clip("clip.mp4", moving_frames(4), sound=0)
    (tmp_path / "clip.mp4").rename(name)
    copy(name, f"out {name}")
    assert len(list(read_frames(probe_video(f"out {name}")))) == 4


def test_the_default_of_two_pictures(tmp_path):
    path = tmp_path / "clip.mp4"
    with av.open(path, "w") as container:
        streams = []
        for width, disposition in ((96, 0), (192, 0), (64, 1)):
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt, stream.disposition = width, 48, "yuv420p", disposition
            streams.append(stream)
        for stream in streams:
            for image in moving_frames(3, stream.width, 48):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
            container.mux(stream.encode(None))
    assert probe_video(path).width == 64


def test_woven_fields_are_made_whole(tmp_path):
    """The rows of two moments, as camcorders write them, come out as whole pictures, one for each."""
    path = tmp_path / "woven.mp4"
    moments = [np.full((48, 64, 3), 40, np.uint8) for _ in range(20)]
    for index, moment in enumerate(moments):
        moment[:, 2 * index : 2 * index + 16] = 220
    woven = []
    for top, bottom in zip(moments[::2], moments[1::2], strict=True):
        woven.append(top.copy())
        woven[-1][1::2] = bottom[1::2]
    write_clip(path, np.stack(woven), options={"x264-params": "tff=1", "crf": "1"}, sound=0)
    video = probe_video(path)
    assert video.is_interlaced
    frames = [frame.image.astype(int) for frame in read_frames(video)]
    assert len(frames) == 10

    def combing(image):
        return np.abs(image[1:-1:2] - (image[:-2:2].astype(int) + image[2::2]) / 2).mean()

    assert np.mean([combing(frame) for frame in frames[2:-2]]) < 0.4 * np.mean([combing(one) for one in woven[2:-2]])
