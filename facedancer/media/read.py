"""Reads the frames of a video in order, each with its own time stamp."""

import math
from dataclasses import replace

from facedancer.core.console import UserError
from facedancer.media.decode import decoded_frames, deinterlaced
from facedancer.media.times import unrounded
from facedancer.media.video import Frame
from facedancer.media.webp import decode_webp, is_webp

_SEEK_MARGINS = (1, 10, 60)  # seconds before the wanted time
_LONGEST_LATE = 0.1  # seconds after the start within which the first picture may come


def read_frames(video, sample_rate=1, skip=0):
    """Yields the frames of a video in order, as `Frame`s.

    A packet that cannot be decoded gives no frame: the frame before it is shown for longer and counts it as lost.

    Args:
        video: `Video` from `probe_video`.
        sample_rate: take every n-th frame. Each is also shown for the time of the skipped ones, so the speed stays.
        skip: number of taken frames to skip at the start.

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


def _decode(video):
    """Yields `(decoded frame, pts, duration, packets lost after it)`: times in `time_base`, pts strictly increasing."""
    if is_webp(video.path):
        yield from decode_webp(video)
        return
    size, pts, before, following = None, -1, None, -round(video.skipped / video.time_base)
    for decoded, lost in deinterlaced(_decoded_from_start(video)):
        size = size or (decoded.width, decoded.height)
        unit = decoded.time_base
        time = following * video.time_base
        if decoded.pts is not None:
            time = unrounded(decoded.pts * unit - video.start, unit, video.rate)
        lasts = unrounded(decoded.duration * unit, unit, video.rate) or 1 / video.rate
        duration = round(lasts / video.time_base)
        following = round(time / video.time_base) + duration
        if time < -1 / video.rate / 2:
            before = decoded, duration, lost
            continue
        if before and time > max(2 / video.rate, _LONGEST_LATE):
            # The part to read begins while a long-lasting picture is on screen.
            yield before[0], 0, round(time / video.time_base), before[2]
            pts = 0
        before = None
        # Damaged files have time stamps that repeat or go back; encoders refuse them.
        pts = max(pts + 1, round(time / video.time_base))
        if not video.reaches(pts * video.time_base):
            return
        if (decoded.width, decoded.height) != size:
            seconds = math.floor((video.skipped + pts * video.time_base) * 100) / 100
            raise UserError(
                f"cannot read the video {video.path}: its size changes after {seconds:.2f} s; --end {seconds:g} takes"
                " what comes before"
            )
        yield decoded, pts, duration, lost


def _decoded_from_start(video):
    """Yields what `decoded_frames` does, from a key frame at or before the start of the part to read.

    A seek may land anywhere, in MPEG-TS even after the wanted time. So each seek is checked; if it landed too late, the
    next one goes farther back, and if all fail, the file is read from its start.
    """
    for margin in _SEEK_MARGINS:
        if video.skipped <= margin:
            break
        frames = decoded_frames(video.path, video.rate, video.start - margin, video.joins)
        first = next(frames, None)
        if first and first[0].key_frame and _time(first[0]) <= video.start:
            yield first
            yield from frames
            return
        frames.close()
    yield from decoded_frames(video.path, video.rate, joins=video.joins)


def _time(decoded):
    return math.inf if decoded.pts is None else decoded.pts * decoded.time_base
