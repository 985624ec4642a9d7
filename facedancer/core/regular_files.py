"""Opens files named by others: reading a pipe or a device could block forever."""

import contextlib
import errno
import os
import stat

from facedancer.core.console import UserError


def open_regular(path):
    """Opens a regular file for reading bytes.

    Raises:
        OSError: if it is missing, not a regular file or unreadable; its `strerror` explains which.
    """
    try:
        file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)))  # noqa: SIM115
    except ValueError:  # a null character, or a lone surrogate
        raise OSError(errno.EINVAL, "no file can have that name", path) from None
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a regular file", path)
    return file


@contextlib.contextmanager
def opened_regular(path):
    """Yields a file opened by `open_regular`. Raises `UserError`, or `FileNotFoundError` if it is missing."""
    try:
        file = open_regular(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    with file:
        yield file
