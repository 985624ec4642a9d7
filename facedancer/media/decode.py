"""Decodes packets to frames. Of a damaged video, what FFmpeg can decode is returned and what it cannot is counted.

Interlaced frames are deinterlaced by FFmpeg's bwdif filter, one frame for each, as networks and modern players expect
progressive frames.
"""

import contextlib
from collections import deque

import av
import av.filter

from facedancer.media.containers import open_video
from facedancer.media.joins import NO_JOINS, continued

# FFmpeg's own decoders of these ignore the alpha that Matroska stores beside each frame.
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}


def decoded_frames(path, rate=25, seek=None, joins=NO_JOINS):
    """Yields each frame that can be decoded, with the number of packets after it that could not be.

    The first frame also counts those before it.

    Args:
        path, rate: as for `open_video`.
        seek: approximate start, in seconds of the file's own clock; None is the file's start.
        joins: `Joins` of the file.
    """
    held, lost = None, 0
    for frame in _frames_and_gaps(path, rate, seek, joins):
        if frame is None:
            lost += 1
            continue
        if held is not None:
            yield held, lost
            lost = 0
        held = frame
    if held is not None:
        yield held, lost


def deinterlaced(frames):
    """Yields what `decoded_frames` yields, with interlaced frames deinterlaced by bwdif."""
    graph, kind, waiting = None, None, deque()
    for frame, lost in frames:
        found = (frame.width, frame.height, frame.format.name)
        if graph is not None and found != kind:
            yield from _filtered(graph, None, waiting)
            graph = None
        if graph is None:
            if not frame.interlaced_frame:
                yield frame, lost
                continue
            graph, kind = _bwdif(frame), found
        waiting.append((frame.pts, frame.time_base, frame.duration, lost))
        yield from _filtered(graph, frame, waiting)
    if graph is not None:
        yield from _filtered(graph, None, waiting)


def _frames_and_gaps(path, rate, seek, joins):
    """Yields frames, and None for each packet that cannot be decoded.

    With several threads, PyAV loses frames after a damaged packet near the end. The end is then decoded again with one
    thread.
    """
    last, gaps = None, 0  # latest time stamp and number of damaged packets yielded so far
    for threads in ("AUTO", "SLICE"):
        given, end, gaps_here = last, None, 0
        for frame, latest in _decode_once(path, rate, seek, joins, threads):
            end = latest
            if frame is None:
                gaps_here += 1
                if gaps_here > gaps:
                    gaps = gaps_here
                    yield None
            elif given is None or frame.pts is None or frame.pts > given:
                last = frame.pts
                yield frame
        if last is None or last >= end:
            return


def _decode_once(path, rate, seek, joins, threads):
    """Yields `(frame or None, latest time stamp of the packets so far)`."""
    latest, part, before_first = None, None, None
    with open_video(path, rate) as (container, stream):
        decoder = _decoder_of(stream)
        decoder.thread_type = threads
        if seek is not None:
            _seek(container, seek, joins)
        for number, packet in _packets(container, stream, joins):
            if part not in (None, number):  # a part must not be decoded with pictures of the one before
                yield from ((frame, latest) for frame in _timed(decoder.decode(None), stream))
                decoder.flush_buffers()
                before_first = []
            part = number
            if packet is not None and packet.pts is not None and not packet.is_discard:
                latest = packet.pts if latest is None else max(latest, packet.pts)
                if before_first is not None:
                    before_first.append(packet.pts)
            try:
                frames = decoder.decode(packet)
            except av.error.EOFError:
                return
            except (av.error.InvalidDataError, BlockingIOError):
                yield None, latest
                continue
            for frame in _timed(frames, stream):
                if before_first is not None:  # a part may begin with pictures that need some of before it
                    lost = sum(frame.pts is not None and pts < frame.pts for pts in before_first)
                    yield from [(None, latest)] * lost
                    before_first = None
                yield frame, latest


def _timed(frames, stream):
    for frame in frames:
        frame.time_base = stream.time_base  # frames flushed at the end lack it
        yield frame


def _seek(container, seconds, joins):
    position = joins.byte_before(seconds)
    with contextlib.suppress(av.FFmpegError):  # raw streams cannot seek
        if position is not None:
            container.seek(position, unsupported_byte_offset=True)
        elif not joins.starts:  # FFmpeg cannot search among times that start anew
            container.seek(int(seconds * av.time_base), backward=True)


def _packets(container, stream, joins):
    """Yields `(part, packet)` of the packets of a stream that are not empty, then None as a packet."""
    part = 0
    try:
        for part, packet in continued(container, [stream], joins):
            if packet.size:  # Theora repeats a frame by an empty packet; the frame stays on screen anyway
                yield part, packet
    except av.FFmpegError:
        pass  # the readable part ends here; `probe_video` has reported it
    yield part, None


def _decoder_of(stream):
    name = _ALPHA_DECODERS.get(stream.codec_context.codec.canonical_name)
    if name and stream.metadata.get("alpha_mode", stream.metadata.get("ALPHA_MODE")) == "1":
        return av.CodecContext.create(name, "r")
    return stream.codec_context


def _bwdif(frame):
    graph = av.filter.Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base)
    deinterlace = graph.add("bwdif", "mode=send_frame:deint=interlaced")
    sink = graph.add("buffersink")
    source.link_to(deinterlace)
    deinterlace.link_to(sink)
    graph.configure()
    return graph


def _filtered(graph, frame, waiting):
    """Pushes a frame, or None for the end, into the filter; yields what comes out, with the times of what went in."""
    graph.push(frame)
    while waiting:
        try:
            picture = graph.pull()
        except (BlockingIOError, av.error.EOFError):
            return
        picture.pts, picture.time_base, picture.duration, lost = waiting.popleft()
        yield picture, lost
