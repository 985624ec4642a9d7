"""`.npz` and `.npy` files as data of bounded size: `np.load` unpacks zip bombs and allocates what a file claims."""

import contextlib
import math
import tokenize
import zipfile
import zlib

import numpy as np
from numpy.lib import format as npy

from facedancer.core.console import UserError
from facedancer.core.regular_files import opened_regular

MOST_BYTES = 2**26  # of one array; a saved source's face takes 3 MB
_MOST_ARRAYS = 64
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
# What a damaged or forged file can raise; a forged dtype fails in NumPy's parser, whose errors are many.
_DAMAGE = (
    OSError, EOFError, ValueError, TypeError, KeyError, SyntaxError, RecursionError, MemoryError, NotImplementedError,
    RuntimeError, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def read_npz(path):
    """Returns `{name: array}` of an `.npz`. Raises `UserError`; also if the file is missing."""
    with _damage_named(path), opened_regular(path) as file, zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if len(members) > _MOST_ARRAYS:
            raise ValueError(f"{len(members)} arrays")
        arrays = {}
        for member in members:
            with archive.open(member) as opened:
                arrays[member.filename.removesuffix(".npy")] = _read_array(opened)
        return arrays


def read_npy(path):
    """Returns the array of an `.npy`. Raises `UserError`; also if the file is missing."""
    with _damage_named(path), opened_regular(path) as file:
        return _read_array(file)


@contextlib.contextmanager
def _damage_named(path):
    try:
        yield
    except _DAMAGE as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path}: {reason}") from None


def _read_array(file):
    version = npy.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"an array of version {version}")
    shape, is_fortran, dtype = _HEADERS[version](file)
    size = math.prod(shape) * dtype.itemsize
    if dtype.hasobject or not 0 <= size <= MOST_BYTES or min(shape, default=0) < 0:
        raise ValueError(f"an array of {'×'.join(map(str, shape))} {dtype}, which is not read")
    content = file.read(size)
    if len(content) < size:
        raise EOFError("cut short")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if is_fortran else "C").copy()
