"""Published weights become our Keras `.h5`: MediaPipe's `face_landmark.tflite`."""

from facedancer.core.console import UserError
from facedancer.core.keras_h5 import assign_weights, save_keras_h5
from facedancer.face_parts.face_mesh import build_face_mesh

_WHAT = "face_landmark.tflite"
_KINDS = {"Conv2D": "conv2d", "DepthwiseConv2D": "depthwise_conv2d", "PReLU": "p_re_lu"}
# The branch that says whether there is a face, which is not taken over.
_UNNEEDED = {"conv2d": range(27, 31), "depthwise_conv2d": range(22, 24), "p_re_lu": range(25, 28)}


def convert_face_mesh(content, path):
    """Converts `face_landmark.tflite`.

    Args:
        content: the file's bytes.
        path: where the model is written, with the suffix `.h5`.

    Raises:
        UserError: if the content is not this network.
    """
    found = _read_tflite(content)
    model = build_face_mesh()
    counts = dict.fromkeys(_KINDS.values(), 0)
    for layer in model.layers:
        kind = _KINDS.get(type(layer).__name__)
        if kind is None:
            continue
        # Both number the layers of a kind in the order in which they were made.
        name = f"{kind}_{counts[kind]}" if counts[kind] else kind
        counts[kind] += 1
        if name not in found:
            raise UserError(f"{_WHAT} lacks {name}")
        assign_weights(layer, found.pop(name), _WHAT, name)
    unneeded = {f"{kind}_{number}" for kind, numbers in _UNNEEDED.items() for number in numbers}
    if found.keys() != unneeded:
        raise UserError(f"{_WHAT} has unknown weights {', '.join(sorted(found.keys() ^ unneeded)[:5])}")
    save_keras_h5(model, path)


def _read_tflite(content):
    """Returns a float32 graph's weights as Keras has them: name of the operation's result -> arrays."""
    import struct

    import numpy as np
    from tensorflow.lite.python import schema_py_generated as schema

    try:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
        (graph,) = model.subgraphs
    except (struct.error, IndexError, ValueError, TypeError, AttributeError):
        raise UserError(f"{_WHAT}: not a TFLite file") from None
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
                raise UserError(f"{_WHAT}: {tensor.name.decode()} is not a float32 array")
            array = np.frombuffer(np.asarray(data, np.uint8).tobytes(), np.float32).reshape(tensor.shape)
            arrays.append(array.transpose(axes[kind]) if array.ndim == 4 else array)
        found[graph.tensors[operation.outputs[0]].name.decode()] = arrays
    return found
