"""Frozen networks lose their batch normalizations and change nothing else."""

import keras
import numpy as np
from keras import layers

from facedancer.arcface_model.frozen import without_batch_norms


def network_with_norms():
    """Kinds of layers with a norm behind them: five that take it in; one that is read twice, one that is no matrix."""
    inputs = x = keras.Input((12, 12, 3))
    x = layers.BatchNormalization(name="first")(x)
    x = layers.Conv2D(8, 3, use_bias=False, name="conv")(x)
    x = layers.BatchNormalization(name="conv_norm")(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise")(layers.ReLU(name="relu")(x))
    x = layers.BatchNormalization(scale=False, name="depthwise_norm")(x)
    x = layers.SeparableConv2D(6, 3, use_bias=False, name="separable")(x)
    x = layers.BatchNormalization(center=False, name="separable_norm")(x)
    x = layers.Conv2D(6, 1, name="twice")(x)
    x = layers.Add(name="sum")([x, layers.BatchNormalization(name="twice_norm")(x)])
    x = layers.Conv2D(6, 1, activation="relu", name="bent")(x)
    features = layers.BatchNormalization(name="bent_norm")(x)
    x = layers.Dense(4, use_bias=False, name="dense")(layers.Flatten(name="flat")(features))
    return keras.Model(inputs, {"features": features, "embedding": layers.BatchNormalization(name="dense_norm")(x)})


def test_norms_go_into_the_layers_before_them():
    network, draws = network_with_norms(), np.random.default_rng(0)
    for weight in network.weights:
        low = 0.3 if "variance" in weight.path else -1.0
        weight.assign(draws.uniform(low, 1.5, weight.shape))
    folded = without_batch_norms(network)

    norms = [layer.name for layer in folded.layers if isinstance(layer, layers.BatchNormalization)]
    assert norms == ["first", "twice_norm", "bent_norm"]
    assert not folded.trainable_variables
    faces = draws.uniform(-1, 1, (3, 12, 12, 3)).astype(np.float32)
    wanted, found = network(faces, training=False), folded(faces, training=False)
    assert wanted.keys() == found.keys()
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-4, atol=1e-4 * np.abs(wanted[name]).max())
