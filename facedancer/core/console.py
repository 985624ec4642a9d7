"""What a command says to the person who runs it: one-line errors, exit codes, progress."""

import argparse
import functools
import sys

from tqdm import tqdm


class UserError(Exception):
    """Something the person can put right. Its text is one line: what, where, what to do."""


def command(main):
    """Makes a function of `argv` a command: user errors become one line on stderr and exit status 2.

    Other exceptions are defects of ours and keep their traceback.
    """

    @functools.wraps(main)
    def run(argv=None):
        try:
            return main(argv) or 0
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
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
