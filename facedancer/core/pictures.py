"""A picture file with everything in it: frames, transparency, its own colors, resolution, EXIF; losses are named.

`images` reads what networks see, sRGB; this module is for files that are partly changed and written again.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from PIL import ExifTags, Image

from facedancer.core.color_profiles import ProfileError, read_profile
from facedancer.core.images import (
    DECODER_ERRORS,
    HEAD,
    ImageError,
    check_size,
    encode_frames,
    opened_file,
    opened_picture,
    orientation,
    strips,
    to_rgb,
    upright,
)

_ANIMATED = {"GIF", "PNG", "WEBP", "AVIF"}
_PAGED = {"TIFF", "MPO", "HEIF"}

# What the XMP that `marking` writes begins with; a mark is replaced by a mark, which is no loss.
MARK = "Synthetic media: "

# The tags of a TIFF that say nothing of how its pixels are stored.
_SAYING = ("ImageDescription", "Make", "Model", "Software", "DateTime", "Artist", "Copyright")

# From a change this large (of 255), nothing of the pixel's own color is kept.
_WHOLE_CHANGE = 16

_SAMPLES_PER_PIXEL = 277

# Frame duration in milliseconds if the file says nothing or 0, as in browsers.
_DURATION = 100


@dataclass(frozen=True, eq=False)
class Frame:
    """A frame of a picture file.

    Attributes:
        colors: (H, W, 3) uint8 RGB, in the file's own color space.
        alpha: (H, W) uint8, or None if fully opaque.
        duration: display time in milliseconds.
    """

    colors: np.ndarray
    alpha: np.ndarray | None = None
    duration: float = _DURATION


@dataclass(frozen=True, eq=False)
class Picture:
    """The contents of a picture file.

    Attributes:
        frames: list of `Frame`, several for an animation.
        plays: how often an animation plays, 0 for an infinite loop.
        profile: bytes of its ICC profile, None for sRGB.
        dpi: horizontal and vertical pixels per inch, or None.
        exif: bytes, or None.
        losses: texts that name what could not be kept from the file.
        missing: texts that name the pictures of the file that are left out: pages, a motion photo's video.
        is_still_first: whether the first frame is a fallback for viewers without animation, and not part of it.
    """

    frames: list
    plays: int = 0
    profile: bytes | None = None
    dpi: tuple | None = None
    exif: bytes | None = None
    losses: tuple = ()
    missing: tuple = ()
    is_still_first: bool = False

    def srgb(self, index):
        """Returns a frame in the networks' color space, (H, W, 3) uint8 sRGB."""
        return self._convert(self.frames[index].colors, "to_srgb")

    def with_swapped(self, index, swapped, regions):
        """Returns the `Frame` with the changes to its sRGB picture converted back to its own colors.

        Unchanged pixels stay exactly as they were. What the conversion to sRGB loses, by rounding and clipping, fades
        out as the change grows, so that no edge shows where it begins.

        Args:
            index: of the frame.
            swapped: (H, W, 3) uint8 sRGB, equal to `srgb` outside of the regions.
            regions: list of `(x1, y1, x2, y2)` in pixels.
        """
        frame = self.frames[index]
        if self.profile is None:
            return replace(frame, colors=swapped)
        before, colors = self.srgb(index), frame.colors.copy()
        touched = np.zeros(colors.shape[:2], bool)
        for x1, y1, x2, y2 in regions:
            touched[y1:y2, x1:x2] = True
        # As pictures one pixel high: regions may overlap, but each pixel is changed once.
        old, new = (
            self._convert(pixels[touched][None], "from_srgb")[0].astype(np.float32) for pixels in (before, swapped)
        )
        share = np.clip(np.abs(new - old).max(-1, keepdims=True) / _WHOLE_CHANGE, 0, 1)
        mixed = new + (1 - share) * (colors[touched] - old)
        colors[touched] = np.rint(np.clip(mixed, 0, 255)).astype(np.uint8)
        return replace(frame, colors=colors)

    def in_srgb(self):
        """Returns the picture in sRGB, without a profile."""
        frames = [replace(frame, colors=self.srgb(index)) for index, frame in enumerate(self.frames)]
        return replace(self, frames=frames, profile=None)

    def _convert(self, colors, way):
        convert = self.profile and getattr(read_profile(self.profile), way)
        if not convert:
            return colors
        converted = np.empty_like(colors)
        for rows, strip in strips(Image.fromarray(colors)):
            converted[rows] = convert(strip)
        return converted


def load_picture(path):
    """Reads a picture file as a `Picture`, upright. Raises `ImageError`."""
    with opened_file(path) as file:
        head = file.read(HEAD)
        file.seek(0)
        with opened_picture(file) as opened:
            picture = _read(opened, head)
            xmp = opened.info.get("xmp") or b""
        if any(word in bytes(xmp) for word in (b"MotionPhoto", b"MicroVideo")) and _holds_video(file):
            picture = replace(picture, missing=(*picture.missing, "the video in it is left out"))
        return picture


def _holds_video(file):
    """Whether a motion photo still has its video behind the picture: ISO's base media file format, or HEIF's box."""
    file.seek(12)  # behind the `ftyp` of a HEIC itself
    content = file.read()
    return b"ftyp" in content or b"mpvd" in content


def _read(opened, head):
    kind, count = opened.format, getattr(opened, "n_frames", 1)
    is_animation = kind in _ANIMATED and count > 1
    check_size(*opened.size, frames=count if is_animation else 1)
    bits = _bits(opened, head)
    losses = [f"its {bits} bits a channel become 8"] if bits > 8 else []
    if opened.mode in ("CMYK", "LAB"):
        losses.append(f"its {opened.mode} becomes RGB")
    if opened.info.get("color_loss"):
        losses.append(opened.info["color_loss"])
    opened.load()
    # Pillow itself converts from Lab, whose profile is none of pixels.
    profile, content = None, opened.info.get("icc_profile") if opened.mode != "LAB" else None
    try:
        profile = read_profile(content) if content else None
    except ProfileError:
        losses.append("its color profile is damaged; its colors are taken for sRGB")
    is_own = profile is not None and profile.mode == "RGB" and not profile.is_one_way and opened.mode != "CMYK"
    if b"hdrgm:Version" in bytes(opened.info.get("xmp") or b""):
        losses.append("its HDR gain map is left out")
    if extra := _extra_channels(opened):
        losses.append(f"its {extra} extra {'channel is' if extra == 1 else 'channels are'} left out")
    if texts := _texts(opened):
        losses.append(f"left out of it: {', '.join(texts)}")
    frames = []
    for index in range(count if is_animation else 1):
        if index:
            opened.seek(index)
            check_size(*opened.size, frames=count)
        opened.load()
        turn = orientation(opened)
        colors = upright(to_rgb(opened, None if is_own else profile), turn)
        alpha = _alpha(opened)
        alpha = None if alpha is None else np.ascontiguousarray(upright(alpha, turn))
        frames.append(Frame(np.ascontiguousarray(colors), alpha, opened.info.get("duration") or _DURATION))
    if len({frame.colors.shape for frame in frames}) > 1:
        raise ImageError("an animation whose frames differ in size")
    plays = opened.info.get("loop") if is_animation else 0
    if kind == "GIF" and is_animation:  # GIF: number of repeats; absent means none
        plays = 1 if plays is None else plays and plays + 1
    return Picture(
        frames,
        plays or 0,
        content if is_own else None,
        None if _has_no_resolution(opened) else _dpi(opened.info.get("dpi")),
        _exif(opened, losses),  # last, since it removes the orientation
        tuple(losses),
        (f"only the first of its {count} pages is swapped and written",) if kind in _PAGED and count > 1 else (),
        is_animation and bool(opened.info.get("default_image")),
    )


def _bits(opened, head):
    """Returns a file's bits per channel, of which Pillow reads 8.

    Args:
        opened: Pillow's picture, not yet loaded.
        head: the first bytes of the file.
    """
    raw = opened.tile[0].args if opened.tile else ()
    if opened.mode.startswith("I;16") or (opened.format == "PNG" and "16" in str(raw)):
        return 16
    if opened.format == "TIFF":
        return max(opened.tag_v2.get(ExifTags.Base.BitsPerSample, (8,)))
    if opened.format == "PPM":
        return raw[-1].bit_length() if isinstance(raw, tuple) and isinstance(raw[-1], int) else 8
    if opened.format == "AVIF":
        found = head.find(
            b"av1C"
        )  # the box that says how AV1 is coded; its third byte has a bit for more than 8, or 12
        depth = head[found + 6] >> 5 & 3 if 0 <= found < len(head) - 6 else 0
        return (8, 8, 10, 12)[depth]
    if opened.format == "JPEG2000":
        found = head.find(b"\xff\x4f\xff\x51")  # SOC and SIZ, which ends in the depth of each channel
        return (head[found + 42] & 0x7F) + 1 if 0 <= found < len(head) - 42 else 8
    return opened.info.get("bit_depth") or 8


def _alpha(opened):
    """Returns a loaded picture's (H, W) uint8 alpha, or None if fully opaque."""
    if not opened.has_transparency_data:
        return None
    alpha = np.empty((opened.height, opened.width), np.uint8)
    for rows, strip in strips(opened):
        if strip.mode not in ("LA", "PA", "RGBA"):
            strip = strip.convert("RGBA")
        alpha[rows] = strip.getchannel("A")
    return None if alpha.min() == 255 else alpha


def _extra_channels(opened):
    """Returns how many channels of a TIFF are neither color nor alpha, such as Photoshop's saved selections."""
    if opened.format != "TIFF":
        return 0
    return max(0, opened.tag_v2.get(_SAMPLES_PER_PIXEL, 1) - len(opened.getbands()))


def _texts(opened):
    """Returns the names of a picture's texts, which are not written again."""
    info, names = opened.info, list(getattr(opened, "text", ()))
    found = [name for name in names if name != "XML:com.adobe.xmp" and not name.startswith("Raw profile type")]
    found = [f"the text {name!r}" for name in found[:3]] + (["more texts"] if len(found) > 3 else [])
    found += ["its comment"] if info.get("comment") and opened.format != "JPEG2000" else []  # there the encoder's
    found += ["its IPTC and Photoshop data"] if info.get("photoshop") else []
    xmp = bytes(info.get("xmp") or b"")
    return found + (["its XMP"] if xmp and MARK.encode() not in xmp else [])


def _has_no_resolution(opened):
    """Whether a picture's resolution is an invention of Pillow's, which says 1 for a TIFF without one."""
    return opened.format == "TIFF" and ExifTags.Base.XResolution not in opened.tag_v2


def _dpi(given):
    """Returns a resolution if it is two numbers that files can store, else None."""
    try:
        across, down = (float(number) for number in given)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (across, down) if all(math.isfinite(n) and 0.5 <= n < 65535 for n in (across, down)) else None


def _exif(opened, losses):
    """Returns a loaded picture's EXIF without outdated entries (orientation, previews), or None.

    A TIFF's tags also list where its pixels are; only those that say something of the picture are kept.
    """
    exif = opened.getexif()
    exif.pop(ExifTags.Base.Orientation, None)
    if opened.format == "TIFF":
        exif = _of_tiff(exif)
    if not len(exif):
        return None
    try:
        # Maker notes hold previews and absolute file offsets.
        exif.get_ifd(ExifTags.IFD.Exif).pop(ExifTags.Base.MakerNote, None)
        return exif.tobytes()
    except DECODER_ERRORS:  # tags are untrusted
        losses.append("its EXIF is damaged and left out")
        return None


def _of_tiff(tags):
    exif = Image.Exif()
    for tag in (ExifTags.Base[name] for name in _SAYING):
        if tag in tags:
            exif[tag] = tags[tag]
    for part in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        if found := tags.get_ifd(part):
            exif.get_ifd(part).update(found)
            exif[part] = exif.get_ifd(part)
    return exif


def losses_of(picture, suffix):
    """Returns texts that name what a file with that suffix cannot store of a `Picture`.

    Raises:
        ImageError: if it cannot store an animation.
    """
    kind = Image.registered_extensions()[suffix.lower()]
    if len(picture.frames) > 1 and kind not in ("GIF", "PNG", "WEBP"):
        raise ImageError(
            f"it is an animation of {len(picture.frames)} frames, which {kind} does not hold; let the name of the"
            " output end in .webp, .png or .gif"
        )
    alphas = [frame.alpha for frame in picture.frames if frame.alpha is not None]
    losses = []
    if alphas and kind == "JPEG":
        losses.append("its alpha is dropped, with white behind it: JPEG has none")
    if kind == "GIF" and any(((alpha > 0) & (alpha < 255)).any() for alpha in alphas):
        losses.append("its alpha becomes all or nothing: GIF has no more")
    if kind == "GIF" and picture.dpi:
        losses.append("its resolution is dropped: GIF has none")
    if picture.exif and kind == "GIF":
        losses.append("its EXIF is dropped: GIF has none")
    if picture.is_still_first and kind != "PNG":
        losses.append("its still picture for viewers without animation is left out")
    return losses


def encode_picture(picture, suffix, xmp=None):
    """Returns the bytes of a file with a suffix that `losses_of` takes; `xmp` as of `images.encode_image`."""
    kind = Image.registered_extensions()[suffix.lower()]
    options = {}
    if picture.profile is not None:
        if kind == "GIF":
            picture = picture.in_srgb()
        else:
            options["icc_profile"] = picture.profile
    exif = picture.exif
    if picture.dpi and kind == "WEBP":
        exif = _exif_with_dpi(exif, picture.dpi)
    elif picture.dpi and kind != "GIF":
        options["dpi"] = picture.dpi
    if exif and kind != "GIF":
        options["exif"] = exif
    if picture.is_still_first and kind != "PNG":
        picture = replace(picture, frames=picture.frames[1:], is_still_first=False)
    frames = [_to_pillow(frame, kind) for frame in picture.frames]
    if len(frames) > 1:
        # Pillow counts durations from the animation's first frame.
        options["duration"] = [round(frame.duration) for frame in picture.frames[picture.is_still_first :]]
        if kind != "GIF":
            options["loop"] = picture.plays
        elif picture.plays != 1:
            options["loop"] = max(0, picture.plays - 1)
        if kind == "PNG" and picture.is_still_first:
            options["default_image"] = True
        if kind == "GIF" and any(frame.alpha is not None for frame in picture.frames):
            options["disposal"] = 2  # transparent parts do not show the previous frame
    return encode_frames(frames, suffix, xmp=xmp, **options)


def _to_pillow(frame, kind):
    if frame.alpha is None:
        return Image.fromarray(frame.colors)
    pixels = Image.fromarray(np.dstack([frame.colors, frame.alpha]))
    if kind != "JPEG":
        return pixels
    white = Image.new("RGBA", pixels.size, "white")
    return Image.alpha_composite(white, pixels).convert("RGB")


def _exif_with_dpi(exif, dpi):
    """Returns EXIF bytes with a resolution, the only place where WebP stores it."""
    tags = Image.Exif()
    if exif:
        tags.load(exif)
    tags[ExifTags.Base.XResolution], tags[ExifTags.Base.YResolution] = dpi
    tags[ExifTags.Base.ResolutionUnit] = 2  # the inch
    return tags.tobytes()
