"""Inputs for `hostile.py`: small whole files of five kinds, and mutators that know how each kind is built.

A mutated file is a function of the seed: the same kind, seed and number give the same bytes.
"""

import collections
import copy
import io
import json
import pickle
import struct
import sys
import tempfile
import types
import zipfile
import zlib
from pathlib import Path

import av
import h5py
import numpy as np
import onnx
import scipy.io
from onnx import helper, numpy_helper
from PIL import Image, PngImagePlugin

from facedancer.core import records
from facedancer.core.images import encode_image
from facedancer.core.records import FaceRecord, RecordWriter

# What damages numbers in headers most: ends of ranges, signs, sizes.
_NUMBERS = (
    0,
    1,
    2,
    3,
    7,
    8,
    127,
    128,
    255,
    256,
    32767,
    65535,
    2**20,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63,
    2**64 - 1,
)
_VALUES = (
    None, True, -1, 0, 1, 3.5, 10**19, -(10**19), 10**300, 1e308, float("nan"), float("inf"), "", "x", "\0", "\ud800",
    "../../etc/passwd", "/dev/zero", "x" * 10_000, [], {}, [None], [[]], [1, 2], {"a": 1},
)  # fmt: skip


class Mutator:
    """Draws mutated files of one kind.

    Args:
        kind: a name of `KINDS`.
        seed: integer.
    """

    def __init__(self, kind, seed):
        self._seed = seed
        self._wholes, self._change = KINDS[kind]
        self._wholes = self._wholes()

    def draw(self, number):
        """Returns `(suffix or name, bytes)` of the number-th file; every hundredth is whole."""
        rng = np.random.default_rng([self._seed, number])
        names = list(self._wholes)
        name = names[rng.integers(len(names))]
        content = self._wholes[name]
        if number % 100:
            return name, self._change(rng, name, content, self._wholes)
        return name, content if isinstance(content, bytes) else write_json(name, content)


def change_bytes(rng, content, spare=()):
    """Changes a few places of bytes: drawn anew, a number of a range's end, cut, doubled, exchanged, moved, spliced."""
    content = bytearray(content)
    for _ in range(1 + rng.integers(4)):
        if not content:
            break
        # Headers come first in most files.
        place = int(rng.integers(len(content)) if rng.random() < 0.5 else min(rng.exponential(60), len(content) - 1))
        way = rng.integers(8)
        if way == 0:
            content[place] ^= 1 << int(rng.integers(8))
        elif way == 1:
            content[place] = int(rng.integers(256))
        elif way in (2, 3):
            size = int(rng.choice([1, 2, 4, 8]))
            number = _NUMBERS[rng.integers(len(_NUMBERS))] % 256**size
            content[place : place + size] = number.to_bytes(size, "little" if way == 2 else "big")
        elif way == 4:
            del content[place : place + int(rng.exponential(20)) + 1]
        elif way == 5:
            content[place:place] = content[place : place + int(rng.exponential(40)) + 1]
        elif way == 6:
            del content[max(place, 8) :]
        elif spare:
            other = spare[rng.integers(len(spare))]
            start = int(rng.integers(len(other)))
            content[place : place + 64] = other[start : start + 64]
    return bytes(content)


# ---------------------------------------------------------------------------------------------------------- pictures


def _whole_pictures():
    rng = np.random.default_rng(0)
    rough = rng.integers(0, 256, (24, 20, 3)).astype(np.uint8)
    picture, other = Image.fromarray(rough), Image.fromarray(255 - rough)
    animated = {"save_all": True, "append_images": [other]}
    ways = {
        "rgb.png": (picture, {"dpi": (72, 72)}), "gray.png": (picture.convert("L"), {}),
        "p.png": (picture.convert("P"), {}), "a.png": (picture.convert("RGBA"), {}), "s.png": (picture, animated),
        "deep.png": (Image.fromarray(rough[..., 0].astype(np.uint16) * 257), {}),
        "b.jpg": (picture, {"progressive": True}), "c.jpg": (picture, {"exif": _exif()}),
        "d.jpg": (picture.convert("CMYK"), {}), "e.webp": (picture, {}), "f.webp": (picture, {"lossless": True}),
        "u.webp": (picture, animated), "g.gif": (picture, {}), "t.gif": (picture, animated), "h.bmp": (picture, {}),
        "i.tif": (picture, {}), "j.tif": (picture, {"compression": "tiff_lzw"}),
        "k.tif": (picture, {"compression": "jpeg"}), "l.tif": (picture.convert("1"), {"compression": "group4"}),
        "m.jp2": (picture, {}), "n.ico": (picture, {}), "o.tga": (picture, {"compression": "tga_rle"}),
        "w.png": (picture, {"pnginfo": _chunks(gAMA=(100_000,), cHRM=_CHROMATICITIES)}),
        "x.png": (picture, {"pnginfo": _chunks(cICP=(0x0C0D0001,))}),
        "p.ppm": (picture, {}), "q.pcx": (picture, {}), "r.sgi": (picture, {}), "v.avif": (picture, {}),
    }  # fmt: skip
    wholes = {}
    for name, (image, options) in ways.items():
        file = io.BytesIO()
        image.save(file, Image.registered_extensions()[Path(name).suffix], **options)
        wholes[name] = file.getvalue()
    return wholes


# x and y of white, red, green and blue, times 100,000: those of Display P3.
_CHROMATICITIES = (31_270, 32_900, 68_000, 32_000, 26_500, 69_000, 15_000, 6_000)


def _chunks(**chunks):
    """Returns a PNG's chunks of 32-bit numbers."""
    info = PngImagePlugin.PngInfo()
    for name, numbers in chunks.items():
        info.add(name.encode(), struct.pack(f">{len(numbers)}I", *numbers))
    return info


def _exif():
    tags = Image.Exif()
    tags[0x112], tags[0x11A] = 6, 72.0
    return tags.tobytes()


def _change_picture(rng, name, content, wholes):
    spare = list(wholes.values())
    if name.endswith(".png") and rng.random() < 0.7:
        return _change_png(rng, content)
    if name.endswith(".jpg") and rng.random() < 0.5:
        return _change_jpeg(rng, content)
    return change_bytes(rng, content, spare)


def _change_png(rng, content):
    """Changes chunks and writes their checksums anew, so that they are believed."""
    chunks, place = [], 8
    while place + 12 <= len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        chunks.append([content[place + 4 : place + 8], content[place + 8 : place + 8 + length]])
        place += 12 + length
    for _ in range(1 + rng.integers(2)):
        index = rng.integers(len(chunks))
        way = rng.integers(5)
        if way == 0:
            chunks.insert(index, chunks[rng.integers(len(chunks))])
        elif way == 1 and len(chunks) > 1:
            del chunks[index]
        elif way == 2:
            kinds = (
                b"IHDR",
                b"PLTE",
                b"tRNS",
                b"iCCP",
                b"gAMA",
                b"acTL",
                b"fcTL",
                b"fdAT",
                b"eXIf",
                b"iTXt",
                b"zTXt",
                b"IDAT",
            )
            chunks.insert(index, [kinds[rng.integers(len(kinds))], chunks[index][1]])
        elif chunks[index][1]:
            chunks[index] = [chunks[index][0], change_bytes(rng, chunks[index][1])]
    written = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return content[:8] + b"".join(written)


def _change_jpeg(rng, content):
    """Changes the segments before the picture's data, their lengths written anew."""
    segments, place = [], 2
    while content[place] == 0xFF and content[place + 1] != 0xDA:
        length = int.from_bytes(content[place + 2 : place + 4], "big")
        segments.append([content[place + 1], content[place + 4 : place + 2 + length]])
        place += 2 + length
    index = rng.integers(len(segments))
    if rng.random() < 0.3:
        segments.insert(rng.integers(len(segments)), segments[index])
    kind, data = segments[index]
    segments[index] = [kind if rng.random() < 0.8 else int(rng.integers(0xC0, 0xF0)), change_bytes(rng, data)]
    head = b"".join(struct.pack(">BBH", 0xFF, kind, (len(data) + 2) & 0xFFFF) + data for kind, data in segments)
    return content[:2] + head + content[place:]


# ----------------------------------------------------------------------------------------------------------- records


def _face(value, suffix=".png"):
    return encode_image(np.full((16, 16, 3), value, np.uint8), suffix)


def _whole_records():
    points = np.linspace(1, 14, 10, dtype=np.float32).reshape(5, 2)
    shards = {
        "plain": [FaceRecord(_face(60 * i), f"person {i % 2}", points, f"person/{i}.png") for i in range(4)],
        "jpeg": [FaceRecord(_face(60 * i, ".jpg"), "a") for i in range(4)],
        "alone": [FaceRecord(_face(60 * i)) for i in range(3)],
        "triplets": [FaceRecord(_face(9), "a", points, "a.png", _face(70), _face(80), _face(255)) for _ in range(2)],
    }
    wholes = {}
    for name, faces in shards.items():
        file = io.BytesIO()
        for face in faces:
            RecordWriter(file).write(face)
        wholes[f"{name}.records"] = file.getvalue()
    return wholes


def _change_records(rng, name, content, wholes):
    if rng.random() < 0.2:
        return change_bytes(rng, content, list(wholes.values()))
    frames, place = [], 0
    while place < len(content):
        (length,) = struct.unpack("<Q", content[place : place + 8])
        frames.append(content[place + 12 : place + 12 + length])
        place += 16 + length
    index = rng.integers(len(frames))
    frames[index] = _change_record(rng, frames[index])
    if rng.random() < 0.2:
        frames.append(frames[rng.integers(len(frames))])
    written = []
    for data in frames:
        length = struct.pack("<Q", len(data))
        written += [length, records._masked_crc(length), data, records._masked_crc(data)]
    return b"".join(written)


def _change_record(rng, data):
    """Changes what a record holds, or how it is written, below checksums that are right."""
    way = rng.random()
    if way < 0.4:
        return change_bytes(rng, data)
    record = records.parse_record(data)
    kinds = ["face", *(name for name in ("source", "truth", "mask") if getattr(record, name) is not None)]
    field = kinds[rng.integers(len(kinds))]
    encoded = getattr(record, field)
    if way < 0.8:
        change = _change_png if encoded.startswith(b"\x89PNG") else _change_jpeg
        encoded = change(rng, encoded) if rng.random() < 0.7 else change_bytes(rng, encoded)
    else:
        encoded = (b"", b"text", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF")[rng.integers(6)]
    return records.encode_record(FaceRecord(**{**vars(record), field: encoded}))


# -------------------------------------------------------------------------------------------------------------- JSON

_POINTS = [[4.5, 5.0], [11.5, 5.0], [8.0, 8.0], [5.0, 12.0], [11.0, 12.0]]


def _whole_json():
    picture = {"file": "a/1.png", "identity": 0, "landmarks": _POINTS}
    faces = [{"file": f"{who}/{i}.png", "aligned_landmarks": _POINTS} for who in "ab" for i in (1, 2)]
    return {
        "manifest.jsonl": [{"file": "x/" + face["file"], "faces": [face]} for face in faces],
        "pairs.jsonl": [{"target": "a/1.png", "source": "b/1.png"}, {"target": "b/2.png", "source": "a/2.png"}],
        "portraits.jsonl": [picture, {**picture, "identity": 1, "file": "b/1.png"}],
        "swaps.jsonl": [{"pictures": [picture, {**picture, "identity": 1, "scene": 3, "mask": "a/2.png"}]}],
        "card.json": {
            "family": "facedancer", "image_size": 128, "embedding_dim": 128, "shrink_factor": 0.7, "step": 10,
            "identity_encoder": "dlib_resnet", "value_range": [-1.0, 1.0], "training": {"lr": 0.1}, "licence": "x",
            "files": {"a.h5": {"sha256": "00"}}, "network": {"widths": [1, 2]}, "needs": "nothing",
        },
        "settings.json": {"im_size": 16, "shrink_factor": 1.0},
        "jobs.jsonl": [{"vid_path": "a.mp4", "swap_source": ["a.jpg", "b.jpg"], "output": "b.mp4", "length": 0.5}],
        "1.json": {
            "step": 1, "config": {"family": "facedancer", "data_dir": "x", "lr": 0.1}, "data": {"shards": ["x"]},
            "files": {"gen/gen_1.h5": "00", "state/1.npz": "00"},
        },
        "best.json": {"step": 1, "score": 0.5},
        "gen.json": {"class_name": "Functional", "config": {"layers": [], "input_layers": [["a", 0, 0]]}},
        "margins.json": {"version": 1, "encoder": "tiny", "margins": {"tap0": 0.1, "tap1": 0.2}},
        "config.json": {"config": {"family": "facedancer", "preset": "lite", "lr": 0.001, "seed": 3}},
        "seen.jsonl": [
            {"frames": [{"cut": 0, "detected": 1, "landmarks": [_POINTS], "embeddings": [[1.0]], "carried": None,
                         "pts": 0}]}
        ],
    }  # fmt: skip


def write_json(name, value):
    """Returns the bytes of a value as a file of that name has them: a line each where it is of JSON lines."""
    lines = value if name.endswith(".jsonl") and isinstance(value, list) else [value]
    return "\n".join(json.dumps(line) for line in lines).encode() + b"\n"


def _change_json_file(rng, name, value, wholes):
    if rng.random() < 0.2:
        return change_bytes(rng, write_json(name, value))
    if rng.random() < 0.05:
        return (b'{"file":' if rng.random() < 0.5 else b"") + b"[" * int(rng.choice([90, 900, 100_000]))
    return write_json(name, change_json(rng, value))


def change_json(rng, value):
    """Returns a JSON value with one to three of its parts changed: other types, out of range, missing, more, nested."""
    value = json.loads(json.dumps(value))
    for _ in range(1 + rng.integers(3)):
        parents = [value]
        for parent in parents:
            items = parent.values() if isinstance(parent, dict) else parent
            parents += [item for item in items if isinstance(item, dict | list) and item]
        parent = parents[rng.integers(len(parents))]
        if not parent:
            break
        keys = list(parent) if isinstance(parent, dict) else range(len(parent))
        key, way = keys[rng.integers(len(keys))], rng.random()
        if way < 0.6:
            parent[key] = copy.deepcopy(_VALUES[rng.integers(len(_VALUES))])
        elif way < 0.75:
            del parent[key]
        elif way < 0.85 and isinstance(parent, dict):
            parent[("unknown", "", "\0", "a" * 5000)[rng.integers(4)]] = 1
        elif isinstance(parent, list):
            parent.insert(key, copy.deepcopy(parent[key]))
        else:
            nested = parent[key]
            for _ in range(int(rng.choice([1, 3, 200]))):
                nested = [nested]
            parent[key] = nested
    return value


# ----------------------------------------------------------------------------------------------------------- weights


def _whole_weights():
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


def _change_weights(rng, name, content, wholes):
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


# ------------------------------------------------------------------------------------------------------------ videos


def _whole_videos():
    with tempfile.TemporaryDirectory() as folder:
        for name, codec, options in (
            ("a.mp4", "libx264", {}), ("b.mkv", "libx264", {}), ("c.ts", "mpeg2video", {}), ("d.avi", "mpeg4", {}),
            ("e.webm", "libvpx-vp9", {}), ("f.mov", "mjpeg", {}),
            ("g.mp4", "libx264", {"movflags": "frag_keyframe+empty_moov"}),
            ("h.gif", "gif", {}), ("i.flv", "flv1", {}),
        ):  # fmt: skip
            _write_video(Path(folder, name), codec, options)
        wholes = {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}
    wholes["j.webp"] = _whole_pictures()["u.webp"]
    return wholes


def _write_video(path, codec, options):
    with av.open(str(path), "w", container_options=options) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height = 32, 24
        stream.pix_fmt = {"mjpeg": "yuvj420p", "gif": "rgb8"}.get(codec, "yuv420p")
        for number in range(8):
            picture = np.full((24, 32, 3), 30 * number, np.uint8)
            picture[:, number : number + 5] = 200
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode())


def _change_video(rng, name, content, wholes):
    way = rng.random()
    if way < 0.03:
        texts = (
            b"ffconcat version 1.0\nfile a.mp4\n",
            b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\na.ts\n",
            b"v=0\n",
        )
        return texts[rng.integers(3)]
    if way < 0.5 and name.endswith((".mp4", ".mov")):
        return _change_boxes(rng, content)
    return change_bytes(rng, content, list(wholes.values()))


def _change_boxes(rng, content):
    """Changes numbers in the boxes that say where and when frames are, or the boxes themselves."""
    kinds = (
        b"moov mvhd trak tkhd elst mdhd hdlr stsd avc1 avcC stts ctts stsc stsz stco mdat moof tfhd trun trex".split()
    )
    places = [place for kind in kinds if (place := content.find(kind)) > 0]
    content = bytearray(content)
    for _ in range(1 + rng.integers(3)):
        place = places[rng.integers(len(places))]
        offset = int(rng.choice([-4, 0, 4, 8, 12, 16, 20, 24, 28, 32]))
        number = _NUMBERS[rng.integers(len(_NUMBERS))] % 2**32
        content[place + offset : place + offset + 4] = struct.pack(">I", number)
    return bytes(content)


KINDS = {
    "pictures": (_whole_pictures, _change_picture),
    "records": (_whole_records, _change_records),
    "json": (_whole_json, _change_json_file),
    "weights": (_whole_weights, _change_weights),
    "videos": (_whole_videos, _change_video),
}
