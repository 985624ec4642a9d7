"""HDF5 files of others, read in a process of its own, which may hang, crash or run out of memory in our place.

The HDF5 library follows what a file says: to bytes of other files, round in circles, into crashes. So a file is first
described, by names, shapes and types, and refused where it reaches out of itself or claims to hold more than its size
allows; an array's numbers are read when they are asked for, after its shape was compared with what is wanted.
"""

import json
import math
import os
import select
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facedancer.core.console import UserError
from facedancer.core.regular_files import opened_regular

# Seconds in which a file has to be described, or one of its arrays be read; the slowest disk needs less.
PATIENCE = 30


@dataclass(frozen=True)
class StoredArray:
    """An array of a file, not yet read: `np.asarray` reads it.

    Attributes:
        path, member: the file, as `read_hdf5` takes it.
        name: of the array in it.
        shape: tuple.
        dtype: NumPy's.
    """

    path: Path
    member: str | None
    name: str
    shape: tuple
    dtype: np.dtype

    @property
    def size(self):
        return math.prod(self.shape)

    def __array__(self, dtype=None, copy=None):
        array = np.empty(self.shape, self.dtype)
        _reader.ask(self.path, self.member, self.name, array)
        return array if dtype is None else array.astype(dtype)


@dataclass(frozen=True)
class Hdf5:
    """What a file says of itself.

    Attributes:
        attributes: group's path, "" the root's -> {name: text or list of texts}, of the names that Keras gives.
        arrays: path -> `StoredArray`, of all arrays.
    """

    attributes: dict[str, dict]
    arrays: dict[str, StoredArray]


def read_hdf5(path, member=None):
    """Describes an HDF5 file.

    Args:
        path: the file.
        member: name of the HDF5 file inside of the zip archive `path`, not compressed; None where it is none.

    Returns:
        `Hdf5`.

    Raises:
        UserError: if it is no whole HDF5 file, points to what lies outside itself, or claims to be larger than it is.
        FileNotFoundError: if there is none.
    """
    with opened_regular(path):
        pass  # the other process opens it again
    described = _reader.ask(path, member)
    arrays = {
        name: StoredArray(Path(path), member, name, tuple(shape), np.dtype(kind))
        for name, (shape, kind) in described["arrays"].items()
    }
    return Hdf5(described["attributes"], arrays)


class _Reader:
    """The process, started when it is first asked, and again where it ended; one request at a time."""

    def __init__(self):
        self._lock = threading.Lock()
        self._process = None

    def ask(self, path, member, name=None, array=None):
        """Returns the description of a file; or, where an array of it is named, fills `array` with its numbers."""
        wanted = None if array is None else [name, array.shape, array.dtype.str]
        request = json.dumps({"path": os.path.abspath(path), "member": member, "array": wanted}).encode() + b"\n"
        with self._lock:
            reply = None
            while reply is None:
                reply = self._exchange(request, path, array)
        if "error" in reply:
            raise UserError(f"{path}: {reply['error']}")
        return reply

    def _exchange(self, request, path, array):
        """Returns the reply, None where the process, idle for long, was just about to end."""
        if self._process is None or self._process.poll() is not None:
            self._start()
        process = self._process
        try:
            process.stdin.write(request)
            process.stdin.flush()
            if not select.select([process.stdout], [], [], PATIENCE)[0]:
                process.kill()
            reply = json.loads(process.stdout.readline())
            if array is not None and "error" not in reply and array.size:
                buffer = memoryview(array.reshape(-1)).cast("B")
                if process.stdout.readinto(buffer) < len(buffer):
                    raise EOFError
            return reply
        except (ValueError, EOFError, BrokenPipeError):
            ended = process.wait()
            if ended > 0:
                raise RuntimeError(f"the process that reads HDF5 files ended with {ended}") from None
            if ended:
                what = f"takes more than {PATIENCE} s" if ended == -signal.SIGKILL else "crashes"
                raise UserError(f"{path}: damaged, the HDF5 library {what} on it") from None
            return None
        except BaseException:  # interrupted: what it would still answer is nobody's
            process.kill()
            raise

    def _start(self):
        # NumPy's own threads would take address space, which is limited there.
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-P", Path(__file__).with_name("hdf5_process.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment,
            pipesize=2**20,
        )  # fmt: skip


_reader = _Reader()
