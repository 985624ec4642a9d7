"""Sequences of numbered pictures, `frame_%05d.png`, that stand for a video."""

import re
from pathlib import Path

_SEQUENCE = re.compile(r"((?:[^%]|%%)*)%0?\d*d((?:[^%]|%%)*)")


def is_sequence(path):
    """Whether a name is the pattern of a sequence of pictures: one number in it, and any other `%` doubled.

    A file that has just that name is a file.
    """
    return _SEQUENCE.fullmatch(Path(path).name) is not None and not Path(path).is_file()


def numbered(path, number):
    """Returns the path of one picture of a sequence."""
    return Path(path).with_name(Path(path).name % number)


def files_of(path):
    """Returns the files that are there of a video: itself, or the pictures of a sequence."""
    path = Path(path)
    if not is_sequence(path):
        return [path] if path.exists() else []
    before, after = (re.escape(part.replace("%%", "%")) for part in _SEQUENCE.fullmatch(path.name).groups())
    name = re.compile(rf"{before}\d+{after}")
    return sorted(found for found in path.parent.glob("*") if name.fullmatch(found.name))
