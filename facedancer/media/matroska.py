"""The pixel aspect ratio in Matroska and WebM, which PyAV cannot pass to FFmpeg's muxer.

The muxer gives the video track a placeholder name exactly as long as the missing elements. In the finished file, the
name is replaced by the display size (RFC 9559, 5.1.4.1.28). So no later byte moves, and all offsets in the file stay
valid.
"""

import zlib
from typing import NamedTuple

from facedancer.core.console import UserError

ROOM = "shown so by"  # a placeholder of as many bytes as width and height, 14 with its header

_SEGMENT, _TRACKS, _ENTRY, _NAME, _VIDEO = map(bytes.fromhex, ("18538067", "1654AE6B", "AE", "536E", "E0"))
_CRC, _UNIT, _DISPLAY_WIDTH, _DISPLAY_HEIGHT = map(bytes.fromhex, ("BF", "54B2", "54B0", "54BA"))
_RATIO = b"\3"  # DisplayUnit; the muxer writes "unknown" in Matroska, and none in WebM, which means pixels
_HEADER = 1 << 20  # bytes at the file's start that include the description of the tracks


class _Element(NamedTuple):
    """An EBML element: its ID, the number of bytes of its size field, and its content."""

    name: bytes
    width: int
    content: bytes

    def __bytes__(self):
        size = len(self.content) + (1 << 7 * self.width)
        return self.name + size.to_bytes(self.width, "big") + self.content

    @property
    def parts(self):
        return list(_elements(self.content))


def set_pixel_aspect(path, size, aspect):
    """Writes the display size of the track named `ROOM` into a Matroska file.

    Args:
        path: the file; Matroska keeps a ratio, WebM a size in whole pixels.
        size: `(width, height)` of the coded frames in pixels.
        aspect: width of a pixel divided by its height, `Fraction`.

    Raises:
        UserError: if the file has no such track.
    """
    with open(path, "r+b") as file:
        header = file.read(_HEADER)
        segment = _first(_elements(header), _SEGMENT)
        tracks = segment and _first(_elements(segment.content), _TRACKS)
        changed = tracks and [_with_shape(part, size, aspect) for part in tracks.parts]
        if not changed or changed == tracks.parts or sum(map(len, map(bytes, changed))) != len(tracks.content):
            raise UserError(f"cannot write the pixel aspect ratio into {path}: its header is not as expected")
        if changed[0].name == _CRC:
            sum_of_rest = zlib.crc32(b"".join(map(bytes, changed[1:])))
            changed[0] = changed[0]._replace(content=sum_of_rest.to_bytes(4, "little"))
        file.seek(header.index(bytes(tracks)))
        file.write(bytes(tracks._replace(content=b"".join(map(bytes, changed)))))


def _with_shape(entry, size, aspect):
    """Returns a track entry with the display size in place of its name, if that is `ROOM`."""
    if entry.name != _ENTRY or (_NAME, ROOM.encode()) not in [(part.name, part.content) for part in entry.parts]:
        return entry
    parts = [_shown(part, size, aspect) if part.name == _VIDEO else part for part in entry.parts if part.name != _NAME]
    return entry._replace(content=b"".join(map(bytes, parts)))


def _shown(pictures, size, aspect):
    parts, (width, height) = pictures.parts, size
    shown = round(width * aspect), height
    if _first(parts, _UNIT):
        shown = (width * aspect / height).as_integer_ratio()
        parts = [part._replace(content=_RATIO) if part.name == _UNIT else part for part in parts]
    for name, number in zip((_DISPLAY_WIDTH, _DISPLAY_HEIGHT), shown, strict=True):
        parts.append(_Element(name, 1, number.to_bytes(4, "big")))
    return pictures._replace(content=b"".join(map(bytes, parts)))


def _first(elements, name):
    return next((element for element in elements if element.name == name), None)


def _elements(content):
    """Yields the EBML elements in some bytes; the last one may be cut off."""
    place = 0
    while place < len(content):
        named = place + 9 - content[place].bit_length()  # leading zero bits say how many bytes follow
        if named >= len(content) or not content[named]:
            return
        width = 9 - content[named].bit_length()
        begin = named + width
        size = int.from_bytes(content[named:begin], "big") - (1 << 7 * width)
        yield _Element(content[place:named], width, content[begin : begin + size])
        place = begin + size
