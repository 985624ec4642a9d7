"""Reads videos with PyAV: every frame with its own time stamp, upright.

What a person sees is what is read: edit lists are followed, rotation is applied, colours go through the matrix and
range that the file states. The decoded planes go along with the picture, so that what a swap leaves alone can be
written as it was. Animated WebP, which FFmpeg does not decode, is read with Pillow; a name with a number in it,
`frame_%05d.png`, is a sequence of pictures.
"""

import contextlib
import functools
import math
import re
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition
from PIL import Image, UnidentifiedImageError

from facedancer.core.console import UserError
from facedancer.video_swap.colours import Colours, colours_of, to_rgb, to_rgb_part

# Of a file, not of what it shows.
_FILE_METADATA = ("major_brand", "minor_version", "compatible_brands", "encoder", "creation_time")

UPRIGHT = (False, False, False)

_SEQUENCE = re.compile(r"((?:[^%]|%%)*)%0?\d*d((?:[^%]|%%)*)")


def _unnamed(kind, value):
    """A kind of side data that FFmpeg knows and PyAV does not, as EXIF: it would hide all others of a frame."""
    member = object.__new__(kind)
    member._name_, member._value_ = f"UNNAMED_{value}", value
    return member


SideDataType._missing_ = classmethod(_unnamed)


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
    """

    path: Path
    width: int
    height: int
    frame_count: int
    rate: Fraction
    time_base: Fraction
    start: Fraction
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
        return np.ascontiguousarray(_upright(picture, self.video.turn))


def probe_video(path, length=1.0, start=0.0, end=None, rate=25):
    """Reads through a video file, decoding only its first frame, and returns a `Video`.

    Args:
        path: the file, or the pattern of a sequence of pictures.
        length: fraction of the video, from its beginning, that is to be read.
        start, end: seconds of the video between which it is to be read; None is its end.
        rate: pictures a second of a sequence, which does not say.

    Raises:
        UserError: if it cannot be read, has no video stream, is cut off, or nothing lies between `start` and `end`.
    """
    video = _probe_webp(path) if _is_webp(path) else _probe_stream(path, rate)
    length = Fraction(length).limit_denominator(1_000_000)  # 0.4 of ten frames is four
    start = Fraction(start).limit_denominator(1_000_000)
    whole = video.end
    last = whole * length if end is None else min(whole * length, Fraction(end).limit_denominator(1_000_000))
    if start >= last:
        raise UserError(
            f"{path} lasts {float(whole):.2f} s: nothing lies between {float(start):g} and {float(last):g} s"
        )
    if start or last < whole:
        count = max(1, round(video.frame_count * (last - start) / whole))
        video = replace(video, frame_count=count, start=video.start + start, end=last - start, is_cut=last < whole)
    return video


def read_frames(video, sample_rate=1, skip=0):
    """Yields the frames of a video, one after the other.

    A packet that cannot be decoded at all gives no frame: the one before it is shown for longer, and counts it.

    Args:
        video: from `probe_video`.
        sample_rate: every n-th frame is taken; it stands for as long as those left out after it, so the speed stays.
        skip: so many of the frames that are taken are left out at the beginning.

    Raises:
        UserError: if the video cannot be decoded.
    """
    held, taken = None, 0
    for index, (decoded, pts, duration, lost) in enumerate(_decode(video)):
        if index % sample_rate == 0:
            if held:
                if taken >= skip:
                    yield replace(held, duration=pts - held.pts)
                taken += 1
            held = Frame(video, decoded, pts, duration, lost)
        else:
            held = replace(held, lost=held.lost + lost)
        end = pts + duration
    if held and taken >= skip:
        # An edit list may cut the last frame short.
        shown_until = round(video.end / video.time_base)
        yield replace(held, duration=(min(end, shown_until) if held.pts < shown_until else end) - held.pts)


def coded_view(image, turn):
    """Turns an upright picture back to how it is coded, without copying it."""
    transpose, flip_x, flip_y = turn
    image = image[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
    return image.swapaxes(0, 1) if transpose else image


def coded_box(box, size, turn):
    """Returns where a box `(x1, y1, x2, y2)` of an upright picture of `size` (width, height) lies as coded."""
    transpose, flip_x, flip_y = turn
    x1, y1, x2, y2 = box
    width, height = size
    if flip_x:
        x1, x2 = width - x2, width - x1
    if flip_y:
        y1, y2 = height - y2, height - y1
    return (y1, x1, y2, x2) if transpose else (x1, y1, x2, y2)


def upright_box(box, size, turn):
    """The inverse of `coded_box`."""
    x1, y1, x2, y2 = box
    if turn[0]:
        x1, y1, x2, y2 = y1, x1, y2, x2
    return coded_box((x1, y1, x2, y2), size, (False, *turn[1:]))


@contextlib.contextmanager
def open_video(path, rate=25):
    """Yields the container and its video stream; FFmpeg's errors in the block become `UserError`."""
    name, options = str(path), {}
    if is_sequence(path):
        options = {"format": "image2", "options": {"framerate": str(rate)}}
        name = str(Path(str(Path(path).parent).replace("%", "%%"), Path(path).name))  # FFmpeg takes all for the pattern
    try:
        with av.open(name, metadata_errors="replace", **options) as container:
            # The picture on a record's cover counts as a video stream too.
            streams = [
                stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic
            ]
            if not streams:
                raise UserError(f"{path} has no video stream")
            streams[0].thread_type = "AUTO"
            yield container, streams[0]
    except av.FFmpegError as error:
        raise UserError(f"cannot read the video {path}: {error.strerror}") from None


def is_sequence(path):
    """Whether a name is the pattern of a sequence of pictures: one number in it, and any other `%` doubled."""
    return _SEQUENCE.fullmatch(Path(path).name) is not None


def numbered(path, number):
    """Returns the path of one picture of a sequence."""
    return Path(path).with_name(Path(path).name % number)


def files_of(path):
    """Returns the files that are there of a video: itself, or the pictures of a sequence."""
    path = Path(path)
    if not is_sequence(path):
        return [path] if path.exists() else []
    before, after = (re.escape(part.replace("%%", "%")) for part in _SEQUENCE.fullmatch(path.name).groups())
    name = re.compile(rf"{before}\d+{after}")
    return sorted(found for found in path.parent.glob("*") if name.fullmatch(found.name))


def _is_webp(path):
    return Path(path).suffix.lower() == ".webp" and not is_sequence(path)


def _probe_stream(path, rate):
    with open_video(path, rate) as (container, stream):
        frame_count, duration = _read_through(path, container, stream)

    with open_video(path, rate) as (container, stream):
        frame, _ = next(_decoded_frames(container, stream), (None, 0))
        if frame is None:
            raise UserError(f"cannot read the video {path}: its video stream has no frames")
        matrix = frame.side_data.get(SideDataType.DISPLAYMATRIX)
        matrix = None if matrix is None else tuple(np.frombuffer(matrix, np.int32).tolist())
        turn = _turn_of(matrix)
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        # A file may begin late, as cuts out of a broadcast do. Sound that begins before 0 is priming that no one hears.
        start = Fraction(max(container.start_time or 0, 0), av.time_base)
        begin = (stream.start_time or 0) * stream.time_base
        start = start or min(begin, Fraction(0))
        # Raw streams say nothing of time.
        duration = duration or Fraction(frame_count) / rate
        return Video(
            path=Path(path),
            width=frame.height if turn[0] else frame.width,
            height=frame.width if turn[0] else frame.height,
            frame_count=max(1, frame_count),
            rate=rate,
            time_base=_common_unit(stream.time_base, rate),
            start=start,
            # How long it is comes of two rounded times: when the last frame comes, and how long it stays.
            end=begin - start + _unrounded(duration, 2 * stream.time_base, rate),
            is_cut=False,
            turn=turn,
            display_matrix=None if turn == UPRIGHT else matrix,
            sample_aspect_ratio=stream.sample_aspect_ratio,
            colours=colours_of(frame),
            codec=stream.codec_context.codec.canonical_name,
            pixel_format=frame.format.name,
            mastering=_mastering_of(frame),
            metadata={name: text for name, text in container.metadata.items() if name not in _FILE_METADATA},
        )


def _probe_webp(path):
    with _open_webp(path) as picture:
        (width, height), ticks = picture.size, 0
        for index in range(picture.n_frames):
            picture.seek(index)
            picture.load()
            ticks += max(1, picture.info.get("duration", 0))
        first = av.VideoFrame.from_image(picture.convert("RGB"))
        return Video(
            path=Path(path), width=width, height=height, frame_count=picture.n_frames,
            rate=Fraction(1000 * picture.n_frames, ticks), time_base=Fraction(1, 1000), start=Fraction(0),
            end=Fraction(ticks, 1000), is_cut=False, turn=UPRIGHT, display_matrix=None, sample_aspect_ratio=None,
            colours=colours_of(first), codec="webp", pixel_format="rgb24", mastering={}, metadata={},
        )  # fmt: skip


@contextlib.contextmanager
def _open_webp(path):
    try:
        with Image.open(path, formats=["WEBP"]) as picture:
            yield picture
    except (OSError, EOFError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or "not a WebP picture, or a damaged one"
        raise UserError(f"cannot read the video {path}: {reason}") from None


def _read_through(path, container, stream):
    """Returns how many frames are shown and for how long; finds a file that is cut off."""
    frame_count, end = 0, Fraction(0)
    for packet in container.demux():
        if not packet.size:  # the end of a stream
            continue
        if packet.is_corrupt:
            raise UserError(f"cannot read the video {path}: damaged or cut off {float(end):.1f} s after its beginning")
        if packet.pts is not None:
            end = max(end, (packet.pts + (packet.duration or 0)) * packet.time_base)
        frame_count += packet.stream_index == stream.index and not packet.is_discard
    duration = Fraction(container.duration or 0, av.time_base)
    there = end - Fraction(container.start_time or 0, av.time_base)
    if there < duration - Fraction(1, 2):
        raise UserError(
            f"cannot read the video {path}: cut off, {float(there):.1f} of {float(duration):.1f} s are there"
        )
    # Where a stream does not say how long it is, as in Matroska, the file does.
    return frame_count, stream.duration * stream.time_base if stream.duration else there


def _decoded_frames(container, stream):
    """Yields every frame that can be decoded, and how many packets after it could not, or before the first one."""
    held, lost = None, 0
    for packet in container.demux(stream):
        try:
            decoded = packet.decode()
        except av.error.InvalidDataError:
            lost += 1
            continue
        for frame in decoded:
            if held is not None:
                yield held, lost
                lost = 0
            held = frame
    if held is not None:
        yield held, lost


def _decode(video):
    """Yields `(decoded frame, pts, duration, packets lost after it)`, times in `time_base`, pts ever increasing."""
    if _is_webp(video.path):
        yield from _decode_webp(video)
        return
    with open_video(video.path, video.rate) as (container, stream):
        is_raw = stream.start_time is None  # without time stamps, and so without a place to go to
        if video.start > 1 and not is_raw:
            container.seek(int(video.start * av.time_base) - av.time_base, backward=True)
        size, pts, following = None, -1, -round(video.start / video.time_base) if is_raw else 0
        for decoded, lost in _decoded_frames(container, stream):
            if (decoded.width, decoded.height) != (size := size or (decoded.width, decoded.height)):
                raise UserError(
                    f"cannot read the video {video.path}: its size changes after {float(pts * video.time_base):.1f} s"
                )
            unit = decoded.time_base
            time = following * video.time_base
            if decoded.pts is not None:
                time = _unrounded(decoded.pts * unit - video.start, unit, video.rate)
            lasts = _unrounded(decoded.duration * unit, unit, video.rate) or 1 / video.rate
            duration = round(lasts / video.time_base)
            following = round(time / video.time_base) + duration
            if time < -1 / video.rate / 2:
                continue  # before what is to be read
            # Time stamps that repeat or go back stand in damaged files; encoders refuse them.
            pts = max(pts + 1, round(time / video.time_base))
            if not video.reaches(pts * video.time_base):
                return
            yield decoded, pts, duration, lost


def _decode_webp(video):
    with _open_webp(video.path) as picture:
        time = -round(video.start / video.time_base)
        for index in range(picture.n_frames):
            picture.seek(index)
            picture.load()
            duration = max(1, picture.info.get("duration", 0))
            if not video.reaches(time * video.time_base):
                return
            if time >= 0:
                yield av.VideoFrame.from_image(picture.convert("RGB")), time, duration, 0
            time += duration


def _mastering_of(decoded):
    """Reads HDR10's static metadata (SMPTE ST 2086, CTA-861.3) off a frame, in x265's words."""
    found = {}
    display = decoded.side_data.get(SideDataType.MASTERING_DISPLAY_METADATA)
    if display is not None:
        *values, has_primaries, has_luminance = np.frombuffer(display, np.int32)[:22].tolist()
        if has_primaries and has_luminance:
            ratios = [Fraction(*pair) for pair in zip(values[::2], values[1::2], strict=True)]
            red, green, blue, white = (tuple(round(n * 50_000) for n in ratios[i : i + 2]) for i in (0, 2, 4, 6))
            low, high = (round(n * 10_000) for n in ratios[8:])
            primaries = "".join(
                f"{name}({x},{y})"
                for name, (x, y) in zip(("G", "B", "R", "WP"), (green, blue, red, white), strict=True)
            )
            found["master-display"] = f"{primaries}L({high},{low})"
    light = decoded.side_data.get(SideDataType.CONTENT_LIGHT_LEVEL)
    if light is not None:
        found["max-cll"] = ",".join(str(n) for n in np.frombuffer(light, np.uint32)[:2])
    return found


def _unrounded(time, unit, rate):
    """A time, in seconds, as it was before the file rounded it to its coarse `unit`.

    Matroska counts milliseconds: 29.97 frames a second lie at 33, 67, 100 ms, and the rate is lost if it stays so.
    """
    on_grid = round(time * rate) / rate
    return on_grid if abs(on_grid - time) <= unit / 2 else time


def _common_unit(unit, rate):
    """The largest time that both the file's time stamps and the frames' distance are multiples of, if not too small."""
    common = math.lcm(unit.denominator, rate.numerator)
    return Fraction(1, common if common <= 1_000_000 else unit.denominator)


def _turn_of(matrix):
    """Reads a display matrix, to the nearest quarter turn, as `(transpose, flip_x, flip_y)`, in this order."""
    if matrix is None:
        return UPRIGHT
    # It maps (x, y) as a row vector: a pixel goes to (a x + c y, b x + d y).
    a, b, _, c, d, *_ = matrix
    return (True, c < 0, b < 0) if abs(b) > abs(a) else (False, a < 0, d < 0)


def _upright(plane, turn):
    transpose, flip_x, flip_y = turn
    if transpose:
        plane = plane.swapaxes(0, 1)
    return plane[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
