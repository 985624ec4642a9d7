"""Converts text subtitles (SubRip, ASS, WebVTT, MP4's) to the kind that a file can hold.

FFmpeg decodes all of them to lines of ASS, from which its encoders take what their kind can say: bold, italics and
underlines, in SubRip also colors and places. What gets lost is found by decoding the result again.
"""

import re
from collections import Counter
from fractions import Fraction
from pathlib import Path

import av
from av.subtitles.subtitle import AssSubtitle, SubtitleSet

_KINDS, _KIND = {".mkv": "subrip", ".webm": "webvtt"}, "mov_text"
_SHOWN = 3  # seconds, for a text that does not say how long
_LONGEST = 4000  # bytes on screen at a time; FFmpeg's encoders take time by the square of that

_DRAWING = re.compile(rb"\\p[1-9]")
_TAG = re.compile(rb"\\(\d?[a-z]+)([^\\}]*)")
_NAMES = {
    "colors": ("c", "1c", "2c", "3c", "4c", "alpha", "1a", "2a", "3a", "4a"),
    "places": ("an", "a", "pos", "move", "org"),
    "fonts": ("fn", "fs"),
    "bold, italics and underlines": ("b", "i", "u", "s"),
}


def subtitles_of(path):
    """Returns FFmpeg's name of the subtitles that we write to a file."""
    return _KINDS.get(Path(path).suffix.lower(), _KIND)


class ConvertedSubtitles:
    """A subtitle track that is converted.

    Args:
        container: the output container.
        stream: the track.

    Attributes:
        damaged: number of packets so far that cannot be decoded or are far too long; they are left out.
        lost: set of words for styling that is left out so far.

    Raises:
        ValueError: if the subtitles are not text.
    """

    def __init__(self, container, stream):
        self._decoder = stream.codec_context
        if self._decoder is None:
            raise ValueError("no decoder")
        self._decoder.open(strict=False)
        header = self._decoder.subtitle_header
        if header is None:
            raise ValueError("they are pictures")
        self._stream = container.add_stream(subtitles_of(container.name))
        self._encoder = self._stream.codec_context
        self._encoder.subtitle_header = header
        # MP4 would count microseconds, in which no text may last longer than 35 minutes.
        self._stream.time_base = Fraction(1, 1000)
        self._stream.metadata.update(stream.metadata)
        self._stream.disposition = stream.disposition
        self._again = None  # a decoder of what is written
        self._shown, self._until = [], 0  # `(end, line)` of texts on screen; up to when texts are written
        self.damaged, self.lost = 0, set()

    def packets(self, packet):
        if packet is None:
            yield from self._texts_until(float("inf"))
            return
        try:
            lines = [rect.ass for rect in self._decoder.decode2(packet) or () if isinstance(rect, AssSubtitle)]
        except av.error.InvalidDataError:
            self.damaged += 1
            return
        if packet.has_sidedata("webvtt_settings"):
            self.lost.add("places")
        if any(map(_DRAWING.search, lines)):
            self.lost.add("drawings")
        lines = [line for line in lines if not _DRAWING.search(line) and _text_of(line)]
        others = [line for end, line in self._shown if end > packet.pts]
        if sum(map(len, lines + others)) > _LONGEST:
            self.damaged += 1
            return
        self._unit, end = packet.time_base, packet.pts + (packet.duration or round(_SHOWN / packet.time_base))
        if lines and self._encoder.name == "mov_text":
            # Here a text ends when the next one begins, so texts that are shown together become one.
            yield from self._texts_until(packet.pts)
            self._shown += [(end, line) for line in lines]
        elif lines:
            yield self._encoded(lines, packet.pts, end)

    def _texts_until(self, time):
        while self._shown and self._until < time:
            end = min(time, *(end for end, _ in self._shown))
            yield self._encoded([line for _, line in self._shown], self._until, end)
            self._shown, self._until = [(last, line) for last, line in self._shown if last > end], end
        self._until = time

    def _encoded(self, lines, start, end):
        line = b"{\\r}\\N".join([lines[0], *map(_text_of, lines[1:])])
        packet = self._encoder.encode_subtitle(SubtitleSet.create(line, 0, 0))
        self._compare(line, packet)
        packet.pts = packet.dts = start
        packet.duration, packet.time_base, packet.stream = end - start, self._unit, self._stream
        return packet

    def _compare(self, line, packet):
        if self._again is None:
            self._again = av.CodecContext.create(self._encoder.name, "r")
            if self._encoder.extradata:
                self._again.extradata = self._encoder.extradata
            self._again.open()
            if _styles(self._decoder) - _styles(self._again):
                self.lost.add("styles")
        found = b"".join(rect.ass for rect in self._again.decode2(packet) or ())
        self.lost |= {_name(tag) for tag in _tags(line) - _tags(found)}


def _text_of(line):
    """Returns what comes after the eight fields of a line of ASS."""
    return line.split(b",", 8)[-1]


def _styles(context):
    return set(re.findall(rb"^Style: *(.*?)\r?$", context.subtitle_header, re.MULTILINE))


def _tags(line):
    """Counts the tags of a line of ASS that turn something on."""
    return Counter(tag.decode() for tag, value in _TAG.findall(line) if value not in (b"", b"0"))


def _name(tag):
    return next((name for name, tags in _NAMES.items() if tag in tags), "effects")
