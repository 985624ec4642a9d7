"""Tensors of a PyTorch state dict given to layers of Keras, by name and strictly.

PyTorch keeps kernels as (out, in, height, width), Keras as (height, width, in, out). What is missing, left over or of
another shape is an error that names it.
"""

import numpy as np

from facedancer.core.console import UserError
from facedancer.core.keras_h5 import assign_weights

_COUNTER = "num_batches_tracked"  # of a batch normalization; nothing depends on it


def tensor_names(layer, place):
    """Returns the names of the tensors that a layer takes.

    Args:
        layer: built Keras layer of a kind that PyTorch has too.
        place: its name in the state dict, `down1.0` for `down1.0.weight`; of an adaptive normalization with a linear
            layer for each the scale and the offset, both names.
    """
    match type(layer).__name__:
        case "BatchNormalization":
            ends = ("weight", "bias", "running_mean", "running_var")
        case "Conv2D" | "DepthwiseConv2D" | "Dense":
            ends = ("weight", "bias") if layer.use_bias else ("weight",)
        case "PReLU":
            ends = ("weight",)
        case "AdaIN" if isinstance(place, tuple):
            return [f"{part}.{end}" for part in place for end in ("weight", "bias")]
        case "AdaIN":
            ends = ("linear.weight", "linear.bias")
        case kind:
            raise TypeError(f"{layer.name}: a {kind} has no counterpart")
    return [f"{place}.{end}" for end in ends]


def give_torch_weights(model, places, state, path, unneeded=()):
    """Gives a model's layers their tensors.

    An adaptive normalization's tensors are those of one linear layer, the scale's rows, then the offset's; or of two.

    Args:
        model: built Keras model.
        places: name of a layer -> its place in the state dict, of all layers that have weights.
        state: name -> array, as `torch_file.read_torch_state_dict` returns it.
        path: the file, for the error.
        unneeded: beginnings of names of tensors that are left.

    Raises:
        UserError: in one line, what does not fit.
    """
    layers = {layer.name: layer for layer in model.layers if layer.weights}
    assert layers.keys() == places.keys(), layers.keys() ^ places.keys()
    names = {name: tensor_names(layer, places[name]) for name, layer in layers.items()}
    wanted = {name for group in names.values() for name in group}
    found = {
        name for name in state if not name.endswith(_COUNTER) and not (unneeded and name.startswith(tuple(unneeded)))
    }
    if missing := sorted(wanted - found):
        raise UserError(f"{path}: lacks {missing[0]}, which a {model.name} has")
    if left_over := sorted(found - wanted):
        raise UserError(f"{path}: has {left_over[0]}, which a {model.name} does not have")
    for name, layer in layers.items():
        what = " and ".join(places[name]) if isinstance(places[name], tuple) else places[name]
        assign_weights(layer, _as_keras(layer, [np.asarray(state[tensor]) for tensor in names[name]]), path, what)


def _as_keras(layer, tensors):
    first, *others = tensors
    match type(layer).__name__:
        case "Dense":
            return [first.T, *others]
        case "DepthwiseConv2D" if first.ndim == 4:
            return [first.transpose(2, 3, 0, 1), *others]
        case "Conv2D" if first.ndim == 4:
            return [first.transpose(2, 3, 1, 0), *others]
        case "PReLU":  # one slope for each channel, or one for all
            return [np.broadcast_to(first, layer.alpha.shape) if first.size in (1, layer.alpha.shape[-1]) else first]
        case "AdaIN" if len(others) == 3:
            return [first.T, others[0], others[1].T, others[2]]
        case "AdaIN":
            scale, offset = (first[: len(first) // 2].T, first[len(first) // 2 :].T)
            (bias,) = others
            return [scale, bias[: len(bias) // 2], offset, bias[len(bias) // 2 :]]
    return tensors
