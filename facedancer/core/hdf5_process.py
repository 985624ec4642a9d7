"""The process that reads HDF5 files for `core.hdf5`: a script of its own that imports nothing of ours.

Requests and replies are lines of JSON on the standard streams. A request is an object: `path`; `member`, a file inside
of the archive `path`, or null; `array`, `[name, shape, dtype]` of one, or null for a description of the file. A reply
is an object, `{"error": text}` where that cannot be given; that of an array is followed by its bytes.
"""

import io
import json
import math
import os
import re
import resource
import select
import struct
import sys
import zipfile

import h5py
import numpy as np
from h5py import h5d, h5o, h5z

# Seconds without a request after which the process ends.
_IDLE = 60
# Address space beyond what reading a file takes by its size: a chunk of a few bytes may inflate to any number.
_ROOM = 384 * 2**20
_MOST_OBJECTS = 100_000
_MOST_TEXT = 8 * 2**20
# The arrays of a file may hold so many bytes, or so many times its own: weights hardly shrink when they are compressed.
_FREE_BYTES, _MOST_INFLATED = 256 * 2**20, 8
_WANTED = re.compile(r"model_config|(layer|weight)_names\d*")
# Others are loaded from wherever the environment says.
_FILTERS = {h5z.FILTER_DEFLATE, h5z.FILTER_SHUFFLE, h5z.FILTER_FLETCHER32}


class _RefusedError(Exception):
    """What no file of weights needs. The text goes on from the file's name."""


def main():
    # What libraries print must not come between the replies.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    last, file = None, None
    while select.select([0], [], [], _IDLE)[0] and (line := sys.stdin.buffer.readline()):
        request, content = json.loads(line), b""
        path, member = request["path"], request["member"]
        try:
            found = os.stat(path)
            size, place = found.st_size, (path, member, found.st_dev, found.st_ino, found.st_mtime_ns)
            if request["array"] is None or place != last:
                last = None
                if file is not None:
                    file.close()
                _limit_memory(size)
                last, file = place, _open(path, member)
            if request["array"] is None:
                reply = _describe(file, size)
            else:
                reply, content = {}, _read(file, *request["array"])
        except _RefusedError as error:
            reply = {"error": str(error)}
        # All that h5py and the archive raise on damaged files.
        except (
            OSError, KeyError, ValueError, TypeError, RuntimeError, OverflowError, MemoryError, AttributeError,
            EOFError, struct.error, zipfile.BadZipFile,
        ) as error:  # fmt: skip
            first = (str(error) or type(error).__name__).splitlines()[0]
            reply = {"error": f"not a whole HDF5 file ({first})"}
        replies.write(json.dumps(reply).encode() + b"\n")
        replies.write(content)
        replies.flush()


def _read(file, name, shape, dtype):
    """Returns the bytes of an array, which has to be what it was when the file was described."""
    item = file[name]
    if (list(item.shape), item.dtype.str) != (shape, dtype):
        raise _RefusedError("changed while it was read")
    array = np.ascontiguousarray(item[()])
    return memoryview(array.reshape(-1)).cast("B") if array.size else b""


def _open(path, member):
    if member is None:
        return h5py.File(path, "r", locking=False)
    with zipfile.ZipFile(path) as archive:
        return h5py.File(io.BytesIO(archive.read(member)), "r")


def _limit_memory(size):
    """Limits this process's memory to what it has and what a file of that size may need."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
    except FileNotFoundError:
        return  # not Linux, which alone heeds the limit
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + _ROOM + 2 * size, most))


def _describe(file, size):
    """Returns `{"attributes": {group: {name: text or list of texts}}, "arrays": {name: [shape, dtype]}}`.

    Args:
        file: the open file.
        size: of it in bytes.

    Raises:
        _RefusedError: if it reaches out of itself, its parts are nested in circles, or it claims to be too large.
    """
    attributes, arrays, seen, waiting = {"": _attributes(file, "")}, {}, {h5o.get_info(file.id).addr}, [("", file)]
    stored = inflated = 0
    while waiting:
        place, group = waiting.pop()
        for name in group:
            whole = f"{place}/{name}".lstrip("/")
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise _RefusedError(f"refused, its {whole} is a link to another place")
            item = group[name]
            address = h5o.get_info(item.id).addr
            if address in seen:
                raise _RefusedError(f"refused, its {whole} is linked twice")
            seen.add(address)
            if len(seen) > _MOST_OBJECTS:
                raise _RefusedError(f"refused, it has more than {_MOST_OBJECTS} parts")
            if isinstance(item, h5py.Group):
                attributes[whole] = _attributes(item, whole)
                waiting.append((whole, item))
            elif isinstance(item, h5py.Dataset):
                _check_array(item, whole)
                arrays[whole] = [item.shape, item.dtype.str]
                stored, inflated = stored + item.id.get_storage_size(), inflated + item.size * item.dtype.itemsize
                if stored > size or inflated > max(_FREE_BYTES, _MOST_INFLATED * size):
                    raise _RefusedError(f"refused, its arrays up to {whole} claim to be larger than the file can hold")
            else:
                raise _RefusedError(f"refused, its {whole} is no array")
    return {"attributes": attributes, "arrays": arrays}


def _check_array(item, name):
    settings = item.id.get_create_plist()
    if settings.get_layout() == h5d.VIRTUAL or settings.get_external_count():
        raise _RefusedError(f"refused, it keeps its {name} outside itself")
    if not {settings.get_filter(index)[0] for index in range(settings.get_nfilters())} <= _FILTERS:
        raise _RefusedError(f"refused, its {name} is compressed in a way that is not known here")
    if item.shape is None or item.dtype.kind not in "fiub" or item.dtype.subdtype:
        raise _RefusedError(f"refused, its {name} is no array of numbers")
    if item.size and not item.id.get_storage_size():
        raise _RefusedError(f"refused, its {name} holds no numbers")


def _attributes(group, place):
    """Returns the texts that Keras keeps with a group."""
    found = {}
    for name in group.attrs:
        if not _WANTED.fullmatch(name):
            continue
        kind = group.attrs.get_id(name)
        if kind.shape is None or math.prod(kind.shape) * kind.dtype.itemsize > _MOST_TEXT:
            raise _RefusedError(f"refused, the attribute {name} of its {place or 'root'} is not text, or too large")
        value = group.attrs[name]
        if isinstance(value, np.ndarray):
            found[name] = [_text(item, name) for item in value.reshape(-1)]
        else:
            found[name] = _text(value, name)
    return found


def _text(value, name):
    if isinstance(value, bytes):
        return value.decode(errors="surrogateescape")
    if not isinstance(value, str):
        raise _RefusedError(f"not written by Keras, its attribute {name} is not text")
    return str(value)


if __name__ == "__main__":
    main()
