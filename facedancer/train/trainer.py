"""`SwapTrainer`: the only train step."""

import keras
from keras import ops

from facedancer.train.autodiff import value_and_gradients


class SwapTrainer(keras.Model):
    """Trains the networks of a face swapper, against a discriminator where there is one.

    Args:
        networks: dictionary of built models. `discriminator` is moved by the second optimizer, the others by the first.
        objective: an object with
            `forward(networks, batch, training)`: tensors by name, `swapped` among them;
            `generator_losses(networks, batch, outputs, training)`: weighted scalars by name;
            `discriminator_losses(networks, batch, outputs, training)`: likewise.
    """

    def __init__(self, networks, objective, **kwargs):
        super().__init__(**kwargs)
        self.networks = networks
        self.objective = objective
        self.discriminator_optimizer = None
        self.built = True

    def compile(self, optimizer, discriminator_optimizer=None, **kwargs):
        super().compile(optimizer=optimizer, **kwargs)
        self.discriminator_optimizer = discriminator_optimizer
        # Built now: an optimizer that is built by its first step would be skipped by a checkpoint restored before it.
        self.optimizer.build(self._variables(discriminator=False))
        if discriminator_optimizer is not None:
            discriminator_optimizer.build(self._variables(discriminator=True))

    def train_step(self, batch):
        networks, objective = self.networks, self.objective

        def generator_losses():
            outputs = objective.forward(networks, batch, training=True)
            return objective.generator_losses(networks, batch, outputs, training=True), outputs

        variables = self._variables(discriminator=False)
        losses, outputs, gradients = value_and_gradients(generator_losses, variables)
        moves = [(self.optimizer, gradients, variables)]

        if self.discriminator_optimizer is not None:
            outputs = {**outputs, "swapped": ops.stop_gradient(outputs["swapped"])}

            def discriminator_losses():
                return objective.discriminator_losses(networks, batch, outputs, training=True), None

            variables = self._variables(discriminator=True)
            more, _, gradients = value_and_gradients(discriminator_losses, variables)
            losses = {**losses, **more}
            moves.append((self.discriminator_optimizer, gradients, variables))

        # All gradients are of the same networks: none moves before the last is taken.
        for optimizer, gradients, variables in moves:
            optimizer.apply(gradients, variables)
        return losses

    def _variables(self, discriminator):
        return [
            variable
            for name, network in self.networks.items()
            if (name == "discriminator") == discriminator
            for variable in network.trainable_variables
        ]
