"""Converts between a decoded frame's planes and RGB.

A swap's change is *added* to the decoded planes: the difference of the RGB before and after, converted to the planes'
own format. Where the RGB did not change, neither do the planes, so 10-bit video keeps its 10 bits although RGB has 8.

Networks see videos coded by SMPTE ST 2084 (HDR10, Dolby Vision's base layer) through a tone curve that maps diffuse
white to near the upper third of the gray levels; the change goes back through the inverse curve.
"""

from dataclasses import dataclass
from fractions import Fraction

import av
import av.filter
import numpy as np
from av.video.reformatter import ColorRange, Interpolation

from facedancer.core.console import UserError

# swscale's faster modes darken by one or two gray levels; its threads cost more than they save.
_EXACT = Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
_EXACTLY = {"interpolation": Interpolation.BILINEAR | _EXACT, "threads": 1}

# Matrices between RGB and YUV: the number in the stream (ITU-T H.273) -> swscale's.
_MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
_RGB, _BT709, _BT601, _UNSPECIFIED = 0, 1, 5, 2
_PQ = 16  # transfer characteristics of ST 2084

_DIFFUSE_WHITE, _PEAK = 203.0, 10_000.0  # candela per square meter: ITU-R BT.2408, ST 2084


@dataclass(frozen=True)
class Colors:
    """How a stream's YUV converts to RGB, and the tags that state it.

    Attributes:
        matrix: swscale's number of the conversion matrix.
        range: `ColorRange` of the YUV.
        tags: attributes to set on PyAV's encoder, name -> value.
    """

    matrix: int
    range: ColorRange
    tags: dict

    @property
    def is_pq(self):
        """Whether luminance is coded by ST 2084."""
        return self.tags["color_trc"] == _PQ


def colors_of(decoded):
    """Returns the `Colors` of a decoded `av.VideoFrame`.

    Raises:
        UserError: if its color matrix is not supported.
    """
    tags = {
        "colorspace": int(decoded.colorspace),
        "color_range": int(decoded.color_range),
        "color_primaries": int(decoded.color_primaries),
        "color_trc": int(decoded.color_trc),
    }
    # What players assume if a file states no matrix.
    matrix = _BT709 if decoded.width >= 1280 or decoded.height > 576 else _BT601
    if decoded.format.is_rgb:
        tags |= {"colorspace": matrix, "color_range": int(ColorRange.MPEG)}
    elif tags["colorspace"] == _RGB:  # gray and palette PNGs say so too
        tags["colorspace"] = matrix
    elif tags["colorspace"] in _MATRICES:
        matrix = _MATRICES[tags["colorspace"]]
    elif tags["colorspace"] != _UNSPECIFIED:
        raise UserError(f"cannot read a video with color matrix {tags['colorspace']} of ITU-T H.273")
    # `yuvj…` formats state the range by their name, others by a tag.
    if decoded.format.name.startswith("yuvj"):
        tags["color_range"] = int(ColorRange.JPEG)
    is_full = tags["color_range"] == ColorRange.JPEG
    return Colors(matrix, ColorRange.JPEG if is_full else ColorRange.MPEG, tags)


def to_rgb(decoded, colors, size=None):
    """Returns a decoded frame as (H, W, 3) uint8 RGB, not rotated, scaled down to `size` (width, height) if given."""
    options = {"dst_color_range": ColorRange.JPEG, **_from_decoded(decoded, colors)}
    if size:
        options |= {"width": size[0], "height": size[1], "interpolation": Interpolation.AREA | _EXACT}
    if colors.is_pq:  # swscale has a bug with packed 16-bit RGB
        return _SEEN[decoded.to_ndarray(format="gbrp16le", **options) >> 4]
    return decoded.to_ndarray(format="rgb24", **options)


def to_rgb_part(decoded, colors, box):
    """Returns the part of a decoded frame in `box`, (h, w, 3) uint8 RGB as by `to_rgb`, without copying its planes.

    Chroma at the part's edges is not interpolated with what lies beyond.

    Args:
        decoded: `av.VideoFrame`.
        colors: its `Colors`.
        box: `(x1, y1, x2, y2)` in whole pixels, x2 and y2 exclusive; at multiples of 4, chroma samples are whole.
    """
    x1, y1, x2, y2 = box
    # FFmpeg's crop filter keeps the chroma location; a new frame would lose it.
    graph = av.filter.Graph()
    size = {"width": decoded.width, "height": decoded.height}
    source = graph.add_buffer(**size, format=decoded.format, time_base=Fraction(1))
    crop = graph.add("crop", f"{x2 - x1}:{y2 - y1}:{x1}:{y1}:exact=1")  # odd sides too
    sink = graph.add("buffersink")
    source.link_to(crop)
    crop.link_to(sink)
    graph.configure()
    source.push(decoded)
    return to_rgb(sink.pull(), colors)


def to_planes(decoded, colors, pixel_format):
    """Returns a decoded frame as a writable `av.VideoFrame` of a planar YUV format, padded to even sides if needed."""
    if decoded.format.name != pixel_format:
        decoded = decoded.reformat(
            format=pixel_format,
            dst_colorspace=colors.matrix,
            dst_color_range=colors.range,
            **_from_decoded(decoded, colors),
        )
    width, height = padded_size(decoded.width, decoded.height, pixel_format)
    if (width, height) == (decoded.width, decoded.height):
        decoded.make_writable()
        return decoded
    padded = av.VideoFrame(width, height, pixel_format)
    for plane, new in zip(planes_of(decoded), planes_of(padded), strict=True):
        rows, columns = (size - old for size, old in zip(new.shape, plane.shape, strict=True))
        new[...] = np.pad(plane, ((0, rows), (0, columns)), "edge")
    return padded


def from_rgb(image, colors, pixel_format):
    """Returns (H, W, 3) uint8 RGB as an `av.VideoFrame`, padded to even sides if the format needs them."""
    width, height = padded_size(image.shape[1], image.shape[0], pixel_format)
    image = np.pad(image, ((0, height - image.shape[0]), (0, width - image.shape[1]), (0, 0)), "edge")
    kind = "rgb24"
    if colors.is_pq:
        image, kind = _CODED[image], "gbrp16le"
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(image), kind).reformat(
        format=pixel_format,
        src_color_range=ColorRange.JPEG,
        dst_colorspace=colors.matrix,
        dst_color_range=ColorRange.JPEG if av.VideoFormat(pixel_format).is_rgb else colors.range,
        **_EXACTLY,
    )


def add_change(picture, colors, before, after, box, corner=(0, 0)):
    """Adds the difference of two RGB images to the planes of a picture, in place.

    Args:
        picture: `av.VideoFrame` from `to_planes`.
        colors: its `Colors`.
        before, after: (h, w, 3) uint8 RGB: what `to_rgb` or `to_rgb_part` returned, and the wanted result.
        box: `(x1, y1, x2, y2)` in whole pixels of the picture, x2 and y2 exclusive; `before` and `after` are equal
            outside of it.
        corner: x and y of the picture's pixel where `before` and `after` begin, even numbers.
    """
    name = picture.format.name
    # Chroma may have half the resolution, so the box must begin and end at even pixels.
    x1, y1, x2, y2 = (n // 2 * 2 for n in (box[0], box[1], box[2] + 1, box[3] + 1))
    rows, columns = slice(y1 - corner[1], y2 - corner[1]), slice(x1 - corner[0], x2 - corner[0])
    old, new = (_planes_of_patch(image[rows, columns], colors, name, (x2 - x1, y2 - y1)) for image in (before, after))
    largest = (1 << _depth(picture.format)) - 1
    for plane, was, becomes in zip(planes_of(picture), old, new, strict=True):
        down = -(-picture.height // plane.shape[0])
        across = -(-picture.width // plane.shape[1])
        part = plane[y1 // down : y2 // down, x1 // across : x2 // across]
        rows, columns = part.shape  # the patch of a picture with odd sides is padded
        changed = part + (becomes.astype(np.int32) - was)[:rows, :columns]
        part[...] = np.clip(changed, 0, largest)


def planes_of(picture):
    """Returns views of a planar frame's planes, (height, width) uint8 or uint16 each."""
    kind = np.uint16 if _depth(picture.format) > 8 else np.uint8
    views = []
    for plane in picture.planes:
        rows = np.frombuffer(plane, kind).reshape(plane.height, -1)
        views.append(rows[:, : plane.width])
    return views


def padded_size(width, height, pixel_format):
    """Returns `(width, height)` rounded up to whole chroma samples of a pixel format."""
    kind = av.VideoFormat(pixel_format, 16, 16)
    if kind.is_rgb or not kind.is_planar or len(kind.components) < 2:
        return width, height
    across, down = 16 // kind.components[1].width, 16 // kind.components[1].height
    return -(-width // across) * across, -(-height // down) * down


def _planes_of_patch(patch, colors, pixel_format, size):
    missing = size[1] - patch.shape[0], size[0] - patch.shape[1]
    patch = np.pad(patch, ((0, missing[0]), (0, missing[1]), (0, 0)), "edge")
    return planes_of(from_rgb(patch, colors, pixel_format))


def _depth(kind):
    return kind.components[0].bits


def _from_decoded(decoded, colors):
    return {
        "src_colorspace": colors.matrix,
        "src_color_range": ColorRange.JPEG if decoded.format.is_rgb else colors.range,
        **_EXACTLY,
    }


def _luminance(signal):
    """ST 2084, equation 4.1: a signal in [0, 1] -> candela per square meter."""
    root = signal ** (32 / 2523)
    return _PEAK * (np.maximum(root - 107 / 128, 0) / (2413 / 128 - 2392 / 128 * root)) ** (16384 / 2610)


def _curves():
    """Returns the tables from 12-bit signal to 8-bit gray level, and from gray level back to 16-bit signal."""
    light = _luminance(np.arange(4096) / 4095) / _DIFFUSE_WHITE
    # Reinhard's curve with a white point (2002, equation 4), then a display's gamma.
    seen = 255 * (light * (1 + light / (_PEAK / _DIFFUSE_WHITE) ** 2) / (1 + light)) ** (1 / 2.2)
    coded = np.interp(np.arange(256), seen, np.arange(4096) / 4095 * 65535)
    return np.rint(np.clip(seen, 0, 255)).astype(np.uint8), np.rint(coded).astype(np.uint16)


_SEEN, _CODED = _curves()
