"""The console interface of commands: one-line errors, exit codes, progress."""

import argparse
import contextlib
import errno
import functools
import gc
import io
import os
import sys
import tempfile
import threading

from tqdm import tqdm

# Errors that the user can fix but the command cannot, with advice.
_ADVICE = {
    errno.ENOSPC: "make room, or write to another disk",
    errno.EDQUOT: "make room, or write to another disk",
    errno.EFBIG: "write to another disk, or raise the limit (ulimit -f)",
    errno.EROFS: "write to another place",
    errno.EACCES: "change its permissions, or take another place",
    errno.EPERM: "change its permissions, or take another place",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ENOTDIR: "a part of the path is a file; give another one",
    errno.EISDIR: "give the name of a file",
    errno.ELOOP: "a link leads back to itself; give another path",
    errno.EIO: "the disk fails; take another one",
    errno.EMFILE: "raise the limit (ulimit -n), or take fewer --workers",
    errno.ENFILE: "the whole machine has too many files open; end other programs",
    errno.EBUSY: "another program uses it; end that first",
    errno.ESTALE: "the network's disk has changed; run the command again",
    errno.ENOMEM: "the memory is full; end other programs, or take fewer --workers",
}

# Exit status of a command that did part of its work and named the rest.
PARTLY_DONE = 4

_CATCHING = threading.RLock()


class UserError(Exception):
    """An error that the user can fix. Its text is one line: what, where, what to do."""


def command(main):
    """Turns a function of `argv` into a command: user errors, a full disk and the like print one line and exit with 2.

    Other exceptions are bugs and keep their traceback.
    """

    @functools.wraps(main)
    def run(argv=None):
        if isinstance(sys.stdout, io.TextIOWrapper):
            # A file name may not be UTF-8: it is printed with escapes, as on stderr.
            sys.stdout.reconfigure(errors="backslashreplace")
        # TensorFlow and networks are many thousands of objects that stay: at its usual pace, the search for cycles
        # takes a sixth of the imports' time.
        gc.set_threshold(20_000, 5, 2)
        try:
            return main(argv) or 0
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except OSError as error:
            if error.errno not in _ADVICE:
                raise
            where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes | os.PathLike) else ""
            # Some libraries set a multi-line `strerror`.
            print(f"error: {where}{os.strerror(error.errno)}; {_ADVICE[error.errno]}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130

    return run


def boolean(text):
    """The `type` of a boolean flag that takes a word, such as `--export True`; unknown words are an error."""
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in words:
        raise argparse.ArgumentTypeError(f"expected true or false, got {text!r}")
    return words[text.lower()]


def add_boolean(parser, flag, default, help):
    """Adds a flag that means True by itself (`--compare`) or takes a word (`--compare False`)."""
    parser.add_argument(flag, type=boolean, nargs="?", const=True, default=default, metavar="BOOL", help=help)


def progress(iterable=None, **options):
    """`tqdm` with our settings: on stderr, and silent if stderr is not a terminal."""
    return tqdm(iterable, file=sys.stderr, disable=not sys.stderr.isatty(), dynamic_ncols=True, **options)


def say(text):
    """Prints a line without breaking a progress bar."""
    tqdm.write(text, file=sys.stdout)
    sys.stdout.flush()


@contextlib.contextmanager
def caught_messages(tell, is_known=lambda line: True):
    """Captures what C libraries write to stderr while a block runs; one thread at a time.

    Args:
        tell: function called with each known line, after the block.
        is_known: predicate of a line; other lines are passed on to stderr after the block.
    """
    if sys.stderr is None:  # the parent process closed the stream
        yield
        return
    with _CATCHING, tempfile.TemporaryFile() as caught:
        sys.stderr.flush()
        stream = os.dup(2)
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stream, 2)
            os.close(stream)
            caught.seek(0)
            for line in caught:
                if is_known(text := line.decode(errors="replace").rstrip()):
                    tell(text)
                else:
                    os.write(2, line)
