"""Learns what is to be known of a video before its frames are read.

Edit lists are followed; a file that is cut off is found.
"""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.sidedata.sidedata import Type as SideDataType

from facedancer.core.console import UserError
from facedancer.media.colours import colours_of
from facedancer.media.containers import open_video
from facedancer.media.mastering import mastering_of
from facedancer.media.orientation import UPRIGHT, turn_of
from facedancer.media.read import decoded_frames
from facedancer.media.times import common_unit, unrounded
from facedancer.media.video import Video
from facedancer.media.webp import is_webp, probe_webp

# Of a file, not of what it shows.
_FILE_METADATA = ("major_brand", "minor_version", "compatible_brands", "encoder", "creation_time")


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
    video = probe_webp(path) if is_webp(path) else _probe_stream(path, rate)
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


def _probe_stream(path, rate):
    with open_video(path, rate) as (container, stream):
        frame_count, duration = _read_through(path, container, stream)

    with open_video(path, rate) as (container, stream):
        frame, _ = next(decoded_frames(container, stream), (None, 0))
        if frame is None:
            raise UserError(f"cannot read the video {path}: its video stream has no frames")
        matrix = frame.side_data.get(SideDataType.DISPLAYMATRIX)
        matrix = None if matrix is None else tuple(np.frombuffer(matrix, np.int32).tolist())
        turn = turn_of(matrix)
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
            time_base=common_unit(stream.time_base, rate),
            start=start,
            # How long it is comes of two rounded times: when the last frame comes, and how long it stays.
            end=begin - start + unrounded(duration, 2 * stream.time_base, rate),
            is_cut=False,
            turn=turn,
            display_matrix=None if turn == UPRIGHT else matrix,
            sample_aspect_ratio=stream.sample_aspect_ratio,
            colours=colours_of(frame),
            codec=stream.codec_context.codec.canonical_name,
            pixel_format=frame.format.name,
            mastering=mastering_of(frame),
            metadata={name: text for name, text in container.metadata.items() if name not in _FILE_METADATA},
        )


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
