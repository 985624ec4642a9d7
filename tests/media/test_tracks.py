"""Tracks beside the pictures: copied, encoded anew, or left out and named, which is known before any work."""

from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
from av.stream import Disposition
from copied_videos import copy, write_video
from small_videos import moving_frames, read_clip, read_sound, write_clip

from facedancer.core.images import encode_image
from facedancer.media.job import SegmentedVideo
from facedancer.media.probe import probe_video
from facedancer.media.read import read_frames
from facedancer.media.tracks import plan_tracks


def planned(source, target):
    return plan_tracks(target, probe_video(source))


def replace_bytes(path, old, new):
    content = path.read_bytes()
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))


def loudness(path):
    """Root mean square of the samples of the only sound track, by seconds of a tenth."""
    with av.open(path) as container:
        samples = np.concatenate([frame.to_ndarray().astype(float).mean(0) for frame in container.decode(audio=0)])
        rate = container.streams.audio[0].rate
    steps = samples[: len(samples) // (rate // 10) * (rate // 10)].reshape(-1, rate // 10)
    return np.sqrt((steps**2).mean(1))


@pytest.mark.parametrize(
    "suffix, sound, target, encoder",
    [
        (".mkv", "wavpack", "target.mp4", "aac"),
        (".avi", "adpcm_ms", "target.mkv", "aac"),
        (".avi", "pcm_mulaw", "target.mp4", "aac"),
        (".mp4", "aac", "target.webm", "opus"),
    ],
)
def test_sound_that_the_file_cannot_hold_is_encoded_anew(tmp_path, suffix, sound, target, encoder):
    source = tmp_path / f"source{suffix}"
    write_clip(source, moving_frames(25), sound_codec=sound, codec="mpeg4", options={"qscale": "3"})
    plan = planned(source, target)
    (note,) = plan.notes
    assert f"({encoder})" in note.replace("lib", "") and sound in note and not plan.is_missing
    copy(source, tmp_path / target)
    with av.open(tmp_path / target) as container:
        assert container.streams.audio[0].codec_context.codec.canonical_name == encoder
        assert float(container.streams.audio[0].rate) >= 22050
    level = loudness(tmp_path / target)
    assert 0.9 <= len(level) / 10 <= 1.2
    if sound != "adpcm_ms":  # whole numbers
        assert level[1:9].mean() == pytest.approx(0.3 / 2, rel=0.15)  # a tone that went from one channel to two


def test_sound_that_changes_its_channels(tmp_path):
    """Broadcasts go from stereo to surround and back."""
    for layout in ("mono", "stereo"):
        with av.open(tmp_path / f"{layout}.ts", "w", format="mpegts") as container:
            pictures = container.add_stream("libx264", rate=25)
            pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
            track = container.add_stream("mp2", rate=32000)
            track.layout = layout
            offset = 25 * (layout == "stereo")
            for index, image in enumerate(moving_frames(25)):
                frame = av.VideoFrame.from_ndarray(image, "rgb24")
                frame.pts = index + offset
                container.mux(pictures.encode(frame))
            channels = track.layout.nb_channels
            wave = np.tile((9000 * np.sin(np.arange(32000) / 9)).astype(np.int16)[:, None], channels).reshape(1, -1)
            tone = av.AudioFrame.from_ndarray(wave, "s16", layout=layout)
            tone.sample_rate, tone.pts = 32000, 32000 * (layout == "stereo")
            container.mux(track.encode(tone))
            container.mux(track.encode(None))
            container.mux(pictures.encode(None))
    source = tmp_path / "source.ts"
    source.write_bytes((tmp_path / "mono.ts").read_bytes() + (tmp_path / "stereo.ts").read_bytes())
    copy(source, tmp_path / "target.webm")
    level = loudness(tmp_path / "target.webm")
    assert len(level) >= 18 and (level[1:8] > 0.1).all() and (level[12:17] > 0.1).all()


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
def test_an_empty_track(tmp_path, suffix):
    """Announced by the file, without a packet, as in pieces of streams."""
    source = tmp_path / "source.ts"
    write_clip(source, moving_frames(20))
    content = source.read_bytes()
    packets = [content[i : i + 188] for i in range(0, len(content), 188)]
    source.write_bytes(b"".join(packet for packet in packets if (packet[1] & 31) << 8 | packet[2] != 0x101))
    plan = planned(source, f"target{suffix}")
    assert plan.notes == (f"{source}: track 1 (sound, aac) is left out: nothing is in it",) and not plan.is_missing
    copy(source, tmp_path / f"target{suffix}")
    assert len(read_clip(tmp_path / f"target{suffix}")[0]) == 20


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_sound_of_which_nothing_is_known(tmp_path, suffix):
    """As Apple's spatial sound: nobody could play it, the other sound is there, and one line names it."""
    source, target = tmp_path / "source.mov", tmp_path / f"target{suffix}"
    write_clip(source, moving_frames(20), sound=2)
    content = source.read_bytes()
    place = content.index(b"mp4a", content.rindex(b"stsd"))
    source.write_bytes(content[:place] + (b"apac" + content[place + 4 :]).replace(b"esds", b"xsds"))
    plan = planned(source, target)
    assert plan.notes == (f"{source}: track 2 (sound, apac) is left out: {suffix} files do not hold it",)
    assert not plan.is_missing
    copy(source, target)
    assert [data for _, data in read_sound(target)[0]] == [data for _, data in read_sound(source)[0]]
    assert len(read_sound(target)) == 1


def test_all_sound_is_unknown(tmp_path):
    source = tmp_path / "source.mov"
    write_clip(source, moving_frames(20))
    content = source.read_bytes()
    place = content.index(b"mp4a", content.rindex(b"stsd"))
    source.write_bytes(content[:place] + (b"apac" + content[place + 4 :]).replace(b"esds", b"xsds"))
    plan = planned(source, "target.mp4")
    assert plan.is_missing and "(sound, apac) is left out" in plan.notes[0]


def add_subtitles(source, target, codec, *texts, header=None):
    """Copies a video's pictures, with texts `(start, end, bytes)` in ms."""
    with av.open(source) as old, av.open(target, "w") as new:
        pictures = new.add_stream_from_template(old.streams.video[0])
        said = new.add_stream(codec) if header else new.add_mux_stream(codec)
        if header:
            said.codec_context.subtitle_header = header
        said.metadata["language"] = "ger"
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = pictures
                new.mux(packet)
        for start, end, text in texts:
            packet = av.Packet(text)
            packet.pts, packet.dts, packet.duration, packet.time_base = start, start, end - start, Fraction(1, 1000)
            packet.stream = said
            new.mux(packet)


def read_texts(path):
    """Returns `(codec, language, [(start, end, text)])` of a subtitle track, without what is empty; times in ms."""
    with av.open(path) as container:
        (track,) = container.streams.subtitles
        found = []
        for packet in container.demux(track):
            if packet.size:
                times = [round((packet.pts + more) * packet.time_base * 1000) for more in (0, packet.duration)]
                lines = track.codec_context.decode2(packet) or ()
                found += [(*times, line.ass.split(b",", 8)[-1].decode()) for line in lines]
        return track.codec_context.name, track.language, found


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    path = tmp_path_factory.mktemp("plain") / "plain.mp4"
    write_clip(path, moving_frames(5), sound=0, rate=1)
    return path


@pytest.mark.parametrize("suffix, kind", [(".mp4", "mov_text"), (".mov", "mov_text"), (".webm", "webvtt")])
def test_subtitles_that_the_file_cannot_hold(tmp_path, plain, suffix, kind):
    source, target = tmp_path / "said.mkv", tmp_path / f"target{suffix}"
    texts = (0, 900, "<i>Grüße</i>"), (1000, 2000, "two\nlines"), (2500, 3500, '<font color="#ff0000">red</font>')
    add_subtitles(plain, source, "subrip", *((*times, text.encode()) for *times, text in texts))
    plan = planned(source, target)
    (note,) = plan.notes
    assert not plan.is_missing and note == (
        f"{source}: track 1 (subtitles, subrip) is converted to {kind}: {suffix} files do not hold it as it is; left"
        " out of its styling: colors"
    )
    copy(source, target)
    codec, language, found = read_texts(target)
    assert (codec, language) == (kind, "ger")
    slanted = "{\\i1}Grüße{\\i0}" if kind == "webvtt" else "{\\i1}Grüße"
    assert found == [(0, 900, slanted), (1000, 2000, "two\\Nlines"), (2500, 3500, "red")]
    copy(target, tmp_path / "back.mkv", start=1.0)
    codec, language, found = read_texts(tmp_path / "back.mkv")
    assert (codec, language) == ("webvtt" if kind == "webvtt" else "srt", "ger")
    assert [text for *_, text in found] == ["two\\Nlines", "red"] and found[0][0] < 2


def test_texts_that_are_shown_together(tmp_path, plain):
    """MP4 shows one at a time, and has neither styles nor drawings."""
    source = tmp_path / "said.mkv"
    add_subtitles(plain, tmp_path / "first.mkv", "subrip", (0, 1, b"-"))
    with av.open(tmp_path / "first.mkv") as container:
        decoder = container.streams.subtitles[0].codec_context
        decoder.open(strict=False)
        usual = decoder.subtitle_header
    style = next(line for line in usual.splitlines() if line.startswith(b"Style:"))
    header = usual.replace(style, style + b"\n" + style.replace(b"Default,Arial,16", b"Sign,Times,40"))
    lines = (
        (0, 3000, b"0,0,Default,,0,0,0,,long"),
        (1000, 2000, b"1,0,Sign,,0,0,0,,{\\pos(3,4)\\b1}short"),
        (1500, 2500, b"2,0,Default,,0,0,0,,{\\p1}m 0 0 l 9 9{\\p0}"),
        (3000, 9_000_000, b"3,0,Default,,0,0,0,,end"),
    )
    add_subtitles(plain, source, "ass", *lines, header=header)
    (note,) = planned(source, "target.mp4").notes
    assert note.endswith("; left out of its styling: drawings, places, styles")
    copy(source, tmp_path / "target.mp4")
    assert read_texts(tmp_path / "target.mp4")[2] == [
        (0, 1000, "long"),
        (1000, 2000, "long\\N{\\b1}short"),
        (2000, 3000, "long"),
        (3000, 9_000_000, "end"),
    ]


def test_subtitles_that_cannot_be_converted(tmp_path, plain):
    """Pictures, and single texts that are not in UTF-8 or would take FFmpeg's encoder long."""
    source = tmp_path / "said.mkv"
    add_subtitles(plain, source, "dvd_subtitle", (0, 100, b"picture"))
    plan = planned(source, "target.webm")
    (note,) = plan.notes
    assert plan.is_missing and "(subtitles, dvd_subtitle) is left out: .webm files do not hold it" in note
    bad = (0, 100, "Grüße".encode("latin-1")), (0, 100, b"x" * 99_999)
    add_subtitles(plain, source, "subrip", *bad, (100, 200, b"there"))
    plan = planned(source, "target.mp4")
    assert plan.is_missing and "track 1 (subtitles, subrip) is damaged, packets of it are left out: 2" in plan.notes[0]
    copy(source, tmp_path / "target.mp4")
    assert [text for *_, text in read_texts(tmp_path / "target.mp4")[2]] == ["there"]


def test_subtitles_of_an_unknown_kind(tmp_path):
    write_clip(tmp_path / "plain.mp4", moving_frames(5), sound=0)
    source = tmp_path / "said.mkv"
    add_subtitles(tmp_path / "plain.mp4", source, "subrip", (0, 100, b"hi"))
    replace_bytes(source, b"S_TEXT/UTF8", b"S_TEXT/XTF8")
    plan = planned(source, "target.mkv")
    assert not plan.is_missing and len(plan.notes) == 1 and "track 1 (subtitles" in plan.notes[0]
    copy(source, tmp_path / "target.mkv")


def test_attached_files_and_data(tmp_path):
    """A font of subtitles stays where the file has a place for it."""
    write_clip(tmp_path / "plain.mp4", moving_frames(5), sound=0)
    source = tmp_path / "source.mkv"
    with av.open(tmp_path / "plain.mp4") as old, av.open(source, "w") as new:
        pictures = new.add_stream_from_template(old.streams.video[0])
        new.add_attachment("letters.ttf", "application/x-truetype-font", b"letters")
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = pictures
                new.mux(packet)
    copy(source, tmp_path / "target.mkv")
    with av.open(tmp_path / "target.mkv") as container:
        (attached,) = container.streams.attachments
        assert (attached.name, attached.data) == ("letters.ttf", b"letters")
    for name in ("target.mp4", "target.webm"):
        plan = planned(source, name)
        assert plan.is_missing and "(attached file" in plan.notes[0]
    copy(source, tmp_path / "target.mp4")


def test_the_cover_of_a_video(tmp_path):
    """It is in MP4 and Matroska as it was, and named where the file has no place for it."""
    write_clip(tmp_path / "plain.mp4", moving_frames(5), sound=0)
    cover = encode_image(moving_frames(1)[0], ".jpg")
    with av.open(tmp_path / "plain.mp4") as old, av.open(tmp_path / "source.mkv", "w") as new:
        pictures = new.add_stream_from_template(old.streams.video[0])
        new.add_attachment("cover.jpg", "image/jpeg", cover)
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = pictures
                new.mux(packet)
    for source, target in (("source.mkv", "there.mp4"), ("there.mp4", "back.mkv")):
        plan = planned(tmp_path / source, target)
        assert plan.copied == {1} and not plan.is_missing and not plan.notes
        copy(tmp_path / source, tmp_path / target)
        with av.open(tmp_path / target) as container:
            assert container.streams[1].disposition & Disposition.attached_pic
            assert next(bytes(packet) for packet in container.demux(container.streams[1]) if packet.size) == cover
    filmed = replace(probe_video(tmp_path / "source.mkv"), metadata={"com.apple.quicktime.model": "Phone 1"})
    assert "texts of its camera are left out" in plan_tracks(tmp_path / "there.mp4", filmed).notes[0]
    assert not plan_tracks(tmp_path / "back.mkv", filmed).notes
    for name in ("target.mov", "target.m4v", "target.webm"):
        plan = planned(tmp_path / "source.mkv", name)
        assert plan.is_missing and "(pictures, mjpeg) is left out" in plan.notes[0]


def test_a_film_of_a_phone_with_an_edit_list(tmp_path):
    """Sound that the list cuts away is not in Matroska, which has no such lists; MP4 keeps what the phone wrote."""
    write_clip(tmp_path / "whole.mp4", moving_frames(50))
    options, phone = {"movflags": "use_metadata_tags"}, {"com.apple.quicktime.model": "Phone 1", "title": "Sea"}
    source = tmp_path / "100%d.mov"  # a file is no sequence of pictures
    with av.open(tmp_path / "whole.mp4") as old, av.open(source, "w", container_options=options) as new:
        new.metadata.update(phone)
        copies = [new.add_stream_from_template(stream, opaque=True) for stream in old.streams]
        for packet in old.demux():
            if packet.size:
                shift = round(1 / packet.time_base)  # what comes before 0 is kept, and an edit list skips it
                packet.pts, packet.dts, packet.stream = (
                    packet.pts - shift,
                    packet.dts - shift,
                    copies[packet.stream_index],
                )
                new.mux(packet)
    copy(source, tmp_path / "target.mkv")
    with av.open(tmp_path / "target.mkv") as container:
        times = {}
        for packet in container.demux():
            if packet.pts is not None:
                times.setdefault(packet.stream_index, packet.pts * packet.time_base)
    assert abs(times[0] - times[1]) < 0.11
    copy(source, tmp_path / "target.mp4")
    with av.open(tmp_path / "target.mp4") as container:
        assert phone.items() <= container.metadata.items() and "Synthetic media" in container.metadata["comment"]


def test_a_damaged_packet_of_sound(tmp_path):
    """It is left out and counted; the rest of the track is there."""
    source = tmp_path / "source.ts"
    write_clip(source, moving_frames(50))
    content = source.read_bytes()
    packets = [content[i : i + 188] for i in range(0, len(content), 188)]
    sound = [i for i, packet in enumerate(packets) if (packet[1] & 31) << 8 | packet[2] == 0x101]
    # The first bytes of a frame say how long it is.
    begins = [i for i in sound if packets[i][1] & 0x40][2]
    place = packets[begins].index(b"\xff\xf1")
    packets[begins] = packets[begins][:place] + bytes(188 - place)
    source.write_bytes(b"".join(packets))
    plan = planned(source, "target.mp4")
    copy(source, tmp_path / "target.mp4")
    assert plan.copied == {1}
    assert len(read_sound(tmp_path / "target.mp4")[0]) > 30


@pytest.mark.parametrize("suffix", [".mp4", ".ts"])
def test_other_pictures_are_named(tmp_path, suffix):
    """A transport stream names no default, so the larger one is shown."""
    source = tmp_path / f"source{suffix}"
    with av.open(source, "w") as container:
        streams = []
        for width, disposition in ((96, 0), (192, 1)):
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt, stream.disposition = width, 48, "yuv420p", disposition
            streams.append(stream)
        for stream in streams:
            for image in moving_frames(3, stream.width, 48):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
            container.mux(stream.encode(None))
    plan = planned(source, "target.mp4")
    assert plan.is_missing and "track 0 (pictures, h264) is left out: another one is swapped" in plan.notes[0]


def test_animations_hold_no_sound(tmp_path):
    source = tmp_path / "source.mp4"
    write_clip(source, moving_frames(5))
    (note,) = planned(source, "target.gif").notes
    assert note == f"target.gif holds pictures alone: track 1 (sound, aac) of {source} left out"


def test_it_is_known_before_the_first_frame(tmp_path):
    source = tmp_path / "source.mkv"
    write_clip(source, moving_frames(5), sound_codec="wavpack")
    with SegmentedVideo(tmp_path / "target.mp4", probe_video(source), None) as writer:
        assert writer.tracks.encoded == {1} and writer.frames_done == 0


def test_a_cut_of_sound_that_is_encoded_anew(tmp_path):
    source, target = tmp_path / "source.mkv", tmp_path / "target.mp4"
    write_clip(source, moving_frames(75), sound_codec="wavpack")
    copy(source, target, start=1.0, end=2.0)
    assert len(loudness(target)) == pytest.approx(10, abs=2)
    with write_video(tmp_path / "again.mp4", probe_video(target)) as writer:
        assert writer.tracks.copied == {1}
        for frame in read_frames(writer.video):
            writer.write(frame, frame.image, [])
