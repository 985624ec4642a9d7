"""Finds out the properties of a video before its frames are read.

It follows edit lists, and reports what is damaged or missing.
"""

from collections import Counter
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
from av.sidedata.sidedata import Type as SideDataType

from facedancer.core.console import UserError
from facedancer.media.colors import colors_of
from facedancer.media.containers import open_video, read_packets
from facedancer.media.decode import decoded_frames
from facedancer.media.joins import JoinFinder, Joins, position_of
from facedancer.media.mastering import mastering_of
from facedancer.media.orientation import UPRIGHT, turn_of
from facedancer.media.times import common_unit, unrounded
from facedancer.media.tracks import Track, late_tracks, tracks_of
from facedancer.media.video import Chapter, Video
from facedancer.media.webp import count_plays, is_webp, probe_webp

# Describes the file, not its content.
_FILE_METADATA = ("major_brand", "minor_version", "compatible_brands", "encoder")

_LOOK_AT = 4  # frames to check for interlacing: the first one may not be marked


def probe_video(path, length=1.0, start=0.0, end=None, rate=25):
    """Reads through a video file, decoding only its first frame, and returns a `Video`.

    Args:
        path: the file, or the pattern of a sequence of pictures.
        length: fraction of the video to read, from its start.
        start, end: part of the video to read, in seconds; an `end` of None is the video's end.
        rate: frames per second of an image sequence, which states none.

    Raises:
        UserError: if the file cannot be read, has no video stream or no frames, or nothing lies between `start` and
            `end`.
    """
    video = probe_webp(path) if is_webp(path) else _probe_stream(path, rate)
    length = Fraction(length).limit_denominator(1_000_000)  # so that 0.4 of ten frames is four
    start = Fraction(start).limit_denominator(1_000_000)
    whole = video.end
    last = whole * length if end is None else min(whole * length, Fraction(end).limit_denominator(1_000_000))
    if start >= last:
        asked = f"from {float(start):g} s on" if end is None else f"between {float(start):g} and {float(end):g} s"
        raise UserError(f"{path} lasts {float(whole):.2f} s: nothing lies {asked}")
    if start or last < whole:
        count = max(1, round(video.frame_count * (last - start) / whole))
        chapters = _chapters_between(video.chapters, start, last)
        video = replace(
            video, frame_count=count, start=video.start + start, skipped=start, end=last - start, is_cut=last < whole,
            chapters=chapters,
        )  # fmt: skip
    return video


def _probe_stream(path, rate):
    contents = _read_through(path, rate)
    first = [frame for frame, _ in islice(decoded_frames(path, rate), _LOOK_AT)]
    if not first:
        raise UserError(f"cannot read the video {path}: its video stream has no frames")
    frame = first[0]
    with open_video(path, rate) as (container, stream):
        matrix = frame.side_data.get(SideDataType.DISPLAYMATRIX)
        matrix = None if matrix is None else tuple(np.frombuffer(matrix, np.int32).tolist())
        turn = turn_of(matrix)
        # A file may begin late, as cuts from a broadcast do. Sound before 0 is priming, which is never heard.
        start = Fraction(max(container.start_time or 0, 0), av.time_base)
        begin = (stream.start_time or 0) * stream.time_base
        start = start or min(begin, Fraction(0))
        rate = _rate(stream, contents)
        # Raw streams have no times.
        duration = contents.duration or Fraction(contents.frame_count) / rate
        return Video(
            path=Path(path),
            width=frame.height if turn[0] else frame.width,
            height=frame.width if turn[0] else frame.height,
            frame_count=max(1, contents.frame_count),
            rate=rate,
            time_base=common_unit(stream.time_base, rate),
            start=start,
            skipped=Fraction(0),
            # The duration is a sum of two rounded times: the last frame's start and its own duration.
            end=begin - start + unrounded(duration, 2 * stream.time_base, rate),
            is_cut=False,
            turn=turn,
            display_matrix=None if turn == UPRIGHT else matrix,
            sample_aspect_ratio=stream.sample_aspect_ratio,
            colors=colors_of(frame),
            codec=stream.codec_context.codec.canonical_name,
            # GIF's decoder gives alpha, used or not.
            pixel_format="bgr0" if container.format.name == "gif" and _are_opaque(first) else frame.format.name,
            mastering=mastering_of(frame),
            metadata={name: text for name, text in container.metadata.items() if name not in _FILE_METADATA},
            is_interlaced=any(frame.interlaced_frame for frame in first),
            damage=contents.damage,
            joins=contents.joins,
            tracks=contents.tracks,
            language=stream.metadata.get("language"),
            chapters=_chapters_of(container, start),
            loops=count_plays(path) if container.format.name in ("gif", "apng") else 0,
        )


def _are_opaque(frames):
    return all((frame.to_ndarray(format="rgba")[..., 3] == 255).all() for frame in frames)


def _chapters_of(container, start):
    found = container.chapters()
    times = [[part[name] * part["time_base"] - start for name in ("start", "end")] for part in found]
    return tuple(Chapter(*time, part["metadata"]) for time, part in zip(times, found, strict=True))


def _chapters_between(chapters, start, end):
    """Returns the chapters of a part of a video, with times from its start; chapters at its ends are cut."""
    inside = [chapter for chapter in chapters if chapter.start < end and chapter.end > start]
    return tuple(
        Chapter(max(chapter.start, start) - start, min(chapter.end, end) - start, chapter.metadata)
        for chapter in inside
    )


@dataclass(frozen=True)
class _Contents:
    """What a file holds: number of frames shown, seconds (0 if unknown), lines on damage, other tracks, and joins."""

    frame_count: int
    duration: Fraction
    damage: tuple[str, ...]
    tracks: tuple[Track, ...]
    joins: Joins


def _read_through(path, rate):
    """Reads every packet of a file and returns its `_Contents`."""
    with open_video(path, rate) as (container, stream):
        begin, end = Fraction(container.start_time or 0, av.time_base), Fraction(0)
        frame_count, packets, damaged, damage, positions = 0, Counter(), [], [], {}
        finder, reason = JoinFinder(path, container), None
        try:
            for packet in read_packets(container):
                if not packet.size:
                    continue
                position = position_of(packet, positions)
                finder.see(packet, position)
                if packet.pts is not None:
                    end = max(end, (packet.pts + (packet.duration or 0)) * packet.time_base)
                if packet.is_corrupt:
                    damaged.append((packet.stream_index, position, end))
                packets[packet.stream_index] += 1
                frame_count += packet.stream_index == stream.index and not packet.is_discard
        except av.FFmpegError as error:
            reason = error.strerror
        joins = finder.joins()
        if joins.starts:
            end = Fraction(joins.end).limit_denominator(1_000_000)
        if reason:
            damage.append(f"nothing is readable after {float(end - begin):.1f} s ({reason})")
        damaged = [
            time + Fraction(joins.place_of(index, position)[1])
            for index, position, time in damaged
            if (index, position) not in joins.flagged
        ]
        if damaged:
            parts = "a part" if len(damaged) == 1 else f"{len(damaged)} parts"
            first = max(float(damaged[0] - begin), 0)
            damage.append(f"{parts} of the file lost or damaged, the first about {first:.1f} s after the start")
        duration, there = Fraction(container.duration or 0, av.time_base), end - begin
        is_shorter = there < duration - Fraction(1, 2) and not joins.starts
        if is_shorter:
            damage.append(f"{float(there):.1f} of the {float(duration):.1f} s that its header says are there")
        elif container.format.name.startswith("mov") and packets[stream.index] < stream.frames:
            damage.append(f"{packets[stream.index]} of the {stream.frames} frames that its header says are there")
        damage += late_tracks(container)
        # If a stream does not state its duration, as in Matroska, or overstates it, the packets give it. FFmpeg guesses
        # that of a transport stream by its last time stamps.
        says = stream.duration * stream.time_base if stream.duration and not joins.starts else there
        duration = there if is_shorter and says > there else says
        return _Contents(frame_count, duration, tuple(damage), tracks_of(container, stream, packets), joins)


def _rate(stream, contents):
    """Returns the frames per second that the file states, or the mean if that is far off, as browsers' 1000 is."""
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    if contents.duration and stream.start_time is not None:
        mean = contents.frame_count / contents.duration
        if contents.frame_count > 1 and not rate / 2 < mean < rate * 2:
            return Fraction(mean).limit_denominator(1000) or rate
    return rate
