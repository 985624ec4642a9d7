"""Every picture format a dataset may hold is read as upright RGB or refused with a reason."""

import io
import os
import re
import sys
import zlib

import numpy as np
import pytest
from drawn_faces import draw_face
from PIL import Image, ImageCms, PngImagePlugin
from wide_profile import wide_profile

from facedancer.core.images import (
    ImageError,
    decode_image,
    encode_image,
    from_signed,
    read_image,
    tile_images,
    to_signed,
    write_image,
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # as core.images has it for commands


def save(picture, kind, **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def face():
    return draw_face(3, 48)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff"])
def test_lossless_round_trip(tmp_path, face, suffix):
    write_image(tmp_path / f"face{suffix}", face)
    np.testing.assert_array_equal(read_image(tmp_path / f"face{suffix}"), face)


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".webp", ".JPG"])
def test_lossy_round_trip(face, suffix):
    decoded = decode_image(encode_image(face, suffix))
    assert np.abs(decoded.astype(int) - face).mean() < 4


def test_channels_are_red_green_blue():
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 255
    assert Image.open(io.BytesIO(encode_image(red, ".png"))).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK"])
def test_other_modes_become_rgb(face, mode):
    picture = Image.fromarray(face).convert(mode)
    kind = "TIFF" if mode == "CMYK" else "PNG"
    decoded = decode_image(save(picture, kind))
    assert decoded.shape == face.shape and decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, np.asarray(picture.convert("RGB")))


def test_transparency_is_dropped_not_blended(face):
    picture = Image.fromarray(face)
    picture.putalpha(0)
    np.testing.assert_array_equal(decode_image(save(picture, "PNG")), face)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_rounded_to_eight(kind):
    gray = np.array([[0, 128, 129, 257], [32768, 65279, 65407, 65535]], np.uint16)
    decoded = decode_image(save(Image.fromarray(gray), kind))
    np.testing.assert_array_equal(decoded[..., 0], np.rint(gray / 257.0))
    np.testing.assert_array_equal(decoded[..., 0], decoded[..., 2])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(face, orientation):
    """A camera stores the sensor's picture and how it was held; as seen, the first row is at the top."""
    seen = face[:40]
    turned = {
        1: seen,
        2: seen[:, ::-1],
        3: seen[::-1, ::-1],
        4: seen[::-1],
        5: seen.transpose(1, 0, 2),
        6: np.rot90(seen, 1),
        7: seen[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(seen, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(decode_image(save(Image.fromarray(turned), "PNG", exif=exif)), seen)


def test_damaged_exif_does_not_cost_the_picture(face):
    """A tag of another type than it should have, beside a good orientation: the pixels are whole."""
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "camera"
    content = save(Image.fromarray(face), "PNG", exif=exif)
    where = content.index(bytes.fromhex("010f0002")) + 2  # MM order: the maker's tag, ASCII
    damaged = bytearray(content[:where] + b"\x00\x0c" + content[where + 2 :])
    chunk = damaged.index(b"eXIf")
    length = int.from_bytes(damaged[chunk - 4 : chunk], "big")
    end = chunk + 4 + length
    damaged[end : end + 4] = zlib.crc32(damaged[chunk:end]).to_bytes(4, "big")
    np.testing.assert_array_equal(decode_image(bytes(damaged)), np.rot90(face, -1))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "AVIF"])
def test_truncated_pictures_are_refused(face, kind):
    content = save(Image.fromarray(face), kind)
    for keep in (0.2, 0.6, 0.95):
        with pytest.raises(ImageError):
            decode_image(content[: int(keep * len(content))])


def test_random_damage_raises_nothing_else(face):
    """Whatever bytes a file holds, a picture comes out or an ImageError."""
    generator = np.random.default_rng(0)
    refused = 0
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "AVIF", "GIF", "JPEG2000"):
        content = save(Image.fromarray(face), kind)
        for _ in range(60):
            damaged = bytearray(content)
            for place in generator.integers(0, min(len(damaged), 400), 4):
                damaged[place] = generator.integers(256)
            try:
                assert decode_image(bytes(damaged)).dtype == np.uint8
            except ImageError:
                refused += 1
    assert refused > 50


@pytest.mark.parametrize(("content", "reason"), [(b"", "not a picture"), (b"name,age\nanna,7\n", "not a picture")])
def test_other_files_are_refused(content, reason):
    with pytest.raises(ImageError, match=reason):
        decode_image(content)


def test_floats_and_bombs_are_refused():
    with pytest.raises(ImageError, match="unsupported pixel format F"):
        decode_image(save(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"))
    huge = bytearray(save(Image.new("L", (4, 4)), "BMP"))
    huge[18:26] = (60_000).to_bytes(4, "little") * 2
    with pytest.raises(ImageError, match="too large"):
        decode_image(bytes(huge))


def test_absent_file(tmp_path):
    with pytest.raises(ImageError, match="No such file"):
        read_image(tmp_path / "none.png")


def test_signed_range():
    every = np.arange(256, dtype=np.uint8)
    signed = to_signed(every)
    assert signed.dtype == np.float32 and signed[0] == -1.0 and signed[-1] == 1.0
    np.testing.assert_array_equal(from_signed(signed), every)
    np.testing.assert_array_equal(from_signed(np.array([-7.0, 7.0])), [0, 255])


def test_tile_images(face):
    sheet = tile_images([[face, face // 2], [face // 3, face // 4]])
    assert sheet.shape == (96, 96, 3)
    np.testing.assert_array_equal(sheet[48:, :48], face // 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", [3, 6])
def test_orientation_is_applied_once(face, kind, orientation):
    """Some of Pillow's decoders turn the picture themselves, others leave it to us."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode_image(save(Image.fromarray(face), kind, exif=exif))
    seen = np.rot90(face, 2 if orientation == 3 else -1)
    assert np.abs(decoded.astype(int) - seen).mean() < 8


def test_colors_are_converted_by_the_profile(face):
    """A color of a wide space looks the same in sRGB, where its numbers are others."""
    srgb = ImageCms.createProfile("sRGB")
    wide = ImageCms.ImageCmsProfile(io.BytesIO(wide_profile()))
    coded = ImageCms.profileToProfile(Image.fromarray(face), srgb, wide)
    assert np.abs(np.asarray(coded).astype(int) - face).mean() > 5
    for picture in (coded, coded.convert("RGBA")):
        decoded = decode_image(save(picture, "PNG", icc_profile=wide_profile()))
        assert np.abs(decoded.astype(int) - face).max() <= 4


def test_profiles_of_srgb_and_damaged_ones_change_nothing(face):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (srgb, srgb[:150], wide_profile()[:200], b"none"):
        np.testing.assert_array_equal(decode_image(save(Image.fromarray(face), "PNG", icc_profile=profile)), face)


@pytest.mark.parametrize(
    "content", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", b"SIMPLE  = T" * 99]
)
def test_formats_that_are_not_listed_are_not_opened(content):
    """PostScript is a program; Pillow would have it run."""
    with pytest.raises(ImageError, match="not a picture"):
        decode_image(content)


@pytest.mark.parametrize("error", [RuntimeError("odd\nerror"), ZeroDivisionError(), RecursionError(), IndexError("at")])
def test_whatever_a_decoder_raises_is_damage(face, monkeypatch, error):
    def load(self):
        raise error

    content = save(Image.fromarray(face), "PNG")
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", load)
    with pytest.raises(ImageError, match=r"^damaged picture") as caught:
        decode_image(content)
    assert "\n" not in str(caught.value)


def test_what_memory_does_not_hold_is_refused(face, monkeypatch):
    def load(self):
        raise MemoryError

    content = save(Image.fromarray(face), "PNG")
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", load)
    with pytest.raises(ImageError, match="too large for the memory"):
        decode_image(content)


def write_headers():
    """Yields (format, the beginning of a file that says it has 16,000 x 16,000 pixels)."""
    size = (16_000).to_bytes(4, "big") * 2
    header = b"IHDR" + size + b"\x08\x02\0\0\0"
    header += zlib.crc32(header).to_bytes(4, "big")
    yield "PNG", b"\x89PNG\r\n\x1a\n\0\0\0\x0d" + header + b"\0\0\0\x64IDAT" + bytes(64)
    sides = (16_000).to_bytes(2, "little") * 2
    yield "GIF", b"GIF89a" + sides + bytes(3) + b"," + bytes(4) + sides + b"\0\x02\x02\x44\x01\0;"
    canvas = bytes(4) + (15_999).to_bytes(3, "little") * 2
    yield "WebP", b"RIFF\x64\0\0\0WEBPVP8X\x0a\0\0\0" + canvas + bytes(64)
    yield "WebP, lossless", b"RIFF\x64\0\0\0WEBPVP8L\x64\0\0\0\x2f" + (15_999 * 16385).to_bytes(4, "little") + bytes(64)
    yield "QOI", b"qoif" + size + b"\x03\0" + bytes(64)
    fax = io.BytesIO()
    Image.new("1", (40, 40)).save(fax, "TIFF", compression="group4")
    content = bytearray(fax.getvalue())
    for tag in (256, 257):  # width and height, of the little-endian directory
        place = re.search(re.escape(tag.to_bytes(2, "little")) + rb"[\x03\x04]\0\x01\0\0\0", content).end()
        content[place : place + 4] = (16_000).to_bytes(4, "little")
    yield "TIFF", bytes(content)


@pytest.mark.parametrize("content", [pytest.param(content, id=kind) for kind, content in write_headers()])
def test_the_limit_counts_before_decoding(content):
    with pytest.raises(ImageError, match="too large"):
        decode_image(content)


def test_only_ordinary_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "fifo.png")
    for path in (tmp_path / "fifo.png", "/dev/zero", tmp_path):
        with pytest.raises(ImageError, match=r"not a regular file|Is a directory"):
            read_image(path)
    for name in ("a\0b.png", "\ud800.png"):
        with pytest.raises(ImageError, match=r"no file can have that name|No such file"):
            read_image(tmp_path / name)
    with open(tmp_path / "large.webp", "wb") as file:
        file.write(b"RIFF\0\0\0\0WEBPVP8 ")
        file.truncate(2**30 + 1)  # takes no room on the disk
    with pytest.raises(ImageError, match="too large"):
        read_image(tmp_path / "large.webp")


def test_libraries_write_no_messages(face, capfd):
    """libtiff's name no file; the reason has them instead."""
    content = bytearray(save(Image.fromarray(face), "TIFF", compression="tiff_adobe_deflate"))
    content[20:60] = bytes(40)
    with pytest.raises(ImageError, match=r"damaged picture .*ZIPDecode"):
        decode_image(bytes(content))
    assert capfd.readouterr().err == ""


def test_heic_without_its_library_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for brands in (b"heic\0\0\0\0mif1heic", b"mif1\0\0\0\0mif1heic"):
        content = (8 + len(brands)).to_bytes(4, "big") + b"ftyp" + brands + bytes(64)
        with pytest.raises(ImageError, match=r"pip install 'facedancer\[heic\]'"):
            decode_image(content)


def test_heic(face):
    heif = pytest.importorskip("pillow_heif", reason="needs pillow-heif, the extra heic")
    heif.register_heif_opener()
    content = save(Image.fromarray(face), "HEIF", quality=95)
    assert np.abs(decode_image(content).astype(int) - face).mean() < 6
    with pytest.raises(ImageError, match="damaged picture"):
        decode_image(content[: len(content) // 2])
    # A turn in HEIF's own properties counts; what EXIF says beside it repeats that, as phones write it.
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = save(Image.fromarray(face), "HEIF", quality=95, exif=exif.tobytes())
    place = turned.index(b"irot") + 4
    for quarters in range(4):
        content = turned[:place] + bytes([quarters]) + turned[place + 1 :]
        assert np.abs(decode_image(content).astype(int) - np.rot90(face, quarters)).mean() < 6
