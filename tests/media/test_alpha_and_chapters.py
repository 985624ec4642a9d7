"""Transparency, chapters, and how often an animation is played: kept where the file holds them, else named."""

from fractions import Fraction

import av
import numpy as np
import pytest
from copied_videos import copy, write_video
from PIL import Image
from small_videos import moving_frames, write_clip

from facedancer.media.encoding import choose_encoding
from facedancer.media.probe import probe_video
from facedancer.media.read import read_frames


def transparent_frames(count=4):
    """Moving pictures, (count, 48, 64, 4) uint8: a hole that moves, and a half-transparent stripe."""
    frames = np.concatenate([moving_frames(count), np.full((count, 48, 64, 1), 255, np.uint8)], -1)
    for index, frame in enumerate(frames):
        frame[8:24, 8 + index : 30, 3] = 0
    frames[:, 32:40, :, 3] = 128
    return frames


def write_transparent(path, codec, pixel_format):
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixel_format
        for pts, image in enumerate(transparent_frames()):
            frame = av.VideoFrame.from_ndarray(image, "rgba").reformat(format=pixel_format)
            frame.pts = pts
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def alpha_of(path):
    return np.stack([frame.alpha.astype(int) for frame in read_frames(probe_video(path))])


@pytest.mark.parametrize(
    "suffix, codec, pixel_format, kept",
    [
        (".webm", "libvpx-vp9", "yuva420p", {".webm": "vp9", ".mkv": "vp9", ".mov": "prores", ".webp": "webp"}),
        (".mov", "prores_ks", "yuva444p10le", {".mov": "prores", ".mkv": "ffv1", ".webm": "vp9"}),
        (".mov", "qtrle", "argb", {".mov": "prores", ".mkv": "ffv1", ".webm": "vp9"}),
        (".mkv", "ffv1", "yuva420p", {".mov": "prores", ".mkv": "ffv1"}),
        (".apng", "apng", "rgba", {".mov": "prores", ".webp": "webp"}),
    ],
)
def test_transparency_is_kept_where_a_file_holds_it(tmp_path, suffix, codec, pixel_format, kept):
    source = tmp_path / f"source{suffix}"
    write_transparent(source, codec, pixel_format)
    there = alpha_of(source)
    assert np.abs(there - transparent_frames()[..., 3]).mean() < 1
    for target_suffix, found in kept.items():
        target = tmp_path / f"target{target_suffix}"
        video = copy(source, target)
        assert np.abs(alpha_of(target) - there).max() <= 6, target_suffix
        assert probe_video(target).codec == found and not choose_encoding(target, video).is_missing
    for target in ("target.mp4", "%d.jpg"):
        encoding = choose_encoding(target, video)
        assert encoding.is_missing and "its transparency is left out" in " ".join(encoding.notes)
    assert not choose_encoding("target.mp4", video, size=(128, 48)).is_missing  # of the compare view


def test_a_change_leaves_transparency_as_it_is(tmp_path):
    source, target = tmp_path / "source.mkv", tmp_path / "target.mkv"
    write_transparent(source, "ffv1", "yuva444p")
    video = probe_video(source)
    with write_video(target, video) as writer:
        for frame in read_frames(video):
            image = frame.image.copy()
            image[10:40, 20:40] = (250, 30, 60)
            writer.write(frame, image, [(20, 10, 40, 40)])
    np.testing.assert_array_equal(alpha_of(target), alpha_of(source))
    changed = next(read_frames(probe_video(target))).image[13:37, 23:37]
    assert np.abs(changed.astype(int) - (250, 30, 60)).mean() < 6


@pytest.mark.parametrize("target_suffix", [".gif", ".webp", ".mov"])
def test_gifs_have_transparency_where_they_use_it(tmp_path, target_suffix):
    """GIF knows on and off alone."""
    source, target = tmp_path / "source.gif", tmp_path / f"target{target_suffix}"
    frames = transparent_frames()
    frames[..., 3] = np.where(frames[..., 3] < 128, 0, 255)
    pictures = [Image.fromarray(frame) for frame in frames]
    pictures[0].save(source, save_all=True, append_images=pictures[1:], duration=80, disposal=2)
    np.testing.assert_array_equal(alpha_of(source), frames[..., 3])
    video = copy(source, target)
    assert np.abs(alpha_of(target) - frames[..., 3]).max() <= 1
    encoding = choose_encoding(target, video)
    assert not encoding.is_missing and not any("transparency is" in note for note in encoding.notes)
    assert choose_encoding("target.mp4", video).is_missing

    write_transparent(tmp_path / "half.mkv", "ffv1", "yuva444p")
    half = copy(tmp_path / "half.mkv", tmp_path / "half.gif")
    assert "its transparency is on or off" in choose_encoding("half.gif", half).notes[0]
    assert (alpha_of(tmp_path / "half.gif")[:, :30] == frames[:, :30, :, 3]).all()

    opaque = [Image.fromarray(frame) for frame in moving_frames(3)]
    opaque[0].save(source, save_all=True, append_images=opaque[1:], duration=80)
    assert not choose_encoding("target.mp4", probe_video(source)).notes


def test_transparent_pictures_of_a_sequence(tmp_path):
    frames = transparent_frames()
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"{index}.png")
    copy(tmp_path / "%d.png", tmp_path / "out" / "%d.png")
    for index, frame in enumerate(frames, 1):
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / f"{index}.png")), frame)


@pytest.mark.parametrize("loop, plays", [(None, (1, 0, 0)), (0, (0, 0, 0)), (1, (2, 1, 1)), (3, (4, 3, 3))])
def test_an_animation_is_played_as_often(tmp_path, loop, plays):
    """GIF counts repetitions, and none without a count; WebP and APNG count plays, and 0 is for ever."""
    pictures = [Image.fromarray(frame) for frame in moving_frames(3)]
    for suffix, count in zip((".gif", ".webp", ".png"), plays, strict=True):
        source, options = tmp_path / f"source{suffix}", {} if loop is None else {"loop": loop}
        pictures[0].save(source, save_all=True, append_images=pictures[1:], duration=80, **options)
        assert probe_video(source).loops == count
        for target in (tmp_path / "target.gif", tmp_path / "target.webp"):
            copy(source, target)
            assert probe_video(target).loops == count, (suffix, target)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_chapters_and_texts(tmp_path, suffix):
    write_clip(tmp_path / "plain.mp4", moving_frames(50), sound=0)
    unit, source = Fraction(1, 1000), tmp_path / f"source{suffix}"
    named = [("First", 0, 800), ("Second", 800, 1200), ("Third", 1200, 2000)]
    with av.open(tmp_path / "plain.mp4") as old, av.open(source, "w") as new:
        new.metadata.update(title="Two seconds", creation_time="2024-01-02T03:04:05.000000Z")
        new.set_chapters(
            [
                {"id": number, "start": start, "end": end, "time_base": unit, "metadata": {"title": title}}
                for number, (title, start, end) in enumerate(named, 1)
            ]
        )
        stream = new.add_stream_from_template(old.streams.video[0])
        stream.metadata["language"] = "fra"
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = stream
                new.mux(packet)
    for target in (tmp_path / "target.mp4", tmp_path / "target.mkv", tmp_path / "target.webm"):
        for start, end, expected in (
            (0, None, named),
            (0.4, 1.2, [("First", 0, 400), ("Second", 400, 800)]),
        ):
            video = copy(source, target, start=start, end=end)
            assert not video.tracks
            found = probe_video(target)
            assert found.metadata["title"] == "Two seconds"
            assert {key.lower(): text for key, text in found.metadata.items()}["creation_time"].startswith("2024-01-02")
            assert found.language == "fra"
            chapters = [
                (part.metadata["title"], round(part.start * 1000), round(part.end * 1000)) for part in found.chapters
            ]
            assert chapters == expected
