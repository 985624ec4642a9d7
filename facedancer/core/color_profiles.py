"""ICC color profiles: from a picture's own colors to sRGB, which the networks expect, and back."""

import functools
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageCms

# The profile's color space -> Pillow's mode of its pixels.
_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}

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
