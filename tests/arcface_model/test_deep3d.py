"""The network of a parametric face's coefficients, and its file."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from torch_recipe import last, made_weights, relative

from facedancer.arcface_model.deep3d_resnet50 import build_deep3d_resnet50, load_deep3d
from facedancer.core.console import UserError
from facedancer.core.torch_weights import give_torch_weights

FIXTURES = Path(__file__).resolve().parents[3] / "shared" / "fixtures" / "hififace"


@pytest.fixture(scope="session")
def fixtures():
    """The folder of small files in the published format; tests that use it skip without it."""
    if not FIXTURES.is_dir():
        pytest.skip("needs ../shared/fixtures/hififace, which is not in the repository")
    return FIXTURES


def test_a_published_file_gives_what_the_original_gave(fixtures):
    stored = np.load(fixtures / "f_3d_small_io.npz")
    network = load_deep3d(fixtures / "epoch_20_small.pth", 64)
    assert not network.trainable_variables
    assert relative(network(last(stored["image"])), stored["coefficients"]) < 1e-4


def test_a_checkpoint_of_hififace_has_it_too(fixtures):
    stored = np.load(fixtures / "identity_vector_small_io.npz")
    network = load_deep3d(fixtures / "hififace_opensouce_299999_small.ckpt", 64)
    for name in ("source", "source2", "target"):
        assert relative(network(last(stored[name])), stored[f"c_{name}"]) < 1e-4


def test_the_network_of_full_size(fixtures):
    described = json.loads((fixtures / "tensors_f_3d.json").read_text())
    stored = np.load(fixtures / "f_3d_full_recipe_io.npz")
    network = build_deep3d_resnet50(size=64)
    statistics = sum(int(np.prod(v.shape)) for v in network.variables if v.path.split("/")[-1].startswith("moving_"))
    assert network.count_params() - statistics == 24_034_625
    places = {layer.name: layer.name for layer in network.layers if layer.weights}
    give_torch_weights(network, places, made_weights(described), "made")
    parts = [network.get_layer(name).output for name in ("backbone.layer1.2.relu3", "pooled")]
    layer1, pooled, coefficients = keras.Model(network.input, [*parts, network.output])(last(stored["image"]))
    assert relative(layer1[..., ::32], last(stored["layer1"])) < 1e-4
    assert relative(pooled, last(stored["pooled"])) < 1e-4
    assert relative(coefficients, stored["coefficients"]) < 1e-4


def test_a_file_of_something_else_is_one_line(fixtures):
    with pytest.raises(UserError, match="holds no net_recon"):
        load_deep3d(fixtures / "discriminator_features_small.pth")
