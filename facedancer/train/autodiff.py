"""Differentiation, the one thing that Keras leaves to its backend, for TensorFlow, JAX and PyTorch.

An objective needs two functions: the gradients of a loss, and, for R1, the gradient with respect to an input. The
others adapt the train step to each backend. Everything above that is written once, with `keras.ops`.
"""

import contextlib
import functools
import itertools

import keras
from keras import ops, tree

from facedancer.models import folding


def value_and_gradients(loss_fn, variables, scale=lambda total: total):
    """Evaluates `loss_fn` and differentiates the sum of its losses.

    Args:
        loss_fn: function of `aside`, returning `(losses, outputs)`: a dictionary of scalars, and any structure.
            `with aside():` surrounds code with its own derivatives, constant here; without it TensorFlow also builds
            derivatives of those derivatives, a fifth of the time before the first step.
        variables: list of `keras.Variable`.
        scale: function applied to the sum before differentiation, such as an optimizer's `scale_loss`.

    Returns:
        `(losses, outputs, gradients)`, the gradients zero where the losses do not reach, and divided by the number of
        replicas: the optimizer sums them over the replicas, and each holds its share of the batch.
    """
    losses, outputs, gradients, _ = _value_and_gradients(
        loss_fn, variables, lambda losses: scale(sum(losses.values()) / replica_count()), None
    )
    return losses, outputs, gradients


def value_and_gradients_at(loss_fn, variables, x, scale=lambda total: total):
    """Like `value_and_gradients`, for `loss_fn(aside, x)`; also returns, last, the gradient in `x`, unscaled."""
    *found, gradient = _value_and_gradients(
        loss_fn, variables, lambda losses: scale(sum(losses.values()) / replica_count()), x
    )
    return *found, gradient * (replica_count() / scale(ops.ones(())))


def input_gradient(fn, x):
    """Returns the gradient of the sum of `fn(x)` with respect to `x`, which can itself be differentiated.

    Variables that `fn` updates, such as moving averages, are updated once, as by calling it.
    """
    return _input_gradient(fn, x)


def normalize_features(x, scale, offset, epsilon):
    """`folding.normalize_features`, in the fastest form for first derivatives; R1 must not use it."""
    return _normalize_features(x, scale, offset, epsilon)


def as_train_step(step):
    """Makes a method `step(self, batch) -> losses` the `train_step` that `fit` calls."""
    return functools.wraps(step)(_as_train_step(step))


def replica_count():
    """Returns the number of replicas over which an optimizer sums gradients."""
    return _replica_count()


def rows_that_count(is_counted, tensors):
    """Drops rows that do not count, to save computation, if the engine supports dynamic row counts.

    Args:
        is_counted: (n,) in {0, 1}.
        tensors: list of (n, …).

    Returns:
        `(is_counted, tensors)` of the remaining rows: those that count, or more.
    """
    return _rows_that_count(is_counted, tensors)


def mean_over_microbatches(fn, batch, count):
    """Averages `fn` over equal microbatches, computed one after another to bound memory to that of one.

    Args:
        fn: function of a batch, returning a structure of tensors.
        batch: dictionary of tensors (n, …).
        count: number of microbatches, a divisor of n.
    """
    if count == 1:
        return fn(batch)
    split = {name: ops.reshape(x, (count, -1, *x.shape[1:])) for name, x in batch.items()}

    def microbatch(index):
        return fn({name: x[index] for name, x in split.items()})

    def add(index, total):
        return tree.map_structure(ops.add, total, microbatch(index))

    total = _repeat(add, 1, count, microbatch(0))
    return tree.map_structure(lambda x: x / count, total)


if keras.backend.backend() == "tensorflow":
    import tensorflow as tf
    from keras.src import backend as keras_backend

    @contextlib.contextmanager
    def _moments_to_differentiate_twice():
        """Makes normalization layers compute mean and variance so that second derivatives are right.

        `tf.nn.moments` treats the mean as a constant within the variance. That is right for first derivatives, but R1's
        gradient, a second derivative, was 1 to 9 % off in the weights before an instance normalization.
        """

        def moments(x, axes, keepdims=False, synchronized=False):
            mean = tf.reduce_mean(x, axes, keepdims=True)
            variance = tf.reduce_mean(tf.square(x - mean), axes, keepdims=True)
            if not keepdims:
                mean, variance = tf.squeeze(mean, axes), tf.squeeze(variance, axes)
            return mean, variance

        theirs = keras_backend.nn.moments
        keras_backend.nn.moments = moments
        try:
            yield
        finally:
            keras_backend.nn.moments = theirs

    def _value_and_gradients(loss_fn, variables, total, x):
        places = [] if x is None else [x]
        with tf.GradientTape() as tape:
            tape.watch(places)
            losses, outputs = loss_fn(tape.stop_recording, *places)
            value = total(losses)
        values = [variable.value for variable in variables] + places
        gradients = tape.gradient(value, values, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return losses, outputs, gradients[: len(variables)], gradients[-1]

    def _normalize_features(x, scale, offset, epsilon):
        if tf.config.list_logical_devices("GPU"):
            return folding.normalize_features(x, scale, offset, epsilon)
        # On a CPU, oneDNN's batch normalization, with one channel per channel of each image, takes half the time of
        # separate mean, variance and products.
        number, height, width, channels = tf.unstack(tf.shape(x))
        scale, offset = (tf.broadcast_to(tf.cast(value, tf.float32), (number, channels)) for value in (scale, offset))
        columns = tf.reshape(tf.transpose(x, (1, 2, 0, 3)), (1, height, width, number * channels))
        # The public function silently raises an epsilon as small as 1e-8; this raw operation does not.
        columns = tf.raw_ops.FusedBatchNormV3(
            x=columns, scale=tf.reshape(scale, (-1,)), offset=tf.reshape(offset, (-1,)), mean=[], variance=[],
            epsilon=epsilon, is_training=True,
        ).y  # fmt: skip
        columns = tf.transpose(tf.reshape(columns, (height, width, number, channels)), (2, 0, 1, 3))
        return tf.ensure_shape(columns, x.shape)

    def _rows_that_count(is_counted, tensors):
        rows = tf.where(is_counted > 0)[:, 0]
        # At least one row: convolutions fail on zero.
        rows = tf.concat([rows, tf.zeros((1,), rows.dtype)], 0)[: tf.maximum(tf.size(rows), 1)]
        return tf.gather(is_counted, rows), [tf.gather(x, rows) for x in tensors]

    def _input_gradient(fn, x):
        with _moments_to_differentiate_twice(), tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            total = tf.reduce_sum(fn(x))
        return tape.gradient(total, x)

    def _as_train_step(step):
        def train_step(self, batch):
            losses = step(self, batch)
            # Keras 3.15 averages several workers' logs over axis 0, which scalars lack.
            if tf.distribute.get_strategy().extended._in_multi_worker_mode():
                losses = {name: tf.reshape(value, (1,)) for name, value in losses.items()}
            return losses

        return train_step

    def _replica_count():
        return tf.distribute.get_strategy().num_replicas_in_sync

    def _repeat(body, start, stop, value):
        flat = tree.flatten(value)

        def step(index, *flat):
            return index + 1, *tree.flatten(body(index, tree.pack_sequence_as(value, flat)))

        # The default runs up to ten iterations in parallel, with ten times the memory.
        looped = tf.while_loop(lambda index, *_: index < stop, step, (start, *flat), parallel_iterations=1)
        return tree.pack_sequence_as(value, looped[1:])

elif keras.backend.backend() == "jax":
    _normalize_features = folding.normalize_features

    import jax

    class _Scope(keras.StatelessScope):
        """A stateless scope that starts with the values of the surrounding one, which Keras' own ignores."""

        def __enter__(self):
            super().__enter__()
            if self.original_scope:
                self.state_mapping = {**self.original_scope.state_mapping, **self.state_mapping}
            self._given = dict(self.state_mapping)
            return self

        def updates(self):
            """Returns the variables assigned inside, with their values."""
            return {key: value for key, value in self.state_mapping.items() if value is not self._given.get(key)}

    def _keep(updates):
        """Assigns the updates of a scope that was left: random seeds, moving averages."""
        with _Scope() as here:
            around = here.original_scope
        if around:
            around.state_mapping.update(updates)

    def _value_and_gradients(loss_fn, variables, total, x):
        def evaluate(values, places):
            with _Scope(zip(variables, values, strict=True)) as scope:
                losses, outputs = loss_fn(contextlib.nullcontext, *places)
                return total(losses), (losses, outputs, scope.updates())

        values, places = [variable.value for variable in variables], [] if x is None else [x]
        derive = jax.value_and_grad(evaluate, argnums=(0, 1), has_aux=True)
        (_, (losses, outputs, updates)), (gradients, at_places) = derive(values, places)
        _keep(updates)
        return losses, outputs, gradients, at_places[0] if at_places else None

    def _rows_that_count(is_counted, tensors):
        return is_counted, tensors  # shapes are fixed

    def _input_gradient(fn, x):
        def total(x):
            with _Scope() as scope:
                return ops.sum(fn(x)), scope.updates()

        gradient, updates = jax.grad(total, has_aux=True)(x)
        _keep(updates)
        return gradient

    def _as_train_step(step):
        def train_step(self, state, batch):
            (batch,) = batch  # Keras turns a generator's batches into tuples
            groups = (
                self.trainable_variables,
                self.non_trainable_variables,
                self.optimizer.variables,
                self.metrics_variables,
            )
            mapping = zip(itertools.chain(*groups), itertools.chain(*state), strict=True)
            with keras.StatelessScope(mapping) as scope:
                losses = step(self, batch)
            return losses, tuple([scope.get_current_value(variable) for variable in group] for group in groups)

        return train_step

    def _replica_count():
        return 1  # one program sees the whole batch, however it is sharded

    def _repeat(body, start, stop, value):
        for index in range(start, stop):
            value = body(index, value)
        return value

elif keras.backend.backend() == "torch":
    import torch

    _normalize_features = folding.normalize_features

    def _value_and_gradients(loss_fn, variables, total, x):
        places = [] if x is None else [x.detach().requires_grad_(True)]
        losses, outputs = loss_fn(contextlib.nullcontext, *places)
        values = [variable.value for variable in variables] + places
        gradients = torch.autograd.grad(total(losses), values, allow_unused=True, materialize_grads=True)
        losses = {name: value.detach() for name, value in losses.items()}
        return losses, outputs, list(gradients[: len(variables)]), gradients[-1]

    def _rows_that_count(is_counted, tensors):
        counts = is_counted > 0
        return is_counted[counts], [x[counts] for x in tensors]

    def _input_gradient(fn, x):
        x = x.detach().requires_grad_(True)
        return torch.autograd.grad(fn(x).sum(), x, create_graph=True)[0]

    def _as_train_step(step):
        def train_step(self, batch):
            (batch,) = batch
            return step(self, batch)

        return train_step

    def _replica_count():
        return 1

    def _repeat(body, start, stop, value):
        for index in range(start, stop):
            value = body(index, value)
        return value

else:
    raise ImportError(f"no differentiation for the backend {keras.backend.backend()}")
