"""HDF5 files that reach out of themselves, hang, crash or claim too much end in one line; no other file is read."""

import os
import signal
import threading
import time
import zipfile
import zlib

import h5py
import numpy as np
import pytest

from facedancer.core import hdf5
from facedancer.core.console import UserError
from facedancer.core.hdf5 import read_hdf5
from facedancer.core.keras_h5 import read_keras_h5


@pytest.fixture
def write(tmp_path):
    """Returns a function that writes a Keras file with one layer, changed by a function of the open file."""

    def make(change=lambda file: None, **options):
        path = tmp_path / "a.h5"
        with h5py.File(path, "w") as file:
            file.attrs["layer_names"] = [b"dense"]
            group = file.create_group("dense")
            group.attrs["weight_names"] = [b"dense/kernel:0"]
            group.create_dataset("dense/kernel:0", data=np.arange(6.0, dtype=np.float32).reshape(2, 3), **options)
            change(file)
        return path

    return make


KERNEL = "dense/dense/kernel:0"


def refused(path, text):
    with pytest.raises(UserError) as caught:
        read_keras_h5(path)
    assert str(caught.value).startswith(f"{path}: ") and text in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f2", "<i8", "?"])
def test_arrays_come_back_as_they_were(write, tmp_path, dtype):
    wanted = np.random.default_rng(0).integers(0, 2, (4, 5, 6)).astype(dtype)
    path = write(lambda file: file.create_dataset("more/x", data=wanted, compression="gzip", shuffle=True, chunks=True))
    stored = read_hdf5(path)
    assert stored.arrays.keys() == {"dense/dense/kernel:0", "more/x"}
    array = stored.arrays["more/x"]
    assert (array.shape, array.dtype, array.size) == ((4, 5, 6), wanted.dtype, 120)
    np.testing.assert_array_equal(np.asarray(array), wanted)
    assert np.asarray(array, np.float64).dtype == np.float64
    np.testing.assert_array_equal(stored.arrays["dense/dense/kernel:0"], np.arange(6.0).reshape(2, 3))


def replace_kernel(file, make):
    del file[KERNEL]
    make(KERNEL)


def test_other_files_are_not_read(write, tmp_path):
    (tmp_path / "secret").write_bytes(b"B" * 24)
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["stolen"] = np.full((2, 3), 41.0, np.float32)
    layout = h5py.VirtualLayout((2, 3), "<f4")
    layout[...] = h5py.VirtualSource(str(tmp_path / "other.h5"), "stolen", (2, 3))
    external = [(str(tmp_path / "secret"), 0, 24)]
    outside = "keeps its dense/dense/kernel:0 outside itself"
    for make in (
        lambda file, name: file.create_dataset(name, (2, 3), "<f4", external=external),
        lambda file, name: file.create_virtual_dataset(name, layout),
    ):
        refused(write(lambda file, make=make: replace_kernel(file, lambda name: make(file, name))), outside)
    for link in (h5py.ExternalLink(str(tmp_path / "other.h5"), "stolen"), h5py.SoftLink("/dense")):
        refused(
            write(lambda file, link=link: replace_kernel(file, lambda name: file.__setitem__(name, link))), "a link"
        )


def test_circles_are_refused(write):
    refused(write(lambda file: file["dense"].__setitem__("again", file["dense"])), "linked twice")
    refused(write(lambda file: file["dense"].__setitem__("again", file["/"])), "linked twice")


def test_claims_beyond_the_size_are_refused_before_a_number_is_read(write):
    empty = write(lambda file: replace_kernel(file, lambda name: file.create_dataset(name, (10**6, 10**6), "<f4")))
    refused(empty, "holds no numbers")

    def sparse(file):
        array = file.create_dataset(KERNEL, (10**6, 10**6), "<f4", chunks=(64, 64))
        array[:64, :64] = 0  # one chunk of 4 TB; the others are not there

    refused(write(lambda file: replace_kernel(file, lambda name: sparse(file))), "claim to be larger")


def test_what_is_no_array_of_numbers_is_refused(write):
    refused(write(lambda file: file.create_dataset("x", data=[b"abc"])), "no array of numbers")
    refused(write(lambda file: file.create_dataset("x", data=h5py.Empty("f"))), "no array of numbers")
    refused(write(lambda file: file.__setitem__("x", np.dtype("f4"))), "no array")
    refused(write(lambda file: file.create_dataset("x", data=np.zeros(99), compression="lzf")), "not known here")
    refused(write(lambda file: file.attrs.__setitem__("model_config", "{" * 10_000)), "not JSON")
    refused(write(lambda file: file.attrs.__setitem__("model_config", '{"a":' + "[" * 500 + "]" * 500 + "}")), "deeply")
    refused(write(lambda file: file.attrs.__setitem__("model_config", 3.0)), "not text")


def test_a_chunk_that_inflates_takes_no_memory(write):
    """A chunk of a few bytes by its description, of 2 GB when it is decompressed."""

    def bomb(file):
        array = file.create_dataset(KERNEL, (64,), "<f4", chunks=(64,), compression="gzip")
        packer = zlib.compressobj()
        head, again = (packer.compress(bytes(2**24)) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
        array.id.write_direct_chunk((0,), head + 127 * again)

    stored = read_hdf5(write(lambda file: replace_kernel(file, lambda name: bomb(file))))
    with pytest.raises(UserError, match="not a whole HDF5 file"):
        np.asarray(stored.arrays["dense/dense/kernel:0"])


def test_a_process_that_hangs_or_crashes_is_one_line(write, monkeypatch):
    path = write()
    read_hdf5(path)
    monkeypatch.setattr(hdf5, "PATIENCE", 0.3)
    os.kill(hdf5._reader._process.pid, signal.SIGSTOP)  # it does nothing more, as where the library runs in circles
    started = time.monotonic()
    with pytest.raises(UserError, match=r"a\.h5: damaged; the HDF5 library takes more than 0\.3 s on it"):
        read_hdf5(path)
    assert time.monotonic() - started < 10
    monkeypatch.undo()
    assert read_hdf5(path).arrays
    os.kill(hdf5._reader._process.pid, signal.SIGSTOP)
    threading.Timer(0.3, os.kill, (hdf5._reader._process.pid, signal.SIGSEGV)).start()
    threading.Timer(0.4, os.kill, (hdf5._reader._process.pid, signal.SIGCONT)).start()
    with pytest.raises(UserError, match=r"a\.h5: damaged; the HDF5 library crashes on it"):
        read_hdf5(path)
    assert read_hdf5(path).arrays  # with another process


def test_a_file_in_an_archive(write, tmp_path):
    path = write()
    with zipfile.ZipFile(tmp_path / "a.keras", "w") as archive:
        archive.write(path, "model.weights.h5")
    stored = read_hdf5(tmp_path / "a.keras", "model.weights.h5")
    np.testing.assert_array_equal(stored.arrays["dense/dense/kernel:0"], np.arange(6.0).reshape(2, 3))
    with pytest.raises(UserError, match=r"a\.keras: "):
        read_hdf5(tmp_path / "a.keras", "other.h5")
    with pytest.raises(FileNotFoundError):
        read_hdf5(tmp_path / "none.h5")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="not a regular file"):
        read_hdf5(tmp_path / "pipe")


def test_mutated_files_end_in_one_line(write):
    """Bytes drawn anew in the structures of a small file: damaged in any way, it is read or refused."""
    content = write().read_bytes()
    path = write()
    generator = np.random.default_rng(3)
    read = 0
    for _ in range(60):
        changed = bytearray(content)
        for place in generator.integers(0, len(content), 3):
            changed[place] = generator.integers(256)
        path.write_bytes(changed)
        try:
            for arrays in read_keras_h5(path).weights.values():
                for array in arrays.values():
                    np.asarray(array)
            read += 1
        except UserError as error:
            assert "\n" not in str(error)
    assert 0 < read < 60
