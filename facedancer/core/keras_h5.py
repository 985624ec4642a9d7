"""Keras' HDF5 model files read as plain data: the configuration and the weights by name, nothing executed.

One reader serves whole models (`save("x.h5")`) and weights alone (`save_weights("x.h5")`), as Keras 2 and 3 write
them. Loading is strict: what is left over, missing or of another shape is an error that names it.
"""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
from absl import logging

from facedancer.core.console import UserError
from facedancer.core.files import atomic_path


@dataclass
class KerasH5:
    """What a file holds.

    Attributes:
        path: the file.
        config: the model's configuration (`{"class_name", "config"}`), None where the file has weights alone.
        weights: layer name -> {weight name inside the file: array}, in the file's order; of layers that have any.
    """

    path: Path
    config: dict | None
    weights: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)


def read_keras_h5(path):
    """Reads a Keras HDF5 file.

    Raises:
        UserError: if the file is absent, no HDF5, truncated, or not written by Keras.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        with h5py.File(path, "r") as file:
            config = file.attrs.get("model_config")
            group = file.get("model_weights", file)
            if "layer_names" not in group.attrs and "layer_names0" not in group.attrs:
                raise UserError(f"{path}: an HDF5 file, but without a Keras model's weights")
            lists = {layer: _names(group[layer], "weight_names") for layer in _names(group, "layer_names")}
            listed = {f"{layer}/{name}" for layer, names in lists.items() for name in names}
            held = _arrays(group)
            if missing := sorted(listed - held):
                raise UserError(f"{path}: lacks {missing[0]}, which its list of weights names")
            if left_over := sorted(held - listed):
                raise UserError(f"{path}: has {left_over[0]}, which its list of weights does not name")
            weights = {
                layer: {name: group[layer][name][()] for name in names} for layer, names in lists.items() if names
            }
    except (OSError, KeyError, RuntimeError) as error:
        raise UserError(f"{path}: not a whole HDF5 file ({str(error).splitlines()[0]})") from None
    try:
        return KerasH5(path, None if config is None else json.loads(config), weights)
    except ValueError:
        raise UserError(f"{path}: its model configuration is not JSON") from None


def assign_weights(layer, arrays, path, what):
    """Gives a layer (or model) its weights in order, refusing another number or other shapes.

    Args:
        layer: a built Keras layer or model.
        arrays: the arrays in the order of `layer.weights`.
        path, what: the file and the name in it, for the error.

    Raises:
        UserError: on another number of arrays or another shape.
    """
    arrays = list(arrays)
    wanted = [tuple(variable.shape) for variable in layer.weights]
    found = [tuple(array.shape) for array in arrays]
    if wanted != found:
        raise UserError(f"{path}: {what} has weights of shapes {found}, expected {wanted}")
    layer.set_weights(arrays)


def load_by_layer_name(model, path):
    """Loads a file into a built model of ours: every layer by its name, nothing missing and nothing left over."""
    stored = read_keras_h5(path)
    wanted = {layer.name: layer for layer in model.layers if layer.weights}
    missing, left_over = wanted.keys() - stored.weights.keys(), stored.weights.keys() - wanted.keys()
    if missing or left_over:
        names = ", ".join(sorted(missing or left_over)[:5])
        raise UserError(f"{path}: {'lacks' if missing else 'has unknown'} layers {names}; expected a {model.name}")
    for name, layer in wanted.items():
        assign_weights(layer, stored.weights[name].values(), path, name)
    return model


def save_keras_h5(model, path, half=False):
    """Saves a whole model, architecture and weights, in one HDF5 file; whole or not at all.

    Args:
        model: Keras model.
        path: the file.
        half: whether the weights shall be float16, in about half the size; they are read like others.

    Raises:
        UserError: if a weight is out of the range of float16.
    """
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)  # Keras warns that the format is old; it is the one that people asked for
    try:
        with atomic_path(path) as temporary:
            model.save(temporary, include_optimizer=False)
            if half:
                _halve(temporary, path)
    finally:
        logging.set_verbosity(verbosity)


def _halve(written, path):
    """Rewrites a file with its arrays in float16, packed."""
    packed = written.with_name(f"{written.stem}-half{written.suffix}")
    try:
        with h5py.File(written) as old, h5py.File(packed, "w") as new:

            def copy(name, item):
                if isinstance(item, h5py.Dataset):
                    with np.errstate(over="ignore"):  # said below
                        half = item[()].astype(np.float16)
                    if not np.isfinite(half).all():
                        raise UserError(f"{path}: {name} has numbers that float16 does not hold")
                    # Of small arrays the bookkeeping would take more room than it saves.
                    options = {"compression": "gzip", "shuffle": True} if half.nbytes > 2**14 else {}
                    place = new.create_dataset(name, data=half, **options)
                else:
                    place = new.require_group(name)
                place.attrs.update(item.attrs)

            new.attrs.update(old.attrs)
            old.visititems(copy)
        os.replace(packed, written)
    finally:
        packed.unlink(missing_ok=True)


def _arrays(group):
    """Paths of all arrays below a group."""
    paths = set()
    group.visititems(lambda path, item: paths.add(path) if isinstance(item, h5py.Dataset) else None)
    return paths


def _names(group, attribute):
    """A list attribute, which Keras splits over `name0`, `name1`, … where it is long."""
    if attribute in group.attrs:
        values = group.attrs[attribute]
    else:
        values, part = [], 0
        while f"{attribute}{part}" in group.attrs:
            values.extend(group.attrs[f"{attribute}{part}"])
            part += 1
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]
