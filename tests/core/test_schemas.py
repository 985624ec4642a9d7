"""What a JSON may hold: everything else is one line with the file and the place, and nothing waits for ever."""

import json
import os

import pytest

from facedancer.core import schemas
from facedancer.core.console import UserError
from facedancer.core.schemas import (
    FilePair,
    ManifestEntry,
    WorldPicture,
    decode,
    path_inside,
    read_json,
    read_json_lines,
)

POINTS = [[1, 2], [3, 4], [5, 6], [7, 8], [9, 10.5]]
PICTURE = {"file": "a/b.png", "identity": 3, "landmarks": POINTS, "pose": [1, 2, 3]}


def refused(content, kind=WorldPicture):
    with pytest.raises(UserError) as caught:
        decode(content if isinstance(content, bytes) else json.dumps(content).encode(), kind, "world, line 7")
    text = str(caught.value)
    assert text.startswith("world, line 7: ") and "\n" not in text and len(text) < 200
    return text


def test_what_fits_is_read():
    found = decode(json.dumps(PICTURE).encode(), WorldPicture, "x")
    assert (found.file, found.identity, found.landmarks[4]) == ("a/b.png", 3, (9.0, 10.5))
    entry = decode(b'{"file": "caf\\udce9.jpg", "faces": [], "refused": "no face"}', ManifestEntry, "x")
    assert entry.file == "caf\udce9.jpg" and entry.refused == "no face"


@pytest.mark.parametrize(
    "changes",
    [
        {"file": None}, {"file": ""}, {"file": 3}, {"file": "x" * 5000}, {"identity": "3"}, {"identity": -1},
        {"identity": 10**19}, {"identity": True}, {"landmarks": POINTS[:4]}, {"landmarks": [[1, 2, 3]] * 5},
        {"landmarks": [[1, None]] * 5}, {"landmarks": [[float("nan"), 1]] * 5}, {"landmarks": [[float("inf"), 1]] * 5},
        {"landmarks": [[1e7, 1]] * 5}, {"landmarks": "x"}, {"landmarks": {}},
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line(changes):
    refused({**PICTURE, **changes})


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff", b"[]", b"null", b"3", b'{"identity": 1e999}', b'{"file": "a", "identity": 1' + b"0" * 6000],
)
def test_what_is_no_json_is_one_line(content):
    refused(content)


@pytest.mark.parametrize("kind", [WorldPicture, dict])
def test_a_field_that_is_there_twice_is_refused(kind):
    assert "the field 'file' is there twice" in refused(b'{"file": "a", "identity": 1, "file": "b"}', kind)


def test_a_byte_order_mark_is_skipped():
    assert decode(b'\xef\xbb\xbf{"a": 1}', dict, "here") == {"a": 1}


@pytest.mark.parametrize("kind", [WorldPicture, dict])
@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"a":' * 100_000, b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}"])
def test_deep_nesting_is_refused(kind, content):
    assert "nested too deeply" in refused(content, kind)


def test_too_large_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(schemas, "MOST_BYTES", 100)
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"target": "a", "source": "b"}\n' + b" " * 2000)
    lines = read_json_lines(path, FilePair)
    assert next(lines) == (1, FilePair("a", "b"))
    assert list(lines) == []  # spaces alone are an empty line
    path.write_bytes(b'{"target": "' + b"a" * 2000)
    with pytest.raises(UserError, match=r"a\.jsonl, line 1: larger than"):
        list(read_json_lines(path, FilePair, skip_torn=True))


def test_lines_are_numbered_and_a_torn_one_is_skipped_where_asked(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\n{"target": "a", "source": "b"}\n{"target": "c')
    assert list(read_json_lines(path, FilePair, skip_torn=True)) == [(2, FilePair("a", "b"))]
    with pytest.raises(UserError, match=r"a\.jsonl, line 3: not JSON"):
        list(read_json_lines(path, FilePair))


def test_pipes_and_devices_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero", tmp_path, tmp_path / "a\0b"):
        with pytest.raises(UserError):
            read_json(path, dict)
    with pytest.raises(UserError, match="'pipe' is not a regular file"):
        path_inside(tmp_path, "pipe", "list, line 3")
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none", dict)


@pytest.mark.parametrize("name", ["/dev/zero", "../a", "a/../../b", "a\0b", "\ud800"])
def test_names_that_lead_out_of_the_folder(tmp_path, name):
    with pytest.raises(UserError, match="list, line 3: "):
        path_inside(tmp_path, name, "list, line 3")


def test_names_inside_the_folder(tmp_path):
    for name in ("a.png", "a/b..c.png", "caf\udce9/1.png"):
        assert path_inside(tmp_path, name, "list") == tmp_path / name
