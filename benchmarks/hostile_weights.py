"""Weight files for `hostile_inputs.py`: small whole ones, and what changes each format where it is read."""

import collections
import io
import json
import pickle
import struct
import sys
import tempfile
import types
import zipfile
from pathlib import Path

import h5py
import numpy as np
import onnx
import scipy.io
from hostile_changes import change_bytes, change_json
from onnx import helper, numpy_helper


def whole_weights():
    """Returns `{name: bytes}` of small whole files of weights, embeddings and directions."""
    from facedancer.core.keras_h5 import save_keras_h5
    from facedancer.models.facedancer import Config, build_generator
    from facedancer.models.keras2 import save_keras2_h5

    shapes = {"mapping_depth": 1, "mapping_size": 5, "widths": (4, 6), "up_types": ("no_skip", "affa")}
    network = build_generator(Config(image_size=16, embedding_dim=6, discriminator_widths=(4, 4), **shapes))
    with tempfile.TemporaryDirectory() as folder:
        save_keras_h5(network, Path(folder, "ours.h5"))
        save_keras_h5(network, Path(folder, "half.h5"), half=True)
        save_keras2_h5(network, Path(folder, "keras2.h5"))
        network.save(Path(folder, "ours.keras"))
        wholes = {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}
    return {**wholes, "encoder.onnx": _iresnet(), "network.onnx": _one_convolution(), **_torch_files(), **_arrays()}


def _arrays():
    """A saved source, a direction, and a basis of faces."""
    source, direction, basis = io.BytesIO(), io.BytesIO(), io.BytesIO()
    numbers = np.arange(1.0, 7.0, dtype=np.float32)
    np.savez(source, embedding=numbers, face=np.zeros((4, 4, 3), np.uint8), encoder="encoder")
    np.save(direction, numbers)
    scipy.io.savemat(basis, {"mean": numbers})
    return {"source.npz": source.getvalue(), "direction.npy": direction.getvalue(), "basis.mat": basis.getvalue()}


def _iresnet(units=(1, 1, 1, 1), widths=(2, 2, 3, 3), dim=4):
    """An encoder of InsightFace's kind as PyTorch exports it, folded."""
    rng, nodes, arrays = np.random.default_rng(0), [], []

    def constant(*shape):
        arrays.append(numpy_helper.from_array(rng.uniform(0.1, 0.5, shape).astype(np.float32), f"weight_{len(arrays)}"))
        return arrays[-1].name

    def node(kind, *inputs, **attributes):
        nodes.append(helper.make_node(kind, inputs, [f"x{len(nodes)}"], name=f"{kind}_{len(nodes)}", **attributes))
        return nodes[-1].output[0]

    def convolution(x, before, width, size, stride):
        settings = {"kernel_shape": [size] * 2, "strides": [stride] * 2, "pads": [size // 2] * 4, "group": 1}
        return node("Conv", x, constant(width, before, size, size), constant(width), dilations=[1, 1], **settings)

    def normalized(x, width):
        return node("BatchNormalization", x, *(constant(width) for _ in range(4)), epsilon=2e-5)

    def prelu(x, width):
        return node("PRelu", x, constant(width, 1, 1))

    width = widths[0]
    x = prelu(convolution("picture", 3, width, 3, 1), width)
    for count, following in zip(units, widths, strict=True):
        for unit in range(count):
            stride = 1 if unit else 2
            y = prelu(convolution(normalized(x, width), width, following, 3, 1), following)
            y = convolution(y, following, following, 3, stride)
            x, width = node("Add", y, x if unit else convolution(x, width, following, 1, 2)), following
    x = node("Gemm", node("Flatten", normalized(x, width), axis=1), constant(dim, width * 49), constant(dim), transB=1)
    return _onnx_model(nodes, arrays, normalized(x, dim), 112)


def _one_convolution():
    kernel = numpy_helper.from_array(np.ones((3, 3, 1, 1), np.float32), "kernel")
    return _onnx_model([helper.make_node("Conv", ["picture", "kernel"], ["out"])], [kernel], "out", 32)


def _onnx_model(nodes, arrays, output, side):
    ends = [("picture", ["n", 3, side, side]), (output, None)]
    given, made = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in ends)
    graph = helper.make_graph(nodes, "network", [given], [made], arrays)
    opset = [helper.make_opsetid("", 13)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()


class _TorchTensor:
    def __init__(self, key, array):
        self.key, self.array = key, array

    def __reduce__(self):
        strides = tuple(step // self.array.itemsize for step in self.array.strides)
        storage = _TorchStorage(self)
        return sys.modules["torch._utils"]._rebuild_tensor_v2, (
            storage,
            0,
            self.array.shape,
            strides,
            False,
            collections.OrderedDict(),
        )


class _TorchStorage:
    def __init__(self, tensor):
        self.tensor = tensor


def _torch_files():
    """State dicts as PyTorch writes them, the archive and the stream before it; there is no PyTorch here."""
    tensors = {
        f"layer.{i}.weight": _TorchTensor(str(i), np.arange(6.0, dtype=np.float32).reshape(2, 3)) for i in range(3)
    }
    archive, entries, stream = io.BytesIO(), _pickled(collections.OrderedDict(tensors)), io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("archive/data.pkl", entries)
        for tensor in tensors.values():
            opened.writestr(f"archive/data/{tensor.key}", tensor.array.tobytes())
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}
    for value in (0x1950A86A20F9469CFC6C, 1001, system):
        pickle.dump(value, stream, 2)
    stream.write(entries)
    pickle.dump([tensor.key for tensor in tensors.values()], stream, 2)
    for tensor in tensors.values():
        stream.write(struct.pack("<q", tensor.array.size) + tensor.array.tobytes())
    return {"archive.pth": archive.getvalue(), "stream.pth": stream.getvalue()}


def _pickled(value):
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    torch.FloatStorage = type("FloatStorage", (), {"__module__": "torch"})
    utils._rebuild_tensor_v2 = types.FunctionType((lambda: None).__code__, {}, "_rebuild_tensor_v2")
    utils._rebuild_tensor_v2.__module__ = "torch._utils"
    utils._rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    file = io.BytesIO()

    class Pickler(pickle.Pickler):
        def persistent_id(self, item):
            if isinstance(item, _TorchStorage):
                return "storage", torch.FloatStorage, item.tensor.key, "cpu", item.tensor.array.size
            return None

    before = {name: sys.modules.get(name) for name in ("torch", "torch._utils")}
    sys.modules.update({"torch": torch, "torch._utils": utils})
    try:
        Pickler(file, 2).dump(value)
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
    return file.getvalue()


def change_weights(rng, name, content, wholes):
    """Returns a changed file; see `hostile_inputs.Mutator`."""
    changes = {
        ".h5": _change_h5, ".keras": _change_keras, ".onnx": _change_onnx, ".pth": _change_torch, ".npz": _change_npz,
        ".npy": _change_npy,
    }  # fmt: skip
    change = changes.get(Path(name).suffix, change_bytes)
    if rng.random() < 0.4:
        return change_bytes(rng, content, list(wholes.values()))
    return change(rng, content)


def _change_h5(rng, content):
    file = io.BytesIO(content)
    with h5py.File(file, "r+") as opened:
        items = []
        opened.visititems(lambda path, item: items.append(path))
        arrays = [path for path in items if isinstance(opened[path], h5py.Dataset)]
        path, way = arrays[rng.integers(len(arrays))], rng.integers(9)
        if way < 3 and "model_config" in opened.attrs:
            opened.attrs["model_config"] = json.dumps(change_json(rng, json.loads(opened.attrs["model_config"])))
        elif way == 3:
            del opened[items[rng.integers(len(items))]]
        elif way == 4:
            data = opened[path][()]
            del opened[path]
            others = (
                data.T,
                data.astype("S4"),
                data.astype(np.float64),
                data[..., None],
                data.reshape(-1)[:1],
                h5py.Empty("f"),
            )
            opened[path] = others[rng.integers(len(others))]
        elif way == 5:
            shape = tuple(int(rng.choice([1, 10, 10**4, 10**7])) for _ in range(int(rng.integers(1, 4))))
            del opened[path]
            opened.create_dataset(path, shape, "f4", chunks=True, compression="gzip")
        elif way == 6:
            del opened[path]
            opened[path] = (h5py.SoftLink("/model_weights"), h5py.ExternalLink("other.h5", "/x"))[rng.integers(2)]
        elif way == 7:
            del opened[path]
            opened.create_dataset(path, (4,), "f4", external=[("/etc/hostname", 0, 16)])
        else:
            group = opened[path].parent
            group.attrs[("weight_names", "layer_names")[rng.integers(2)]] = (["x"], 3.0, "text", [1, 2])[
                rng.integers(4)
            ]
    return file.getvalue()


def _change_keras(rng, content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    name, way = list(entries)[rng.integers(len(entries))], rng.random()
    if way < 0.4:
        entries["config.json"] = json.dumps(change_json(rng, json.loads(entries["config.json"]))).encode()
    elif way < 0.7:
        entries["model.weights.h5"] = _change_h5(rng, entries["model.weights.h5"])
    elif way < 0.85:
        entries[name] = change_bytes(rng, entries[name])
    else:
        del entries[name]
    file, kind = io.BytesIO(), zipfile.ZIP_DEFLATED if rng.random() < 0.1 else zipfile.ZIP_STORED
    with zipfile.ZipFile(file, "w", kind) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return file.getvalue()


def _change_onnx(rng, content):
    model = onnx.load_from_string(content)
    graph = model.graph
    node, tensor = graph.node[rng.integers(len(graph.node))], graph.initializer[rng.integers(len(graph.initializer))]
    other, way = graph.node[rng.integers(len(graph.node))], rng.integers(11)
    if way == 0:
        del node.input[int(rng.integers(len(node.input))) :]
    elif way == 1:
        del node.output[:]
    elif way == 2:
        node.input[rng.integers(len(node.input))] = other.output[0] if other.output else ""
    elif way == 3:
        graph.node.remove(node)
    elif way == 4:
        graph.node.append(node)
    elif way == 5:
        tensor.data_type = int(rng.integers(0, 24))
    elif way == 6:
        tensor.dims[rng.integers(len(tensor.dims))] = int(rng.choice([0, -1, 3, 1000, 2**40]))
    elif way == 7:
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=("/etc/hostname", "weights.bin", "")[rng.integers(3)])
    elif way == 8:
        node.op_type = ("Identity", "Dropout", "Constant", "Relu", "Loop", "", "Conv")[rng.integers(7)]
    elif way == 9 and node.attribute:
        attribute = node.attribute[rng.integers(len(node.attribute))]
        attribute.type = int(rng.integers(0, 15))
        attribute.i = int(rng.choice([0, -1, 2**40]))
    else:
        tensor.raw_data = change_bytes(rng, tensor.raw_data)
    return model.SerializeToString()


def _change_npy(rng, content):
    """Gives an array another header of the same length, as far as it has room: what `np.load` believes."""
    end = 10 + int.from_bytes(content[8:10], "little")
    shapes = ("(6,)", "(10**10,)", "(99999999999,)", "(-6,)", "(6, 1)", "()", "6", "(2, 3)", "(6.0,)", "(True,)", "'x'")
    dtypes = ("<f4", "<f8", "|O", "<U9", "|u1", "V4000000000", ">f4", "?", "<M8[s]", "", "f4,f4", "(2,)f4")
    header = (
        f"{{'descr': {dtypes[rng.integers(len(dtypes))]!r}, 'fortran_order': {bool(rng.integers(2))}, 'shape':"
        f" {shapes[rng.integers(len(shapes))]}}}"
    ).encode()
    header = header[: end - 11].ljust(end - 11) + b"\n"
    content = content[:10] + header + content[end:]
    return content if rng.random() < 0.7 else change_bytes(rng, content)


def _change_npz(rng, content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    name, way = list(entries)[rng.integers(len(entries))], rng.random()
    if way < 0.6:
        entries[name] = _change_npy(rng, entries[name])
    elif way < 0.7:
        del entries[name]
    elif way < 0.75:  # a bomb: a hundred million zeros, packed
        file = io.BytesIO()
        np.save(file, np.zeros(10**8, np.uint8))
        entries[name] = file.getvalue()
    else:
        entries[name] = change_bytes(rng, entries[name])
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return file.getvalue()


def _change_torch(rng, content):
    if not content.startswith(b"PK"):
        return change_bytes(rng, content)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    name = "archive/data.pkl" if rng.random() < 0.8 else list(entries)[rng.integers(len(entries))]
    entries[name] = change_bytes(rng, entries[name])
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return file.getvalue()
