"""The properties of a video, and one frame of it.

Images are what a viewer sees: rotated upright, with colors converted by the matrix and range that the file states.
A frame also keeps its decoded planes, so that pixels that a swap does not change are written as they were.
"""

import functools
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from facedancer.media.colors import Colors, to_rgb, to_rgb_part
from facedancer.media.joins import NO_JOINS, Joins
from facedancer.media.orientation import coded_box, upright, upright_box


@dataclass(frozen=True)
class Chapter:
    """A chapter of a video: `start` and `end` in seconds; `metadata` maps names, such as `title`, to text."""

    start: Fraction
    end: Fraction
    metadata: dict


@dataclass(frozen=True)
class Video:
    """What is known about a video before its frames are read.

    Attributes:
        path: the file.
        width, height: size of the upright picture in pixels.
        frame_count: approximate number of frames to read.
        rate: average frames per second.
        time_base: unit of the frames' time stamps in seconds.
        start: start of the part to read, in seconds of the file's clock; subtracted from all time stamps.
        skipped: how much of `start` the user asked to skip, in seconds; the rest is the file's own delay.
        end: end of the part to read, in seconds after `start`.
        is_cut: whether the file goes on after `end`.
        turn: `(transpose, flip_x, flip_y)` that makes a decoded picture upright.
        display_matrix: the file's nine integers for that; None if it has none.
        sample_aspect_ratio: width of a coded pixel divided by its height; None if the file does not say.
        colors: `Colors`.
        codec: the decoder's name.
        pixel_format: FFmpeg's name of the decoded pictures' format.
        mastering: values of x265's `master-display` and `max-cll` for HDR10; empty for other videos.
        metadata: the file's metadata, name -> text.
        is_interlaced: whether the video is interlaced; its frames are read deinterlaced.
        damage: one line for each thing that is damaged or missing.
        tracks: the file's other tracks, `tracks.Track`.
        language: three-letter language code of the video track; None if the file does not say.
        chapters: `Chapter`s of the part to read, with times from `start`.
        loops: how often an animation plays; 0 is forever.
        joins: `Joins` of the file, if it was joined of several whose time stamps start anew.
    """

    path: Path
    width: int
    height: int
    frame_count: int
    rate: Fraction
    time_base: Fraction
    start: Fraction
    skipped: Fraction
    end: Fraction
    is_cut: bool
    turn: tuple[bool, bool, bool]
    display_matrix: tuple[int, ...] | None
    sample_aspect_ratio: Fraction | None
    colors: Colors
    codec: str
    pixel_format: str
    mastering: dict
    metadata: dict
    is_interlaced: bool = False
    damage: tuple[str, ...] = ()
    tracks: tuple = ()
    language: str | None = None
    chapters: tuple["Chapter", ...] = ()
    loops: int = 0
    joins: Joins = NO_JOINS

    def reaches(self, time):
        """Whether the part to read goes on after `time`; always true if uncut, as a file may misstate its duration."""
        return not self.is_cut or time < self.end


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of a video. Its colors are converted only when an image is asked for.

    Attributes:
        video: its `Video`.
        decoded: the decoded `av.VideoFrame`, not rotated.
        pts: when it is shown, in the video's `time_base`.
        duration: how long it is shown, in the same unit.
        lost: number of frames after it (for the first frame, also before it) that could not be decoded; it is shown in
            their place.
    """

    video: Video
    decoded: av.VideoFrame
    pts: int
    duration: int
    lost: int = 0

    @property
    def is_damaged(self):
        """Whether the decoder had to guess parts of the picture."""
        return self.decoded.is_corrupt

    @functools.cached_property
    def image(self):
        """The upright picture, (H, W, 3) uint8 RGB."""
        return self._upright(to_rgb(self.decoded, self.video.colors))

    @property
    def alpha(self):
        """Opacity of the upright picture, (H, W) uint8; 255 is opaque."""
        return upright(self.decoded.reformat(format="rgba").to_ndarray()[..., 3], self.video.turn)

    def reduced(self, width, height):
        """Returns the upright picture scaled to a smaller size, (height, width, 3) uint8 RGB."""
        if (width, height) == (self.video.width, self.video.height):
            return self.image
        size = (height, width) if self.video.turn[0] else (width, height)
        return self._upright(to_rgb(self.decoded, self.video.colors, size))

    def part(self, box):
        """Returns a part of the upright picture.

        Args:
            box: `(x1, y1, x2, y2)` in whole pixels, x2 and y2 exclusive.

        Returns:
            The part, (h, w, 3) uint8 RGB, and its box: the smallest one around `box` that begins and ends with whole
            chroma samples.
        """
        turn, size = self.video.turn, (self.video.width, self.video.height)
        x1, y1, x2, y2 = coded_box(box, size, turn)
        step = 4  # pixels per sample of the coarsest chroma
        x1, y1 = x1 // step * step, y1 // step * step
        x2, y2 = min(-(-x2 // step) * step, self.decoded.width), min(-(-y2 // step) * step, self.decoded.height)
        coded = (x1, y1, x2, y2)
        return self._upright(to_rgb_part(self.decoded, self.video.colors, coded)), upright_box(coded, size, turn)

    def _upright(self, picture):
        return np.ascontiguousarray(upright(picture, self.video.turn))
