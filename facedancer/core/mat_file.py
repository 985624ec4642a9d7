"""MATLAB's files of version 5 (`.mat`) read as data: arrays of numbers, and nothing else of what they may hold.

Every length is compared with what the file has before anything is made of it.
"""

import math
import struct
import zlib

import numpy as np

from facedancer.core.console import UserError
from facedancer.core.regular_files import opened_regular

_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_LARGEST = 2**31  # bytes of one array, more than any basis of faces has
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_COMPLEX = 0x800


def read_mat(path, names):
    """Reads arrays by name.

    Args:
        path: the file.
        names: of the arrays that are wanted; others are passed over.

    Returns:
        name -> array, of any dtype of numbers, two or more dimensions.

    Raises:
        UserError: if the file is absent, damaged or of another kind, or lacks an array.
    """
    try:
        with opened_regular(path) as file:
            content = memoryview(file.read())
        found = dict(_arrays(content, frozenset(names)))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (ValueError, struct.error, zlib.error, UnicodeDecodeError) as error:  # all that a damaged file can raise
        raise UserError(f"{path}: not a whole MATLAB file of version 5 ({error})") from None
    if missing := sorted(set(names) - found.keys()):
        raise UserError(f"{path}: lacks {missing[0]}")
    return found


def _arrays(content, names):
    if len(content) < _HEADER or bytes(content[126:128]) not in (b"IM", b"MI"):
        raise ValueError("no header")
    order = "<" if bytes(content[126:128]) == b"IM" else ">"
    for kind, data in _elements(content[_HEADER:], order):
        if kind == _COMPRESSED:
            unpacker = zlib.decompressobj()
            unpacked = memoryview(unpacker.decompress(data, _LARGEST))
            if not unpacker.eof:
                raise ValueError("a compressed array does not end")
            ((kind, data),) = _elements(unpacked, order)
        if kind == _MATRIX and (array := _array(data, order, names)):
            yield array


def _elements(content, order):
    """The kind and the bytes of each element."""
    place = 0
    while place < len(content):
        kind, size = struct.unpack_from(f"{order}II", content, place)
        if kind >> 16:  # a small one, its bytes in the place of the size
            kind, size, start, end = kind & 0xFFFF, kind >> 16, place + 4, place + 8
            if size > 4:
                raise ValueError("a small element is too long")
        else:
            start = place + 8
            end = start + (size if kind == _COMPRESSED else -(-size // 8) * 8)
        if start + size > len(content):
            raise ValueError("it is truncated")
        yield kind, content[start : start + size]
        place = end


def _array(data, order, names):
    """The name of an array and its numbers; None if it is not wanted."""
    parts = iter(_elements(data, order))

    def part():
        kind, content = next(parts, (None, None))
        if kind is None:
            raise ValueError("an array has no numbers")
        return kind, content

    (flags,) = struct.unpack_from(f"{order}I", part()[1])
    shape = tuple(np.frombuffer(part()[1], f"{order}i4").tolist())
    name = bytes(part()[1]).decode("ascii")
    if name not in names:
        return None
    if flags & 0xFF not in _CLASSES or flags & _COMPLEX:
        raise ValueError(f"{name} is no array of real numbers")
    kind, content = part()
    if kind not in _STORED:
        raise ValueError(f"{name} is stored as something else than numbers")
    stored = np.frombuffer(content, f"{order}{_STORED[kind]}")
    if min(shape, default=-1) < 0 or math.prod(shape) != stored.size:
        raise ValueError(f"{name} has {stored.size} numbers and the shape {shape}")
    return name, stored.astype(_CLASSES[flags & 0xFF]).reshape(shape, order="F")
