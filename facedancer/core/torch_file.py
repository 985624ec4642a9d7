"""PyTorch state dicts read as plain data, without PyTorch and without unpickling.

A `.pth` file is a pickle, and a pickle is a program. Here the few instructions that a state dict needs are carried
out by a small interpreter of our own, which can make ordered dicts and descriptions of tensors and nothing else: any
other name or instruction is refused before anything happens. Both formats are read: the archive of PyTorch 1.6 and
later, and the stream of pickles before it.

Some files hold a whole module. Then the names of its classes are kept as words: a module becomes a plain dictionary of
what it would have been given, no class is looked for, and nothing is called. A checkpoint, of which one entry is read,
may have classes and numbers among its keys; the classes are kept as words likewise.
"""

import io
import math
import pickletools
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facedancer.core.console import UserError

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_DTYPES = {
    "torch DoubleStorage": "<f8",
    "torch FloatStorage": "<f4",
    "torch HalfStorage": "<f2",
    "torch LongStorage": "<i8",
    "torch IntStorage": "<i4",
    "torch ShortStorage": "<i2",
    "torch CharStorage": "i1",
    "torch ByteStorage": "u1",
    "torch BoolStorage": "?",
}
_ORDERED_DICT = "collections OrderedDict"
_PARAMETER = "torch._utils _rebuild_parameter"
_SETS = ("__builtin__ set", "builtins set")
_TENSORS = ("torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_tensor")


@dataclass(frozen=True)
class _Name:
    """A name of the list above, where the pickle would import an object."""

    text: str


@dataclass(frozen=True)
class _Storage:
    dtype: np.dtype
    key: str
    size: int


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple
    strides: tuple


class _Module(dict):
    """What a module would have been given: `_parameters`, `_buffers`, `_modules`, and others."""


class _Refused(Exception):
    """The file asks for something that no state dict needs."""


def read_torch_state_dict(file, entry=None):
    """Reads a state dict.

    Args:
        file: a path, or the file's content as bytes.
        entry: where the file holds a dict of several things, the name of the state dict among them.

    Returns:
        name -> numpy array, in the file's order; an array may be read-only.

    Raises:
        UserError: if the file is absent, damaged, no state dict, or holds anything but tensors.
    """
    return _read(file, dict, lambda values: values, entry)


def read_torch_module(file):
    """Reads the state dict of a module that was saved whole; as `read_torch_state_dict`."""
    return _read(file, _Module, _state_of)


def _read(file, kind, state_of, entry=None):
    if isinstance(file, bytes):
        name, content = "the PyTorch file", file
    else:
        name = str(file)
        try:
            content = Path(file).read_bytes()
        except OSError as error:
            raise UserError(f"{name}: {error.strerror}") from None
    try:
        read = _read_archive if content[:4] == b"PK\x03\x04" else _read_stream
        values, storages = read(content, kind is _Module, entry is not None)
        if entry is not None and type(values) is dict:
            if entry not in values:
                raise _Refused(f"holds no {entry}")
            values = values[entry]
        if type(values) is not kind:
            what = "a state dict" if kind is dict else "a module"
            raise _Refused(f"holds a {type(values).__name__.strip('_').lower()} instead of {what}")
        return {key: _array(key, value, storages) for key, value in state_of(values).items()}
    except _Refused as error:
        raise UserError(f"{name}: refused, {error}") from None
    except (
        ValueError, IndexError, KeyError, TypeError, AttributeError, RuntimeError, EOFError, struct.error,
        zipfile.BadZipFile,
    ) as error:  # fmt: skip
        # All that a damaged pickle or archive can raise in the code below.
        raise UserError(f"{name}: not a whole PyTorch state dict ({error})") from None


def _state_of(module, prefix=""):
    """The tensors of a module and of those within it, named as PyTorch names them."""
    own = {**module["_parameters"], **module["_buffers"]}
    state = {prefix + name: tensor for name, tensor in own.items() if tensor is not None}
    for name, inner in module["_modules"].items():
        if inner is not None:
            state |= _state_of(_expect(inner, _Module), f"{prefix}{name}.")
    return state


def _read_archive(content, has_modules, keeps_names):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise _Refused("its entries are compressed, as PyTorch never does")
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError("no data.pkl")
        folder = pickles[0].removesuffix("data.pkl")
        order = f"{folder}byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            raise _Refused("its numbers are big-endian")
        storages = _Storages()
        values = _run(io.BytesIO(archive.read(pickles[0])), storages, has_modules, keeps_names)
        for key, storage in storages.described.items():
            storages.fill(storage, archive.read(f"{folder}data/{key}"))
    return values, storages


def _read_stream(content, has_modules, keeps_names):
    stream = io.BytesIO(content)
    storages = _Storages()
    if _run(stream, storages) != _LEGACY_MAGIC or _run(stream, storages) != _LEGACY_PROTOCOL:
        raise ValueError("wrong magic number")
    if not _run(stream, storages)["little_endian"]:
        raise _Refused("its numbers are big-endian")
    values = _run(stream, storages, has_modules, keeps_names)
    for key in _run(stream, storages):
        storage = storages.described[key]
        (size,) = struct.unpack("<q", stream.read(8))
        if size != storage.size:
            raise ValueError(f"storage {key} has {size} elements instead of {storage.size}")
        storages.fill(storage, stream.read(size * storage.dtype.itemsize))
    if stream.read(1):
        raise ValueError("bytes left over")
    return values, storages


class _Storages:
    """The flat arrays that tensors are views of."""

    def __init__(self):
        self.described = {}
        self.arrays = {}

    def describe(self, identifier):
        """What the pickle calls a persistent object: ("storage", type, key, device, size[, view])."""
        if identifier[0] == "module":  # a class, with its source text, of which the name is left
            return _expect(identifier[1], _Name)
        kind, dtype, key, _, size, *view = identifier
        if kind != "storage" or not isinstance(dtype, _Name) or dtype.text not in _DTYPES or view not in ([], [None]):
            raise _Refused("it refers to what is no storage of numbers")
        storage = _Storage(np.dtype(_DTYPES[dtype.text]), _expect(key, str), _expect(size, int))
        if self.described.setdefault(key, storage) != storage:
            raise ValueError(f"storage {key} is described twice")
        return storage

    def fill(self, storage, content):
        if len(content) != storage.size * storage.dtype.itemsize:
            raise ValueError(f"storage {storage.key} is truncated")
        self.arrays[storage.key] = np.frombuffer(content, storage.dtype)


def _array(key, value, storages):
    if not isinstance(value, _Tensor):
        raise _Refused(f"{key} is a {type(value).__name__} instead of a tensor")
    flat = storages.arrays[value.storage.key]
    if len(value.shape) != len(value.strides) or min((*value.shape, *value.strides, value.offset), default=0) < 0:
        raise ValueError(f"{key} has the shape {value.shape} with the strides {value.strides}")
    last = value.offset + sum((n - 1) * step for n, step in zip(value.shape, value.strides, strict=True))
    if 0 not in value.shape and (last >= flat.size or math.prod(value.shape) > flat.size):
        raise ValueError(f"{key} reaches beyond its storage")
    steps = [step * flat.itemsize for step in value.strides]
    return np.lib.stride_tricks.as_strided(flat[value.offset :], value.shape, steps, writeable=False)


def _run(stream, storages, has_modules=False, keeps_names=False):
    """Carries out one pickle's instructions and returns its value. The stream then stands behind it.

    With `has_modules` an unknown name is kept, and what is made of it is a `_Module`; with `keeps_names` it is kept.
    """
    keeps_names = keeps_names or has_modules
    stack, marks, memo = [], [], {}

    def pop_to_mark():
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    for opcode, argument, _ in pickletools.genops(stream):
        match opcode.name:
            case "PROTO" | "FRAME" | "STOP":
                continue
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode.name == "NEWTRUE")
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE" | "SHORT_BINUNICODE":
                stack.append(argument)
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "MARK":
                marks.append(len(stack))
            case "TUPLE":
                stack.append(tuple(pop_to_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(opcode.name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "APPEND":
                item = stack.pop()
                _expect(stack[-1], list).append(item)
            case "APPENDS":
                items = pop_to_mark()
                _expect(stack[-1], list).extend(items)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _expect(stack[-1], dict)[_key(key)] = value
            case "SETITEMS":
                items = pop_to_mark()
                keys = [_key(key) for key in items[::2]]
                _expect(stack[-1], dict).update(zip(keys, items[1::2], strict=True))
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(_name(argument, keeps_names))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(_name(f"{module} {name}", keeps_names))
            case "BINPERSID":
                stack.append(storages.describe(stack.pop()))
            case "REDUCE":
                arguments, called = stack.pop(), stack.pop()
                stack.append(_call(_expect(called, _Name).text, arguments))
            case "NEWOBJ" if has_modules:
                stack.pop()
                _expect(stack.pop(), _Name)
                stack.append(_Module())
            case "BUILD":
                attributes = stack.pop()
                if isinstance(stack[-1], _Module):
                    stack[-1].update(_expect(attributes, dict))
                _expect(stack[-1], dict)  # a state dict's attributes are the versions of its modules
            case _:
                raise _Refused(f"it contains the instruction {opcode.name}")
    (value,) = stack
    return value


def _expect(value, kind):
    if not isinstance(value, kind):
        raise ValueError(f"a {type(value).__name__} in the place of a {kind.__name__.strip('_').lower()}")
    return value


def _key(value):
    """No other keys than words and numbers: tuples in tuples without end would be hashed without end."""
    return value if isinstance(value, int | _Name) else _expect(value, str)


def _name(text, keeps_names):
    if keeps_names:
        return _Name(text)
    if text != _ORDERED_DICT and text not in _TENSORS and text not in _DTYPES:
        raise _Refused(f"it asks for {text.replace(' ', '.')}")
    return _Name(text)


def _call(name, arguments):
    if name == _ORDERED_DICT:
        (pairs,) = arguments or ((),)
        return {_expect(key, str): value for key, value in pairs}
    if name in _TENSORS:
        storage, offset, shape, strides, *_ = arguments
        return _Tensor(_expect(storage, _Storage), offset, shape, strides)
    if name == _PARAMETER:
        return _expect(arguments[0], _Tensor)
    if name in _SETS:
        return set(*arguments)
    raise _Refused(f"it calls {name}")
