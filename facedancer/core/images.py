"""Pictures as arrays: (H, W, 3) uint8 RGB everywhere; value ranges, reading and writing.

Suffixes say the range where two could be meant: `_uint8` [0, 255], `_unit` [0, 1], `_signed` [-1, 1].
"""

import io
import struct
import warnings
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, PngImagePlugin, UnidentifiedImageError

from facedancer.core.files import write_atomic

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}

# Pillow tells of every odd tag in a picture that is otherwise whole.
warnings.filterwarnings("ignore", module=r"PIL\.")

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(Exception):
    """A file that is no whole picture. Its text is the reason alone."""


def decode_image(content):
    """Decodes a picture file's bytes to (H, W, 3) uint8 RGB, upright by its EXIF orientation.

    Grey becomes three equal channels, transparency is dropped, 16 bits are rounded to 8.

    Raises:
        ImageError: if the bytes are no picture, a truncated one, or too large to be meant.
    """
    try:
        with Image.open(io.BytesIO(content)) as picture:
            # Pillow's own exif_transpose also rewrites the tags, and stumbles over damaged ones of whole pictures.
            turn = _UPRIGHT.get(picture.getexif().get(ExifTags.Base.Orientation))
            if turn is not None:
                picture = picture.transpose(turn)
            if picture.mode.startswith("I;16"):
                grey = np.asarray(picture).astype(np.float32) / 257.0
                return np.repeat(np.rint(grey).astype(np.uint8)[..., None], 3, axis=-1)
            if picture.mode in ("I", "F"):
                raise ImageError(f"unsupported pixel format {picture.mode}")
            return np.array(picture.convert("RGB"))
    except UnidentifiedImageError:
        raise ImageError("not a picture") from None
    except Image.DecompressionBombError:
        raise ImageError("too large") from None
    except (OSError, SyntaxError, ValueError, EOFError, TypeError, struct.error) as error:
        # Pillow's decoders report damage through all of these.
        raise ImageError(f"damaged picture ({error})") from None


def read_image(path):
    """Reads a picture file as (H, W, 3) uint8 RGB. Raises `ImageError`."""
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise ImageError(error.strerror) from None
    return decode_image(content)


def encode_image(image, suffix, quality=95, xmp=None):
    """Encodes (H, W, 3) uint8 RGB to a picture file's bytes; `suffix` (".png", ".jpg", …) picks the format.

    `xmp` is a text of metadata to go with it, which PNG, JPEG and WebP hold.
    """
    file = io.BytesIO()
    kind = Image.registered_extensions()[suffix.lower()]
    options = {"PNG": {"compress_level": 1}, "JPEG": {"quality": quality, "subsampling": 0}}
    options = options.get(kind, {"quality": quality})
    if xmp and kind == "PNG":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp)
    elif xmp:
        options["xmp"] = xmp.encode()
    Image.fromarray(image).save(file, kind, **options)
    return file.getvalue()


def write_image(path, image):
    """Writes (H, W, 3) uint8 RGB to a picture file by its suffix, whole or not at all."""
    write_atomic(path, encode_image(image, Path(path).suffix))


def to_signed(image_uint8):
    """uint8 [0, 255] -> float32 [-1, 1]."""
    return np.asarray(image_uint8, np.float32) / 127.5 - 1.0


def from_signed(image_signed):
    """float [-1, 1] -> uint8 [0, 255], clipped and rounded."""
    return np.rint(np.clip((np.asarray(image_signed, np.float32) + 1.0) * 127.5, 0, 255)).astype(np.uint8)


def tile_images(rows):
    """Puts a list of rows of equal (H, W, 3) pictures together as one."""
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)
