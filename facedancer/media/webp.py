"""Reads animated WebP, which FFmpeg does not decode, and the loop counts of animations, with Pillow."""

import contextlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image, UnidentifiedImageError

from facedancer.core.console import UserError
from facedancer.media.colors import colors_of
from facedancer.media.orientation import UPRIGHT
from facedancer.media.sequences import is_sequence
from facedancer.media.video import Video


def is_webp(path):
    """Whether a path names a WebP file."""
    return Path(path).suffix.lower() == ".webp" and not is_sequence(path)


def probe_webp(path):
    """Returns the `Video` of a WebP file; raises `UserError` if it cannot be read."""
    with open_webp(path) as picture:
        (width, height), ticks = picture.size, 0
        for index in range(picture.n_frames):
            picture.seek(index)
            picture.load()
            ticks += max(1, picture.info.get("duration", 0))
        first = _decoded(picture)
        return Video(
            path=Path(path), width=width, height=height, frame_count=picture.n_frames,
            rate=Fraction(1000 * picture.n_frames, ticks), time_base=Fraction(1, 1000), start=Fraction(0),
            skipped=Fraction(0), end=Fraction(ticks, 1000), is_cut=False, turn=UPRIGHT,
            display_matrix=None, sample_aspect_ratio=None,
            colors=colors_of(first), codec="webp", pixel_format=first.format.name, mastering={}, metadata={},
            loops=picture.info.get("loop", 0),
        )  # fmt: skip


def _decoded(picture):
    mode, kind = ("RGBA", "rgba") if "A" in picture.mode else ("RGB", "rgb24")
    return av.VideoFrame.from_ndarray(np.array(picture.convert(mode)), kind)


def count_plays(path):
    """Returns how often a GIF or APNG plays; 0 is forever, also if the file is too damaged to tell."""
    try:
        with Image.open(path, formats=["GIF", "PNG"]) as picture:
            if picture.format == "PNG":
                return picture.info.get("loop", 0)
            return picture.info["loop"] and picture.info["loop"] + 1 if "loop" in picture.info else 1
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return 0


def decode_webp(video):
    """Yields `(decoded frame, pts, duration, 0)` of a WebP file, as `read` decodes other videos; times in ms."""
    with open_webp(video.path) as picture:
        time = -round(video.start / video.time_base)
        for index in range(picture.n_frames):
            picture.seek(index)
            picture.load()
            duration = max(1, picture.info.get("duration", 0))
            if not video.reaches(time * video.time_base):
                return
            if time >= 0:
                yield _decoded(picture), time, duration, 0
            time += duration


@contextlib.contextmanager
def open_webp(path):
    """Opens a WebP file for a `with` block, in which errors become `UserError`; yields Pillow's image."""
    try:
        with Image.open(path, formats=["WEBP"]) as picture:
            yield picture
    except (OSError, EOFError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or "not a WebP image, or a damaged one"
        raise UserError(f"cannot read the video {path}: {reason}") from None
