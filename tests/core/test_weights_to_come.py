import keras
import numpy as np
import pytest

from facedancer.core.weights_to_come import weights_to_come


def build():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, kernel_initializer="orthogonal")(inputs)
    x = keras.layers.SeparableConv2D(4, 3, depthwise_initializer="random_normal")(x)
    x = keras.layers.BatchNormalization()(x)
    return keras.Model(inputs, keras.layers.Dense(2)(x))


def drawn(model):
    """The weights that Keras draws, and the others."""
    kernels = [weight for weight in model.weights if "kernel" in weight.name]
    return kernels, [weight for weight in model.weights if "kernel" not in weight.name]


def test_what_would_be_drawn_is_nan_and_the_rest_is_as_always():
    before = build()
    with weights_to_come():
        inside = build()
    kernels, others = drawn(inside)
    assert len(kernels) == 4 and all(np.isnan(kernel).all() for kernel in kernels)
    for weight, expected in zip(others, drawn(before)[1], strict=True):
        np.testing.assert_array_equal(weight, expected)
    inside.set_weights(before.get_weights())
    faces = np.random.default_rng(0).normal(size=(1, 8, 8, 3)).astype(np.float32)
    np.testing.assert_array_equal(inside(faces), before(faces))


def test_weights_are_drawn_again_afterwards():
    @weights_to_come()
    def fails():
        with weights_to_come():
            build()
        assert np.isnan(drawn(build())[0][0]).all()
        raise ValueError

    for _ in range(2):
        with pytest.raises(ValueError):
            fails()
        assert all(np.isfinite(kernel).all() and np.std(kernel) > 0 for kernel in drawn(build())[0])
