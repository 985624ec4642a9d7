from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from facedancer.core.console import UserError
from facedancer.models.facedancer import (
    PRESETS,
    UP_TYPES,
    Config,
    build_discriminator,
    build_generator,
    build_networks,
    build_swapper,
)
from facedancer.models.families import FAMILIES, find_family


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 24_505_894),
        ({"mapping_size": 256}, 22_473_254),
        ({"up_types": (*("affa",) * 5, "concat")}, 26_998_054),
    ],
)
def test_generator_has_the_papers_number_of_parameters(changes, expected):
    assert build_generator(Config(**changes)).count_params() == expected


def test_discriminator_has_the_papers_number_of_parameters():
    assert build_discriminator(Config()).count_params() == 23_972_353


def test_preset_lite_is_small():
    networks = build_networks(PRESETS["lite"])
    assert 5.6e6 < networks["generator"].count_params() < 5.95e6  # 12 MB in float16
    assert networks["generator"].output.shape == (None, 128, 128, 3)


def check_gradients(model, inputs, without_gradient=()):
    """Every weight changes the output, as the gradient of a random projection of it shows."""
    with tf.GradientTape() as tape:
        output = model(inputs)
        total = ops.sum(output * np.random.default_rng(1).normal(size=output.shape).astype(np.float32))
    gradients = tape.gradient(total, [weight.value for weight in model.weights])
    for weight, gradient in zip(model.weights, gradients, strict=True):
        assert gradient is not None, weight.path
        if weight.path not in without_gradient:
            assert np.abs(gradient).max() > 1e-5, weight.path


# Each block type at the lowest resolution, in the middle and in the last block.
@pytest.mark.parametrize("start", range(len(UP_TYPES)))
def test_every_block_type_trains_at_every_place(tiny_config, inputs_of, start):
    types = tuple(UP_TYPES[(start + offset) % len(UP_TYPES)] for offset in range(3))
    generator = build_generator(tiny_config(up_types=types))
    inputs = inputs_of(generator)
    assert generator(inputs).shape == (2, 32, 32, 3)
    check_gradients(generator, inputs)


def test_discriminator_trains(tiny_config, inputs_of):
    discriminator = build_discriminator(tiny_config())
    (image,) = inputs_of(discriminator)
    assert discriminator(image).shape == (2, 1)
    # A shift just before a normalization has no effect; the original's blocks have it all the same.
    without_effect = [f"{size}x{size}_conv0/bias" for size in (16, 8)]
    check_gradients(discriminator, image, without_effect)


def test_identity_changes_the_face(tiny_config, inputs_of):
    for depth in (0, 1):
        generator = build_generator(tiny_config(mapping_depth=depth))
        target, embedding = inputs_of(generator)
        other = generator([target, -embedding])
        assert np.abs(other - generator([target, embedding])).max() > 1e-3


def test_swapper_takes_its_inputs_by_name(tiny_config, inputs_of):
    networks = build_networks(tiny_config())
    swapper = build_swapper(networks)
    target, embedding = inputs_of(swapper)
    np.testing.assert_array_equal(
        swapper({"target": target, "source_embedding": embedding}), networks["generator"]([target, embedding])
    )


def test_mixed_precision_returns_float32(tiny_config, inputs_of, randomize):
    config = tiny_config(up_types=("d_affa", "do_affa", "concat"))
    exact = build_networks(config)
    keras.config.set_dtype_policy("mixed_float16")
    try:
        mixed = build_networks(config)
    finally:
        keras.config.set_dtype_policy("float32")
    for name, network in mixed.items():
        network.set_weights(exact[name].get_weights())
        inputs = inputs_of(network)
        output = network(inputs if len(inputs) > 1 else inputs[0])
        expected = exact[name](inputs if len(inputs) > 1 else inputs[0])
        assert output.dtype == "float32"
        assert network.layers[3].compute_dtype == "float16"
        np.testing.assert_allclose(output, expected, atol=0.02 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"up_types": ("no_skip", "afa", "concat")}, "afa"),
        ({"up_types": ("affa", "concat")}, "2 blocks"),
        ({"image_size": 30}, "30"),
        ({"discriminator_widths": (4,) * 7}, "6 times"),
    ],
)
def test_bad_shapes_are_refused(tiny_config, changes, named):
    with pytest.raises(UserError, match=named):
        replace(tiny_config(), **changes)


def test_families_name_modules_with_the_builders():
    for name in FAMILIES:
        module = find_family(name)
        assert {"PRESETS", "build_networks", "build_swapper"} <= vars(module).keys()
