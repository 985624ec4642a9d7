"""Weights and pictures for the tests of the frozen networks."""

from pathlib import Path

import keras
import numpy as np
import pytest

from facedancer.core.console import UserError
from facedancer.core.weights import get_weights

FIXTURES = Path(__file__).resolve().parents[3] / "shared" / "fixtures" / "published_format"


@pytest.fixture(scope="session")
def published():
    """The folder of files in the published format; tests that use it skip without it."""
    if not FIXTURES.is_dir():
        pytest.skip("needs ../shared/fixtures/published_format, which is not in the repository")
    return FIXTURES


@pytest.fixture(scope="session")
def embedded():
    """Returns a function that fetches embedded weights by name, and skips where there is no network to fetch them."""

    def get(name):
        try:
            return get_weights(name)
        except UserError as error:
            pytest.skip(str(error))

    return get


@pytest.fixture
def mixed_precision():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy(policy)


@pytest.fixture(scope="session")
def waves():
    """Returns a function that makes smooth colored pictures (n, S, S, 3) uint8, the same for the same arguments."""

    def make(count, size):
        y, x = (np.mgrid[:size, :size] + 0.5) / size
        pictures = [
            [127.5 + 100 * np.sin((2 + 3 * i + c) * x + (5 - c) * y * (1 + i % 3) + c) for c in range(3)]
            for i in range(count)
        ]
        return np.rint(np.moveaxis(pictures, 1, -1)).astype(np.uint8)

    return make


@pytest.fixture(scope="session")
def input_gradient():
    """Returns a function: the gradient of the sum of squares of a model's outputs with respect to its input."""
    import tensorflow as tf

    def compute(model, inputs):
        # In a graph, as in training: run eagerly, TensorFlow computes the gradients of frozen kernels too, and its
        # one for kernels of one pixel with stride two reads beyond its input on a CPU where channels are few.
        @tf.function
        def gradient(inputs):
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                outputs = tf.nest.flatten(model(inputs))
                loss = sum(tf.reduce_sum(tf.cast(output, tf.float32) ** 2) for output in outputs)
            return tape.gradient(loss, inputs)

        return gradient(tf.constant(inputs, tf.float32)).numpy()

    return compute


@pytest.fixture(scope="session")
def reloaded():
    """Returns a function that writes a layer into a model file, loads it, and compares what both compute."""

    def check(layer, inputs, path):
        symbol = keras.Input(inputs.shape[1:])
        model = keras.Model(symbol, layer(symbol))
        model.save(path)
        expected = np.asarray(model(inputs))
        np.testing.assert_array_equal(np.asarray(keras.models.load_model(path)(inputs)), expected)
        return expected

    return check
