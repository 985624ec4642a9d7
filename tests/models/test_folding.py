"""Folding: the same results with fewer products, and hands off what fits no pattern."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from facedancer.models.facedancer import Config, build_discriminator, build_generator
from facedancer.models.folding import fold, folded_view, normalize_features
from facedancer.models.layers import AdaIN
from facedancer.train import autodiff
from facedancer.video_swap import engines


def randomize(model):
    """Gives every weight a value that shows, biases and the norms' offsets too."""
    draw = np.random.default_rng(0)
    for layer in model.layers:
        layer.set_weights([weight + draw.normal(0, 0.3, weight.shape) for weight in layer.get_weights()])
    return model


def compare(model, inputs, precision="float32"):
    folded = fold(model, precision)
    expected, found = (np.array(one(inputs)) for one in (model, folded))
    assert found.shape == expected.shape and found.dtype == np.float32
    return folded, np.abs(found - expected).max() / expected.std()


@pytest.fixture(scope="module")
def generator():
    config = Config(
        image_size=32, embedding_dim=5, mapping_depth=2, mapping_size=8, widths=(4, 8, 12),
        up_types=("no_skip", "affa", "concat"), discriminator_widths=(4, 8),
    )  # fmt: skip
    return randomize(build_generator(config))


@pytest.fixture
def inputs():
    draw = np.random.default_rng(1)
    return [draw.uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32), draw.normal(size=(2, 5)).astype(np.float32)]


def test_a_generator_gives_the_same(generator, inputs):
    folded, error = compare(generator, inputs)
    assert error < 1e-4
    halving = [x.name for x in folded.layers if isinstance(x, layers.Conv2D) and x.strides == (2, 2)]
    assert halving == ["encoder_16x16_conv0", "encoder_8x8_conv0"]
    doublings = [layer for layer in folded.layers if isinstance(layer, layers.UpSampling2D)]
    assert len(doublings) == 2 and sum(isinstance(x, layers.UpSampling2D) for x in generator.layers) == 4


def test_a_view_trains_the_weights_of_its_model(inputs):
    """Output and gradients are the model's own, through the model's own weights."""
    config = Config(image_size=32, embedding_dim=5, widths=(4, 8, 12), discriminator_widths=(4, 8),
                              up_types=("no_skip", "affa", "concat"))  # fmt: skip
    for model, given in ((build_generator(config), inputs), (build_discriminator(config), inputs[0])):
        model = randomize(model)
        view, found = folded_view(model), []
        assert {id(variable) for variable in view.variables} == {id(variable) for variable in model.variables}
        for network in (model, view):
            with tf.GradientTape() as tape:
                outputs = network(given)
                loss = tf.reduce_mean(outputs**2)
            found.append([outputs, *tape.gradient(loss, model.trainable_variables)])
        # What a norm takes out again has no gradient but the rounding of the others.
        largest = max(np.abs(gradient).max() for gradient in found[0])
        for plain, folded in zip(*found, strict=True):
            np.testing.assert_allclose(folded, plain, rtol=1e-3, atol=1e-5 * largest)


def test_lower_precision_is_near(generator, inputs):
    folded, error = compare(generator, inputs, "mixed_bfloat16")
    assert 1e-4 < error < 0.3
    assert folded.get_layer("encoder_16x16_conv0").compute_dtype == "bfloat16"


@pytest.mark.parametrize("change", ["activation", "stride", "valid", "read twice", "odd", "pool of 3", "output"])
def test_what_does_not_fit_stays(change):
    inputs = keras.Input((10 if change == "odd" else 12, 12, 3))
    x = layers.Conv2D(4, 1, name="first")(inputs)
    x = layers.Conv2D(
        4, 3, 2 if change == "stride" else 1, "valid" if change in ("valid", "odd") else "same",
        activation="relu" if change == "activation" else None, name="conv",
    )(x)  # fmt: skip
    if change == "odd":
        x = layers.ZeroPadding2D(((0, 1), (0, 0)))(x)
    y = layers.AveragePooling2D(3 if change == "pool of 3" else 2)(x)
    outputs = y
    if change == "read twice":
        outputs = layers.Concatenate()([layers.MaxPooling2D(2)(x), y])
    elif change == "output":
        outputs = [x, y]
    model = randomize(keras.Model(inputs, outputs))
    picture = np.random.default_rng(2).normal(size=(1, *inputs.shape[1:])).astype(np.float32)
    folded = fold(model)
    assert (folded.get_layer("conv").strides == (2, 2)) == (change == "stride")
    for expected, found in zip(*(keras.tree.flatten(one(picture)) for one in (model, folded)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("normalize", [normalize_features, autodiff.normalize_features, engines._normalize_pictures])
@pytest.mark.parametrize("affine", [(False, False), (True, False), (False, True)])
def test_norms_without_scale_or_offset_and_with_a_small_epsilon(normalize, affine):
    """Features so small that an epsilon of 1e-5 would show are brought to the same size."""
    scale, center = affine
    inputs = [keras.Input((6, 6, 3)), keras.Input((5,))]
    norm = {"groups": -1, "epsilon": 1e-8, "scale": scale, "center": center}
    x = layers.GroupNormalization(**norm, name="before")(inputs[0])
    y = AdaIN(1.0)([layers.GroupNormalization(**norm, name="within")(layers.Rescaling(1e-3)(x)), inputs[1]])
    model = randomize(keras.Model(inputs, layers.Concatenate()([x, y])))
    draw = np.random.default_rng(1)
    given = [draw.normal(0, 2e-3, (2, 6, 6, 3)).astype(np.float32), draw.normal(size=(2, 5)).astype(np.float32)]
    for folded in (fold(model, normalize=normalize), folded_view(model, normalize)):
        np.testing.assert_allclose(folded(given), model(given), rtol=2e-3, atol=2e-3)
    wider = model.get_config()
    for layer in wider["layers"]:
        if layer["class_name"] == "GroupNormalization":
            layer["config"]["epsilon"] = 1e-5
    wider = keras.Model.from_config(wider)
    wider.set_weights(model.get_weights())
    assert np.abs(wider(given) - model(given)).max() > 0.1
