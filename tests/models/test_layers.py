import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from facedancer.models.layers import AdaIN, AttentionFusion, EmbeddingProjection, PasteInto, ReflectionPadding2D

FEATURES = (5, 4, 3)


def check_layer(layer_class, arguments, shapes, folder, randomize):
    """What holds for every layer: shape, gradients, mixed precision, and outputs that survive saving.

    Args:
        layer_class: the layer.
        arguments: its arguments, each off its default.
        shapes: of its inputs, without the batch.

    Returns:
        Inputs, the layer with random weights, and its output.
    """
    generator = np.random.default_rng(3)
    values = [generator.uniform(0.1, 0.9, (2, *shape)).astype(np.float32) for shape in shapes]

    def given(items):  # a layer of one input takes no list
        return items[0] if len(items) == 1 else items

    layer = layer_class(**arguments)
    layer.build(given([(None, *shape) for shape in shapes]))
    randomize(layer)
    tensors = [tf.Variable(value) for value in values]
    with tf.GradientTape() as tape:
        output = layer(given(tensors))
        total = ops.sum(ops.square(output))
    assert tuple(output.shape) == layer.compute_output_shape(given([value.shape for value in values]))
    for variable, gradient in zip(
        [*tensors, *layer.weights], tape.gradient(total, [*tensors, *(w.value for w in layer.weights)]), strict=True
    ):
        assert np.abs(gradient).max() > 0, variable.name

    mixed = layer_class(**{**arguments, "dtype": "mixed_float16"})
    mixed.build(given([(None, *shape) for shape in shapes]))
    mixed.set_weights(layer.get_weights())
    half = mixed(given(values))
    assert half.dtype == "float16"
    assert all(weight.dtype == "float32" for weight in mixed.weights)
    np.testing.assert_allclose(half, output, atol=0.02)

    inputs = [keras.Input(shape) for shape in shapes]
    model = keras.Model(given(inputs), layer(given(inputs)))
    for suffix in (".keras", ".h5"):
        path = folder / f"layer{suffix}"
        model.save(path)
        restored = keras.models.load_model(path)
        np.testing.assert_array_equal(restored(given(values)), model(given(values)))
        assert restored.layers[-1].get_config() == layer.get_config()
    return values, layer, output


ARGUMENTS = {"name": "somewhere", "trainable": False, "activity_regularizer": "l2"}


def test_adain_scales_and_shifts_by_the_identity(tmp_path, randomize):
    (features, identity), layer, output = check_layer(AdaIN, ARGUMENTS, [FEATURES, (6,)], tmp_path, randomize)
    scale_kernel, scale_bias, offset_kernel, offset_bias = layer.get_weights()
    scale = (identity @ scale_kernel + scale_bias)[:, None, None]
    offset = (identity @ offset_kernel + offset_bias)[:, None, None]
    np.testing.assert_allclose(output, features * scale + offset, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mask_channels", [1, 3])
def test_attention_fusion_blends_by_the_mask(tmp_path, randomize, mask_channels):
    shapes = [(5, 4, mask_channels), FEATURES, FEATURES]
    (mask, skip, decoded), _, output = check_layer(AttentionFusion, ARGUMENTS, shapes, tmp_path, randomize)
    np.testing.assert_allclose(output, (1 - mask) * skip + mask * decoded, rtol=1e-5)


def test_reflection_mirrors_about_the_border(tmp_path, randomize):
    ((x,), _, output) = check_layer(ReflectionPadding2D, {**ARGUMENTS, "size": 2}, [FEATURES], tmp_path, randomize)
    np.testing.assert_array_equal(output, np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="reflect"))


def test_a_projected_embedding_has_length_one_and_goes_by_the_direction(tmp_path, randomize):
    """Its matrix is saved, and never trained."""
    embedding = np.random.default_rng(3).normal(size=(2, 6)).astype(np.float32)
    inputs, layer = keras.Input((6,)), EmbeddingProjection(name="somewhere")
    model = keras.Model(inputs, layer(inputs))
    unit = embedding / np.linalg.norm(embedding, axis=-1, keepdims=True)
    np.testing.assert_allclose(model(embedding), unit, rtol=1e-5)  # as it begins
    (emap,) = randomize(layer).get_weights()
    assert layer.weights and not layer.trainable_weights
    projected = embedding @ emap
    output = model(embedding)
    np.testing.assert_allclose(output, projected / np.linalg.norm(projected, axis=-1, keepdims=True), rtol=1e-4)
    np.testing.assert_allclose(model(3 * embedding), output, rtol=1e-5)
    for suffix in (".keras", ".h5"):
        model.save(tmp_path / f"layer{suffix}")
        np.testing.assert_array_equal(keras.models.load_model(tmp_path / f"layer{suffix}")(embedding), output)


def test_a_picture_is_pasted_into_another(tmp_path, randomize):
    arguments = {**ARGUMENTS, "top": 3, "left": 1}
    (around, inner), _, output = check_layer(PasteInto, arguments, [(6, 5, 3), (2, 3, 3)], tmp_path, randomize)
    expected = around.copy()
    expected[:, 3:5, 1:4] = inner
    np.testing.assert_array_equal(output, expected)


def test_a_picture_passes_into_the_other_at_a_soft_border(tmp_path, randomize):
    arguments = {**ARGUMENTS, "top": 1, "left": 0, "fade": 2}
    (around, inner), _, output = check_layer(PasteInto, arguments, [(7, 6, 3), (5, 5, 3)], tmp_path, randomize)
    ramp = np.float32([0.15625, 0.84375, 1, 0.84375, 0.15625])  # smoothstep of 1/4, 3/4
    share = (ramp[:, None] * ramp)[..., None]
    expected = around.copy()
    expected[:, 1:6, :5] += share * (inner - around[:, 1:6, :5])
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(output[:, 3, 2], inner[:, 2, 2])
