"""What a command says to the person who runs it: one-line errors, exit codes, progress."""

import argparse
import errno
import functools
import io
import sys

from tqdm import tqdm

# What no command can help: a full disk, a quota, a file system that cannot be written.
_CANNOT_WRITE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}


class UserError(Exception):
    """Something the person can put right. Its text is one line: what, where, what to do."""


def command(main):
    """Makes a function of `argv` a command: user errors, and a full disk, become one line on stderr and exit status 2.

    Other exceptions are defects of ours and keep their traceback.
    """

    @functools.wraps(main)
    def run(argv=None):
        if isinstance(sys.stdout, io.TextIOWrapper):
            # A file's name may be no UTF-8: it is said with escapes, as on stderr.
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            return main(argv) or 0
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except OSError as error:
            if error.errno not in _CANNOT_WRITE:
                raise
            print(f"error: {error.filename or 'cannot write'}: {error.strerror}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130

    return run


def boolean(text):
    """The `type` of a boolean flag that takes a word, `--export True`: unknown words are an error."""
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in words:
        raise argparse.ArgumentTypeError(f"expected true or false, got {text!r}")
    return words[text.lower()]


def add_boolean(parser, flag, default, help):
    """Adds a flag that is true alone (`--compare`) or with a word (`--compare False`)."""
    parser.add_argument(flag, type=boolean, nargs="?", const=True, default=default, metavar="BOOL", help=help)


def progress(iterable=None, **options):
    """`tqdm` with our settings: on stderr, quiet when that is no terminal."""
    return tqdm(iterable, file=sys.stderr, disable=not sys.stderr.isatty(), dynamic_ncols=True, **options)


def say(text):
    """Prints a line without breaking a progress bar."""
    tqdm.write(text, file=sys.stdout)
    sys.stdout.flush()
