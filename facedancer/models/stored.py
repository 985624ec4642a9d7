"""Weights from files into our own graphs: exports of ours by their card, and PyTorch's tensors by name.

Nothing in a file is run. What is missing, left over or of another shape is an error that names it.
"""

import zipfile
from dataclasses import fields
from pathlib import Path

import numpy as np

from facedancer.core.card import read_card
from facedancer.core.console import UserError
from facedancer.core.keras_h5 import load_by_layer_name


def load_export(path, config_class, build):
    """Loads an export of ours.

    Args:
        path: `.h5` or `.keras`, with the card beside it.
        config_class: the family's `Config`, which the card's `network` has the values of.
        build: function of it that builds the network.

    Raises:
        UserError: if file or card are missing, damaged, or of another network.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    card = read_card(path)
    if card is None:
        raise UserError(f"{path} has no card.json beside it, which says how its network is built")
    known = {item.name for item in fields(config_class)}
    if card.network.keys() != known:
        raise UserError(f"{path}: its card describes another kind of network ({', '.join(sorted(card.network))})")
    values = {name: tuple(x) if isinstance(x, list) else x for name, x in card.network.items()}
    try:
        network = build(config_class(**values))
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: its card describes no network ({str(error).splitlines()[0]})") from None
    if path.suffix == ".h5":
        return load_by_layer_name(network, path)
    try:
        network.load_weights(path)
    except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not the weights of the card's network ({str(error).splitlines()[0]})") from None
    return network


def assign_torch(model, arrays, wanted, path):
    """Gives layers the weights of a PyTorch state dict.

    Args:
        model: our network.
        arrays: name -> array.
        wanted: layer's name -> function from a lookup by name to the layer's weights in order; for every layer that has
            weights in the file.
        path: of the file, for errors.

    Raises:
        UserError: if a tensor is missing, left over, or misshapen.
    """
    used = set()

    def look_up(name):
        if name not in arrays:
            raise UserError(f"{path}: lacks the tensor {name}")
        used.add(name)
        return np.asarray(arrays[name], np.float32)

    for layer_name, convert in wanted.items():
        layer = model.get_layer(layer_name)
        before = set(used)
        weights = convert(look_up)
        shapes = [tuple(variable.shape) for variable in layer.weights]
        if [array.shape for array in weights] != shapes:
            names = ", ".join(f"{name} {arrays[name].shape}" for name in sorted(used - before))
            raise UserError(f"{path}: {names} do not fit {layer_name}, which has {shapes}")
        layer.set_weights(weights)
    if left_over := sorted(arrays.keys() - used):
        raise UserError(f"{path}: the tensor {left_over[0]} is left over; this network has none of that name")


def convolution(name):
    """A `Conv2d`, (out, in, H, W) -> (H, W, in, out), and its bias."""
    return lambda look_up: [look_up(f"{name}.weight").transpose(2, 3, 1, 0), look_up(f"{name}.bias")]


def style(name):
    """A `Linear` of scales and shifts, one after another: (2 C, dim) -> those of `layers.AdaIN`."""

    def convert(look_up):
        scale, offset = np.split(look_up(f"{name}.weight").T, 2, axis=1)
        scale_bias, offset_bias = np.split(look_up(f"{name}.bias"), 2)
        return [scale, scale_bias, offset, offset_bias]

    return convert
