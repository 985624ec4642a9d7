"""Reads Keras' HDF5 model files as plain data: the configuration, and weights by name; nothing is executed.

One reader serves whole models (`save("x.h5")`) and weights alone (`save_weights("x.h5")`), as written by
Keras 2 and 3. Loading is strict: any extra, missing or misshapen weight is an error that names it.
"""

import contextlib
import io
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from facedancer.core.console import UserError
from facedancer.core.files import write_atomic
from facedancer.core.hdf5 import StoredArray, read_hdf5
from facedancer.core.schemas import decode


@dataclass
class KerasH5:
    """The contents of a file.

    Attributes:
        path: the file.
        config: the model's configuration (`{"class_name", "config"}`), None if the file only has weights.
        weights: layer name -> {weight name inside the file: array, which `np.asarray` reads}, in the file's order, for
            layers that have any.
    """

    path: Path
    config: dict | None
    weights: dict[str, dict[str, StoredArray]] = field(default_factory=dict)


def read_keras_h5(path):
    """Reads a Keras HDF5 file. Array data is read lazily, when passed to NumPy.

    Raises:
        UserError: if the file is missing, not HDF5, truncated, not written by Keras, or rejected by `hdf5.read_hdf5`.
    """
    path = Path(path)
    try:
        stored = read_hdf5(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    config = stored.attributes[""].get("model_config")
    top = "model_weights/" if "model_weights" in stored.attributes else ""
    attributes = stored.attributes[top.rstrip("/")]
    if "layer_names" not in attributes and "layer_names0" not in attributes:
        raise UserError(f"{path}: an HDF5 file, but without a Keras model's weights")
    weights, listed = {}, set()
    for layer in _names(attributes, "layer_names"):
        if f"{top}{layer}" not in stored.attributes:
            raise UserError(f"{path}: lacks {layer}, which its list of layers names")
        names = _names(stored.attributes[f"{top}{layer}"], "weight_names")
        places = {name: f"{top}{layer}/{name}" for name in names}
        if missing := set(places.values()) - stored.arrays.keys():
            raise UserError(f"{path}: lacks {min(missing).removeprefix(top)}, which its list of weights names")
        listed |= set(places.values())
        if names:
            weights[layer] = {name: stored.arrays[place] for name, place in places.items()}
    held = {name for name in stored.arrays if name.startswith(top)}
    if left_over := held - listed:
        raise UserError(f"{path}: has {min(left_over).removeprefix(top)}, which its list of weights does not name")
    if isinstance(config, str):
        content = config.encode(errors="surrogateescape")
        config = decode(content, dict, f"{path}: its model configuration")
    elif config is not None:
        raise UserError(f"{path}: its model configuration is not text")
    return KerasH5(path, config, weights)


def assign_weights(layer, arrays, path, what):
    """Sets the weights of a layer (or model) in order; checks their number and shapes before reading them.

    Args:
        layer: a built Keras layer or model.
        arrays: the arrays in the order of `layer.weights`, NumPy's or `hdf5.StoredArray`.
        path, what: the file and the name in it, for error messages.

    Raises:
        UserError: if the number of arrays or a shape differs.
    """
    arrays = list(arrays)
    wanted = [tuple(variable.shape) for variable in layer.weights]
    found = [tuple(array.shape) for array in arrays]
    if wanted != found:
        raise UserError(f"{path}: {what} has weights of shapes {found}, expected {wanted}")
    layer.set_weights([np.asarray(array) for array in arrays])


def load_by_layer_name(model, path):
    """Loads a file into a built model of ours: every layer by name, nothing missing and nothing left over."""
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
    """Saves a whole model, architecture and weights, in one HDF5 file, atomically.

    Args:
        model: Keras model.
        path: the file.
        half: whether to store the weights as float16, for about half the size; they load like any others.

    Raises:
        UserError: if a weight exceeds the range of float16.
    """
    from keras.src.legacy.saving.legacy_h5_format import save_model_to_hdf5  # `Model.save` takes a path only

    with contextlib.ExitStack() as stack:
        file = stack.enter_context(written_hdf5(path))
        whole = stack.enter_context(h5py.File(io.BytesIO(), "w")) if half else file
        save_model_to_hdf5(model, whole, include_optimizer=False)
        if half:
            _copy_halved(whole, file, path)


@contextlib.contextmanager
def written_hdf5(path):
    """Yields an HDF5 file in memory to write to, which is written to `path`, atomically, if the block succeeds.

    On a full disk, the HDF5 library itself crashes on closing the file.
    """
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        yield file
    write_atomic(path, content.getbuffer())


def _copy_halved(old, new, path):
    """Copies an open file with its arrays in float16, packed."""

    def copy(name, item):
        if isinstance(item, h5py.Dataset):
            with np.errstate(over="ignore"):  # reported below
                half = item[()].astype(np.float16)
            if not np.isfinite(half).all():
                raise UserError(f"{path}: {name} has numbers beyond the range of float16")
            # For small arrays, the overhead would exceed the savings.
            options = {"compression": "gzip", "shuffle": True} if half.nbytes > 2**14 else {}
            place = new.create_dataset(name, data=half, **options)
        else:
            place = new.require_group(name)
        place.attrs.update(item.attrs)

    new.attrs.update(old.attrs)
    old.visititems(copy)


def _names(attributes, attribute):
    """Returns a list attribute, which Keras splits into `name0`, `name1`, … if it is long."""
    if attribute in attributes:
        return attributes[attribute]
    values, part = [], 0
    while f"{attribute}{part}" in attributes:
        values.extend(attributes[f"{attribute}{part}"])
        part += 1
    return values
