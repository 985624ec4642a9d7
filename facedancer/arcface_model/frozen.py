"""What all frozen networks have in common."""

import functools
from collections import Counter

import keras
import numpy as np
from keras import layers

from facedancer.core.weights_to_come import weights_to_come


def frozen(build):
    """Makes a builder's network one that is never trained, and that computes in float32 whatever the policy is.

    Its features are a measure, and half precision would put noise and overflow into it.
    """

    @functools.wraps(build)
    def build_frozen(*args, **kwargs):
        policy = keras.config.dtype_policy()
        keras.config.set_dtype_policy("float32")
        try:
            network = build(*args, **kwargs)
        finally:
            keras.config.set_dtype_policy(policy)
        network.trainable = False
        return network

    return build_frozen


@weights_to_come()
@frozen
def without_batch_norms(network):
    """Returns a frozen network that gives what `network` gives, up to rounding, in fewer passes over memory.

    A batch normalization behind a convolution is constant in a frozen network: the convolution's weights take it in.

    Args:
        network: functional model whose layers are each called once, with its weights.
    """
    read = Counter(
        tensor._keras_history.operation.name
        for tensor in keras.tree.flatten([layer.input for layer in network.layers] + network.outputs)
    )
    norm_after, norms = {}, set()
    for norm in network.layers:
        if isinstance(norm, layers.BatchNormalization):
            before = norm.input._keras_history.operation
            if _is_linear(before) and read[before.name] == 1:
                norm_after[before.name] = norm
                norms.add(norm.name)

    def copied(layer):
        bias = {"use_bias": True} if layer.name in norm_after else {}
        return type(layer).from_config(layer.get_config() | bias)

    def called(layer, *args, **kwargs):
        return args[0] if layer.name in norms else layer(*args, **kwargs)

    folded = keras.models.clone_model(network, clone_function=copied, call_function=called)
    for layer in network.layers:
        if layer.name in norm_after:
            folded.get_layer(layer.name).set_weights(_folded(layer, norm_after[layer.name]))
        elif layer.name not in norms and layer.weights:
            folded.get_layer(layer.name).set_weights(layer.get_weights())
    return folded


def _is_linear(layer):
    """Whether a layer is a convolution, its channels last, or a product with a matrix, and nothing more."""
    return (
        isinstance(layer, layers.Conv2D | layers.DepthwiseConv2D | layers.SeparableConv2D | layers.Dense)
        and layer.activation is keras.activations.linear
        and getattr(layer, "data_format", "channels_last") == "channels_last"
    )


def _folded(layer, norm):
    """The weights of a layer, with a bias, that does what it and the normalization behind it do."""
    gamma = 1.0 if norm.gamma is None else np.asarray(norm.gamma)
    beta = 0.0 if norm.beta is None else np.asarray(norm.beta)
    factor = gamma / np.sqrt(np.asarray(norm.moving_variance) + norm.epsilon)
    *kernels, last = layer.get_weights()[: -1 if layer.use_bias else None]
    bias = layer.get_weights()[-1] if layer.use_bias else 0.0
    last = last * (factor.reshape(last.shape[2:]) if isinstance(layer, layers.DepthwiseConv2D) else factor)
    return [*kernels, last, (bias - np.asarray(norm.moving_mean)) * factor + beta]
