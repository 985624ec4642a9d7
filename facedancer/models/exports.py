"""Loads our exports, `.h5` and `.keras`, according to their cards.

Keras never deserializes the file: the network is built from its card, and weights are matched by layer name and shape.
Anything missing, unexpected or of the wrong shape is an error that names it.
"""

import io
import zipfile
import zlib
from pathlib import Path

import h5py

from facedancer.core.card import read_card
from facedancer.core.console import UserError
from facedancer.core.keras_h5 import load_by_layer_name
from facedancer.core.weights_to_come import weights_to_come


@weights_to_come()
def load_export(path, config_class, build):
    """Loads an exported network.

    Args:
        path: the `.h5` or `.keras` file, with its `card.json` next to it.
        config_class: the family's `Config` class.
        build: function that takes a `Config` and returns the network.

    Returns:
        The Keras model that `build` returns, with the file's weights.

    Raises:
        UserError: if the file, its card and the network do not fit together.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    card = read_card(path)
    if card is None or not card.network:
        raise UserError(f"{path}: has no card.json next to it that describes its network")
    try:
        values = {name: tuple(x) if isinstance(x, list) else x for name, x in card.network.items()}
        network = build(config_class(**values))
    except TypeError as error:
        raise UserError(f"{path.with_name('card.json')}: its network is none of {card.family} ({error})") from None
    if zipfile.is_zipfile(path):
        return _load_keras_file(network, path)
    return load_by_layer_name(network, path)


def _load_keras_file(network, path):
    """Loads the weights of a `.keras` file into a network."""
    try:
        with zipfile.ZipFile(path) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
            arrays = []
            file.visititems(lambda _, item: arrays.append(item) if isinstance(item, h5py.Dataset) else None)
            count = len(arrays)
        network.load_weights(path)
    except (zipfile.BadZipFile, zlib.error, OSError, KeyError, ValueError, RuntimeError) as error:
        raise UserError(f"{path}: not a complete .keras file of this network ({str(error).splitlines()[0]})") from None
    if count != len(network.weights):  # Keras itself silently ignores arrays that it does not need
        raise UserError(f"{path}: has {count} arrays of weights, its network has {len(network.weights)}")
    return network
