"""ICC color profiles: from a picture's own colors to sRGB, which the networks expect, and back.

Files without a profile may state their colors by numbers: ITU-T H.273's in PNG's cICP and AVIF's and HEIF's nclx,
primaries and a gamma in PNG's cHRM and gAMA. Those become a profile, so that one way serves all.
"""

import functools
import io
import struct
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageCms

# The profile's color space -> Pillow's mode of its pixels.
_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}

# H.273's color primaries: x and y of red, green, blue and white.
_D65 = (0.3127, 0.3290)
_PRIMARIES = {
    1: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), _D65),
    5: ((0.640, 0.330), (0.290, 0.600), (0.150, 0.060), _D65),
    6: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), _D65),
    7: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), _D65),
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65),
}
# H.273's transfer characteristics: a gamma, or None for sRGB's curve, by which viewers show BT.709's as well.
_SRGB_CURVE = None
_CURVES = {1: _SRGB_CURVE, 4: 2.2, 5: 2.8, 6: _SRGB_CURVE, 8: 1.0, 13: _SRGB_CURVE, 14: _SRGB_CURVE, 15: _SRGB_CURVE}
_SRGB = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)  # ICC's parametric curve of type 3
_HDR = {16: "PQ", 18: "HLG"}
_UNSPECIFIED = 2

_D50 = np.array([0.9642, 1.0, 0.8249])  # white of every ICC profile
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])

# A profile that shifts no color by more than this (of 255) is one of the many variants of sRGB.
_SAME = 2


class ProfileError(Exception):
    """A damaged profile, or one of an unsupported color space."""


@dataclass(frozen=True, eq=False)
class ColorProfile:
    """A color profile.

    Attributes:
        mode: Pillow's mode of its pixels, "RGB", "L" or "CMYK".
        to_srgb: function from a Pillow picture of that mode to one of mode RGB; None for sRGB.
        from_srgb: the inverse; None for sRGB, or if `is_one_way`.
        is_one_way: whether the profile has no inverse, or is not RGB.
    """

    mode: str
    to_srgb: object = None
    from_srgb: object = None
    is_one_way: bool = False


@functools.lru_cache(16)
def read_profile(content):
    """Returns the `ColorProfile` of an ICC profile's bytes. Raises `ProfileError`."""
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(content))
        mode = _MODES[profile.profile.xcolor_space.strip()]
        srgb = ImageCms.createProfile("sRGB")
        to_srgb = ImageCms.buildTransform(profile, srgb, mode, "RGB")
    except (ImageCms.PyCMSError, OSError, KeyError, TypeError, ValueError) as error:
        raise ProfileError(str(error)) from None
    if mode != "RGB":
        return ColorProfile(mode, to_srgb.apply, is_one_way=True)
    steps = np.linspace(0, 255, 9).round().astype(np.uint8)
    cube = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(27, 27, 3)
    seen = np.asarray(to_srgb.apply(Image.fromarray(cube)))
    if np.abs(seen.astype(int) - cube).max() <= _SAME:
        return ColorProfile(mode)
    try:
        back = ImageCms.buildTransform(srgb, profile, "RGB", mode)
    except ImageCms.PyCMSError:  # such as scanners, whose profiles may be one-way
        return ColorProfile(mode, to_srgb.apply, is_one_way=True)
    return ColorProfile(mode, to_srgb.apply, back.apply)


def stated_profile(primaries, transfer):
    """Returns `(ICC profile's bytes, loss)` for H.273's numbers.

    The profile is empty for sRGB, and None if the numbers state nothing, or what none here can say; `loss` names that.
    """
    if primaries in _PRIMARIES and transfer in _CURVES:
        points, curve = _PRIMARIES[primaries], _CURVES[transfer]
        is_srgb = points == _PRIMARIES[1] and curve is _SRGB_CURVE
        return b"" if is_srgb else make_profile(points, curve), None
    if transfer in _HDR:
        return None, f"its HDR ({_HDR[transfer]}) is left out; its colors are taken for sRGB"
    if _UNSPECIFIED in (primaries, transfer):
        return None, None
    return None, f"its colors are taken for sRGB (H.273: primaries {primaries}, transfer {transfer})"


def gamma_profile(gamma, chromaticities=None):
    """Returns the ICC profile's bytes for PNG's gAMA and cHRM; None for those of sRGB, and for senseless ones.

    Args:
        gamma: the exponent of coding, 0.45455 for sRGB.
        chromaticities: x and y of white, red, green and blue in a row, or None for sRGB's.
    """
    if not 0.1 <= gamma <= 10:
        return None
    curve = _SRGB_CURVE if abs(gamma - 1 / 2.2) < 0.01 else 1 / gamma
    points = _PRIMARIES[1]
    if chromaticities is not None:
        white, *colors = zip(chromaticities[::2], chromaticities[1::2], strict=True)
        points = (*colors, white)
        if min(min(point) for point in points) < -1 or min(y for _, y in points) < 1e-3:
            return None
    if curve is _SRGB_CURVE and np.allclose(points, _PRIMARIES[1], atol=2e-3):
        return None
    return make_profile(points, curve)


def make_profile(points, gamma=None):
    """Returns the bytes of an ICC profile (version 4.3) of an RGB space.

    Args:
        points: `(x, y)` of red, green, blue and white.
        gamma: exponent of decoding; None for sRGB's curve.

    Returns:
        None if the points span no space.
    """
    red_green_blue, white = np.array([(x / y, 1, (1 - x - y) / y) for x, y in points]).T[:, :3], points[3]
    white = np.array([white[0] / white[1], 1, (1 - white[0] - white[1]) / white[1]])
    try:
        matrix = red_green_blue * np.linalg.solve(red_green_blue, white)
        adaptation = np.linalg.solve(_BRADFORD, np.diag(_BRADFORD @ _D50 / (_BRADFORD @ white)) @ _BRADFORD)
    except np.linalg.LinAlgError:
        return None
    matrix = adaptation @ matrix
    if not (np.abs(matrix) < 100).all() or not (np.abs(adaptation) < 100).all():  # NaN too
        return None
    if gamma is None:
        curve = b"para" + bytes(4) + struct.pack(">HH", 3, 0) + _fixed(*_SRGB)
    else:
        curve = b"para" + bytes(4) + struct.pack(">HH", 0, 0) + _fixed(gamma)
    tags = {
        b"desc": _text("as the picture states"), b"cprt": _text("none"), b"wtpt": _xyz(_D50),
        b"chad": b"sf32" + bytes(4) + _fixed(*adaptation.ravel()),
        **{name + b"XYZ": _xyz(column) for name, column in zip((b"r", b"g", b"b"), matrix.T, strict=True)},
        **{name + b"TRC": curve for name in (b"r", b"g", b"b")},
    }  # fmt: skip
    table, data, start = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, body in tags.items():
        table += name + struct.pack(">II", start + len(data), len(body))
        data += body + bytes(-len(body) % 4)
    head = struct.pack(">I4xI", start + len(data), 0x04300000) + b"mntrRGB XYZ " + bytes(12) + b"acsp" + bytes(28)
    return (head + _fixed(*_D50)).ljust(128, b"\0") + table + data


def _fixed(*numbers):
    return b"".join(struct.pack(">i", round(number * 65536)) for number in numbers)


def _xyz(numbers):
    return b"XYZ " + bytes(4) + _fixed(*numbers)


def _text(text):
    return b"mluc" + bytes(4) + struct.pack(">II4sII", 1, 12, b"enUS", 2 * len(text), 28) + text.encode("utf-16-be")
