"""State dicts are read as PyTorch wrote them, and nothing else is done with a pickle."""

import collections
import io
import os
import pickle
import struct
import sys
import types
import zipfile

import numpy as np
import pytest

from facedancer.core.console import UserError
from facedancer.core.torch_file import read_torch_module, read_torch_state_dict

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


class _Storage:
    def __init__(self, kind, key, array):
        self.kind, self.key, self.array = kind, key, array


class _Tensor:
    def __init__(self, storage, offset, shape, strides):
        self.arguments = (storage, offset, shape, strides, False, collections.OrderedDict())

    def __reduce__(self):
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.arguments


class _Evil:
    def __init__(self, function, *arguments):
        self.reduced = (function, arguments)

    def __reduce__(self):
        return self.reduced


@pytest.fixture(autouse=True)
def torch_names(monkeypatch):
    """Names for the pickler to refer to, as there is no PyTorch here."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in ("FloatStorage", "HalfStorage", "LongStorage", "QInt8Storage"):
        setattr(torch, name, type(name, (), {"__module__": "torch"}))

    def _rebuild_tensor_v2():
        """Never called: the reader must not run what a pickle names."""

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)
    return torch


def storage(array, key="7", kind="FloatStorage"):
    return _Storage(getattr(sys.modules["torch"], kind), key, array)


def tensor(array, **options):
    strides = tuple(stride // array.itemsize for stride in array.strides)
    return _Tensor(storage(array.ravel(), **options), 0, array.shape, strides)


def dump(value, storages=None, protocol=2):
    file = io.BytesIO()

    class Pickler(pickle.Pickler):
        def persistent_id(self, item):
            if isinstance(item, _Storage):
                storages[item.key] = item
                return "storage", item.kind, item.key, "cpu", item.array.size
            return None

    Pickler(file, protocol).dump(value)
    return file.getvalue()


def legacy(value, size=None):
    storages = {}
    content = dump(value, storages)
    information = {"protocol_version": PROTOCOL, "little_endian": True, "type_sizes": {"int": 4}}
    parts = [dump(MAGIC), dump(PROTOCOL), dump(information), content, dump(sorted(storages))]
    for key in sorted(storages):
        array = storages[key].array
        parts += [struct.pack("<q", array.size if size is None else size), array.tobytes()]
    return b"".join(parts)


def archive(value, protocol=2, compression=zipfile.ZIP_STORED, byteorder=b"little"):
    storages, file = {}, io.BytesIO()
    content = dump(value, storages, protocol)
    with zipfile.ZipFile(file, "w", compression) as opened:
        opened.writestr("model/data.pkl", content)
        opened.writestr("model/byteorder", byteorder)
        for key, item in storages.items():
            opened.writestr(f"model/data/{key}", item.array.tobytes())
    return file.getvalue()


def example():
    generator = np.random.default_rng(0)
    shared = generator.normal(size=24).astype(np.float32)
    kernel = _Tensor(storage(shared, "0"), 4, (2, 3), (3, 1))
    transposed = _Tensor(storage(shared, "0"), 0, (4, 3), (1, 4))
    half = tensor(generator.normal(size=(2, 2)).astype(np.float16), key="1", kind="HalfStorage")
    scalar = tensor(np.array(5, np.int64), key="2", kind="LongStorage")
    state = collections.OrderedDict(kernel=kernel, transposed=transposed, half=half, scalar=scalar)
    state._metadata = collections.OrderedDict([("", {"version": 1})])
    expected = {
        "kernel": shared[4:10].reshape(2, 3),
        "transposed": shared[:12].reshape(3, 4).T,
        "half": half.arguments[0].array.reshape(2, 2),
        "scalar": np.array(5),
    }
    return state, expected


@pytest.mark.parametrize("write", [legacy, archive, lambda value: archive(value, protocol=4)])
def test_reads_what_was_written(write, tmp_path):
    state, expected = example()
    path = tmp_path / "model.pth"
    path.write_bytes(write(state))
    for source in (path, path.read_bytes()):
        found = read_torch_state_dict(source)
        assert list(found) == list(expected)
        for name, array in expected.items():
            assert found[name].dtype == array.dtype
            np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("write", [legacy, archive])
@pytest.mark.parametrize("protocol", [2, 4])
def test_runs_nothing(write, protocol, tmp_path):
    target = tmp_path / "touched"
    evils = [
        _Evil(os.mkdir, str(target)),
        {"kernel": _Evil(os.mkdir, str(target))},
        _Evil(eval, f"__import__('os').mkdir({str(target)!r})"),
    ]
    for evil in evils:
        content = write(evil) if write is legacy else write(evil, protocol)
        with pytest.raises(UserError, match="refused, it asks for"):
            read_torch_state_dict(content)
    assert not target.exists()


def test_an_entry_of_a_checkpoint_whose_keys_are_classes_and_numbers():
    state, expected = example()
    moments = {0: {"exp_avg": tensor(np.ones(2, np.float32), key="3")}}
    checkpoint = {"callbacks": {collections.deque: {"monitor": None}}, "state_dict": state, "optimizer": moments}
    for write in (legacy, archive):
        found = read_torch_state_dict(write(checkpoint), "state_dict")
        assert list(found) == list(expected)
        np.testing.assert_array_equal(found["kernel"], expected["kernel"])
        with pytest.raises(UserError, match="holds no net_recon"):
            read_torch_state_dict(write(checkpoint), "net_recon")


def test_a_checkpoint_runs_nothing(tmp_path):
    target = tmp_path / "touched"
    for evil in (_Evil(os.mkdir, str(target)), _Evil(eval, f"__import__('os').mkdir({str(target)!r})")):
        for write in (legacy, archive):
            with pytest.raises(UserError, match="refused, it calls"):
                read_torch_state_dict(write({"state_dict": {}, "callbacks": evil}), "state_dict")
    assert not target.exists()


def test_refuses_instructions_that_import_or_build():
    for program in (b"ios\nmkdir\n(S'x'\no.", b"(cos\nmkdir\nS'x'\no.", b"\x80\x02\x82\x01."):
        with pytest.raises(UserError):
            read_torch_state_dict(dump(MAGIC) + dump(PROTOCOL) + dump({"little_endian": True}) + program)


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (5,), (1,)),
        (3, (2,), (1,)),
        (0, (2, 2), (3, 1)),
        (-1, (2,), (1,)),
        (0, (2,), (-1,)),
        (0, (2**40,), (0,)),
        (0, (2, 2), (1,)),
        ("0", (2,), (1,)),
    ],
)
def test_refuses_views_beyond_their_storage(offset, shape, strides):
    view = _Tensor(storage(np.arange(4, dtype=np.float32)), offset, shape, strides)
    for write in (legacy, archive):
        with pytest.raises(UserError, match="not a whole PyTorch state dict"):
            read_torch_state_dict(write({"kernel": view}))


def test_refuses_other_content():
    four = np.arange(4, dtype=np.float32)
    for value in ([1, 2], {"epoch": 3}, {"nested": {"kernel": tensor(four)}}, {"q": tensor(four, kind="QInt8Storage")}):
        with pytest.raises(UserError, match="refused"):
            read_torch_state_dict(archive(value))
    state = {"kernel": tensor(four)}
    with pytest.raises(UserError, match="compressed"):
        read_torch_state_dict(archive(state, compression=zipfile.ZIP_DEFLATED))
    with pytest.raises(UserError, match="big-endian"):
        read_torch_state_dict(archive(state, byteorder=b"big"))
    with pytest.raises(UserError, match="elements instead of"):
        read_torch_state_dict(legacy(state, size=3))
    with pytest.raises(UserError, match="left over"):
        read_torch_state_dict(legacy(state) + b"x")


def test_refuses_every_truncation(tmp_path):
    content = legacy(example()[0])
    for length in range(0, len(content), 7):
        with pytest.raises(UserError):
            read_torch_state_dict(content[:length])
    whole = archive(example()[0])
    for length in range(0, len(whole), 41):
        with pytest.raises(UserError):
            read_torch_state_dict(whole[:length])
    with pytest.raises(UserError, match=r"absent\.pth"):
        read_torch_state_dict(tmp_path / "absent.pth")
    with pytest.raises(UserError):
        read_torch_state_dict(b"<html><body>404</body></html>")


@pytest.mark.parametrize("reduced", [(os.mkdir, "made"), (exec, "import os; os.mkdir('made')")])
def test_a_module_runs_nothing(tmp_path, monkeypatch, reduced):
    """Names of classes are kept as words; one that is called is refused."""
    monkeypatch.chdir(tmp_path)
    evil = pickle.dumps({"_parameters": _Evil(*reduced)}, protocol=2)
    with zipfile.ZipFile("x.tar", "w") as archive:
        archive.writestr("x/data.pkl", evil)
    with pytest.raises(UserError, match="refused, it calls"):
        read_torch_module("x.tar")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "program",
    [
        b"}" + b"(" + b")" + b"\x85" * 200_000 + b"K\x01u.",  # a key of tuples in tuples, which hashing would walk down
        b"}" + b")" + b"\x85" * 200_000 + b"K\x01s.",
        b")" + b"\x85" * 200_000 + b"Q.",  # the same as what a storage is called
        b"(" * 200_000 + b".",
    ],
)
def test_values_nested_without_end_are_one_line(program):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + program)
    with pytest.raises(UserError) as caught:
        read_torch_state_dict(file.getvalue())
    assert len(str(caught.value)) < 200
