"""Reads the frames of a video, one after the other, each with its own time."""

from dataclasses import replace

import av

from facedancer.core.console import UserError
from facedancer.media.containers import open_video
from facedancer.media.times import unrounded
from facedancer.media.video import Frame
from facedancer.media.webp import decode_webp, is_webp


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


def _decode(video):
    """Yields `(decoded frame, pts, duration, packets lost after it)`, times in `time_base`, pts ever increasing."""
    if is_webp(video.path):
        yield from decode_webp(video)
        return
    with open_video(video.path, video.rate) as (container, stream):
        is_raw = stream.start_time is None  # without time stamps, and so without a place to go to
        if video.start > 1 and not is_raw:
            container.seek(int(video.start * av.time_base) - av.time_base, backward=True)
        size, pts, following = None, -1, -round(video.start / video.time_base) if is_raw else 0
        for decoded, lost in decoded_frames(container, stream):
            if (decoded.width, decoded.height) != (size := size or (decoded.width, decoded.height)):
                raise UserError(
                    f"cannot read the video {video.path}: its size changes after {float(pts * video.time_base):.1f} s"
                )
            unit = decoded.time_base
            time = following * video.time_base
            if decoded.pts is not None:
                time = unrounded(decoded.pts * unit - video.start, unit, video.rate)
            lasts = unrounded(decoded.duration * unit, unit, video.rate) or 1 / video.rate
            duration = round(lasts / video.time_base)
            following = round(time / video.time_base) + duration
            if time < -1 / video.rate / 2:
                continue  # before what is to be read
            # Time stamps that repeat or go back stand in damaged files; encoders refuse them.
            pts = max(pts + 1, round(time / video.time_base))
            if not video.reaches(pts * video.time_base):
                return
            yield decoded, pts, duration, lost


def decoded_frames(container, stream):
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
