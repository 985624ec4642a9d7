"""Loads InsightFace's ArcFace ONNX files into our IResNet, which is differentiable.

The loader follows the graph from its input and checks that each node is what an IResNet has at that place. The number
of units, the widths and the embedding's length come from the file. Extra nodes, or a different order, are an error.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from facedancer.arcface_model.iresnet import EPSILON, WINDOW, build_iresnet
from facedancer.core.console import UserError
from facedancer.core.keras_h5 import assign_weights
from facedancer.core.regular_files import opened_regular
from facedancer.core.weights_to_come import weights_to_come

# InsightFace's deepest network, of 200 layers, has about 1,000 nodes.
_MOST_NODES = 5000
_NUMBERS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)


class _Mismatch(Exception):
    """The graph does not match an IResNet at some node."""


@dataclass
class _Found:
    """What was read so far: units and width of each stage, and weights by our layer names."""

    units: list[int] = field(default_factory=list)
    widths: list[int] = field(default_factory=list)
    weights: dict[str, list[np.ndarray]] = field(default_factory=dict)


@weights_to_come()
def load_iresnet(path):
    """Builds the network with the weights of an InsightFace ArcFace file.

    Returns:
        `(model, units)`: see `iresnet.build_iresnet`.

    Raises:
        UserError: if the file is not an ONNX file, or its graph is not an IResNet.
    """
    try:
        with opened_regular(path) as file:
            content = file.read()
        found = _walk(_Graph(onnx.load_from_string(content).graph, len(content)))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except DecodeError:
        raise UserError(f"{path}: not an ONNX file, or truncated") from None
    except _Mismatch as error:
        raise UserError(f"{path}: not an InsightFace ArcFace network (IResNet): {error}") from None
    dim = found.weights["embedding"][1].size
    model = build_iresnet(tuple(found.units), tuple(found.widths), dim)
    for layer in model.layers:
        if layer.weights:
            assign_weights(layer, found.weights[layer.name], path, layer.name)
    return model, tuple(found.units)


class _Graph:
    """The nodes of a graph, found by the tensors they consume; each can be taken once.

    Args:
        graph: `onnx.GraphProto`.
        size: size of its file in bytes, which limits the constants that are read.
    """

    def __init__(self, graph, size):
        self._room = 2 * size
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        inputs = [value for value in graph.input if value.name not in self._tensors]
        if len(inputs) != 1 or len(graph.output) != 1:
            raise _Mismatch(f"{len(inputs)} inputs and {len(graph.output)} outputs instead of one each")
        if len(graph.node) > _MOST_NODES:
            raise _Mismatch(f"{len(graph.node)} nodes")
        sides = [side.dim_value for side in inputs[0].type.tensor_type.shape.dim][1:]
        if sides != [3, WINDOW.size, WINDOW.size]:
            raise _Mismatch(f"an input of shape {sides} instead of {[3, WINDOW.size, WINDOW.size]}")
        self.input, self.output = inputs[0].name, graph.output[0].name
        self._aliases = {}
        self._nodes = []
        for node in graph.node:
            if not node.output:
                raise _Mismatch(f"{node.op_type} {node.name} without an output")
            # PyTorch exports equal constants as copies of one; dropout does nothing in an encoder.
            if node.op_type in ("Identity", "Dropout") and node.input:
                source = self._resolve(node.input[0])
                if source in self._tensors:
                    self._tensors[node.output[0]] = self._tensors[source]
                else:
                    self._aliases[node.output[0]] = source
            elif node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
                self._tensors[node.output[0]] = node.attribute[0].t
            else:
                self._nodes.append(node)

    def _resolve(self, name):
        return self._aliases.get(name, name)

    def consumers(self, tensor):
        """Returns the nodes that consume a tensor and have not been taken."""
        return [node for node in self._nodes if tensor in map(self._resolve, node.input)]

    def take(self, tensor, kind):
        """Takes the one node of a kind that consumes a tensor."""
        nodes = self.consumers(tensor)
        wanted = [node for node in nodes if node.op_type == kind]
        if len(wanted) != 1:
            kinds = ", ".join(node.op_type for node in nodes) or "nothing"
            raise _Mismatch(f"{kinds} where one {kind} is expected after {tensor}")
        self._nodes.remove(wanted[0])
        return wanted[0]

    def constant(self, node, index, *shape):
        """Returns a node's input as float64; it must be a constant of that shape, where None is any length."""
        what = f"input {index} of {node.op_type} {node.name}"
        tensor = self._tensors.get(node.input[index]) if index < len(node.input) else None
        if tensor is None:
            raise _Mismatch(f"{what} is not a constant")
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise _Mismatch(f"{tensor.name} is stored in another file")
        if tensor.data_type not in _NUMBERS:
            raise _Mismatch(f"{what} does not hold floating-point numbers")
        found = tuple(tensor.dims)
        if len(found) != len(shape) or any(b not in (None, a) for a, b in zip(found, shape, strict=True)):
            raise _Mismatch(f"{what} has the shape {found} instead of {shape}")
        self._room -= 4 * math.prod(found)
        if self._room < 0:
            raise _Mismatch("the same weights used too often")
        try:
            return onnx.numpy_helper.to_array(tensor).astype(np.float64)
        except (ValueError, TypeError) as error:
            raise _Mismatch(f"{what} is damaged ({error})") from None

    def end(self, tensor):
        if self._nodes or self._resolve(self.output) != tensor:
            rest = ", ".join(f"{node.op_type} {node.name}" for node in self._nodes[:5])
            raise _Mismatch(f"nodes left over: {rest}" if rest else "its output is not the embedding")


def _walk(graph):
    found = _Found()
    tensor, width = _convolution(graph, graph.input, found, "stem_conv", 3, stride=1)
    stem_width = width
    tensor = _prelu(graph, tensor, found, "stem_prelu", width)
    while len(graph.consumers(tensor)) > 1:
        halves = any(node.op_type == "Conv" for node in graph.consumers(tensor))
        if halves:
            found.units.append(0)
            found.widths.append(None)
        if not found.units:
            raise _Mismatch("its first unit has no convolution in the shortcut")
        name = f"layer{len(found.units)}_unit{found.units[-1]}"
        tensor, width = _unit(graph, tensor, found, name, width, halves)
        found.widths[-1] = width
        found.units[-1] += 1
    if len(found.units) != 4 or found.widths[0] != stem_width:
        raise _Mismatch(f"stages of {found.units} units and {found.widths} channels")
    tensor, scale, shift = _batch_normalization(graph, tensor, width)
    found.weights["final_bn"] = _as_keras(scale, shift)
    tensor = _dense(graph, tensor, found)
    graph.end(tensor)
    return found


def _unit(graph, tensor, found, name, inputs, halves):
    inner, scale, shift = _batch_normalization(graph, tensor, inputs)
    found.weights[f"{name}_bn"] = _as_keras(scale, shift)
    inner, width = _convolution(graph, inner, found, f"{name}_conv1", inputs, stride=1)
    inner = _prelu(graph, inner, found, f"{name}_prelu", width)
    stride = 2 if halves else 1
    inner, _ = _convolution(graph, inner, found, f"{name}_conv2", width, stride, outputs=width)
    if halves:
        tensor, _ = _convolution(graph, tensor, found, f"{name}_shortcut", inputs, stride, size=1, outputs=width)
    node = graph.take(inner, "Add")
    if sorted(map(graph._resolve, node.input)) != sorted([inner, tensor]):
        raise _Mismatch(f"{name} does not add its input")
    return node.output[0], width


def _convolution(graph, tensor, found, name, inputs, stride, size=3, outputs=None):
    """Takes a convolution and a batch normalization after it, if any; returns the output and its width."""
    node = graph.take(tensor, "Conv")
    kernel = graph.constant(node, 1, outputs, inputs, size, size)
    border = size // 2
    wanted = {
        "kernel_shape": [size, size],
        "strides": [stride, stride],
        "pads": [border] * 4,
        "dilations": [1, 1],
        "group": 1,
        "auto_pad": b"NOTSET",
    }
    defaults = {**wanted, "strides": [1, 1], "pads": [0] * 4}
    settings = {**defaults, **_attributes(node)}
    if settings != wanted:
        differing = [key for key in settings if settings[key] != wanted.get(key)]
        raise _Mismatch(f"{name} has {', '.join(f'{key} {settings[key]}' for key in differing)}")
    width = kernel.shape[0]
    bias = graph.constant(node, 2, width) if len(node.input) > 2 else np.zeros(width)
    kernel, tensor = kernel.transpose(2, 3, 1, 0), node.output[0]
    if [following.op_type for following in graph.consumers(tensor)] == ["BatchNormalization"]:
        tensor, scale, shift = _batch_normalization(graph, tensor, width)
        kernel, bias = kernel * scale, bias * scale + shift
    found.weights[name] = [kernel.astype(np.float32), bias.astype(np.float32)]
    return tensor, width


def _prelu(graph, tensor, found, name, width):
    node = graph.take(tensor, "PRelu")
    found.weights[name] = [graph.constant(node, 1, width, 1, 1).astype(np.float32).reshape(1, 1, -1)]
    return node.output[0]


def _batch_normalization(graph, tensor, width):
    """Takes a batch normalization; returns its output, and its scale and shift in float64."""
    node = graph.take(tensor, "BatchNormalization")
    gamma, beta, mean, variance = (graph.constant(node, index, width) for index in range(1, 5))
    epsilon = _attributes(node).get("epsilon", 1e-5)
    if not isinstance(epsilon, float) or not 0 < epsilon < 1 or variance.min(initial=0) < 0:
        raise _Mismatch(f"{node.op_type} {node.name} has a variance or epsilon that is not positive")
    scale = gamma / np.sqrt(variance + epsilon)
    return node.output[0], scale, beta - mean * scale


def _as_keras(scale, shift):
    """Returns gamma, beta, mean and variance of a batch normalization with this scale and shift."""
    arrays = [scale, shift, np.zeros_like(scale), np.full_like(scale, 1.0 - EPSILON)]
    return [array.astype(np.float32) for array in arrays]


def _dense(graph, tensor, found):
    """Takes the flattening, the dense layer and the batch normalization.

    PyTorch flattens with channels first, Keras with channels last.
    """
    flatten = graph.take(tensor, "Flatten")
    node = graph.take(flatten.output[0], "Gemm")
    settings = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0, "axis": 1}
    settings.update(_attributes(flatten))
    settings.update(_attributes(node))
    if settings != {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 1, "axis": 1} or len(node.input) != 3:
        raise _Mismatch(f"its dense layer is {settings}")
    channels = found.widths[-1]
    side = WINDOW.size // 2 ** len(found.widths)
    kernel = graph.constant(node, 1, None, channels * side * side)
    bias = graph.constant(node, 2, len(kernel))
    kernel = kernel.reshape(-1, channels, side, side).transpose(2, 3, 1, 0).reshape(-1, len(kernel))
    tensor = node.output[0]
    if graph.consumers(tensor):
        tensor, scale, shift = _batch_normalization(graph, tensor, bias.size)
        kernel, bias = kernel * scale, bias * scale + shift
    found.weights["embedding"] = [kernel.astype(np.float32), bias.astype(np.float32)]
    return tensor


def _attributes(node):
    try:
        return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    except ValueError as error:
        raise _Mismatch(f"{node.op_type} {node.name} is damaged ({error})") from None
