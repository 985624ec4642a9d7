"""SimSwap's losses: what is compared with what, and what each discriminator sees."""

from math import erf, sqrt

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_networks import SIZE, TINY_SHAPES, build_encoder, build_perceptual

from facedancer.arcface_model.frozen import frozen
from facedancer.core.console import UserError
from facedancer.dataset.augment import prepare_batch
from facedancer.dataset.pairing import VIEW
from facedancer.models.discriminators import FEATURE_WIDTHS, build_projected
from facedancer.models.simswap import Config, build_networks
from facedancer.train.config import TrainConfig
from facedancer.train.losses import cosine_distance
from facedancer.train.objectives.adversarial import GAN_MODES
from facedancer.train.objectives.simswap import SimSwapObjective, Weights

DEVIATION = np.array([0.229, 0.224, 0.225])


@pytest.fixture
def networks():
    keras.utils.set_random_seed(7)
    return build_networks(Config(image_size=SIZE, embedding_dim=8, **TINY_SHAPES["simswap"]))


@pytest.fixture
def prepared(batch):
    rng = np.random.default_rng(5)
    views = np.column_stack([rng.normal(0, VIEW, (4, 3)), np.ones(4)]).astype(np.float32)
    return prepare_batch({**tf.nest.map_structure(tf.constant, batch), "views": tf.constant(views)})


def generator_losses(networks, batch, judges_patches=True, **weights):
    objective = SimSwapObjective(build_encoder(), build_perceptual(), judges_patches, Weights(**weights))
    outputs = objective.forward(networks, batch, training=False)
    found = objective.generator_losses(networks, batch, outputs, training=False)
    return objective, outputs, {name: float(value) for name, value in found.items()}


def test_pairs_of_one_identity_alone_are_reconstructed(networks, prepared):
    """As the L1 distance of pictures normalized as ImageNet's."""
    _, outputs, found = generator_losses(networks, prepared)
    apart = np.abs(outputs["swapped"] - prepared["target"]) / 2 / DEVIATION
    assert found["reconstruction"] == pytest.approx(10 * apart[0].mean() / 4, rel=1e-4)
    other = {**prepared, "is_same": tf.zeros(4)}
    assert generator_losses(networks, other)[2]["reconstruction"] == 0


def test_what_a_swap_may_not_change_stays_where_its_truth_is_not_known(networks, prepared):
    assert generator_losses(networks, prepared)[2]["background"] == 0
    mask = np.ones((4, SIZE, SIZE, 1), np.float32)
    mask[:, :8] = 0
    batch = {**prepared, "mask": tf.constant(mask), "has_truth": tf.constant([0.0, 0.0, 0.0, 1.0])}
    _, outputs, found = generator_losses(networks, batch)
    apart = np.abs(outputs["swapped"] - prepared["target"]) / 2 / DEVIATION
    assert found["background"] == pytest.approx(10 * apart[1:3, :8].mean() * 8 / SIZE * 2 / 4, rel=1e-4)


def test_identity_is_that_of_the_source(networks, prepared):
    still = {**prepared, "views": tf.constant([[0.0, 0.0, 0.0, 1.0]] * 4)}
    objective, outputs, found = generator_losses(networks, still)
    embeddings = (objective.encoder(faces)["embedding"] for faces in (outputs["swapped"], prepared["source"]))
    assert found["identity"] == pytest.approx(30 * float(np.mean(cosine_distance(*embeddings))), rel=1e-4)


def test_weak_feature_matching_compares_the_last_map(networks, prepared):
    alone = {"generator": networks["generator"]}
    objective, outputs, found = generator_losses(alone, prepared, lambda_gan=0.0)
    last = [objective.features(faces)[-1] for faces in (outputs["swapped"], prepared["target"])]
    assert found["features"] == pytest.approx(10 * float(np.mean(np.abs(last[0] - last[1]))), rel=1e-4)
    assert "adversarial" not in found


def test_patches_compare_all_their_own_layers_but_the_last(networks, prepared):
    _, outputs, found = generator_losses(networks, prepared)
    swapped, target = (networks["discriminator"]((x + 1) / 2) for x in (outputs["swapped"], prepared["target"]))
    scales = [
        4 * np.mean([np.abs(a - b).mean() for a, b in zip(fake[:-1], real[:-1], strict=True)])
        for fake, real in zip(swapped, target, strict=True)
    ]
    assert found["features"] == pytest.approx(10 * np.mean(scales), rel=1e-4)
    assert found["adversarial"] == pytest.approx(-np.mean([fake[-1].numpy().mean() for fake in swapped]), rel=1e-3)


@pytest.mark.parametrize("mode", GAN_MODES)
def test_a_discriminator_learns_to_tell_them_apart(networks, prepared, mode):
    discriminator = networks["discriminator"]
    objective = SimSwapObjective(build_encoder(), build_perceptual(), True, Weights(gan_mode=mode))
    swapped = tf.reverse(prepared["target"], [1]) * 0.3
    optimizer, totals = keras.optimizers.Adam(2e-3), []
    for _ in range(8):
        with tf.GradientTape() as tape:
            found, logits = objective.discriminator_losses(networks, prepared, swapped, training=True, step=0)
        assert set(found) == {"discriminator"} and logits.shape[0] == 4
        totals.append(float(found["discriminator"]))
        variables = discriminator.trainable_variables
        optimizer.apply(tape.gradient(found["discriminator"], variables), variables)
    assert totals[-1] < totals[0] - 0.05


def test_penalties_are_of_the_gradient_at_real_and_at_mixed_pictures(networks, prepared):
    objective = SimSwapObjective(build_encoder(), build_perceptual(), True, Weights(lambda_gp=3.0, lambda_r1=2.0))
    swapped = prepared["source"] * 0.5
    found, _ = objective.discriminator_losses(networks, prepared, swapped, training=False, step=0)

    def norms(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = sum(tf.reduce_sum(scale[-1]) for scale in networks["discriminator"]((x + 1) / 2))
        return np.sqrt((tape.gradient(total, x).numpy() ** 2).sum((1, 2, 3)))

    share = [(1 + erf(x / VIEW[0] / sqrt(2))) / 2 for x in prepared["views"].numpy()[:, 0]]
    share = np.float32(share)[:, None, None, None]
    mixed = share * prepared["target"] + (1 - share) * swapped
    assert float(found["gradient_penalty"]) == pytest.approx(3 * ((norms(mixed) - 1) ** 2).mean(), rel=1e-3)
    assert float(found["r1"]) == pytest.approx((norms(prepared["target"]) ** 2).mean(), rel=1e-3)


@frozen
def build_features():
    """Faces of 128 pixels -> five maps, the last four as MobileNetV2's."""
    picture = keras.Input((128, 128, 3))
    x, outputs = picture, []
    for width in (4, *FEATURE_WIDTHS):
        x = keras.layers.Conv2D(width, 3, strides=2, padding="same", activation="relu")(x)
        outputs.append(x)
    return keras.Model(picture, outputs)


def test_the_projected_discriminator_judges_features(prepared):
    """Its loss reaches what it is trained by, and, through the frozen network, the swapped face."""
    keras.utils.set_random_seed(7)
    discriminator, features = build_projected(128, 4), build_features()
    objective = SimSwapObjective(build_encoder(), features, False, Weights())
    faces = {name: tf.image.resize(prepared[name][:2], (128, 128)) for name in ("target", "source")}
    batch = {**faces, "is_same": tf.zeros(2), "views": prepared["views"][:2]}
    networks, swapped = {"discriminator": discriminator}, batch["source"]
    with tf.GradientTape() as tape:
        tape.watch(swapped)
        found, logits = objective.discriminator_losses(networks, batch, swapped, training=True, step=0)
    gradients = tape.gradient(found["discriminator"], [swapped, *discriminator.trainable_variables])
    assert logits.shape == (2, discriminator.output_shape[1])
    missing = [x is None or not np.abs(x).max() > 0 for x in gradients]
    names = ["swapped", *(variable.path for variable in discriminator.trainable_variables)]
    # A shift before a normalization has no effect.
    assert all(name.endswith("bias") for name, gone in zip(names, missing, strict=True) if gone)


def test_a_preset_trains_as_the_original_and_lite_by_the_truth():
    values = {"data_dir": "x", "family": "simswap"}
    config = TrainConfig.from_json(values)
    assert (config.preset, config.batch_size, config.lr, config.beta_1, config.lr_decay) == (
        "simswap",
        4,
        4e-4,
        0.0,
        1.0,
    )
    assert config.same_batches and config.stream_options().same_ratio == 0.5
    weights = config.weights
    assert (weights.lambda_id, weights.lambda_feat, weights.lambda_rec) == (30, 10, 10)
    lite = TrainConfig.from_json({**values, "preset": "lite"})
    assert lite.truth_lambda > 0 and not lite.weights.is_adversarial and lite.arcface_path == "dlib_resnet"
    with pytest.raises(UserError, match="--lambda_id must not be negative"):
        Weights(lambda_id=-1.0)
    assert Weights(lambda_id=0.0).needs["truth"]
