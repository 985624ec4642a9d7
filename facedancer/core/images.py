"""Pictures as arrays: (H, W, 3) uint8 sRGB everywhere; value ranges, reading and writing.

Files are untrusted: the format is detected from the content, never from the name; only listed formats are opened; size
limits are checked before decoding; and whatever a decoder raises becomes an `ImageError`.

Suffixes name the value range where it could be ambiguous: `_uint8` [0, 255], `_unit` [0, 1], `_signed` [-1, 1].
"""

import contextlib
import importlib
import io
import logging
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageCms, PngImagePlugin, UnidentifiedImageError

from facedancer.core.color_profiles import ProfileError, gamma_profile, read_profile, stated_profile
from facedancer.core.console import caught_messages
from facedancer.core.files import write_atomic
from facedancer.core.regular_files import open_regular

# File names to consider in folders; the content decides what a file is.
IMAGE_SUFFIXES = {
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".avif", ".heic", ".heif", ".jp2", ".bmp",
    ".tif", ".tiff",
}  # fmt: skip

# The Pillow formats (of 43) whose decoders start no program and read no other file.
_FORMATS = (
    "AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "PSD", "QOI", "SGI", "TGA", "TIFF",
    "WEBP",
)  # fmt: skip

# For a whole picture, all its frames together. Decoding takes 7 bytes per pixel: below 1 GB.
MAX_PIXELS = 2**27
MAX_BYTES = 2**30

# Bytes at the beginning of a file in which headers are looked for.
HEAD = 2**16

# Pixels converted at a time.
_STRIP_PIXELS = 2**20

# Pillow warns of every odd tag in an otherwise intact picture.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())

# Pillow's own limit (an error from twice this number on) is checked again if a frame enlarges the picture.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2

_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}


# What decoders raise for damage: their own errors, and those of the Python code that reads the headers.
DECODER_ERRORS = (
    OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, AssertionError, AttributeError,
    RuntimeError, struct.error, zlib.error, ImageCms.PyCMSError,
)  # fmt: skip


class ImageError(Exception):
    """A file that is not an intact picture. Its text is only the reason."""


@contextlib.contextmanager
def opened_picture(file):
    """Opens a picture file, yields Pillow's picture with only the header read, and reports what goes wrong.

    A file that states its colors by numbers gets the ICC profile of them into `info`, or "color_loss", a text, where
    there is none.

    Args:
        file: an open binary file.

    Raises:
        ImageError: if it is not a picture, damaged or too large, on opening or while the block decodes it.
    """
    said = []
    try:
        head = file.read(HEAD)
        file.seek(0)
        formats = ["HEIF"] if _is_heif(head) else _FORMATS
        is_tiff = head[:2] in (b"II", b"MM")
        check_size(*_webp_size(head))
        # Only libtiff writes to stderr.
        messages = caught_messages(said.append) if is_tiff else contextlib.nullcontext()
        with messages, Image.open(file, formats=formats) as picture:
            check_size(*picture.size)
            _state_colors(picture, head)
            yield picture
    except ImageError:
        raise
    except UnidentifiedImageError:
        if is_tiff:
            raise ImageError("not a picture, or a TIFF of a kind that is not read") from None
        raise ImageError("not a picture" if formats is _FORMATS else "damaged picture") from None
    except Image.DecompressionBombError:
        raise ImageError("too large") from None
    except MemoryError:
        raise ImageError("too large for the memory that is left") from None
    except DECODER_ERRORS as error:
        reasons = [" ".join(str(reason).split()) for reason in (error, *said[:1])]
        raise ImageError(f"damaged picture ({'; '.join(reason for reason in reasons if reason)})") from None


def _is_heif(head):
    """Returns whether a header is HEIC; registers a decoder with Pillow, or raises `ImageError` if there is none."""
    brands = head[8:12] + head[16 : min(len(head), int.from_bytes(head[:4], "big"))]
    if head[4:8] != b"ftyp" or not any(brands[i : i + 4] in _HEIF_BRANDS for i in range(0, len(brands), 4)):
        return False
    try:
        importlib.import_module("pillow_heif").register_heif_opener()
    except ModuleNotFoundError:
        raise ImageError("HEIC, which needs pillow-heif: pip install 'facedancer[heic]'") from None
    return True


def _state_colors(picture, head):
    """Puts what a file says of its colors by numbers into the `info` of Pillow's picture; see `opened_picture`."""
    info, numbers = picture.info, None
    if picture.format == "PNG":
        # As by PNG's third edition: cICP counts before iCCP, that before sRGB, that before gAMA and cHRM.
        place = head.find(b"\0\0\0\4cICP", 0, head.find(b"IDAT"))
        if place >= 0:
            numbers = head[place + 8], head[place + 9]
        elif info.keys().isdisjoint({"icc_profile", "srgb"}) and "gamma" in info:
            info["icc_profile"] = gamma_profile(info["gamma"], info.get("chromaticity"))
    elif picture.format in ("AVIF", "HEIF") and not info.get("icc_profile"):
        place = head.find(b"colrnclx")
        if 0 <= place <= len(head) - 12:
            numbers = struct.unpack(">HH", head[place + 8 : place + 12])
    if numbers:
        profile, info["color_loss"] = stated_profile(*numbers)
        if profile is not None:
            info["icc_profile"] = profile


def _webp_size(head):
    """Returns the canvas size of a WebP, which Pillow allocates on opening; (0, 0) for other files."""
    if head[:4] + head[8:12] != b"RIFFWEBP":
        return 0, 0
    numbers = head[20:30].ljust(10, b"\0")
    if head[12:16] == b"VP8X":
        return tuple(int.from_bytes(numbers[i : i + 3], "little") + 1 for i in (4, 7))
    if head[12:16] == b"VP8L":
        bits = int.from_bytes(numbers[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return tuple(int.from_bytes(numbers[i : i + 2], "little") & 0x3FFF for i in (6, 8))


def check_size(width, height, frames=1):
    """Raises `ImageError` if the picture, or the animation with that many frames, is too large."""
    if width * height * frames > MAX_PIXELS:
        what = f"{frames} frames of " if frames > 1 else ""
        raise ImageError(f"too large ({what}{width}x{height})")


@contextlib.contextmanager
def opened_file(path):
    """Yields a regular file, open for reading. Raises `ImageError` if it is not one, unreadable or too large."""
    try:
        file = open_regular(path)
    except OSError as error:
        raise ImageError(error.strerror or str(error)) from None
    with file:
        if os.fstat(file.fileno()).st_size > MAX_BYTES:
            raise ImageError("too large")
        yield file


def picture_size(path):
    """Returns the width and height in a picture file's header, before EXIF rotation. Raises `ImageError`."""
    with opened_file(path) as file, opened_picture(file) as picture:
        return picture.size


def decode_image(content):
    """Decodes a picture file's bytes to (H, W, 3) uint8 sRGB, upright by its EXIF orientation.

    Colors are converted by the file's profile, gray becomes three equal channels, transparency is dropped, and 16 bits
    become 8. For an animation or several pages, the first is decoded.

    Raises:
        ImageError: if the bytes are not a picture, damaged or too large.
    """
    return _read(io.BytesIO(content))


def read_image(path):
    """Reads a picture file as `decode_image` does. Raises `ImageError`."""
    with opened_file(path) as file:
        return _read(file)


def _read(file):
    colors, turn = _load(file)
    return np.ascontiguousarray(upright(colors, turn))


def _load(file):
    with opened_picture(file) as picture:
        picture.load()
        return to_rgb(picture, own_profile(picture)), orientation(picture)


def orientation(picture):
    """Returns the EXIF orientation, 1 to 8, of a loaded picture; 1 if Pillow already applied it, as for TIFF."""
    return picture.getexif().get(ExifTags.Base.Orientation, 1)


def upright(array, orientation):
    """Applies an EXIF orientation to an array (H, W, …), as a view. Unknown values change nothing."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array[::-1] if orientation in (3, 4, 7, 8) else array


def own_profile(picture):
    """Returns the `ColorProfile` of a Pillow picture, or None if it is missing or damaged."""
    with contextlib.suppress(ProfileError):
        return read_profile(picture.info["icc_profile"]) if picture.info.get("icc_profile") else None
    return None


def to_rgb(picture, profile=None):
    """Returns a Pillow picture of any mode as (H, W, 3) uint8 RGB.

    Args:
        profile: the `ColorProfile` to convert its colors, or None.

    Raises:
        ImageError: if its pixels are 32-bit integers or floats, whose range is unknown.
    """
    if picture.mode in ("I", "F"):
        raise ImageError(f"unsupported pixel format {picture.mode}")
    rgb = np.empty((picture.height, picture.width, 3), np.uint8)
    for rows, strip in strips(picture):
        if strip.mode.startswith("I;16"):
            strip = Image.fromarray(np.rint(np.asarray(strip) / np.float32(257)).astype(np.uint8))
        if profile is not None and profile.to_srgb and _describes(profile, strip):
            strip = profile.to_srgb(strip.convert(profile.mode))
        rgb[rows] = strip.convert("RGB")
    return rgb


def _describes(profile, picture):
    """Returns whether a profile fits a picture's mode; gray pictures may carry an RGB profile."""
    is_gray, is_cmyk = picture.mode in ("1", "L", "LA"), picture.mode == "CMYK"
    return {"RGB": not is_cmyk, "L": is_gray, "CMYK": is_cmyk}[profile.mode]


def strips(picture):
    """Yields `(slice of rows, that part of a Pillow picture)`, to keep memory use of conversions low."""
    step = max(1, _STRIP_PIXELS // picture.width)
    for top in range(0, picture.height, step):
        bottom = min(top + step, picture.height)
        yield slice(top, bottom), picture.crop((0, top, picture.width, bottom))


def encode_image(image, suffix, quality=95, xmp=None):
    """Encodes (H, W, 3) uint8 RGB to a picture file's bytes; `suffix` (".png", ".jpg", …) picks the format.

    `xmp` is an optional metadata text, which PNG, JPEG, WebP and GIF can hold.
    """
    return encode_frames([Image.fromarray(image)], suffix, quality, xmp)


def encode_frames(frames, suffix, quality=95, xmp=None, **options):
    """Encodes Pillow pictures as `encode_image` does, several as an animation; `options` are Pillow's."""
    file = io.BytesIO()
    kind = Image.registered_extensions()[suffix.lower()]
    if kind == "PNG":
        options["compress_level"] = 1
    elif kind == "JPEG":
        options |= {"quality": quality, "subsampling": 0}
    else:
        options["quality"] = quality
    if xmp and kind == "PNG":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp)
    elif xmp:
        options["xmp"] = xmp.encode()
    if len(frames) > 1:
        options |= {"save_all": True, "append_images": frames[1:]}
    frames[0].save(file, kind, **options)
    if xmp and kind == "GIF":
        return _gif_with_xmp(file.getvalue(), xmp)
    return file.getvalue()


def _gif_with_xmp(content, xmp):
    """Inserts XMP before a GIF's last byte, following Adobe's specification; Pillow does not.

    The text is not a chain of sub-blocks; the bytes after it guide a reader that assumes one to the end.
    """
    trailer = bytes([1, *range(255, -1, -1), 0])
    return content[:-1] + b"\x21\xff\x0bXMP DataXMP" + xmp.encode() + trailer + content[-1:]


def write_image(path, image):
    """Writes (H, W, 3) uint8 RGB to a picture file atomically; the suffix picks the format."""
    write_atomic(path, encode_image(image, Path(path).suffix))


def to_signed(image_uint8):
    """uint8 [0, 255] -> float32 [-1, 1]."""
    return np.asarray(image_uint8, np.float32) / 127.5 - 1.0


def from_signed(image_signed):
    """float [-1, 1] -> uint8 [0, 255], clipped and rounded."""
    return np.rint(np.clip((np.asarray(image_signed, np.float32) + 1.0) * 127.5, 0, 255)).astype(np.uint8)


def tile_images(rows):
    """Tiles a list of rows of equally sized (H, W, 3) pictures into one."""
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)
