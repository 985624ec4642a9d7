"""Typed reading of every JSON file.

JSON files are untrusted: numbers may be infinite, names may point outside the folder, lists may nest ten thousand deep.
The types define what a file may hold; anything else is a one-line error with the file and the place. Types shared by
several stages are defined here, others next to their writers, from the same fields. Unknown keys are ignored for a
`Struct` and rejected for a dataclass.
"""

import dataclasses
import json
import os
import stat
from collections import Counter
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from facedancer.core.console import UserError
from facedancer.core.regular_files import opened_regular

# Maximum bytes of one JSON value, a line or a file: ten times the largest that we write, a network's configuration.
MOST_BYTES = 8 * 2**20
# Maximum nesting where the type sets none; a network's configuration has a dozen levels.
MOST_NESTED = 100

# A coordinate in pixels; the largest readable picture has a side of 65,535.
Coordinate = Annotated[float, Meta(ge=-1e6, le=1e6)]
Point = tuple[Coordinate, Coordinate]
# Image-left and image-right eye, nose, image-left and image-right corner of the mouth.
Landmarks = tuple[Point, Point, Point, Point, Point]
# The side of an aligned face in pixels.
Side = Annotated[int, Meta(ge=8, le=8192)]
Dimension = Annotated[int, Meta(ge=1, le=65_536)]
ShrinkFactor = Annotated[float, Meta(gt=0.0, le=1.0)]
Share = Annotated[float, Meta(gt=0.0, lt=1.0)]
Count = Annotated[int, Meta(ge=0, lt=2**53)]
Name = Annotated[str, Meta(min_length=1, max_length=4096)]


class ManifestFace(msgspec.Struct, frozen=True):
    """An aligned face in a line of `manifest.jsonl`."""

    file: Name
    aligned_landmarks: Landmarks


class ManifestEntry(msgspec.Struct, frozen=True):
    """A line of `manifest.jsonl`, a picture and its aligned faces; see `crop_align`."""

    file: Name
    faces: list[ManifestFace]
    refused: str | None = None


class WorldPicture(msgspec.Struct, frozen=True):
    """A rendered picture: a line of `truth.jsonl` or `portraits.jsonl`, or part of a line of `swaps.jsonl`."""

    file: Name
    identity: Count
    landmarks: Landmarks
    scene: Count | None = None
    mask: Name | None = None


class WorldScene(msgspec.Struct, frozen=True):
    """A line of `swaps.jsonl`: pictures of one person in one scene that differ only in identity."""

    pictures: Annotated[list[WorldPicture], Meta(min_length=2, max_length=1000)]


class FilePair(msgspec.Struct, frozen=True):
    """A line of `pairs.jsonl`, a list of pairs."""

    target: Name
    source: Name


Word = str | int | Annotated[float, Meta(ge=-1e9, le=1e9)] | bool
# A line of a `batch` job file: the flags of `swap_video` or `swap_image`, each a word or a list of words.
Job = dict[Annotated[str, Meta(pattern=r"^\w+$")], Word | list[Word]]


class JobDone(msgspec.Struct, frozen=True):
    """A line of `<jobs>.done.jsonl`."""

    job: str
    status: int
    output: Name


def decode(content, kind, where):
    """Decodes one JSON value into a type.

    Args:
        content: its bytes.
        kind: the type, of this module or another one that `msgspec` knows.
        where: file and line, for error messages.

    Raises:
        UserError: if it is not JSON, too large, nested too deeply, or of another type.
    """
    if len(content) > MOST_BYTES:
        raise UserError(f"{where}: larger than the {MOST_BYTES >> 20} MiB that are read")
    try:
        # msgspec's own decoder rejects names that are not UTF-8, which we write as lone surrogates.
        # Only a plain `dict`, as results of ours are, may hold NaN.
        value = json.loads(
            content.decode("utf-8-sig"),  # Windows' editors begin a file with a byte order mark
            parse_constant=None if kind is dict else _refuse,
            object_pairs_hook=_object,
        )
        known = {item.name for item in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else ()
        if known and isinstance(value, dict) and not known >= value.keys():
            raise UserError(f"{where}: unknown field {min(value.keys() - known)!r}")
        if kind is dict:
            _check_depth(value)
        return msgspec.convert(value, kind)
    except RecursionError:
        raise UserError(f"{where}: lists or objects nested too deeply") from None
    except msgspec.ValidationError as error:
        raise UserError(f"{where}: {error}") from None
    except ValueError as error:
        raise UserError(f"{where}: not JSON ({error})") from None


def read_json(path, kind):
    """Reads a JSON file as a type. Raises `UserError`, or `FileNotFoundError` if it is missing."""
    with opened_regular(path) as file:
        return decode(file.read(MOST_BYTES + 1), kind, path)


def read_json_lines(path, kind, skip_torn=False):
    """Yields `(line number, value)` for a JSON Lines file; skips empty lines.

    Args:
        path: the file.
        kind: type of a line.
        skip_torn: whether to skip an incomplete last line, which a killed command leaves.

    Raises:
        UserError: for a line that does not match.
        FileNotFoundError: if there is no such file.
    """
    with opened_regular(path) as file:
        number = 0
        while line := file.readline(MOST_BYTES + 1):
            number += 1
            is_torn = skip_torn and not line.endswith(b"\n") and len(line) <= MOST_BYTES
            if line.strip() and not is_torn:
                yield number, decode(line, kind, f"{path}, line {number}")


def path_inside(folder, name, where):
    """Returns the path of a file named in JSON, relative to `folder`; the file need not exist.

    Raises:
        UserError: if the name points outside the folder, is invalid, or is that of a pipe or device.
    """
    if os.path.isabs(name) or ".." in Path(name).parts:
        raise UserError(f"{where}: {name!r} leads out of the folder {folder}")
    path = Path(folder, name)
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return path  # the reader reports what is wrong
    except ValueError:  # a null character, or a lone surrogate that encodes no byte
        raise UserError(f"{where}: no file can be named {name!r}") from None
    if not stat.S_ISREG(mode):
        raise UserError(f"{where}: {name!r} is not a regular file")
    return path


def _check_depth(value):
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MOST_NESTED):
        level = [
            item
            for parent in level
            for item in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(item, dict | list)
        ]
        if not level:
            return
    raise RecursionError


def _object(pairs):
    """Returns the dict of a JSON object; of two fields with one name, one would be lost in silence."""
    value = dict(pairs)
    if len(value) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        raise ValueError(f"the field {counts.most_common(1)[0][0]!r} is there twice")
    return value


def _refuse(constant):
    raise ValueError(f"{constant} is no number")
