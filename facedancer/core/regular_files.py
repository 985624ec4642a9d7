"""Files that somebody else names are opened here: a pipe or a device would keep us waiting for ever."""

import contextlib
import errno
import os
import stat

from facedancer.core.console import UserError


def open_regular(path):
    """Opens a regular file to be read as bytes.

    Raises:
        OSError: if there is none, it is another kind of file or cannot be read; its `strerror` is a text for people.
    """
    try:
        file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)))  # noqa: SIM115
    except ValueError:  # a null character, or half of a surrogate pair
        raise OSError(errno.EINVAL, "no file can have that name", path) from None
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a regular file", path)
    return file


@contextlib.contextmanager
def opened_regular(path):
    """Yields a file as `open_regular` opens it. Raises `UserError`, and `FileNotFoundError` where there is none."""
    try:
        file = open_regular(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    with file:
        yield file
