"""LPIPS gives what the original gave, by weights that follow from their names and its own for the channels."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from torch_recipe import last, made_weights, relative

from facedancer.arcface_model import lpips
from facedancer.arcface_model.lpips import SLICES, build_lpips
from facedancer.core.console import UserError
from facedancer.core.torch_weights import give_torch_weights

FIXTURES = Path(__file__).resolve().parents[3] / "shared" / "fixtures" / "hififace"


@pytest.fixture(scope="module")
def stored():
    if not FIXTURES.is_dir():
        pytest.skip("needs ../shared/fixtures/hififace, which is not in the repository")
    return np.load(FIXTURES / "lpips_vgg_recipe_io.npz")


def test_distances_and_features(stored):
    tensors = [item for item in json.loads((FIXTURES / "tensors_lpips_vgg.json").read_text()) if item[0][:4] == "net."]
    state = {
        name: array * np.float32(1.2 if array.ndim > 1 else 1)
        for name, array in made_weights({"tensors": tensors}).items()
    }
    state |= {f"lin{index}.model.1.weight": stored[f"lin{index}_model_1_weight"] for index in range(5)}
    network = build_lpips(64)
    assert not network.trainable_variables
    give_torch_weights(network, {layer.name: layer.name for layer in network.layers if layer.weights}, state, "made")

    taps = [f"net.slice{index + 1}.{numbers[-1]}" for index, (numbers, _) in enumerate(SLICES)]
    features = {f"features{index}": network.get_layer(name).output for index, name in enumerate(taps)}
    whole = keras.Model(network.input, {**network.output, **features})
    found = whole.predict_on_batch([last(stored["a"]), last(stored["b"])])
    assert relative(found["distance"], stored["distance"].ravel()) < 1e-4
    for index in range(5):
        assert relative(found[f"slice{index + 1}"], stored[f"layer_{index}"].ravel()) < 1e-4
        of_first = found[f"features{index}"][: len(stored["a"]), ..., ::16]
        assert relative(of_first, last(stored[f"feature_{index}_every_16th"])) < 1e-4


def test_files_of_torchvision_and_lpips(stored, monkeypatch, tmp_path):
    """Of VGG16's file the features alone are needed; what is missing in either is named."""
    tensors = [item for item in json.loads((FIXTURES / "tensors_lpips_vgg.json").read_text()) if item[0][:4] == "net."]
    made = made_weights({"tensors": tensors})
    state = {
        f"features.{name.split('.', 2)[2]}": array * np.float32(1.2 if array.ndim > 1 else 1)
        for name, array in made.items()
    }
    state |= {"classifier.0.weight": np.zeros((1, 1), np.float32)}
    linear = {f"lin{index}.model.1.weight": stored[f"lin{index}_model_1_weight"] for index in range(5)}
    files = {"vgg16-397923af.pth": state, "lpips_vgg.pth": linear}
    monkeypatch.setenv("FACEDANCER_HOME", str(tmp_path))
    with pytest.raises(UserError, match=r"vgg16-397923af\.pth is not there"):
        lpips.load_lpips(64)
    (tmp_path / "arcface_model").mkdir()
    for name in files:
        (tmp_path / "arcface_model" / name).touch()
    monkeypatch.setattr(lpips, "read_torch_state_dict", lambda path: files[path.name])
    found = lpips.load_lpips(64).predict_on_batch([last(stored["a"]), last(stored["b"])])
    assert relative(found["distance"], stored["distance"].ravel()) < 1e-4
    del linear["lin3.model.1.weight"]
    with pytest.raises(UserError, match=r"lacks lin3\.model\.1\.weight"):
        lpips.load_lpips(64)


def test_a_picture_is_like_itself_and_less_like_another():
    network = build_lpips(32)
    for index in range(len(SLICES)):
        layer = network.get_layer(f"lin{index}.model.1")
        layer.set_weights([np.ones_like(layer.get_weights()[0])])
    generator = np.random.default_rng(1)
    pictures = generator.uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)
    assert network.predict_on_batch([pictures, pictures])["distance"].max() == 0
    assert network.predict_on_batch([pictures, pictures[::-1]])["distance"].min() > 0
