"""Encodes frames to segments: complete files, so that finished work survives a kill.

A segment is a Matroska file with a video track only, which begins with a key frame. It holds the order of its frames,
not their times.
"""

import contextlib
from pathlib import Path

import av
import numpy as np

from facedancer.core.console import UserError
from facedancer.core.processes import kept_scheduling
from facedancer.media.colors import add_change, from_rgb, to_planes
from facedancer.media.containers import open_file
from facedancer.media.orientation import coded_box, coded_view


class SegmentWriter:
    """Encodes frames to a segment, which exists, complete, after `finish`. Use it within `errors_of`.

    Args:
        path: the file to write.
        encoding: `Encoding`.
        rate: frames per second, `Fraction`.

    Attributes:
        count: number of frames written so far.
    """

    def __init__(self, path, encoding, rate):
        self.encoding = encoding
        self.count = 0
        self._path, self._partial = Path(path), Path(path).with_name(f".partial-{Path(path).name}")
        self._container = open_file(self._partial, "w")
        stream = self._container.add_stream(encoding.encoder, rate=rate, options=encoding.options)
        stream.width, stream.height = encoding.size
        stream.pix_fmt = encoding.pixel_format
        stream.codec_context.time_base = 1 / rate
        if encoding.sample_aspect_ratio:
            stream.codec_context.sample_aspect_ratio = encoding.sample_aspect_ratio
        if not encoding.is_rgb:
            for name, value in encoding.colors.tags.items():
                setattr(stream.codec_context, name, value)
        with kept_scheduling():
            stream.codec_context.open()
        self._stream = stream

    def write(self, frame, image, regions=None, part=None):
        """Encodes one frame.

        Args:
            frame: the `Frame` that the image was made from.
            image: (H, W, 3) uint8 RGB, upright; with `part`, only that part of it.
            regions: list of `(x1, y1, x2, y2)` in the frame's pixels, outside of which nothing changed; None if all is
                new.
            part: what `frame.part` returned, if only that changed.
        """
        encoding = self.encoding
        size = (frame.video.width, frame.video.height)
        if part and encoding.is_rgb:
            whole = frame.image.copy()
            x1, y1, x2, y2 = part[1]
            whole[y1:y2, x1:x2] = image
            image = whole
        if regions is None or encoding.is_rgb:
            picture = from_rgb(coded_view(image, encoding.turn), encoding.colors, encoding.pixel_format)
            if encoding.pixel_format == "bgra":
                picture = av.VideoFrame.from_ndarray(np.dstack([picture.to_ndarray()[..., :3], frame.alpha]), "bgra")
        else:
            before, box = part or (frame.image, (0, 0, *size))
            corner = coded_box(box, size, encoding.turn)[:2]
            picture = to_planes(frame.decoded, encoding.colors, encoding.pixel_format)
            before, after = (coded_view(view, encoding.turn) for view in (before, image))
            for region in _disjoint(coded_box(region, size, encoding.turn) for region in regions):
                add_change(picture, encoding.colors, before, after, region, corner)
        picture.pts, picture.time_base = self.count, self._stream.codec_context.time_base
        self._container.mux(self._stream.encode(picture))
        self.count += 1

    def finish(self):
        """Flushes the encoder and closes the file."""
        self._container.mux(self._stream.encode(None))
        self._container.close()
        self._partial.replace(self._path)

    def abandon(self):
        """Closes the unfinished segment and removes it."""
        with contextlib.suppress(av.FFmpegError):
            self._container.close()
        self._partial.unlink(missing_ok=True)


def read_segments(segments):
    """Yields `(image, pts, duration)` of lossless segments; images (H, W, 3) uint8 RGB or (H, W, 4) RGBA.

    Args:
        segments: as for `assembly.assemble`.
    """
    for path, pts, end in segments:
        with open_file(path) as container:
            for frame, time, until in zip(container.decode(video=0), pts, [*pts[1:], end], strict=True):
                yield frame.to_ndarray(format="rgba" if frame.format.name == "bgra" else "rgb24"), time, until - time


def retimed(segments):
    """Yields `(packet, pts, dts, duration)` of all segments, in decoding order; times in the video's `time_base`.

    Encoders delay frames to code some out of order, in each segment anew. The decoding times are the presentation times
    in order, shifted by the largest delay of any segment, in frames.

    Args:
        segments: as for `assembly.assemble`.

    Raises:
        UserError: if a segment does not hold the frames that its journal says.
    """
    times = [pts for _, every, _ in segments for pts in every]
    ends = [*times[1:], segments[-1][2]]
    ranks = []
    for path, every, _ in segments:
        ranks.append(_ranks(path))
        if len(ranks[-1]) != len(every):
            raise UserError(f"{path} holds {len(ranks[-1])} frames, its journal says {len(every)}; remove its folder")
    delay = max(place - rank for order in ranks for place, rank in enumerate(order))
    lead = max(delay, times[min(delay, len(times) - 1)] - times[0])
    first = 0
    for (path, _, _), order in zip(segments, ranks, strict=True):
        with open_file(path) as container:
            packets = (packet for packet in container.demux(video=0) if packet.pts is not None)
            for n, (packet, rank) in enumerate(zip(packets, order, strict=True), start=first):
                dts = times[n - delay] if n >= delay else times[n] - lead
                yield packet, times[first + rank], dts, ends[first + rank] - times[first + rank]
        first += len(order)


def _ranks(path):
    """Returns the presentation index of each packet of a segment."""
    with open_file(path) as container:
        pts = [packet.pts for packet in container.demux(video=0) if packet.pts is not None]
    place = {time: rank for rank, time in enumerate(sorted(pts))}
    return [place[time] for time in pts]


def _disjoint(boxes):
    """Widens boxes to even pixels and joins those that overlap, so that no change is added twice."""
    apart = []
    for x1, y1, x2, y2 in boxes:
        box = (x1 // 2 * 2, y1 // 2 * 2, x2 + x2 % 2, y2 + y2 % 2)
        while near := [other for other in apart if _overlap(box, other)]:
            apart = [other for other in apart if other not in near]
            corners = np.array([box, *near])
            box = (*(int(n) for n in corners[:, :2].min(0)), *(int(n) for n in corners[:, 2:].max(0)))
        apart.append(box)
    return apart


def _overlap(box, other):
    return box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]
