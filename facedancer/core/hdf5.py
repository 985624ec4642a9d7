"""Untrusted HDF5 files, read in a separate process, which may hang, crash or run out of memory without harming ours.

The HDF5 library trusts its input: a file can make it read other files, loop forever or crash. So a file is described
first, by names, shapes and types, and rejected if it refers to anything outside itself or claims to hold more than its
size allows. An array's numbers are read only on request, after its shape has been checked.
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

# Time limit in seconds for describing a file or reading one array; even the slowest disk needs less.
PATIENCE = 30


@dataclass(frozen=True)
class StoredArray:
    """An array in a file, not yet read; `np.asarray` reads it.

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
    """A file's description.

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
        member: name of an uncompressed HDF5 file inside the zip archive `path`; None if `path` is the file.

    Returns:
        `Hdf5`.

    Raises:
        UserError: if it is not an intact HDF5 file, refers outside itself, or claims to be larger than it is.
        FileNotFoundError: if it is missing.
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
    """The reader process, started on the first request and restarted if it ended; one request at a time."""

    def __init__(self):
        self._lock = threading.Lock()
        self._process = None

    def ask(self, path, member, name=None, array=None):
        """Returns a file's description; or, if one of its arrays is named, fills `array` with its numbers."""
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
        """Returns the reply, or None if the idle process was just ending."""
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
                raise UserError(f"{path}: damaged; the HDF5 library {what} on it") from None
            return None
        except BaseException:  # interrupted: nobody would read its answer
            process.kill()
            raise

    def _start(self):
        # NumPy's threads would use up the limited address space.
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-P", Path(__file__).with_name("hdf5_process.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment,
            pipesize=2**20,
        )  # fmt: skip


_reader = _Reader()
