"""NumPy's files: what they hold is read, and what they only claim takes no memory."""

import pickle
import zipfile

import numpy as np
import pytest

from facedancer.core import numpy_files
from facedancer.core.console import UserError
from facedancer.core.numpy_files import read_npy, read_npz


@pytest.mark.parametrize("array", [np.arange(6, dtype=np.float32).reshape(2, 3), np.asfortranarray(np.eye(2)),
                                   np.array("name"), np.zeros((0, 3), np.uint8)])  # fmt: skip
def test_round_trip(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    np.savez_compressed(tmp_path / "a.npz", given=array)
    for found in (read_npy(tmp_path / "a.npy"), read_npz(tmp_path / "a.npz")["given"]):
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)


def header(text):
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize(
    "content",
    [
        b"", b"PK", header("{'descr': '<f4', 'fortran_order': False, 'shape': (6,)}"),
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999,)}"),
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -6)}") + bytes(24),
        header("{'descr': '<f4', 'fortran_order': False, 'shape': 6}"), header("{'descr': "), header("(" * 5000),
        header("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}") + pickle.dumps([1]),
    ],
)  # fmt: skip
def test_damaged_and_forged_files_are_one_line(tmp_path, content):
    (tmp_path / "a.npy").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", content)
    for read, name in ((read_npy, "a.npy"), (read_npz, "a.npz"), (read_npz, "a.npy"), (read_npz, "none.npz")):
        with pytest.raises(UserError) as raised:
            read(tmp_path / name)
        assert str(raised.value).startswith(str(tmp_path)) and "\n" not in str(raised.value)


def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(numpy_files, "MOST_BYTES", 1000)
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(1001, np.uint8))
    with pytest.raises(UserError, match=r"an array of 1001 uint8, which is not read"):
        read_npz(tmp_path / "a.npz")
