"""ICC colour profiles: from a picture's own colours to sRGB, which the networks know, and back."""

import functools
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageCms

# The profile's colour space -> Pillow's mode of the pixels that it describes.
_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}

# A profile that moves no colour further than this, of 255, is one of the many that say sRGB.
_SAME = 2


class ProfileError(Exception):
    """A profile that is damaged, or of a colour space that no picture file of ours has."""


@dataclass(frozen=True, eq=False)
class ColourProfile:
    """A colour profile.

    Attributes:
        mode: Pillow's mode of the pixels that it describes, "RGB", "L" or "CMYK".
        to_srgb: function of a Pillow picture of that mode that returns one of mode RGB; None where it is sRGB.
        from_srgb: the inverse; None where it is sRGB, or where `is_one_way`.
        is_one_way: whether the profile tells nothing of the way back, or is not one of RGB.
    """

    mode: str
    to_srgb: object = None
    from_srgb: object = None
    is_one_way: bool = False


@functools.lru_cache(16)
def read_profile(content):
    """Returns the `ColourProfile` of an ICC profile's bytes. Raises `ProfileError`."""
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(content))
        mode = _MODES[profile.profile.xcolor_space.strip()]
        srgb = ImageCms.createProfile("sRGB")
        to_srgb = ImageCms.buildTransform(profile, srgb, mode, "RGB")
    except (ImageCms.PyCMSError, OSError, KeyError, TypeError, ValueError) as error:
        raise ProfileError(str(error)) from None
    if mode != "RGB":
        return ColourProfile(mode, to_srgb.apply, is_one_way=True)
    steps = np.linspace(0, 255, 9).round().astype(np.uint8)
    cube = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(27, 27, 3)
    seen = np.asarray(to_srgb.apply(Image.fromarray(cube)))
    if np.abs(seen.astype(int) - cube).max() <= _SAME:
        return ColourProfile(mode)
    try:
        back = ImageCms.buildTransform(srgb, profile, "RGB", mode)
    except ImageCms.PyCMSError:  # as of scanners, whose profiles may tell one way alone
        return ColourProfile(mode, to_srgb.apply, is_one_way=True)
    return ColourProfile(mode, to_srgb.apply, back.apply)
