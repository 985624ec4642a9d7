"""Converts MediaPipe's `face_landmark.tflite` and `iris_landmark.tflite` to our Keras `.h5`."""

from keras import layers

from facedancer.core.console import UserError
from facedancer.core.keras_h5 import assign_weights, save_keras_h5
from facedancer.face_parts.face_mesh import SumPReLU, build_face_mesh
from facedancer.face_parts.iris import build_iris_network

_KINDS = {
    layers.Conv2D: "conv2d",
    layers.DepthwiseConv2D: "depthwise_conv2d",
    layers.PReLU: "p_re_lu",
    SumPReLU: "p_re_lu",
}
# Layer numbers of branches. The mesh's branch for the presence of a face:
_MESH_PRESENCE = {"conv2d": range(27, 31), "depthwise_conv2d": range(22, 24), "p_re_lu": range(25, 28)}
# The iris network's branch for eye and brow contours, created before the iris branch and not converted.
_IRIS_CONTOURS = {"conv2d": range(21, 37), "depthwise_conv2d": range(10, 18), "p_re_lu": range(21, 37)}


def convert_face_mesh(content, path):
    """Converts `face_landmark.tflite`.

    Args:
        content: the file's bytes.
        path: the `.h5` to write.

    Raises:
        UserError: if the content is not this network.
    """
    _convert(content, path, "face_landmark.tflite", build_face_mesh(), _MESH_PRESENCE, branch="presence_")


def convert_iris_network(content, path):
    """Converts `iris_landmark.tflite`; see `convert_face_mesh`."""
    heads = {"head_conv": "conv_iris"}
    others = ("conv_eyes_contours_and_brows",)
    _convert(content, path, "iris_landmark.tflite", build_iris_network(), _IRIS_CONTOURS, names=heads, others=others)


def _convert(content, path, what, model, apart, branch=None, names=None, others=()):
    """Writes a network with a file's weights.

    Args:
        apart: kind of layer -> numbers of the layers in a branch.
        branch: prefix of our names for those; None to omit them.
        names: our layer name -> name in the file, for layers without a number there.
        others: further names in the file to omit.
    """
    found = _read_tflite(content, what)
    # Both number the layers of a kind in creation order, branch by branch.
    numbers = {
        kind: iter([number for number in range(len(found)) if number not in apart[kind]]) for kind in _KINDS.values()
    }
    apart_numbers = {kind: iter(some) for kind, some in apart.items()}
    for layer in model.layers:
        kind = _KINDS.get(type(layer))
        if kind is None:
            continue
        here = apart_numbers if branch and layer.name.startswith(branch) else numbers
        name = (names or {}).get(layer.name) or _numbered(kind, next(here[kind]))
        if name not in found:
            raise UserError(f"{what} lacks {name}")
        assign_weights(layer, found.pop(name), what, name)
    left_out = {_numbered(kind, number) for kind, some in apart_numbers.items() for number in some} | set(others)
    if found.keys() != left_out:
        raise UserError(f"{what} has unknown weights {', '.join(sorted(found.keys() ^ left_out)[:5])}")
    save_keras_h5(model, path)


def _numbered(kind, number):
    return f"{kind}_{number}" if number else kind


def _read_tflite(content, what):
    """Returns a float32 graph's weights in Keras' layout: name of the operation's result -> arrays."""
    import struct

    import numpy as np
    from tensorflow.lite.python import schema_py_generated as schema

    try:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
        (graph,) = model.subgraphs
    except (struct.error, IndexError, ValueError, TypeError, AttributeError):
        raise UserError(f"{what}: not a TFLite file") from None
    axes = {
        schema.BuiltinOperator.CONV_2D: (1, 2, 3, 0),
        schema.BuiltinOperator.DEPTHWISE_CONV_2D: (1, 2, 3, 0),
        schema.BuiltinOperator.PRELU: None,
    }
    found = {}
    for operation in graph.operators:
        code = model.operatorCodes[operation.opcodeIndex]
        kind = max(code.builtinCode, code.deprecatedBuiltinCode)
        if kind not in axes:
            continue
        arrays = []
        for index in operation.inputs[1:]:
            tensor = graph.tensors[index]
            data = model.buffers[tensor.buffer].data
            if tensor.type != schema.TensorType.FLOAT32 or data is None:
                raise UserError(f"{what}: {tensor.name.decode()} is not a float32 array")
            array = np.frombuffer(np.asarray(data, np.uint8).tobytes(), np.float32).reshape(tensor.shape)
            arrays.append(array.transpose(axes[kind]) if array.ndim == 4 else array)
        found[graph.tensors[operation.outputs[0]].name.decode()] = arrays
    return found
