"""The projected discriminator on the original's own frozen network: what it judges, how it is trained, weak matching.

The weights follow from the tensors' names, as the README of the fixtures says.
"""

import json
import zlib
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from efficientnet_lite0 import PLACE, build_efficientnet_lite0

from facedancer.core.torch_weights import give_torch_weights
from facedancer.models.discriminators import build_projected

FIXTURES = Path(__file__).resolve().parents[3] / "shared" / "fixtures" / "simswap"


def relative(found, expected):
    return np.abs(np.asarray(found) - expected).max() / np.abs(expected).max()


def made_tensor(name, shape):
    rng, leaf = np.random.RandomState(zlib.crc32(f"0:{name}".encode())), name.rsplit(".", 1)[-1]
    if leaf == "running_var":
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    numbers = np.float32(rng.standard_normal(shape))
    if len(shape) > 1:
        return numbers * np.float32(1.2 / np.sqrt(np.prod(shape[1:])))
    return 1 + np.float32(0.15) * numbers if leaf == "weight" else np.float32(0.1) * numbers


@pytest.fixture(scope="module")
def stored():
    if not FIXTURES.is_dir():
        pytest.skip("needs ../shared/fixtures/simswap, which is not in the repository")
    return np.load(FIXTURES / "D_projected_full_recipe_io.npz")


@pytest.fixture(scope="module")
def state(stored):
    tensors = json.loads((FIXTURES / "tensors_D_projected_timm1.json").read_text())["tensors"]
    return {name: made_tensor(name, shape) for name, shape, *_ in tensors if not name.endswith("num_batches_tracked")}


@pytest.fixture(scope="module")
def frozen_network(state):
    network = build_efficientnet_lite0(256)
    places = {layer.name: layer.name for layer in network.layers if layer.weights}
    give_torch_weights(network, places, {name: x for name, x in state.items() if name.startswith(PLACE)}, "made")
    return network


@pytest.fixture(scope="module")
def features(frozen_network, stored):
    return frozen_network.predict_on_batch(stored["image"].transpose(0, 2, 3, 1))


@pytest.fixture
def discriminator(state, stored):
    model = build_projected(256, 64, (24, 40, 112, 320))

    def weights_of(layer):
        if "mix" in layer.name:
            end = "ccm" if layer.name.startswith("channel") else "csm.out_conv"
            place = f"feature_network.scratch.layer{layer.name[-1]}_{end}"
            return [state[f"{place}.weight"].transpose(2, 3, 1, 0), state[f"{place}.bias"]]
        place = f"discriminator.mini_discs.{layer.name[5]}.main.{layer.name[-1]}"
        if "norm" in layer.name:
            return [state[f"{place}.main.1.{end}"] for end in ("weight", "bias", "running_mean", "running_var")]
        place += ".main.0" if layer.use_bias else ""
        kernel = state[f"{place}.weight_orig"]
        left, right = (stored[f"{place.replace('.', '/')}/weight_{end}"] for end in "vu")
        left = left.reshape(kernel.shape[1:]).transpose(1, 2, 0).ravel()
        return [kernel.transpose(2, 3, 1, 0), *([state[f"{place}.bias"]] if layer.use_bias else []), left, right]

    for layer in model.layers:
        if layer.weights:
            layer.set_weights(weights_of(layer))
    return model


def test_features_are_projected_and_judged_as_the_originals(stored, features, discriminator):
    for index, found in enumerate(features):
        assert relative(found.transpose(0, 3, 1, 2)[:, ::4, ::2, ::2], stored[f"backbone_{index}"]) < 1e-4
    mixes = [discriminator.get_layer(f"scale_mix{index}").output for index in range(4)]
    for index, found in enumerate(keras.Model(discriminator.inputs, mixes).predict_on_batch(features)):
        assert relative(found.transpose(0, 3, 1, 2)[:, ::16, ::4, ::4], stored[f"projected_{index}"]) < 1e-4
    assert relative(discriminator.predict_on_batch(features), stored["logits"]) < 1e-4


def test_a_training_pass_is_the_originals(features, discriminator):
    after = np.load(FIXTURES / "D_projected_full_recipe_training_io.npz")
    assert relative(discriminator(features, training=True), after["logits"]) < 1e-4
    layer, norm = discriminator.get_layer("scale0_conv0"), discriminator.get_layer("scale0_norm0")
    left, right, kernel = (x.numpy() for x in (layer.left, layer.right, layer.kernel))
    assert relative(right, after["u_after"]) < 1e-4
    assert relative(left.reshape(4, 4, 64).transpose(2, 0, 1).ravel(), after["v_after"]) < 1e-4
    assert left @ kernel.reshape(-1, 64) @ right == pytest.approx(float(after["sigma"]), rel=1e-4)
    assert relative(norm.moving_variance, after["running_var_after"]) < 1e-4


def test_weak_feature_matching_is_the_originals(stored, frozen_network):
    """In float64, as the sign of a difference near 0 would be a matter of rounding."""
    keras.config.set_dtype_policy("float64")
    try:
        network = build_efficientnet_lite0(256)
    finally:
        keras.config.set_dtype_policy("float32")
    network.set_weights(frozen_network.get_weights())
    expected = np.load(FIXTURES / "weak_feature_matching_io.npz")
    scale, shift = expected["scale_and_shift"]
    picture = tf.constant(stored["image"].transpose(0, 2, 3, 1), tf.float64)
    with tf.GradientTape() as tape:
        changed = scale * picture + shift
        tape.watch(changed)
        last = [network(x, training=False)[-1] for x in (changed, picture)]
        loss = tf.reduce_mean(tf.abs(last[0] - last[1]))
    assert float(loss) == pytest.approx(float(expected["loss"]), rel=1e-4)
    gradient = tape.gradient(loss, changed).numpy().transpose(0, 3, 1, 2)[..., :24, :24]
    assert relative(gradient, expected["grad_corner"]) < 1e-4
