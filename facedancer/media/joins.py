"""Recordings joined byte by byte (`cat a.ts b.ts`), whose time stamps start anew: they are made to go on.

The time stamps of MPEG's streams may jump backward or forward. `JoinFinder` reads a file once and finds its parts;
`continued` shifts the packets of each, wherever the file is read. A part begins when all streams of the one before have
ended, so that nothing overlaps and sound stays in step; FFmpeg's own tools go by the stream that happens to come first.

A packet's part is told by its position in the file, as a reader may seek, or read one stream only.
"""

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf

from av.format import Flags

from facedancer.core.console import UserError
from facedancer.media.containers import read_packets

_BACKWARD, _FORWARD = 0.1, 10  # seconds; a larger jump begins a part, as in FFmpeg's tools
_LEADING = ("video", "audio")  # other kinds of streams have long gaps
_MOST_PARTS = 10_000  # 20 MB
_FLAGGED = 2  # packets before a join that seem damaged, since the next one's number does not follow theirs


@dataclass(frozen=True)
class Joins:
    """Where the parts of a file begin; all empty if its time stamps go on.

    Attributes:
        starts: `(position, part, seconds)` of each part but the first, ascending: its first byte, its number from 1,
            and how much its packets are shifted.
        streams: the same for single streams, `{index: starts}`: their packets may begin later in the file.
        times: start of those parts in seconds, on the clock that goes on.
        after: how long the first part lasts, in seconds.
        end: end of the last part on that clock.
        flagged: `(stream index, position)` of packets that seem damaged because another part follows.
    """

    starts: tuple = ()
    streams: dict = field(default_factory=dict)
    times: tuple[float, ...] = ()
    after: float = 0.0
    end: float = 0.0
    flagged: frozenset = frozenset()

    def __str__(self):
        often = "" if len(self.times) == 1 else f"{len(self.times)} times, first "
        return (
            f"its time stamps jump {often}after {self.after:.1f} s, as in joined recordings: the parts are put together"
        )

    def place_of(self, index, position):
        """Returns `(part, seconds)`: the part of a stream's packet, and how much it is shifted."""
        starts = self.streams.get(index, self.starts)
        found = bisect_right(starts, position, key=lambda start: start[0])
        return starts[found - 1][1:] if found else (0, 0.0)

    def byte_before(self, time):
        """Returns the position of the last part that begins before a time; None if that is the first part."""
        found = bisect_right(self.times, time)
        return self.starts[found - 1][0] if found else None


NO_JOINS = Joins()


def continued(container, streams, joins):
    """Yields `(part, packet)` of some streams of an open file, with times that go on from part to part.

    Args:
        container: the open `av` container.
        streams: its streams to read.
        joins: the file's `Joins`.
    """
    positions = {}
    for packet in read_packets(container, *streams):
        part, seconds = joins.place_of(packet.stream_index, position_of(packet, positions))
        if packet.size and seconds:
            shift = round(seconds / packet.time_base)
            packet.pts = None if packet.pts is None else packet.pts + shift
            packet.dts = None if packet.dts is None else packet.dts + shift
        yield part, packet


def position_of(packet, positions):
    """Returns a packet's position in its file: of several packets that are stored as one, the first one's.

    Args:
        positions: `{stream index: position}` of the latest packets, which is updated.
    """
    if packet.pos is not None and packet.pos >= 0:
        positions[packet.stream_index] = packet.pos
    return positions.get(packet.stream_index, 0)


class JoinFinder:
    """Finds the parts of a file.

    Args:
        path: the file.
        container: the same, an open `av` container.

    Raises:
        UserError: in `see`, if the file has far too many parts: they are kept in memory.
    """

    def __init__(self, path, container):
        self._path = path
        self._may_jump = bool(container.format.flags & Flags.ts_discont.value)
        self._parts = [_Part(0)]

    def see(self, packet, position):
        """Notes the next packet of the file, which is at that position."""
        time = packet.pts if packet.dts is None else packet.dts
        if self._may_jump and time is not None and packet.stream.type in _LEADING:
            unit = float(packet.time_base)
            shown = time if packet.pts is None else packet.pts
            part = self._part_of(packet.stream_index, position, time * unit)
            part.add(packet.stream_index, position, time * unit, shown * unit, (packet.duration or 0) * unit)

    def joins(self):
        """Returns the `Joins` of what was seen."""
        shift, starts, streams, times, flagged = 0.0, [], {}, [], set()
        for number, (before, part) in enumerate(pairwise(self._parts), 1):
            shift += before.until(part)
            starts.append((part.position, number, shift))
            times.append(part.begin + shift)
            for index, seen in part.streams.items():
                streams.setdefault(index, []).append((seen.position, number, shift))
            flagged |= {(index, position) for index, seen in before.streams.items() for position in seen.last}
        first, last = self._parts[0], self._parts[-1]
        after, end = first.end - first.begin, last.end + shift
        return Joins(tuple(starts), streams, tuple(times), after, end, frozenset(flagged))

    def _part_of(self, index, position, time):
        newest = self._parts[-1]
        if index in newest.streams:
            if not newest.fits(index, time):
                self._begin_part(position)
        elif len(self._parts) > 1:
            # A stream may be the last to jump: its packets are stored, or come out of FFmpeg's parser, later.
            before = self._parts[-2]
            if before.fits(index, time) and (position < newest.position or not newest.fits(index, time)):
                return before
        return self._parts[-1]

    def _begin_part(self, position):
        if len(self._parts) == _MOST_PARTS:
            raise UserError(
                f"{self._path}: its time stamps jump more than {_MOST_PARTS} times; write it anew with FFmpeg"
            )
        self._parts.append(_Part(position))


class _Part:
    """A part of a file as far as it was seen; times in seconds of its own clock.

    Attributes:
        position: of its first packet.
        streams: `{index: _Seen}`.
        begin, end: of what it shows.
    """

    def __init__(self, position):
        self.position, self.streams, self.begin, self.end, self._latest = position, {}, inf, -inf, -inf

    def fits(self, index, time):
        """Returns whether a stream's next packet may be of this part, by its time."""
        first = self.streams[index].latest - _BACKWARD if index in self.streams else self._latest - _FORWARD
        return first <= time <= self._latest + _FORWARD

    def add(self, index, position, time, shown, duration):
        """Adds a packet: times of decoding and of showing it."""
        seen = self.streams.setdefault(index, _Seen(position))
        seen.add(position, time, shown, duration)
        self.position = min(self.position, position)
        self.begin, self.end = min(self.begin, shown), max(self.end, shown + duration)
        self._latest = max(self._latest, time)

    def until(self, following):
        """Returns the shift that makes another part begin when this one's streams have ended."""
        steps = [
            end - begin
            for index, seen in self.streams.items()
            if index in following.streams
            for end, begin in zip(seen.ends, following.streams[index].begins, strict=True)
        ]
        return max(steps, default=self.end - following.begin)


class _Seen:
    """A stream of a part: times at which decoding and showing begin and end, and the positions of its last packets."""

    def __init__(self, position):
        self.position, self.begins, self.ends, self.latest = position, [inf, inf], [-inf, -inf], -inf
        self.last = deque(maxlen=_FLAGGED)

    def add(self, position, time, shown, duration):
        if not duration and self.latest > -inf:
            duration = max(time - self.latest, 0)
        self.latest = max(self.latest, time)
        self.last.append(position)
        for place, moment in enumerate((time, shown)):
            self.begins[place] = min(self.begins[place], moment)
            self.ends[place] = max(self.ends[place], moment + duration)
