"""The train step: real steps of tiny networks."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from facedancer.dataset.augment import prepare_batch
from facedancer.train import autodiff


def weights(model):
    return [value.copy() for value in model.get_weights()]


def losses_of(trainer, batch):
    return {name: float(value) for name, value in trainer.train_step(tf.nest.map_structure(tf.constant, batch)).items()}


def test_a_step_moves_every_weight_of_both_networks_and_no_frozen_one(make_trainer, batch):
    trainer = make_trainer()
    frozen = [trainer.objective.encoder, trainer.objective.perceptual]
    before = {name: weights(network) for name, network in trainer.networks.items()}
    frozen_before = [weights(network) for network in frozen]
    found = losses_of(trainer, batch)
    assert set(found) == {
        "adversarial", "reconstruction", "identity", "cycle", "perceptual", "ifsr", "discriminator", "r1"
    }  # fmt: skip
    assert all(np.isfinite(value) for value in found.values())
    for name, network in trainer.networks.items():
        for variable, old in zip(network.trainable_variables, before[name], strict=True):
            # A bias before an instance normalisation has no gradient, and R1 none on the last bias; kernels all have.
            if "kernel" in variable.path:
                assert np.abs(variable.numpy() - old).max() > 0, variable.path
    for network, old in zip(frozen, frozen_before, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(weights(network), old, strict=True))


def test_each_network_is_moved_by_its_own_losses(make_trainer, batch):
    """With the discriminator's optimizer at rate zero the generator still moves, and the other way round."""
    for still, moving in (("generator", "discriminator"), ("discriminator", "generator")):
        trainer = make_trainer()
        optimizers = {"generator": trainer.optimizer, "discriminator": trainer.discriminator_optimizer}
        optimizers[still].learning_rate = 0.0
        before = {name: weights(network) for name, network in trainer.networks.items()}
        losses_of(trainer, batch)
        assert all(np.array_equal(a, b) for a, b in zip(weights(trainer.networks[still]), before[still], strict=True))
        assert any((a != b).any() for a, b in zip(weights(trainer.networks[moving]), before[moving], strict=True))


def test_gradients_are_of_the_networks_before_the_step(make_trainer, batch):
    """The discriminator's gradient does not depend on how far the generator moves in the same step."""
    found = []
    for rate in (1e-3, 1.0):
        trainer = make_trainer()
        trainer.optimizer.learning_rate = rate
        losses_of(trainer, batch)
        found.append(weights(trainer.networks["discriminator"]))
    assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))


def test_the_gradient_in_the_input_can_be_differentiated_in_the_weights():
    """R1 of f(x) = sum tanh(w x), where the gradient in w is known."""
    w = keras.Variable([0.5, -1.5])
    x = tf.constant([[0.3, 0.7]])

    def penalty():
        gradient = autodiff.input_gradient(lambda x: tf.tanh(w * x), x)
        return {"r1": tf.reduce_sum(gradient**2)}, None

    losses, _, (gradient,) = autodiff.value_and_gradients(penalty, [w])
    w, x = w.numpy(), x.numpy()[0]
    slope = 1 / np.cosh(w * x) ** 2
    assert float(losses["r1"]) == pytest.approx(((w * slope) ** 2).sum(), rel=1e-5)
    assert np.allclose(gradient, 2 * w * slope**2 * (1 - 2 * w * x * np.tanh(w * x)), rtol=1e-4)


def test_one_batch_overfits(make_trainer, stream):
    """Reconstruction and identity both fall far below where they began on a batch seen again and again."""
    trainer = make_trainer(learning_rate=2e-3, run_eagerly=False)
    history = []
    keep = keras.callbacks.LambdaCallback(on_train_batch_end=lambda _, logs: history.append(dict(logs)))
    trainer.fit(stream, steps_per_epoch=150, shuffle=False, verbose=0, callbacks=[keep])
    assert history[-1]["reconstruction"] < 0.4 * history[0]["reconstruction"]
    assert history[-1]["identity"] < 0.4 * history[0]["identity"]


def test_two_replicas_equal_one(make_trainer, batch):
    """Gradients are those of the whole batch, however it is divided."""
    halves = [{name: value[rows] for name, value in batch.items()} for rows in (slice(0, 2), slice(2, 4))]
    trainer = make_trainer(p_lambda=0.0, ifsr_lambda=0.0)
    generator = trainer.networks["generator"]

    def gradients(part):
        part = prepare_batch(tf.nest.map_structure(tf.constant, part))

        def losses():
            outputs = trainer.objective.forward(trainer.networks, part, training=True)
            return trainer.objective.generator_losses(trainer.networks, part, outputs, training=True), None

        return autodiff.value_and_gradients(losses, generator.trainable_variables)[2]

    whole = gradients(batch)
    parts = [gradients(half) for half in halves]
    for full, first, second in zip(whole, *parts, strict=True):
        assert np.allclose(full, (first + second) / 2, atol=2e-5)
