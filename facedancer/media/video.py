"""What is known of a video, and one frame of it.

What a person sees is what is read: rotation is applied, colours go through the matrix and range that the file states.
The decoded planes go along with the picture, so that what a swap leaves alone can be written as it was.
"""

import functools
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from facedancer.media.colours import Colours, to_rgb, to_rgb_part
from facedancer.media.orientation import coded_box, upright, upright_box


@dataclass(frozen=True)
class Chapter:
    """A part of a video with a name: `start` and `end` in seconds, and texts by name, `title` among them."""

    start: Fraction
    end: Fraction
    metadata: dict


@dataclass(frozen=True)
class Video:
    """What is known of a video before its frames are read.

    Attributes:
        path: the file.
        width, height: of the upright picture in pixels.
        frame_count: frames to be read, about.
        rate: frames a second, on average.
        time_base: unit of the frames' time stamps, seconds.
        start: subtracted from all time stamps of the file, seconds; what lies before is not read.
        skipped: how much of that was asked for, and is no delay of the file's own.
        end: of what is to be read, seconds after the start.
        is_cut: whether the file goes on after `end`.
        turn: `(transpose, flip_x, flip_y)` that makes a decoded picture upright.
        display_matrix: nine integers of the file that say so, None where it has none.
        sample_aspect_ratio: a pixel's width by its height as coded, None where the file does not say.
        colours: `Colours`.
        codec: the decoder's name.
        pixel_format: of the decoded pictures.
        mastering: texts for x265's `master-display` and `max-cll`, of HDR10; empty elsewhere.
        metadata: texts of the file by name.
        is_interlaced: whether pictures are woven of two fields; they are read as whole ones.
        damage: what of the file is damaged or missing, a text each.
        tracks: the other tracks of the file, `tracks.Track`.
        language: of the pictures, three letters, None where the file does not say.
        chapters: `Chapter`s of what is to be read, times counted from `start`.
        loops: how often an animation is played, 0 for ever.
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
    colours: Colours
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

    def reaches(self, time):
        """Whether what is to be read goes on after `time`; a whole video does, even if it misstates its duration."""
        return not self.is_cut or time < self.end


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of a video. Its colours are converted where they are looked at.

    Attributes:
        video: the `Video` that it is of.
        decoded: the `av.VideoFrame`, as coded.
        pts: when it is shown, in the video's `time_base`.
        duration: for how long, likewise.
        lost: frames after it that could not be decoded, in whose place it is shown (before it, of the first one).
    """

    video: Video
    decoded: av.VideoFrame
    pts: int
    duration: int
    lost: int = 0

    @property
    def is_damaged(self):
        """Whether the decoder had to guess parts of it."""
        return self.decoded.is_corrupt

    @functools.cached_property
    def image(self):
        """The picture, (H, W, 3) uint8 RGB, upright."""
        return self._upright(to_rgb(self.decoded, self.video.colours))

    @property
    def alpha(self):
        """How opaque the picture is, (H, W) uint8, upright."""
        return upright(self.decoded.reformat(format="rgba").to_ndarray()[..., 3], self.video.turn)

    def reduced(self, width, height):
        """Returns the upright picture at a smaller size, (height, width, 3) uint8 RGB."""
        if (width, height) == (self.video.width, self.video.height):
            return self.image
        size = (height, width) if self.video.turn[0] else (width, height)
        return self._upright(to_rgb(self.decoded, self.video.colours, size))

    def part(self, box):
        """Returns a part of the upright picture.

        Args:
            box: `(x1, y1, x2, y2)` in whole pixels, the end not included.

        Returns:
            The part, (h, w, 3) uint8 RGB, and the box that it fills: the least around `box` that begins and ends with
            whole samples of chroma.
        """
        turn, size = self.video.turn, (self.video.width, self.video.height)
        x1, y1, x2, y2 = coded_box(box, size, turn)
        step = 4  # of the coarsest chroma
        x1, y1 = x1 // step * step, y1 // step * step
        x2, y2 = min(-(-x2 // step) * step, self.decoded.width), min(-(-y2 // step) * step, self.decoded.height)
        coded = (x1, y1, x2, y2)
        return self._upright(to_rgb_part(self.decoded, self.video.colours, coded)), upright_box(coded, size, turn)

    def _upright(self, picture):
        return np.ascontiguousarray(upright(picture, self.video.turn))
