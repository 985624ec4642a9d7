"""Reads ReSwapper's `.pth` files; reads and writes `.onnx` files in the format of InsightFace's `INSwapper`.

Both are read into our generator, which can then swap, be trained further or teach like any other. Nothing is unpickled.
Exporters name an `.onnx` file's tensors freely and express normalization in many ways. So the reader follows the
convolutions from the input on, evaluates everything between two of them on a few random numbers, and compares the
result with what our layers would return. A file either computes what we expect or is refused.
"""

import re
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from facedancer.core.console import UserError
from facedancer.core.files import atomic_path
from facedancer.core.torch_file import read_torch_state_dict
from facedancer.core.weights_to_come import weights_to_come
from facedancer.models.reswapper import NORM_EPSILON, Config, build_generator, inswapper_crop_of

# Early versions of ReSwapper saved an encoder that was never used.
UNUSED = {f"latent_encoder.{index}.{leaf}" for index in (0, 2, 4, 6, 9) for leaf in ("weight", "bias")}
# Our layers' names -> the original modules'; `_names` adds the style blocks.
_ENCODER = {f"encoder_conv{index}": f"target_encoder.{2 * index}" for index in range(4)}
_DECODER = {
    "decoder_conv0": "decoder.0",
    "decoder_conv1": "decoderPart1.0",
    "decoder_conv2": "decoderPart1.2",
    "decoder_conv3": "decoderPart2.0",
}
_IR_VERSION, _OPSET = 6, 11  # InsightFace's own


def read_pth(path):
    """Reads a `.pth` of ReSwapper: `reswapper-1019500.pth` or, for 256 pixels, `reswapper_256-1567500.pth`.

    It lacks the matrix `emap`, which is read from `emap.npy` next to it, or else from `inswapper_128.onnx`.

    Returns:
        The network of `reswapper.build_generator`, with its `Config` as attribute `shapes`.

    Raises:
        UserError: if the file or `emap` is missing, damaged or does not fit.
    """
    path = Path(path)
    tensors = {name: array for name, array in read_torch_state_dict(path).items() if name not in UNUSED}
    size = re.match(r"reswapper_(\d+)-", path.name)
    return _generator(path, tensors, _read_emap(path), int(size[1]) if size else 128)


def read_onnx(path):
    """Reads an inswapper `.onnx`, whose last initializer is `emap`; if it is not, `emap` is read as for a `.pth`.

    If the file leaves the image size open, it is 128. Result and errors are those of `read_pth`.
    """
    model = _read_model(path)
    try:
        walk = _Walk(model)
    except _Mismatch as error:
        raise UserError(f"{path}: not an inswapper network: {error}") from None
    *others, last = model.graph.initializer
    emap = _read_emap(Path(path)) if last.name in walk.used else numpy_helper.to_array(last).astype(np.float32)
    if left_over := [tensor.name for tensor in others if tensor.name not in walk.used and len(tensor.dims) > 1]:
        raise UserError(f"{path}: has {left_over[0]}, which belongs to no layer")
    return _generator(path, walk.tensors, emap, walk.size)


def write_onnx(swapper, path):
    """Writes a generator in the format of `INSwapper`, atomically.

    Inputs are `target` (1, 3, S, S) RGB in [0, 1] and `source` (1, dim), the projected embedding; the output is named
    `output`, (1, 3, S, S) RGB in [0, 1]. The last initializer is `emap`, from which `INSwapper` computes the projected
    embedding.

    Args:
        swapper: network from `reswapper.build_generator`.
        path: the file to write.
    """
    tensors = torch_tensors(swapper)
    size, dim = swapper.get_layer("target_unit").input.shape[1], swapper.input_shape[1][1]
    emap = swapper.get_layer("projected_embedding").get_weights()[0]
    model = helper.make_model(
        helper.make_graph(
            _nodes(sum(name.endswith("conv1.weight") for name in tensors)),
            "inswapper",
            [_end("target", (1, 3, size, size)), _end("source", (1, dim))],
            [_end("output", (1, 3, size, size))],
            [numpy_helper.from_array(array, name) for name, array in {**tensors, "emap": emap}.items()],
        ),
        ir_version=_IR_VERSION,
        opset_imports=[helper.make_opsetid("", _OPSET)],
        producer_name="facedancer",
    )
    onnx.checker.check_model(model)
    with atomic_path(path) as temporary:
        onnx.save(model, temporary)


def torch_tensors(swapper):
    """Returns `{original name: array}` of a generator's weights, in the originals' layout and order."""
    tensors = {}
    for layer_name, name in _names(_count_blocks(swapper)).items():
        layer = swapper.get_layer(layer_name)
        if "adain" in layer_name:
            scale, scale_bias, offset, offset_bias = layer.get_weights()
            tensors[f"{name}.weight"] = np.concatenate([scale.T, offset.T])
            tensors[f"{name}.bias"] = np.concatenate([scale_bias + np.float32(layer.base), offset_bias])
        else:
            kernel, bias = layer.get_weights()
            tensors[f"{name}.weight"] = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
            tensors[f"{name}.bias"] = bias
    return tensors


def give_tensors(swapper, tensors):
    """Sets a generator's weights from arrays as `torch_tensors` returns them."""
    for layer_name, name in _names(_count_blocks(swapper)).items():
        weight, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
        if "adain" in layer_name:
            scale, offset = np.split(weight, 2)
            scale_bias, offset_bias = np.split(bias, 2)
            layer = swapper.get_layer(layer_name)
            arrays = [scale.T, scale_bias - np.float32(layer.base), offset.T, offset_bias]
        else:
            arrays = [weight.transpose(2, 3, 1, 0), bias]
        swapper.get_layer(layer_name).set_weights(arrays)


def _count_blocks(swapper):
    return sum(layer.name.endswith("_adain0") for layer in swapper.layers)


def _names(blocks):
    """Returns `{our layer's name: the original module's}`, in the original's order."""
    styles = {}
    for block in range(blocks):
        for kind, theirs in (("conv", "conv"), ("adain", "style")):
            for index in range(2):
                styles[f"block{block}_{kind}{index}"] = f"style_blocks.{block}.{theirs}{index + 1}"
    return {**_ENCODER, **styles, **_DECODER}


@weights_to_come()
def _generator(path, tensors, emap, size):
    """Builds the generator for a crop of `size` pixels from an original's tensors, all of which must exist and fit."""

    def shape_of(name, dimensions):
        if name not in tensors:
            raise UserError(f"{path}: lacks {name}; not a network of ReSwapper")
        if tensors[name].ndim != dimensions:
            raise UserError(f"{path}: {name} has the shape {tensors[name].shape}, expected {dimensions} dimensions")
        return tensors[name].shape

    blocks = {name.split(".")[1] for name in tensors if name.startswith("style_blocks.")}
    crop = inswapper_crop_of(143 * size // 128 + 1) if size % 128 == 0 else None
    config = Config(
        image_size=crop.image_size if crop else size,
        embedding_dim=shape_of("style_blocks.0.style1.weight", 2)[1],
        inswapper_crop=crop is not None,
        widths=tuple(shape_of(f"{name}.weight", 4)[0] for name in _ENCODER.values()),
        blocks=len(blocks),
    )
    generator = build_generator(config)
    generator.shapes = config
    wanted = torch_tensors(generator)
    for what, names in (("lacks", wanted.keys() - tensors), ("has unknown", tensors.keys() - wanted)):
        if names:
            raise UserError(f"{path}: {what} {min(names)}; expected a network of ReSwapper")
    for name, array in wanted.items():
        if array.shape != tensors[name].shape:
            raise UserError(f"{path}: {name} has the shape {tensors[name].shape}, expected {array.shape}")
    dim = config.embedding_dim
    if emap.shape != (dim, dim):
        raise UserError(f"{path}: its emap has the shape {emap.shape}, expected {(dim, dim)}")
    generator.get_layer("projected_embedding").set_weights([emap])
    give_tensors(generator, tensors)
    return generator


def _read_emap(path):
    """Reads `emap`, which a `.pth` lacks, from the files that ReSwapper keeps next to it."""
    array, network = path.with_name("emap.npy"), path.with_name("inswapper_128.onnx")
    if array.is_file():
        try:
            emap = np.load(array, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"{array}: not a NumPy array ({error})") from None
        if not isinstance(emap, np.ndarray) or emap.dtype.kind != "f":
            raise UserError(f"{array}: not an array of real numbers")
        return emap
    if network.is_file():
        return numpy_helper.to_array(_read_model(network).graph.initializer[-1])
    raise UserError(f"{path}: needs the matrix emap beside it, as {array.name} or in {network.name}")


def takes_source(path):
    """Whether an `.onnx` file holds a swapper, with two inputs, not an encoder; raises `UserError` if unreadable."""
    graph = _read_model(path).graph
    weights = {tensor.name for tensor in graph.initializer}
    return sum(tensor.name not in weights for tensor in graph.input) > 1


def _read_model(path):
    try:
        model = onnx.load(path, format="protobuf", load_external_data=False)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except DecodeError:
        raise UserError(f"{path}: not an ONNX file, or a truncated one") from None
    weights = model.graph.initializer
    if len(weights) < 2 or any(tensor.data_location == TensorProto.EXTERNAL for tensor in weights):
        raise UserError(f"{path}: an ONNX file without its weights")
    return model


# Writing


def _nodes(blocks):
    """Returns the nodes of the network, whose initializers have the originals' names."""
    nodes = []

    def add(kind, inputs, name, **attributes):
        nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def constant(array, name):
        return add("Constant", [], name, value=numpy_helper.from_array(array))

    def pad(x, size, name):
        pads = constant(np.int64([0, 0, size, size, 0, 0, size, size]), f"{name}/pads")
        return add("Pad", [x, pads], f"{name}/padded", mode="reflect")

    def convolve(x, name, size, border=1, stride=1):
        return add(
            "Conv", [x, f"{name}.weight", f"{name}.bias"], f"{name}/convolved",
            kernel_shape=[size, size], pads=[border] * 4, strides=[stride, stride], dilations=[1, 1], group=1,
        )  # fmt: skip

    def activate(x):
        return add("LeakyRelu", [x], f"{x}/activated", alpha=0.2)

    def style(x, name):
        both = add("Gemm", ["source", f"{name}.weight", f"{name}.bias"], f"{name}/both", transB=1)
        both = add("Unsqueeze", [both], f"{name}/plane", axes=[2, 3])
        nodes.append(helper.make_node("Split", [both], [f"{name}/scale", f"{name}/offset"], axis=1))
        centered = add("Sub", [x, add("ReduceMean", [x], f"{name}/mean", axes=[2, 3])], f"{name}/centered")
        square = add("Mul", [centered, centered], f"{name}/square")
        variance = add("ReduceMean", [square], f"{name}/variance", axes=[2, 3])
        deviation = add("Sqrt", [add("Add", [variance, epsilon], f"{name}/plus")], f"{name}/deviation")
        normal = add("Div", [centered, deviation], f"{name}/normal")
        scaled = add("Mul", [normal, f"{name}/scale"], f"{name}/scaled")
        return add("Add", [scaled, f"{name}/offset"], f"{name}/styled")

    def double(x):
        return add("Resize", [x, region, scales], f"{x}/doubled", mode="linear")

    epsilon = constant(np.float32(NORM_EPSILON), "epsilon")
    region, scales = constant(np.float32([]), "region"), constant(np.float32([1, 1, 2, 2]), "scales")
    x = convolve(pad("target", 3, "target"), "target_encoder.0", 7, border=0)
    for index, stride in ((2, 1), (4, 2), (6, 2)):
        x = convolve(activate(x), f"target_encoder.{index}", 3, stride=stride)
    x = activate(x)
    for block in range(blocks):
        name, inner = f"style_blocks.{block}", x
        for index in (1, 2):
            if index == 2:
                inner = add("Relu", [inner], f"{name}/activated")
            inner = convolve(pad(inner, 1, f"{name}.{index}"), f"{name}.conv{index}", 3, border=0)
            inner = style(inner, f"{name}.style{index}")
        x = add("Add", [x, inner], f"{name}/sum")
    for name in ("decoder.0", "decoderPart1.0"):
        x = activate(convolve(double(x), name, 3))
    x = activate(convolve(x, "decoderPart1.2", 3))
    x = add("Tanh", [convolve(pad(x, 3, "decoderPart2"), "decoderPart2.0", 7, border=0)], "signed")
    one, two = constant(np.float32(1), "one"), constant(np.float32(2), "two")
    add("Div", [add("Add", [x, one], "plus_one"), two], "output")
    return nodes


def _end(name, shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


# Reading


class _Mismatch(Exception):
    """The graph is not an inswapper's; the text says where."""


class _Walk:
    """Follows an inswapper's graph from its inputs, with random numbers.

    The outputs of convolutions and dense layers are drawn at random; everything else is computed as the graph says. The
    input of each convolution, in the order of `_names`, must equal what our layers would compute.

    Attributes:
        size: side of its images in pixels.
        tensors: its weights, `{original name: array}`.
        used: names of the initializers that hold them.
    """

    def __init__(self, model):
        graph = model.graph
        self._opsets = model.opset_import
        self._values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self._constants = dict(self._values)
        self._draw = np.random.default_rng(0)
        inputs = [value for value in graph.input if value.name not in self._constants]
        if len(inputs) != 2 or len(graph.output) != 1:
            raise _Mismatch(f"{len(inputs)} inputs and {len(graph.output)} outputs instead of two and one")
        sides = [side.dim_value for side in inputs[0].type.tensor_type.shape.dim]
        if len(sides) != 4 or sides[1] not in (0, 3) or sides[2] != sides[3]:  # 0 is a size left open
            raise _Mismatch(f"its first input has the shape {sides}, expected square images")
        self.size = sides[2] or 128
        self.tensors, self.used = {}, set()
        self._source, self._styles = inputs[1].name, {}
        blocks, rest = divmod(sum(node.op_type == "Conv" for node in graph.node) - 8, 2)
        if blocks < 1 or rest:
            raise _Mismatch("it has another number of convolutions")
        self._modules = _names(blocks)
        self._coming = [name for name in self._modules if "conv" in name] + ["output"]
        self._stream = None
        # The file's own precision, as its nodes require.
        self._dtype = next(array.dtype for array in self._constants.values() if array.ndim == 4)
        self._last = self._values[inputs[0].name] = self._numbers((1, 3, 12, 12))
        for node in graph.node:
            self._follow(node)
        self._compare(self._values[graph.output[0].name])
        if self._styles or self._coming:
            raise _Mismatch(f"{min(self._styles or self._coming)} is left over")

    def _follow(self, node):
        if node.op_type == "Conv":
            value = self._convolution(node)
        elif node.op_type == "Gemm":
            value = self._dense(node)
        elif node.op_type == "Resize":
            settings = {"mode": b"nearest", "coordinate_transformation_mode": b"half_pixel", **_attributes(node)}
            if settings["mode"] != b"linear" or "half_pixel" not in settings["coordinate_transformation_mode"].decode():
                raise _Mismatch(f"{node.name} resizes otherwise than bilinearly by half-pixel centers")
            value = _doubled(self._value(node, 0))
        else:
            inputs = {name: self._value(node, index) for index, name in enumerate(node.input) if name}
            for name, value in zip(node.output, self._run(node, inputs), strict=True):
                self._values[name] = value
            return
        self._values[node.output[0]] = value

    def _run(self, node, inputs):
        ends = [helper.make_value_info(name, onnx.TypeProto()) for name in inputs]
        outputs = [helper.make_value_info(name, onnx.TypeProto()) for name in node.output]
        graph = helper.make_graph([node], "one", ends, outputs)
        try:
            return ReferenceEvaluator(helper.make_model(graph, opset_imports=self._opsets)).run(None, inputs)
        # What operations raise for inputs that do not fit them.
        except (ValueError, TypeError, IndexError, KeyError, RuntimeError, AttributeError) as error:
            raise _Mismatch(f"{node.op_type} {node.name} ({str(error).splitlines()[0]})") from None

    def _convolution(self, node):
        self._compare(self._value(node, 0))
        name = self._coming.pop(0)
        kernel = self._weights(node, self._modules[name])
        if kernel.ndim != 4:
            raise _Mismatch(f"{name} has a kernel of the shape {kernel.shape}")
        size = 7 if name in ("encoder_conv0", "decoder_conv3") else 3
        is_padded = size == 7 or name.startswith("block")
        stride = 2 if name in ("encoder_conv2", "encoder_conv3") else 1
        wanted = {
            "kernel_shape": [size, size], "strides": [stride, stride], "pads": [0 if is_padded else 1] * 4,
            "dilations": [1, 1], "group": 1, "auto_pad": b"NOTSET",
        }  # fmt: skip
        defaults = {"kernel_shape": list(kernel.shape[2:]), "strides": [1, 1], "pads": [0] * 4}
        settings = {**wanted, **defaults, **_attributes(node)}
        if differing := [f"{key} {value}" for key, value in settings.items() if value != wanted.get(key)]:
            raise _Mismatch(f"{name} has {', '.join(differing)}")
        side = {"encoder_conv2": 6, "decoder_conv0": 6}.get(
            name, 3 if name.startswith(("encoder_conv3", "block")) else 12
        )
        # Small, so that a different epsilon would show; the last ones large, so that the tanh shows.
        self._last = self._numbers((1, len(kernel), side, side), 1.0 if name == "decoder_conv3" else 1e-2)
        return self._last

    def _dense(self, node):
        settings = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0, **_attributes(node)}
        if node.input[0] != self._source or settings != {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 1}:
            raise _Mismatch(f"{node.name} is not a dense layer of the source")
        weight = self._constant(node, 1)
        value = self._numbers((1, len(weight)))
        self._styles[node.name or node.output[0]] = (node, value)
        return value

    def _compare(self, found):
        """Raises `_Mismatch` if numbers differ from our input of the next convolution, or from our output."""
        if not self._coming:
            raise _Mismatch("it has layers after its output")
        name = self._coming[0] if self._coming != ["output"] else self._coming.pop()
        place = self._style_before(name)
        if place is None:
            fits = self._fits(found, name, None)
        else:
            fits = False
            for key, (node, value) in list(self._styles.items()):
                if value.shape[1] == 2 * self._last.shape[1] and self._fits(found, name, value):
                    self._weights(node, self._modules[place])
                    del self._styles[key]
                    fits = True
                    break
        if not fits:
            raise _Mismatch(f"the operations before {name} differ")

    def _fits(self, found, name, style):
        expected, stream = _before(name, self._last, self._stream, style)
        largest = np.abs(expected).max()
        if found.shape != expected.shape or np.abs(found - expected).max() > np.finfo(self._dtype).eps ** 0.5 * largest:
            return False
        self._stream = stream
        return True

    def _style_before(self, name):
        """Returns the name of the AdaIN between the previous convolution and this one, or None."""
        if name.startswith("block"):
            block, index = int(name[5:].split("_")[0]), int(name[-1])
            if index:
                return f"block{block}_adain0"
            return f"block{block - 1}_adain1" if block else None
        return list(self._modules)[-5] if name == "decoder_conv0" else None

    def _weights(self, node, module):
        weight, bias = (self._constant(node, index).astype(np.float32) for index in (1, 2))
        self.tensors[f"{module}.weight"], self.tensors[f"{module}.bias"] = weight, bias
        return weight

    def _constant(self, node, index):
        name = node.input[index] if index < len(node.input) else ""
        if name not in self._constants:
            raise _Mismatch(f"input {index} of {node.op_type} {node.name} is not an initializer")
        self.used.add(name)
        return self._constants[name]

    def _value(self, node, index):
        name = node.input[index]
        if name not in self._values:
            raise _Mismatch(f"input {index} of {node.op_type} {node.name} is the source or nothing")
        return self._values[name]

    def _numbers(self, shape, scale=1.0):
        return (scale * self._draw.standard_normal(shape)).astype(self._dtype)


def _before(name, x, stream, style):
    """Computes what our layers between two convolutions return.

    Args:
        name: our name of the second convolution, or "output".
        x: (1, C, H, W), output of the first convolution; before the first, the target.
        stream: (1, C, H, W), the residual stream that style blocks add to, or None outside of them.
        style: (1, 2 C), scale and offset of an AdaIN between the two; else None.

    Returns:
        The input of the second convolution, float32, and the residual stream from there on.
    """
    x = x.astype(np.float32)
    if style is not None:
        scale, offset = np.split(style.astype(np.float32)[:, :, None, None], 2, axis=1)
        x = x - x.mean((2, 3), keepdims=True)
        x = x / np.sqrt((x**2).mean((2, 3), keepdims=True) + NORM_EPSILON) * scale + offset
    activated = np.where(x < 0, np.float32(0.2) * x, x)
    match name.split("_"):
        case ["encoder", "conv0"]:
            return _reflected(x, 3), None
        case ["encoder", _]:
            return activated, None
        case [block, "conv0"] if block.startswith("block"):
            stream = activated if stream is None else stream + x
            return _reflected(stream, 1), stream
        case [block, "conv1"] if block.startswith("block"):
            return _reflected(np.maximum(x, 0), 1), stream
        case ["decoder", "conv0"]:
            return _doubled(stream + x), None
        case ["decoder", "conv1"]:
            return _doubled(activated), None
        case ["decoder", "conv2"]:
            return activated, None
        case ["decoder", "conv3"]:
            return _reflected(activated, 3), None
    return (np.tanh(x) + 1) / 2, None


def _reflected(x, size):
    return np.pad(x, ((0, 0), (0, 0), (size, size), (size, size)), mode="reflect")


def _doubled(x):
    """Doubles the last two axes by bilinear interpolation with half-pixel centers."""
    for axis in (2, 3):
        before = np.concatenate([x.take([0], axis), x.take(range(x.shape[axis] - 1), axis)], axis)
        after = np.concatenate([x.take(range(1, x.shape[axis]), axis), x.take([-1], axis)], axis)
        both = np.stack([0.25 * before + 0.75 * x, 0.75 * x + 0.25 * after], axis + 1)
        x = both.reshape(*x.shape[:axis], 2 * x.shape[axis], *x.shape[axis + 1 :]).astype(x.dtype)
    return x


def _attributes(node):
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
