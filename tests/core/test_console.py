"""What a person sees: one line and a status; a traceback only for our own defects."""

import argparse
import errno
import io
import os
import sys

import pytest

from facedancer.core.console import UserError, add_boolean, caught_messages, command, progress


def raising(error):
    @command
    def main(argv=None):
        raise error

    return main


def test_success_is_status_0(capsys):
    seen = []
    assert command(seen.append)(["--flag"]) == 0
    assert seen == [["--flag"]]
    assert command(lambda argv: 3)() == 3
    assert capsys.readouterr().err == ""


def test_user_errors_are_one_line(capsys):
    assert raising(UserError("x.mp4: no video in it"))() == 2
    assert capsys.readouterr().err == "error: x.mp4: no video in it\n"


def test_a_full_disk_is_one_line(capsys):
    assert raising(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "out/a.png"))([]) == 2
    said = "error: out/a.png: No space left on device; make room, or write to another disk\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "make room"), (errno.EROFS, "another place"), (errno.EACCES, "permissions"),
        (errno.ENAMETOOLONG, "shorter name"), (errno.EMFILE, "ulimit -n"), (errno.EISDIR, "name of a file"),
    ],
)  # fmt: skip
def test_what_a_person_can_put_right_is_one_line_with_what_to_do(capsys, number, said):
    """Also where a library names no file, as a full disk does, or nothing but the number."""
    for error in (OSError(number, os.strerror(number)), OSError(number, None)):
        assert raising(error)([]) == 2
        line = capsys.readouterr().err
        assert line.startswith(f"error: {os.strerror(number)}; ") and said in line and line.count("\n") == 1


def test_a_name_that_is_no_utf_8_can_be_said(monkeypatch):
    said = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(said, "utf-8"))

    @command
    def main(argv=None):
        print(os.fsdecode(b"face\xff.mp4"), flush=True)

    assert main() == 0 and said.getvalue() == b"face\\udcff.mp4\n"


def test_interruption(capsys):
    assert raising(KeyboardInterrupt())([]) == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize("error", [ValueError("ours"), KeyError("ours"), FileNotFoundError(errno.ENOENT, "ours")])
def test_our_own_defects_keep_their_traceback(error):
    with pytest.raises(type(error)):
        raising(error)([])


@pytest.mark.parametrize(
    ("argv", "value"),
    [
        ([], False),
        (["--compare"], True),
        (["--compare", "True"], True),
        (["--compare", "False"], False),
        (["--compare", "no"], False),
        (["--compare=1"], True),
    ],
)
def test_booleans(argv, value):
    parser = argparse.ArgumentParser()
    add_boolean(parser, "--compare", False, "help")
    assert parser.parse_args(argv).compare is value


def test_unknown_words_are_no_booleans(capsys):
    parser = argparse.ArgumentParser()
    add_boolean(parser, "--compare", False, "help")
    with pytest.raises(SystemExit):
        parser.parse_args(["--compare", "maybe"])
    assert "expected true or false, got 'maybe'" in capsys.readouterr().err


def test_progress_passes_everything_on_and_is_quiet_in_a_file(capsys):
    assert list(progress(range(3), desc="x")) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")


def test_messages_of_libraries_are_caught_and_others_go_on(capfd):
    told = []
    with caught_messages(told.append, is_known=lambda line: line.startswith("lib")):
        os.write(2, b"libtiff: odd\nother: news\n")
        print("ours", file=sys.stderr)
        with caught_messages(told.append):
            os.write(2, b"inner\n")
    os.write(2, b"after\n")
    assert told == ["inner", "libtiff: odd"]
    assert sorted(capfd.readouterr().err.splitlines()) == ["after", "other: news", "ours"]
