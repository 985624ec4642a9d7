"""The train step: real steps of tiny networks."""

import functools
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_networks import ASIDE, build_perceptual

from facedancer.core.console import UserError
from facedancer.dataset.augment import prepare_batch
from facedancer.train import autodiff
from facedancer.train.build import build_optimizer, freeze


def weights(model):
    return [value.copy() for value in model.get_weights()]


def losses_of(trainer, batch):
    return {name: float(value) for name, value in trainer.train_step(tf.nest.map_structure(tf.constant, batch)).items()}


def look(trainer, batch):
    """Losses of a batch, from which the trainer learns nothing."""
    losses, _ = trainer._losses_and_gradients(tf.nest.map_structure(tf.constant, batch))
    return {name: float(value) for name, value in losses.items()}


def test_a_step_moves_every_weight_of_both_networks_and_no_frozen_one(make_trainer, batch):
    trainer = make_trainer()
    frozen = [trainer.objective.encoder, trainer.objective.perceptual]
    before = {name: weights(network) for name, network in trainer.networks.items()}
    frozen_before = [weights(network) for network in frozen]
    found = losses_of(trainer, batch)
    assert set(found) == {
        "adversarial", "reconstruction", "background", "own_swaps", "identity", "cycle", "perceptual", "ifsr",
        "discriminator", "r1",
    }  # fmt: skip
    assert all(np.isfinite(value) for value in found.values())
    for name, network in trainer.networks.items():
        for variable, old in zip(network.trainable_variables, before[name], strict=True):
            # A bias before an instance normalization has no gradient, and R1 none on the last bias; kernels all have.
            if "kernel" in variable.path:
                assert np.abs(variable.numpy() - old).max() > 0, variable.path
    for network, old in zip(frozen, frozen_before, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(weights(network), old, strict=True))


def test_each_network_is_moved_by_its_own_losses(make_trainer, batch):
    """With the discriminator's optimizer at rate zero the generator still moves, and the other way round."""
    for still, moving in (("generator", "discriminator"), ("discriminator", "generator")):
        trainer = make_trainer(**ASIDE)
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
        trainer = make_trainer(**ASIDE)
        trainer.optimizer.learning_rate = rate
        losses_of(trainer, batch)
        found.append(weights(trainer.networks["discriminator"]))
    assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))


def test_the_gradient_in_the_input_can_be_differentiated_in_the_weights():
    """R1 of f(x) = sum tanh(w x), where the gradient in w is known."""
    w = keras.Variable([0.5, -1.5])
    x = tf.constant([[0.3, 0.7]])

    def penalty(aside):
        gradient = autodiff.input_gradient(lambda x: tf.tanh(w * x), x)
        return {"r1": tf.reduce_sum(gradient**2)}, None

    losses, _, (gradient,) = autodiff.value_and_gradients(penalty, [w])
    w, x = w.numpy(), x.numpy()[0]
    slope = 1 / np.cosh(w * x) ** 2
    assert float(losses["r1"]) == pytest.approx(((w * slope) ** 2).sum(), rel=1e-5)
    assert np.allclose(gradient, 2 * w * slope**2 * (1 - 2 * w * x * np.tanh(w * x)), rtol=1e-4)


@pytest.mark.parametrize("logit", [-6.0, 0.0, 4.0])
def test_the_adversarial_gradient_needs_no_pass_of_its_own(make_trainer, batch, logit):
    """The generator's gradient, had from the discriminator's losses, is that of mean softplus(-D(swapped))."""
    none = dict.fromkeys(("r_lambda", "p_lambda", "i_lambda", "c_lambda", "ifsr_lambda"), 0.0)
    trainer = make_trainer(**none)
    generator, discriminator = trainer.networks["generator"], trainer.networks["discriminator"]
    discriminator.trainable_variables[-1].assign([logit])
    found_losses, (found, _) = trainer._losses_and_gradients(tf.nest.map_structure(tf.constant, batch))
    with tf.GradientTape() as tape:
        outputs = trainer.objective.forward(trainer.networks, prepare_batch(batch), training=True)
        expected_loss = tf.reduce_mean(tf.nn.softplus(-discriminator(outputs["swapped"])))
    expected = tape.gradient(expected_loss, generator.trainable_variables)
    assert float(found_losses["adversarial"]) == pytest.approx(float(expected_loss), rel=1e-5)
    for ours, plain in zip(found, expected, strict=True):
        assert np.allclose(ours, plain, rtol=1e-3, atol=1e-6 + 1e-4 * np.abs(plain).max())


def test_the_perceptual_loss_of_the_rows_that_count_is_that_of_all(make_trainer, batch):
    """Where shapes are fixed all rows are passed; none may count."""
    trainers = [make_trainer(jit_compile=fixed, **ASIDE) for fixed in (False, True)]
    for is_same in ([0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]):
        own = {**batch, "is_same": np.float32(is_same)}
        found = [look(trainer, own)["perceptual"] for trainer in trainers]
        assert found[0] == pytest.approx(found[1], rel=1e-5, abs=1e-7)
        assert (found[0] > 0) == any(is_same)


def test_one_batch_overfits(make_trainer, stream):
    """Reconstruction and identity both fall far below where they began on a batch seen again and again."""
    trainer = make_trainer(learning_rate=4e-3, run_eagerly=False, **ASIDE)
    history = []
    keep = keras.callbacks.LambdaCallback(on_train_batch_end=lambda _, logs: history.append(dict(logs)))
    trainer.fit(stream, steps_per_epoch=80, shuffle=False, verbose=0, callbacks=[keep])
    assert history[-1]["reconstruction"] < 0.4 * history[0]["reconstruction"]
    assert history[-1]["identity"] < 0.4 * history[0]["identity"]


def test_two_replicas_equal_one(make_trainer, batch):
    """Gradients are those of the whole batch, however it is divided."""
    halves = [{name: value[rows] for name, value in batch.items()} for rows in (slice(0, 2), slice(2, 4))]
    trainer = make_trainer(ifsr_lambda=0.0, c_lambda=0.0)

    def gradients(part):
        return trainer._losses_and_gradients(tf.nest.map_structure(tf.constant, part))[1][0]

    whole = gradients(batch)
    parts = [gradients(half) for half in halves]
    for full, first, second in zip(whole, *parts, strict=True):
        assert np.allclose(full, (first + second) / 2, atol=2e-5)


def test_microbatches_of_a_batch_give_the_gradients_of_the_whole(make_trainer, batch):
    """A step in two microbatches moves the weights as one step does, eagerly and in a graph."""
    sgd = functools.partial(keras.optimizers.SGD, 1e-2)
    # IFSR and the R1 of a part are of the part; the other losses are means over pairs.
    found = []
    for microbatches, run_eagerly in ((1, True), (2, True), (2, False)):
        trainer = make_trainer(
            run_eagerly=run_eagerly, microbatches=microbatches, optimizer=sgd, ifsr_lambda=0.0, c_lambda=0.0
        )
        stream = tf.data.Dataset.from_tensors(batch).repeat()
        trainer.fit(stream, steps_per_epoch=1, shuffle=False, verbose=0)
        found.append(weights(trainer.networks["generator"]) + weights(trainer.networks["discriminator"]))
    for others in found[1:]:
        assert all(np.allclose(a, b, atol=1e-5) for a, b in zip(found[0], others, strict=True))
    start = make_trainer(optimizer=sgd)
    assert any(np.abs(a - b).max() > 1e-4 for a, b in zip(found[0], weights(start.networks["generator"]), strict=False))


def test_the_average_follows_the_weights_at_first_quickly(make_trainer, batch):
    trainer = make_trainer(ema=0.9, **ASIDE)
    generator, average = trainer.networks["generator"], trainer.averages["generator"]
    assert not average.trainable_variables
    expected = weights(generator)
    for step in range(1, 4):
        losses_of(trainer, batch)
        keep = min(0.9, step / (step + 9))
        expected = [keep * a + (1 - keep) * b for a, b in zip(expected, weights(generator), strict=True)]
    assert all(np.allclose(a, b, atol=1e-6) for a, b in zip(weights(average), expected, strict=True))


def test_lazy_r1_comes_every_few_steps_and_as_heavy(make_trainer, batch):
    every_step = losses_of(make_trainer(**ASIDE), batch)["r1"]
    trainer = make_trainer(r1_every=3, **ASIDE)
    found = [losses_of(trainer, batch)["r1"] for _ in range(4)]
    assert found[0] == pytest.approx(3 * every_step, rel=1e-4)
    assert found[1] == found[2] == 0 and found[3] > 0


def test_the_true_swap_counts_where_it_is_known(make_trainer, batch):
    truth = np.full_like(batch["target"], 255)
    trainer = make_trainer(**ASIDE)
    both = look(trainer, {**batch, "truth": truth, "has_truth": np.ones(4, np.float32)})
    half = look(trainer, {**batch, "truth": truth, "has_truth": np.float32([1, 1, 0, 0])})
    none = look(trainer, {**batch, "truth": truth, "has_truth": np.zeros(4, np.float32)})
    assert both["reconstruction"] > half["reconstruction"] > none["reconstruction"] > 0
    # Pixels count more where the truth is not as the target.
    trainer = make_trainer(change_lambda=0.0, **ASIDE)
    even = look(trainer, {**batch, "truth": truth, "has_truth": np.ones(4, np.float32)})
    assert 2 * even["reconstruction"] < both["reconstruction"] < 7.1 * even["reconstruction"]


def test_the_trainer_takes_the_true_swap_as_a_loss_of_its_own(make_trainer, batch):
    """Whatever the family: mean |truth - swapped| / 2 of the pairs that have one, over all pairs."""
    truth = 255 - batch["target"]
    known = {**batch, "truth": truth, "has_truth": np.float32([0, 1, 1, 0])}
    assert "truth" not in look(make_trainer(**ASIDE), known)
    trainer = make_trainer(truth_lambda=3.0, change_lambda=0.0, **ASIDE)
    prepared = prepare_batch(known)
    swapped = trainer.objective.forward(trainer.networks, prepared, training=True)["swapped"]
    distance = np.abs(np.asarray(prepared["truth"]) - np.asarray(swapped)).mean((1, 2, 3))
    assert look(trainer, known)["truth"] == pytest.approx(3.0 * distance[1:3].sum() / 4 / 2, rel=1e-4)
    assert look(trainer, batch)["truth"] == 0


def test_the_swap_must_move_as_the_true_swap_or_else_as_the_target(make_trainer, batch):
    """e_lambda times the mean root mean square distance, both seen in the view of the pair."""
    motion = build_perceptual()
    motion = keras.Model(motion.input, keras.layers.GlobalAveragePooling2D()(motion.output[0]))
    trainer = make_trainer(motion=motion, e_lambda=2.0, **ASIDE)
    known = {**batch, "truth": 255 - batch["target"], "has_truth": np.float32([0, 1, 1, 0])}
    prepared = prepare_batch(known)
    swapped = trainer.objective.forward(trainer.networks, prepared, training=True)["swapped"]
    wanted = np.where(known["has_truth"][:, None, None, None], prepared["truth"], prepared["target"])
    apart = np.asarray(motion(swapped)) - np.asarray(motion(wanted))
    assert look(trainer, known)["expression"] == pytest.approx(2.0 * np.sqrt((apart**2).mean(1)).mean(), rel=1e-4)


def test_the_identity_aims_beyond_the_source_where_no_swap_is_known(make_trainer, batch):
    """Aim of a row: e_s + 0.5 (e_s - e_t), or e_s where target and source are one person or the truth is there."""
    trainer, known = make_trainer(i_away=0.5, **ASIDE), {**batch, "has_truth": np.float32([0, 1, 0, 0])}
    prepared = prepare_batch(known)
    swapped = trainer.objective.forward(trainer.networks, prepared, training=True)["swapped"]
    faces = (prepared["source"], prepared["target"], swapped)
    source, target, found = (np.asarray(trainer.objective.encoder(face)["embedding"]) for face in faces)
    aim = source + np.float32([0, 0, 0.5, 0.5])[:, None] * (source - target)
    cosines = (aim * found).sum(1) / np.linalg.norm(aim, axis=1) / np.linalg.norm(found, axis=1)
    weight = trainer.objective.weights.i_lambda
    assert look(trainer, known)["identity"] == pytest.approx(weight * np.mean(1 - cosines), rel=1e-4)


def test_where_no_swap_is_known_the_target_counts_outside_the_mask(make_trainer, batch):
    trainer = make_trainer(**ASIDE)
    mask = np.zeros((4, 32, 32, 1), np.uint8)
    mask[:, :, :16] = 255
    left, nothing, all_ = (
        look(trainer, {**batch, "mask": part})["background"] for part in (mask, np.full_like(mask, 255), mask * 0)
    )
    assert all_ > left > nothing == 0
    known = look(trainer, {**batch, "mask": mask, "truth": batch["target"], "has_truth": np.ones(4, np.float32)})
    assert known["background"] == 0


def test_a_loss_without_weight_is_not_computed(make_trainer, batch):
    found = look(make_trainer(c_lambda=0.0, ifsr_lambda=0.0, p_lambda=0.0), batch)
    assert not {"cycle", "ifsr", "perceptual"} & set(found) and {"identity", "reconstruction"} <= set(found)


def test_frozen_layers_stay(make_trainer, batch):
    trainer = make_trainer(**ASIDE)
    generator = trainer.networks["generator"]
    freeze([generator], ["encoder", "mapping"])
    trainer.compile(*[keras.optimizers.SGD(0.1) for _ in range(2)], run_eagerly=True)
    before = {layer.name: layer.get_weights() for layer in generator.layers if layer.weights}
    losses_of(trainer, batch)
    for name, values in before.items():
        is_same = all(
            np.array_equal(a, b) for a, b in zip(values, generator.get_layer(name).get_weights(), strict=True)
        )
        assert is_same == name.startswith(("encoder", "mapping")), name
    with pytest.raises(UserError, match="--freeze nose: no layer's name begins with that; they begin with"):
        freeze([generator], ["nose"])


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_trains_both_networks(make_trainer, batch, precision):
    """Under float16 both losses are scaled, or small gradients would be zero; weights stay float32."""
    keras.config.set_dtype_policy(f"mixed_{precision}")
    try:
        config = types.SimpleNamespace(
            precision=precision, lr=1e-3, beta_1=0.0, beta_2=0.99, lr_schedule="exponential", lr_decay=0.97, warmup=0
        )
        aside = ASIDE if precision == "bfloat16" else {}
        trainer = make_trainer(optimizer=lambda: build_optimizer(config, 10), run_eagerly=False, ema=0.9, **aside)
    finally:
        keras.config.set_dtype_policy("float32")
    optimizers = (trainer.optimizer, trainer.discriminator_optimizer)
    for optimizer in optimizers:
        assert isinstance(optimizer, keras.optimizers.LossScaleOptimizer) == (precision == "float16")
    before = {name: weights(network) for name, network in trainer.networks.items()}
    history = trainer.fit(
        tf.data.Dataset.from_tensors(batch).repeat(), steps_per_epoch=6, shuffle=False, verbose=0
    ).history
    assert all(np.isfinite(value).all() for value in history.values())
    for name, network in trainer.networks.items():
        assert {variable.dtype for variable in network.weights} == {"float32"}
        moved = [np.abs(a - b).max() for a, b in zip(before[name], weights(network), strict=True)]
        assert max(moved) > 1e-4 and np.isfinite(moved).all()
    assert int(optimizers[0].iterations) > 0 and int(optimizers[1].iterations) > 0


def test_r1_differentiates_through_a_normalization():
    """TensorFlow's own moments take the mean for a constant, and this gradient in a weight before them is wrong."""
    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(size=(2, 6, 6, 2)), tf.float32)
    w, c = keras.Variable(rng.normal(size=(2, 3)).astype("float32")), rng.normal(size=(1, 6, 6, 3)).astype("float32")
    layer = keras.layers.GroupNormalization(groups=-1)

    def normalize(y):
        mean = tf.reduce_mean(y, (1, 2), keepdims=True)
        return (y - mean) / tf.sqrt(tf.reduce_mean((y - mean) ** 2, (1, 2), keepdims=True) + 1e-3)

    def gradient_through(normalize):
        def penalty(aside):
            gradient = autodiff.input_gradient(lambda x: c * tf.tanh(normalize(x @ w)), x)
            return {"r1": tf.reduce_sum(gradient**2)}, None

        return autodiff.value_and_gradients(penalty, [w])[2][0].numpy()

    assert np.allclose(gradient_through(layer), gradient_through(normalize), rtol=1e-4)
