"""`SwapTrainer`: the single train step."""

import types

import keras
from keras import ops

from facedancer.dataset.augment import prepare_batch
from facedancer.models.folding import folded_view
from facedancer.train import autodiff
from facedancer.train.losses import true_swap_distance


class SwapTrainer(keras.Model):
    """Trains the networks of a face swapper, with a discriminator if there is one.

    Args:
        networks: dictionary of built models. The second optimizer trains `discriminator`, the first all others.
        objective: an object with
            `frozen`: list of the frozen models that its losses use;
            `forward(networks, batch, training)`: returns tensors by name, including `swapped`;
            `discriminator_losses(networks, batch, swapped, training, step)`: weighted scalars by name, and the logits
                (n, 1) of the swapped faces;
            `generator_losses(networks, batch, outputs, training)`: weighted scalars by name; with a
                discriminator, `outputs` also has those logits and `slope`, the gradient of the discriminator's losses
                with respect to the swapped faces.
        ema: decay of the networks' moving averages, smaller in the first steps; 0 for none.
        microbatches: number of equal parts that a batch is split into; their gradients are accumulated.
        truth_lambda: weight of the distance to the true swap, added to the objective's losses.
        change_lambda: extra weight, in that loss, of pixels where truth and target differ.

    Attributes:
        averages: the moving averages by network name, without the discriminator.
        folded: namespace whose `networks` a step calls: the same weights, folded to do less work.
    """

    def __init__(self, networks, objective, ema=0.0, microbatches=1, truth_lambda=0.0, change_lambda=0.0, **kwargs):
        super().__init__(**kwargs)
        self.networks = networks
        # In a namespace, as Keras would count the layers in a dictionary as the trainer's a second time. R1
        # differentiates the discriminator twice, so its normalizations are kept as they are.
        normalize = {"discriminator": None}
        self.folded = types.SimpleNamespace(
            networks={
                name: folded_view(one, normalize.get(name, autodiff.normalize_features))
                for name, one in networks.items()
            }
        )
        self.objective = objective
        self.ema = ema
        self.microbatches = microbatches
        self.truth_lambda, self.change_lambda = truth_lambda, change_lambda
        self.averages = {
            name: _frozen_copy(network) for name, network in networks.items() if ema and name != "discriminator"
        }
        self.discriminator_optimizer = None
        self.built = True

    def compile(self, optimizer, discriminator_optimizer=None, **kwargs):
        # With float16, Keras would scale only the first optimizer's losses; so both are passed already wrapped.
        super().compile(optimizer=optimizer, auto_scale_loss=False, **kwargs)
        self.discriminator_optimizer = discriminator_optimizer
        # Built now, since restoring a checkpoint would skip an optimizer that is only built by its first step.
        self.optimizer.build(self._variables(discriminator=False))
        if discriminator_optimizer is not None:
            discriminator_optimizer.build(self._variables(discriminator=True))

    @property
    def non_trainable_variables(self):
        """Everything else that a step reads or writes: JAX drops updates of anything not listed."""
        variables = list(super().non_trainable_variables)
        if self.discriminator_optimizer is not None:
            variables += self.discriminator_optimizer.variables
        for network in self.objective.frozen:
            variables += network.variables
        return variables

    @autodiff.as_train_step
    def train_step(self, batch):
        batch = {name: ops.convert_to_tensor(value) for name, value in batch.items()}
        losses, gradients = autodiff.mean_over_microbatches(self._losses_and_gradients, batch, self.microbatches)
        # All gradients belong to the same weights, so nothing is updated before the last one is computed.
        self.optimizer.apply(gradients[0], self._variables(discriminator=False))
        if self.discriminator_optimizer is not None:
            self.discriminator_optimizer.apply(gradients[1], self._variables(discriminator=True))
        self._average()
        return losses

    def _losses_and_gradients(self, batch):
        """Returns the losses by name, and the gradients of each optimizer's variables."""
        batch = prepare_batch(batch)
        networks, objective = self.folded.networks, self.objective

        def generator_losses(aside):
            outputs, discriminated = objective.forward(networks, batch, training=True), None
            if self.discriminator_optimizer is not None:
                with aside():
                    discriminated, logits, slope = self._discriminate(batch, ops.stop_gradient(outputs["swapped"]))
                outputs |= {"logits": logits, "slope": slope}
            found = objective.generator_losses(networks, batch, outputs, training=True)
            if self.truth_lambda:
                distance = true_swap_distance(batch, outputs["swapped"], self.change_lambda)
                found["truth"] = self.truth_lambda * distance
            return found, discriminated

        losses, discriminated, gradients = autodiff.value_and_gradients(
            generator_losses, self._variables(discriminator=False), self.optimizer.scale_loss
        )
        if discriminated is None:
            return losses, [gradients]
        return {**losses, **discriminated[0]}, [gradients, discriminated[1]]

    def _discriminate(self, batch, swapped):
        """Returns the discriminator's (losses, gradients), its logits of swapped faces, and the losses' slope there."""

        def losses(aside, swapped):
            step = self.discriminator_optimizer.iterations
            return self.objective.discriminator_losses(self.folded.networks, batch, swapped, training=True, step=step)

        found, logits, gradients, slope = autodiff.value_and_gradients_at(
            losses, self._variables(discriminator=True), swapped, self.discriminator_optimizer.scale_loss
        )
        return (found, gradients), ops.stop_gradient(logits), ops.stop_gradient(slope)

    def _average(self):
        """Updates the averages; faster at first, so that they soon forget the random initial weights."""
        step = ops.cast(self.optimizer.iterations, "float32")
        keep = ops.minimum(self.ema, step / (step + 9.0))
        for name, network in self.averages.items():
            for average, weight in zip(network.weights, self.networks[name].weights, strict=True):
                average.assign(average + (1.0 - keep) * (ops.stop_gradient(weight.value) - average))

    def _variables(self, discriminator):
        return [
            variable
            for name, network in self.networks.items()
            if (name == "discriminator") == discriminator
            for variable in network.trainable_variables
        ]

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Does nothing, as everything is built; Keras 3.15's own fails on a dictionary spread over workers."""

    def _symbolic_build(self, iterator=None, data_batch=None):
        """Does nothing either; Keras' own would consume a generator's first batch."""


def _frozen_copy(network):
    copy = keras.models.clone_model(network)
    copy.set_weights(network.get_weights())
    copy.trainable = False
    return copy
