"""Kinds of files that people give: each is swapped, with status 0, and what it holds is in the result.

The swapper is a stand-in, the detector is the real one, the face a drawn one.
"""

from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from drawn_faces import draw_face
from PIL import Image, ImageCms, features
from small_videos import SIZE, MeanColor, paint_model, read_sound, write_clip

from facedancer.core.images import write_image
from facedancer.core.weights import get_weights
from facedancer.media.probe import probe_video
from facedancer.media.read import read_frames
from facedancer.retinaface import FaceDetector
from facedancer.video_swap import FaceSwapper, multi_face_single_source, swap_image

SIDE = 128


@pytest.fixture(scope="module")
def swapper():
    get_weights("retinaface_mobilenet025")
    return FaceSwapper(paint_model(), FaceDetector(), MeanColor(), SIZE)


@pytest.fixture
def swap(swapper, tmp_path, monkeypatch, capsys):
    """Runs a command on a file; returns its status and all that it said but which device it runs on."""
    write_image(tmp_path / "source.png", draw_face(5, 160))
    monkeypatch.setattr(FaceSwapper, "from_export", lambda *_, **__: swapper)

    def swap(command, source, target, *flags):
        flag = "--img_path" if command is swap_image else "--vid_path"
        given = [flag, str(source), "--swap_source", str(tmp_path / "source.png"), "--output", str(target), *flags]
        status = command.main(given)
        said = capsys.readouterr()
        lines = [line for line in (said.out + said.err).splitlines() if not line.startswith("device:")]
        return status, lines

    return swap


def face(variation=0, width=SIDE, height=SIDE):
    return cv2.resize(draw_face(1, SIDE, variation), (width, height), interpolation=cv2.INTER_AREA)


def picture(mode="RGB", **size):
    return Image.fromarray(face(**size)).convert(mode)


def save(path, first, *others, **options):
    if others:
        options |= {"save_all": True, "append_images": others}
    first.save(path, **options)


def cut_out():
    """The face, transparent around it."""
    found = picture("RGBA")
    mask = np.zeros((SIDE, SIDE), np.uint8)
    cv2.circle(mask, (SIDE // 2, SIDE // 2), SIDE // 2 - 8, 255, -1)
    found.putalpha(Image.fromarray(mask))
    return found


def animation(path, **options):
    frames = [picture().rotate(degrees) for degrees in (0, 4, 8)]
    save(path, *frames, duration=80, loop=2, **options)


def turned_tiff(path):
    picture().rotate(-90).save(path, tiffinfo={274: 8})


def photograph(path):
    exif, profile = Image.Exif(), ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    exif[274], exif[271] = 6, "a camera"
    picture().rotate(90).save(path, exif=exif, dpi=(300, 300), icc_profile=profile.tobytes(), quality=92)


PICTURES = {
    "progressive.jpg": lambda path: picture().save(path, progressive=True, quality=92),
    "gray.jpg": lambda path: picture("L").save(path, quality=92),
    "cmyk.jpg": lambda path: picture("CMYK").save(path, quality=92),
    "photograph.jpg": photograph,
    "sixteen_bits.png": lambda path: cv2.imwrite(str(path), face()[..., ::-1].astype(np.uint16) * 257),
    "palette.png": lambda path: cut_out().quantize(128).save(path),
    "transparent.png": lambda path: cut_out().save(path),
    "gray_and_alpha.png": lambda path: cut_out().convert("LA").save(path),
    "odd.png": lambda path: picture(width=SIDE - 1, height=SIDE + 3).save(path),
    "animation.gif": animation,
    "animation.webp": lambda path: animation(path, quality=95),
    "animation.apng": lambda path: animation(path, format="PNG"),
    "lossless.webp": lambda path: cut_out().save(path, lossless=True),
    "turned.tiff": turned_tiff,
    "pages.tiff": lambda path: save(path, picture(), picture()),
    "bitmap.bmp": lambda path: picture().save(path),
    "wavelets.jp2": lambda path: picture().save(path),
    "modern.avif": lambda path: picture().save(path),
}
# What the result cannot hold is said, and a page that is left out is a loss.
SAID = {"cmyk.jpg": "CMYK", "sixteen_bits.png": "16 bits", "pages.tiff": "only the first of its 2 pages"}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures(swap, tmp_path, name):
    if name.endswith(".avif") and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    source = tmp_path / name
    PICTURES[name](source)
    suffix = source.suffix if source.suffix in (".jpg", ".png", ".gif", ".webp", ".apng") else ".png"
    target = tmp_path / f"target{suffix}"
    status, said = swap(swap_image, source, target)
    assert status == (4 if name == "pages.tiff" else 0), said
    assert any("swapped" in line and str(target) in line for line in said)
    named = [line for line in said if str(source) in line]
    assert len(named) == (name in SAID) and SAID.get(name, "") in "".join(named)

    with Image.open(source) as before, Image.open(target) as after:
        upright = {"turned.tiff", "photograph.jpg"}
        assert after.size == before.size
        assert getattr(after, "n_frames", 1) == (1 if name == "pages.tiff" else getattr(before, "n_frames", 1))
        for key in ("loop", "icc_profile", "dpi"):
            if name != "cmyk.jpg" and source.suffix == target.suffix:
                assert after.info.get(key) == before.info.get(key)
        if name == "photograph.jpg":
            assert after.getexif()[271] == "a camera"
        old, new = (np.asarray(one.convert("RGBA")).astype(int) for one in (before, after))
        if name not in upright:
            np.testing.assert_array_equal(old[..., 3], new[..., 3])
            visible = old[..., 3:] > 0
            change = (np.abs(old - new)[..., :3] * visible).max(-1)
            assert change[old.shape[0] // 2, old.shape[1] // 2] > 8 and np.percentile(change[:8], 90) <= 8


def two_sounds_and_text(path):
    """A film with two languages and subtitles."""
    write_clip(path.with_name("plain.mkv"), clip(), sound=2)
    with av.open(path.with_name("plain.mkv")) as old, av.open(path, "w") as new:
        streams = [new.add_stream_from_template(stream) for stream in old.streams]
        for stream, language in zip(streams[1:], ("eng", "fra"), strict=True):
            stream.metadata["language"] = language
        text = new.add_mux_stream("subrip")
        line = av.Packet(b"Hello")
        line.stream, line.pts, line.dts, line.duration, line.time_base = text, 0, 0, 200, Fraction(1, 1000)
        new.mux(line)
        for packet in old.demux():
            if packet.size:
                packet.stream = streams[packet.stream_index]
                new.mux(packet)


def clip(count=4, width=SIDE, height=SIDE):
    return np.stack([face(0, width, height)] * count)


def sequence(path):
    for number in range(3):
        picture().save(str(path) % number)


def wrongly_said_rate(path):
    """As a browser's recorder: times in milliseconds, unevenly apart."""
    write_clip(path, clip(), ticks=[0, 31, 66, 99], time_base=Fraction(1, 1000), rate=1000, codec="libvpx", options={},
               sound=0)  # fmt: skip


def made(count=4, width=SIDE, height=SIDE, **options):
    return lambda path: write_clip(path, clip(count, width, height), **options)


TURN = [0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30]
# How a file is made, the ending of the result, and what is said of it, if anything.
VIDEOS = {
    "h264.mp4": (made(), ".mp4", None),
    "hevc_10_bit.mp4": (made(codec="libx265", pix_fmt="yuv420p10le", options={"preset": "ultrafast"}), ".mp4", None),
    "vp9.webm": (made(codec="libvpx-vp9", options={}, sound=0), ".webm", None),
    "alpha.webm": (made(codec="libvpx-vp9", pix_fmt="yuva420p", options={}, sound=0), ".webm", None),
    "alpha.mov": (made(codec="qtrle", pix_fmt="argb", options={}), ".mov", "coded as prores"),
    "browser.webm": (wrongly_said_rate, ".mp4", None),
    "av1.mkv": (made(codec="libsvtav1", options={"preset": "12"}), ".mkv", None),
    "ffv1.mkv": (made(codec="ffv1", options={}, sound_codec="flac"), ".mkv", None),
    "transport.ts": (made(sound_codec="mp2"), ".mkv", None),
    "mjpeg.avi": (made(codec="mjpeg", pix_fmt="yuvj420p", options={}, sound_codec="pcm_s16le"), ".mkv", None),
    "phone.3gp": (made(codec="mpeg4", options={}), ".mp4", None),
    "old.avi": (made(codec="mpeg4", options={}, sound_codec="adpcm_ms"), ".mp4", "encoded anew (aac)"),
    "flash.flv": (made(codec="flv1", options={}), ".mp4", None),
    "disc.mpg": (made(codec="mpeg2video", options={}, sound_codec="mp2"), ".mkv", None),
    "prores.mov": (made(codec="prores_ks", pix_fmt="yuv422p10le", options={}), ".mov", None),
    "variable_rate.mp4": (made(ticks=[0, 40, 120, 130], time_base=Fraction(1, 1000)), ".mp4", None),
    "upright_by_matrix.mov": (
        lambda path: write_clip(path, np.rot90(clip(), 1, (1, 2)).copy(), matrix=TURN), ".mov", None),
    "two_sounds.mkv": (two_sounds_and_text, ".mkv", None),
    "odd.mkv": (made(width=SIDE + 1, height=SIDE - 1, codec="ffv1", pix_fmt="yuv444p", options={}), ".mkv", None),
    "wide_pixels.mp4": (made(tags={"sample_aspect_ratio": Fraction(4, 3)}), ".mkv", None),
    "full_range.mp4": (made(tags={"color_range": 2}, colors=(5, 2)), ".mp4", None),
    "animation.gif": (animation, ".gif", None),
    "animation.webp": (animation, ".webp", None),
    "%02d.png": (sequence, "%d.png", None),
}  # fmt: skip


@pytest.mark.parametrize("name", VIDEOS)
def test_videos(swap, tmp_path, name):
    make, ending, expected = VIDEOS[name]
    source, target = tmp_path / name, tmp_path / "out" / f"target{ending}"
    make(source)
    status, said = swap(multi_face_single_source, source, target)
    assert status == 0, said
    before, after = probe_video(source), probe_video(target)
    pairs = list(zip(read_frames(before), read_frames(after), strict=True))
    assert said[-1].startswith(f"{target}: {len(pairs)} frames, {len(pairs)} faces swapped, 0 frames without a face")
    assert len(said) == 1 + bool(expected) and (expected or "") in said[0]

    unit = max(before.time_base, after.time_base, Fraction(1, 1000))
    # Matroska begins with the sound that nobody hears, MP4 before 0.
    late = pairs[0][1].pts * after.time_base - pairs[0][0].pts * before.time_base
    assert 0 <= late + unit < 0.05
    for old, new in pairs:
        assert abs(old.pts * before.time_base - new.pts * after.time_base + late) <= unit
        change = np.abs(old.image.astype(int) - new.image).max(-1)
        middle = change[change.shape[0] // 2, change.shape[1] // 2]
        assert middle > 16 and np.percentile(change[:8], 90) < (40 if ending == ".gif" else 24)
    assert (before.width, before.height, before.display_matrix) == (after.width, after.height, after.display_matrix)
    assert (before.sample_aspect_ratio or 1) == (after.sample_aspect_ratio or 1)
    assert before.loops == after.loops
    if ending in (".mp4", ".mov", ".mkv", ".webm"):
        bits = [av.VideoFormat(v.pixel_format).components[0].bits for v in (before, after)]
        assert bits[0] == bits[1] or before.codec == "qtrle"
        assert before.colors.tags["color_range"] in (0, after.colors.tags["color_range"])
        assert [track.kind for track in before.tracks] == [track.kind for track in after.tracks]
        if expected is None and before.tracks:
            sounds = [[data for track in read_sound(path) for _, data in track] for path in (source, target)]
            assert b"".join(sounds[0]) == b"".join(sounds[1])


def test_transparency_that_a_file_does_not_hold_is_a_loss(swap, tmp_path):
    source, target = tmp_path / "alpha.webm", tmp_path / "target.mp4"
    VIDEOS["alpha.webm"][0](source)
    status, said = swap(multi_face_single_source, source, target)
    assert (status, said[0]) == (4, f"{source}: its transparency is left out")
    assert probe_video(target).frame_count == 4
