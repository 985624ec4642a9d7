"""Sequences of numbered images, `frame_%05d.png`, in place of a video."""

import re
from pathlib import Path

_SEQUENCE = re.compile(r"((?:[^%]|%%)*)%0?\d*d((?:[^%]|%%)*)")


def is_sequence(path):
    """Whether a path's name is the pattern of an image sequence: one `%d`-like number, and any other `%` doubled.

    If a file with exactly that name exists, it is that file.
    """
    return _SEQUENCE.fullmatch(Path(path).name) is not None and not Path(path).is_file()


def numbered(path, number):
    """Returns the path of one image of a sequence."""
    return Path(path).with_name(Path(path).name % number)


def files_of(path):
    """Returns the existing files of a video: the file itself, or the images of a sequence, sorted."""
    path = Path(path)
    if not is_sequence(path):
        return [path] if path.exists() else []
    before, after = (re.escape(part.replace("%%", "%")) for part in _SEQUENCE.fullmatch(path.name).groups())
    name = re.compile(rf"{before}\d+{after}")
    return sorted(found for found in path.parent.glob("*") if name.fullmatch(found.name))
