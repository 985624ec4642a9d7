"""An ICC profile of a wide RGB space, made by hand as Pillow makes none: a matrix and a gamma, after ICC.1:2001-04."""

import struct

# Columns of the matrix, (X, Y, Z) of full red, green and blue under D50: those of ProPhoto RGB.
_PRIMARIES = {"r": (0.7977, 0.2880, 0.0), "g": (0.1352, 0.7119, 0.0), "b": (0.0313, 0.0001, 0.8249)}
_WHITE = (0.9642, 1.0, 0.8249)


def wide_profile(gamma=1.8):
    """Returns the profile's bytes."""
    tags = {
        "desc": b"desc" + bytes(4) + struct.pack(">I", 5) + b"wide\0" + bytes(78),
        "cprt": b"text" + bytes(4) + b"none\0",
        "wtpt": _xyz(_WHITE),
    }
    for name, primary in _PRIMARIES.items():
        tags[f"{name}XYZ"] = _xyz(primary)
        tags[f"{name}TRC"] = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    table, data = b"", b""
    start = 128 + 4 + 12 * len(tags)
    for name, body in tags.items():
        body += bytes(-len(body) % 4)
        table += name.encode() + struct.pack(">II", start + len(data), len(body))
        data += body
    size = start + len(data)
    head = struct.pack(">I4xI4s4s4s", size, 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + _xyz(_WHITE)[8:]
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data


def _xyz(numbers):
    return b"XYZ " + bytes(4) + b"".join(struct.pack(">i", round(number * 65536)) for number in numbers)
