"""Reads and writes videos with PyAV: every frame with its own time stamp, the sound untouched.

What a person sees is what is kept: edit lists are followed, rotation is applied (frames are upright, and so is what is
written), colours go through the matrix and range that the file states, and the part of a frame that did not change goes
to the encoder as it was decoded, never through RGB. Videos come out as H.264, 8 bits, 4:2:0, which plays everywhere;
its sides are even, so a side of odd length grows by one pixel, a copy of the last.
"""

import contextlib
import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.codec.context import Flags
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition
from av.video.reformatter import ColorRange, Interpolation

from facedancer.core.console import UserError
from facedancer.core.files import atomic_path
from facedancer.video_swap.marking import marked_metadata

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv")

# swscale's faster ways darken by one or two grey levels; its threads cost more than they save.
_EXACTLY = {
    "interpolation": Interpolation.BILINEAR
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP,
    "threads": 1,
}

# Matrices between RGB and YUV: the number in the stream (ITU-T H.273) -> swscale's.
_MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
_BT709, _BT601, _UNSPECIFIED = 1, 5, 2

# Of a file, not of what it shows.
_FILE_METADATA = ("major_brand", "minor_version", "compatible_brands", "encoder", "creation_time")


@dataclass(frozen=True)
class Colours:
    """How a stream's YUV becomes RGB, and the tags that say so.

    Attributes:
        matrix: swscale's number.
        range: `ColorRange` of the YUV.
        tags: attributes of PyAV's encoder and their values.
    """

    matrix: int
    range: ColorRange
    tags: dict


@dataclass(frozen=True)
class Video:
    """What is known of a video before its frames are read.

    Attributes:
        path: the file.
        width, height: of the upright picture in pixels.
        frame_count: frames to be read, about.
        rate: frames a second, on average.
        time_base: unit of the frames' time stamps, seconds.
        start: subtracted from all time stamps of the file, seconds.
        end: of what is to be read, seconds after the start.
        length: which fraction of the video, from its beginning, is to be read.
        turn: `(transpose, flip_x, flip_y)` that makes a decoded picture upright.
        sample_aspect_ratio: a pixel's width by its height, None where the file does not say.
        colours: `Colours`.
        has_sound: whether there are sound tracks.
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
    length: Fraction
    turn: tuple[bool, bool, bool]
    sample_aspect_ratio: Fraction | None
    colours: Colours
    has_sound: bool
    metadata: dict

    def reaches(self, time):
        """Whether what is to be read goes on after `time`; the whole video does, even if it misstates its duration."""
        return self.length == 1 or time < self.end


@dataclass(frozen=True)
class Frame:
    """One frame of a video.

    Attributes:
        image: (H, W, 3) uint8 RGB, upright.
        yuv: the same as decoded, 4:2:0, its three planes one after the other, flat uint8; the sides made even.
        pts: when it is shown, in the video's `time_base`.
        duration: for how long, likewise.
    """

    image: np.ndarray
    yuv: np.ndarray
    pts: int
    duration: int


def probe_video(path, length=1.0):
    """Reads through a video file, decoding only its first frame, and returns a `Video`.

    Args:
        path: the file.
        length: fraction of the video, from its beginning, that is to be read.

    Raises:
        UserError: if it cannot be read, has no video stream, or is cut off.
    """
    length = Fraction(length).limit_denominator(1_000_000)  # 0.4 of ten frames is four
    with _open_video(path) as (container, stream):
        frame_count, duration = _read_through(path, container, stream)

    with _open_video(path) as (container, stream):
        frame = next(container.decode(stream), None)
        if frame is None:
            raise UserError(f"cannot read the video {path}: its video stream has no frames")
        turn = _turn_of(frame)
        size = (frame.height, frame.width) if turn[0] else (frame.width, frame.height)
        aspect = stream.sample_aspect_ratio
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        # A file may begin late, as cuts out of a broadcast do. Sound that begins before 0 is priming that no one hears.
        start = Fraction(max(container.start_time or 0, 0), av.time_base)
        begin = (stream.start_time or 0) * stream.time_base
        start = start or min(begin, Fraction(0))
        return Video(
            path=Path(path),
            width=size[0],
            height=size[1],
            frame_count=max(1, round(frame_count * length)),
            rate=rate,
            time_base=_common_unit(stream.time_base, rate),
            start=start,
            # How long it is comes of two rounded times: when the last frame comes, and how long it stays.
            end=begin - start + _unrounded(duration, 2 * stream.time_base, rate) * length,
            length=length,
            turn=turn,
            sample_aspect_ratio=1 / aspect if aspect and turn[0] else aspect,
            colours=_colours_of(frame),
            has_sound=bool(container.streams.audio),
            metadata={name: text for name, text in container.metadata.items() if name not in _FILE_METADATA},
        )


def read_frames(video, sample_rate=1):
    """Yields the frames of a video, one after the other.

    Args:
        video: from `probe_video`.
        sample_rate: every n-th frame is taken; it stands for as long as those left out after it, so the speed stays.

    Raises:
        UserError: if the video cannot be decoded.
    """
    held = None
    for index, (decoded, pts, duration) in enumerate(_decode(video)):
        if index % sample_rate == 0:
            if held:
                yield _frame(video, *held, end=pts)
            held = decoded, pts
        end = pts + duration
    if held:
        # An edit list may cut the last frame short.
        shown_until = round(video.end / video.time_base)
        yield _frame(video, *held, end=min(end, shown_until) if held[1] < shown_until else end)


@contextlib.contextmanager
def write_video(path, video, size=None, sample_rate=1):
    """Yields a `VideoWriter`; the file is there, whole, when the block ends well, and is not there otherwise.

    Args:
        path: the file to write, its suffix one of `VIDEO_SUFFIXES`.
        video: the video that the pictures come from: time stamps, colours, sound and metadata are its.
        size: `(width, height)` of the pictures, by default the video's.
        sample_rate: as for `read_frames`.

    Raises:
        UserError: if the file cannot be written, or cannot hold the video's sound.
    """
    check_video_suffix(path)
    with atomic_path(path) as temporary:
        try:
            with contextlib.ExitStack() as stack:
                writer = VideoWriter(stack, temporary, video, size or (video.width, video.height), sample_rate)
                yield writer
                writer.finish()
        except av.FFmpegError as error:
            raise UserError(f"cannot write the video {path}: {error.strerror}") from None


def check_video_suffix(path):
    """Raises `UserError` for the name of a video file that we do not write."""
    if Path(path).suffix.lower() not in VIDEO_SUFFIXES:
        raise UserError(f"cannot write {path}: its name must end in one of {', '.join(VIDEO_SUFFIXES)}")


class VideoWriter:
    """Encodes pictures and copies the sound of the video that they come from; made by `write_video`."""

    def __init__(self, stack, path, video, size, sample_rate):
        self.video = video
        self._width, self._height = (n + n % 2 for n in size)
        options = {} if path.suffix.lower() == ".mkv" else {"movflags": "+faststart"}
        self._container = stack.enter_context(av.open(path, "w", container_options=options))
        self._container.metadata.update(marked_metadata(video.metadata))
        self._stream = self._add_picture_stream(sample_rate)
        self._sound = iter(())
        if video.has_sound:
            self._sound = self._read_sound(stack.enter_context(av.open(video.path)))
        self._next_sound = next(self._sound, None)

    def write(self, frame, image, regions=None):
        """Writes one picture, after the sound up to its time.

        Args:
            frame: the `Frame` that it was made from; time stamp and duration are its.
            image: (H, W, 3) uint8 RGB.
            regions: list of `(x1, y1, x2, y2)` outside of which `image` equals `frame.image`; None if all is new.
        """
        image = _pad_to_even(image)
        yuv = self._to_yuv(image) if regions is None else frame.yuv.copy()
        for region in regions or ():
            self._paint(yuv, image, region)
        picture = av.VideoFrame.from_ndarray(yuv.reshape(-1, self._width), "yuv420p")
        picture.pts, picture.duration, picture.time_base = frame.pts, frame.duration, self.video.time_base
        self._copy_sound(until=frame.pts * self.video.time_base)
        self._container.mux(self._stream.encode(picture))

    def finish(self):
        """Writes what the encoder still holds, the rest of the sound, and the file's end."""
        self._container.mux(self._stream.encode(None))
        self._copy_sound(until=math.inf)
        self._container.close()

    def _add_picture_stream(self, sample_rate):
        # Measured at 720p: as faithful as the preset "medium" at 17 in a third of its time, for a fifth more bytes.
        options = {"preset": "veryfast", "crf": "16"}
        stream = self._container.add_stream("libx264", rate=self.video.rate / sample_rate, options=options)
        stream.width, stream.height, stream.pix_fmt = self._width, self._height, "yuv420p"
        context = stream.codec_context
        context.time_base = self.video.time_base
        context.flags |= Flags.frame_duration
        if self.video.sample_aspect_ratio:
            context.sample_aspect_ratio = self.video.sample_aspect_ratio
        for name, value in self.video.colours.tags.items():
            setattr(context, name, value)
        return stream

    def _read_sound(self, source):
        """Yields `(time, packet)` for every sound track, in the file's order, ready to be written."""
        copies = {stream.index: self._add_sound_stream(stream) for stream in source.streams.audio}
        for packet in source.demux(*source.streams.audio):
            if packet.pts is None:  # the end of a stream
                continue
            shift = round(self.video.start / packet.time_base)
            packet.pts -= shift
            if packet.dts is not None:
                packet.dts -= shift
            packet.stream = copies[packet.stream_index]
            time = packet.pts * packet.time_base
            if self.video.reaches(time):
                yield time, packet

    def _add_sound_stream(self, stream):
        try:
            copy = self._container.add_stream_from_template(stream)
        except ValueError:
            raise UserError(
                f"cannot keep the sound of {self.video.path} ({stream.name}) in this kind of file;"
                " let the output's name end in .mkv"
            ) from None
        copy.metadata.update(stream.metadata)
        copy.disposition = stream.disposition
        return copy

    def _copy_sound(self, until):
        while self._next_sound and self._next_sound[0] <= until:
            self._container.mux(self._next_sound[1])
            self._next_sound = next(self._sound, None)

    def _paint(self, yuv, image, region):
        """Puts a region of an RGB picture into flat YUV planes."""
        # Chroma has half the resolution: the region begins and ends at even pixels.
        x1, y1, x2, y2 = (n // 2 * 2 for n in (region[0], region[1], region[2] + 1, region[3] + 1))
        part = _planes(self._to_yuv(image[y1:y2, x1:x2]), x2 - x1, y2 - y1)
        for plane, new, step in zip(_planes(yuv, self._width, self._height), part, (1, 2, 2), strict=True):
            plane[y1 // step : y2 // step, x1 // step : x2 // step] = new

    def _to_yuv(self, image):
        return _rgb_to_yuv(image, self.video.colours)


@contextlib.contextmanager
def _open_video(path):
    """Yields the container and its video stream; FFmpeg's errors in the block become `UserError`."""
    try:
        with av.open(path, metadata_errors="replace") as container:
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


def _read_through(path, container, stream):
    """Returns how many frames are shown and for how long; finds a file that is cut off."""
    frame_count, end = 0, Fraction(0)
    for packet in container.demux():
        if packet.pts is None:
            continue
        if packet.is_corrupt:
            raise UserError(f"cannot read the video {path}: damaged or cut off {float(end):.1f} s after its beginning")
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


def _decode(video):
    """Yields `(decoded frame, pts, duration)`, times in the video's `time_base`, the former ever increasing."""
    with _open_video(video.path) as (container, stream):
        size, pts, duration = None, -1, 1
        for decoded in container.decode(stream):
            if (decoded.width, decoded.height) != (size := size or (decoded.width, decoded.height)):
                raise UserError(
                    f"cannot read the video {video.path}: its size changes after {float(pts * video.time_base):.1f} s"
                )
            unit = decoded.time_base
            if decoded.pts is None:
                pts += duration
            else:
                # Time stamps that repeat or go back stand in damaged files; encoders refuse them.
                time = _unrounded(decoded.pts * unit - video.start, unit, video.rate)
                pts = max(pts + 1, round(time / video.time_base))
            time = _unrounded(decoded.duration * unit, unit, video.rate) or 1 / video.rate
            duration = round(time / video.time_base)
            if not video.reaches(pts * video.time_base):
                return
            yield decoded, pts, duration


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


def _turn_of(decoded):
    """Reads a display matrix, to the nearest quarter turn, as `(transpose, flip_x, flip_y)`, in this order."""
    matrix = decoded.side_data.get(SideDataType.DISPLAYMATRIX)
    if matrix is None:
        return False, False, False
    # It maps (x, y) as a row vector: a pixel goes to (a x + c y, b x + d y).
    a, b, _, c, d, *_ = np.frombuffer(matrix, np.int32).tolist()
    return (True, c < 0, b < 0) if abs(b) > abs(a) else (False, a < 0, d < 0)


def _upright(plane, turn):
    transpose, flip_x, flip_y = turn
    if transpose:
        plane = plane.swapaxes(0, 1)
    return plane[:: -1 if flip_y else 1, :: -1 if flip_x else 1]


def _colours_of(decoded):
    tags = {
        "colorspace": int(decoded.colorspace),
        "color_range": int(decoded.color_range),
        "color_primaries": int(decoded.color_primaries),
        "color_trc": int(decoded.color_trc),
    }
    # What players take where a file states no matrix.
    matrix = _BT709 if decoded.width >= 1280 or decoded.height > 576 else _BT601
    if decoded.format.is_rgb:
        tags |= {"colorspace": matrix, "color_range": int(ColorRange.MPEG)}
    elif tags["colorspace"] in _MATRICES:
        matrix = _MATRICES[tags["colorspace"]]
    elif tags["colorspace"] != _UNSPECIFIED:
        raise UserError(f"cannot read a video whose colours are coded by matrix {tags['colorspace']} of ITU-T H.273")
    # The formats `yuvj…` say by their name what others say by a tag.
    if decoded.format.name.startswith("yuvj"):
        tags["color_range"] = int(ColorRange.JPEG)
    is_full = tags["color_range"] == ColorRange.JPEG
    return Colours(matrix, ColorRange.JPEG if is_full else ColorRange.MPEG, tags)


def _frame(video, decoded, pts, end):
    colours = video.colours
    of_source = {
        "src_colorspace": colours.matrix,
        "src_color_range": ColorRange.JPEG if decoded.format.is_rgb else colours.range,
        **_EXACTLY,
    }
    image = decoded.to_ndarray(format="rgb24", dst_color_range=ColorRange.JPEG, **of_source)
    image = np.ascontiguousarray(_upright(image, video.turn))
    if decoded.format.is_rgb or decoded.width % 2 or decoded.height % 2:
        yuv = _rgb_to_yuv(_pad_to_even(image), colours)
    else:
        decoded = decoded.reformat(
            format="yuv420p", dst_colorspace=colours.matrix, dst_color_range=colours.range, **of_source
        )
        planes = _planes(decoded.to_ndarray().reshape(-1), decoded.width, decoded.height)
        yuv = np.concatenate([_upright(plane, video.turn).reshape(-1) for plane in planes])
    return Frame(image, yuv, pts, end - pts)


def _rgb_to_yuv(image, colours):
    """(H, W, 3) uint8 RGB, its sides even -> flat planes of 4:2:0."""
    return (
        av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24")
        .reformat(
            format="yuv420p",
            src_color_range=ColorRange.JPEG,
            dst_colorspace=colours.matrix,
            dst_color_range=colours.range,
            **_EXACTLY,
        )
        .to_ndarray()
        .reshape(-1)
    )


def _planes(yuv, width, height):
    """Views of the three planes in flat 4:2:0."""
    luma, chroma = width * height, width * height // 4
    return (
        yuv[:luma].reshape(height, width),
        yuv[luma : luma + chroma].reshape(height // 2, width // 2),
        yuv[luma + chroma :].reshape(height // 2, width // 2),
    )


def _pad_to_even(image):
    """Repeats the last row or column where a side is odd."""
    height, width = image.shape[:2]
    return np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), "edge") if height % 2 or width % 2 else image
