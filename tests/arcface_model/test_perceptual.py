"""Perceptual networks get the preprocessing they were trained with, and say what is missing."""

import hashlib
import urllib.error
import urllib.request

import keras
import numpy as np
import pytest

from facedancer.arcface_model import perceptual
from facedancer.arcface_model.conversion import convert_mobilenet_v2
from facedancer.arcface_model.mobilenet_v2 import build_mobilenet_v2, torch_names
from facedancer.arcface_model.perceptual import build_perceptual_network, build_vgg16
from facedancer.core.console import UserError


def test_mobilenet_gives_the_reference_features(embedded, waves, input_gradient):
    """The numbers are those of the sketch that named ImageNet's pictures right."""
    embedded("mobilenet_v2")
    network = build_perceptual_network("mobilenet_v2", 96)
    signed = waves(1, 96) / np.float32(127.5) - 1
    features = [np.asarray(feature) for feature in network(signed)]
    expected = [
        [-0.10327, -0.16014, -0.1185, 0.46942],
        [0.11698, 0.37443, 0.29907, -0.64019],
        [0.33804, 0.97208, 1.15019, 0.09823],
        [0.3915, -0.09453, 0.27466, 0.04013],
    ]
    assert [feature.shape[1:] for feature in features] == [
        (48, 48, 16), (24, 24, 24), (12, 12, 32), (6, 6, 96), (3, 3, 320),
    ]  # fmt: skip
    for feature, values in zip(features, expected, strict=False):
        np.testing.assert_allclose(feature[0, 2, 3, :4], values, atol=2e-4)
    assert not network.trainable and not network.trainable_weights
    gradient = input_gradient(network, signed)
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


def test_mobilenet_names_every_layer():
    model, names = build_mobilenet_v2(32), torch_names()
    assert sorted(names) == sorted(layer.name for layer in model.layers if layer.weights)
    assert len(set(names.values())) == len(names) == 2 * 51
    for name in names:
        is_batch_normalization = isinstance(model.get_layer(name), keras.layers.BatchNormalization)
        assert is_batch_normalization != name.endswith("_conv")


def test_mobilenet_conversion_is_strict(monkeypatch, tmp_path):
    model, generator, state = build_mobilenet_v2(32), np.random.default_rng(0), {}
    for ours, theirs in torch_names().items():
        layer = model.get_layer(ours)
        if ours.endswith("_conv"):
            axes = (2, 3, 0, 1) if isinstance(layer, keras.layers.DepthwiseConv2D) else (3, 2, 0, 1)
            state[f"{theirs}.weight"] = generator.normal(size=layer.kernel.shape).transpose(axes).astype(np.float32)
            continue
        for kind in ("weight", "bias", "running_mean", "running_var"):
            state[f"{theirs}.{kind}"] = generator.uniform(0.5, 1, layer.gamma.shape).astype(np.float32)
        state[f"{theirs}.num_batches_tracked"] = np.array(1)
    state["classifier.1.weight"] = state["features.18.0.weight"] = np.zeros((2, 2), np.float32)
    path = tmp_path / "converted.h5"

    def convert(**changes):
        changed = {name: array for name, array in {**state, **changes}.items() if array is not None}
        monkeypatch.setattr("facedancer.arcface_model.conversion.read_torch_state_dict", lambda content: changed)
        convert_mobilenet_v2(b"", path)

    for changes, reason in (
        ({"features.3.conv.1.0.weight": None}, "lacks features.3.conv.1.0.weight"),
        ({"features.19.weight": np.zeros(1)}, "has features.19.weight"),
        ({"features.0.1.bias": np.zeros(31)}, "features.0.1 has weights of shapes"),
    ):
        with pytest.raises(UserError, match=reason), monkeypatch.context() as patch:
            # Built once: a refused file's weights go nowhere.
            patch.setattr("facedancer.arcface_model.mobilenet_v2.build_mobilenet_v2", lambda _: model)
            convert(**changes)
        assert not path.exists()
    convert()
    from facedancer.core.keras_h5 import load_by_layer_name

    loaded = load_by_layer_name(build_mobilenet_v2(32), path)
    kernel = np.asarray(loaded.get_layer("features4_depthwise_conv").kernel)
    np.testing.assert_array_equal(kernel[..., 0], state["features.4.conv.1.0.weight"][:, 0].transpose(1, 2, 0))
    kernel = np.asarray(loaded.get_layer("features4_expand_conv").kernel)
    np.testing.assert_array_equal(kernel[0, 0], state["features.4.conv.0.0.weight"][:, :, 0, 0].T)


def test_vgg16_gets_its_own_preprocessing(monkeypatch, tmp_path, waves):
    """With made-up weights, in the file that Keras would fetch."""
    keras.utils.set_random_seed(0)
    reference = keras.applications.VGG16(include_top=False, weights=None, input_shape=(32, 32, 3))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    path = tmp_path / "models" / perceptual._KERAS_FILES["VGG16"][1]
    path.parent.mkdir()
    reference.save(path)
    folder, file, _ = perceptual._KERAS_FILES["VGG16"]
    made_up = (folder, file, hashlib.md5(path.read_bytes()).hexdigest())
    monkeypatch.setitem(perceptual._KERAS_FILES, "VGG16", made_up)
    faces = waves(1, 32)
    found = build_perceptual_network("vgg16", 32)(faces / np.float32(127.5) - 1)
    prepared = keras.applications.vgg16.preprocess_input(faces.astype(np.float32))
    taps = [reference.get_layer(f"block{block}_pool").output for block in range(1, 6)]
    expected = keras.Model(reference.input, taps)(prepared)
    assert len(found) == 5
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4 * float(np.abs(other).max()))
    path.write_bytes(b"<html>sign in</html>")
    with pytest.raises(UserError, match="not VGG16's weights"):
        build_perceptual_network("vgg16", 32)


def test_says_where_vgg16_belongs(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))

    def no_network(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    with pytest.raises(UserError, match="could not fetch") as raised:
        build_perceptual_network("vgg16", 32)
    assert str(tmp_path / "models" / perceptual._KERAS_FILES["VGG16"][1]) in str(raised.value)
    with pytest.raises(UserError, match=r"could not fetch InceptionV3's weights .*leave --inception out"):
        perceptual.load_inception()
    assert not (tmp_path / "models").exists()
    assert len(build_vgg16(32).output) == 5
    with pytest.raises(ValueError, match="no perceptual network"):
        build_perceptual_network("vgg19", 32)
