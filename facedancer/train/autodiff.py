"""Differentiation, the one thing that Keras leaves to its backend. TensorFlow here; nothing else in training asks."""

import tensorflow as tf


def value_and_gradients(loss_fn, variables):
    """Evaluates `loss_fn` and differentiates the sum of its losses.

    Args:
        loss_fn: function of nothing returning `(losses, outputs)`: a dictionary of scalars, and any structure.
        variables: list of `keras.Variable`.

    Returns:
        `(losses, outputs, gradients)`, the gradients divided by the number of replicas: the optimizer sums them over
        the replicas, and each holds its share of the batch.
    """
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    with tf.GradientTape() as tape:
        losses, outputs = loss_fn()
        total = sum(losses.values()) / replicas
    return losses, outputs, tape.gradient(total, [variable.value for variable in variables])


def input_gradient(fn, x):
    """Returns the gradient of the sum of `fn(x)` with respect to `x`, which can itself be differentiated."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        total = tf.reduce_sum(fn(x))
    return tape.gradient(total, x)
