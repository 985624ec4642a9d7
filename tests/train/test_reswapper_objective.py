"""ReSwapper's objective: who says what a swap should be, and what it costs not to be it."""

import types
from dataclasses import asdict

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_networks import CONFIG, SIZE, TINY_SHAPES, build_encoder
from tiny_run import draw_weights, use_tiny_networks

from facedancer.core.card import ExportCard, write_card
from facedancer.core.console import UserError
from facedancer.core.keras_h5 import save_keras_h5
from facedancer.dataset.augment import prepare_batch
from facedancer.models import facedancer, reswapper
from facedancer.train import losses
from facedancer.train.config import parse_config
from facedancer.train.engines import open_engine
from facedancer.train.objectives import reswapper as objective
from facedancer.train.objectives.reswapper import ReSwapperObjective, Weights
from facedancer.train.session import build_session

FLAGS = ["--family", "reswapper", "--preset", "lite", "--arcface_path", "tiny", "--data_dir", "none"]


@pytest.fixture
def networks():
    config = reswapper.Config(image_size=SIZE, embedding_dim=8, **TINY_SHAPES["reswapper"])
    return {name: draw_weights(one, 4) for name, one in reswapper.build_networks(config).items()}


@pytest.fixture
def export(tmp_path):
    """Function that writes a tiny swapper of another family with its card."""

    def write(**changes):
        keras.utils.set_random_seed(3)
        path = tmp_path / "teacher.h5"
        save_keras_h5(facedancer.build_generator(CONFIG), path)
        card = {"family": "facedancer", "image_size": SIZE, "embedding_dim": 8, "identity_encoder": "tiny", **changes}
        write_card(tmp_path, ExportCard(**card, network=asdict(CONFIG)))
        return path

    return write


def content_of(own, networks, batch):
    """The weighted content loss of a batch, and the swaps."""
    batch = prepare_batch(batch)
    outputs = own.forward(networks, batch, training=True)
    found = own.generator_losses(networks, batch, outputs, training=True)
    return float(found["content"]), np.asarray(outputs["swapped"])


def distance(a, b):
    return 1 - np.asarray(losses.structural_similarity(a * 0.5 + 0.5, b * 0.5 + 0.5))


def test_the_target_the_truth_and_the_teacher_each_say_their_part(networks, batch):
    """Of four pairs the first shows one identity, the second has a true swap; a teacher knows the others."""
    truth = batch["truth"].copy()
    truth[1] = 255 - batch["target"][1]
    batch = {**batch, "truth": truth, "has_truth": np.float32([0, 1, 0, 0])}
    encoder = build_encoder()
    alone, swapped = content_of(ReSwapperObjective(encoder, Weights(content_lambda=3.0)), networks, batch)
    pictures = {name: np.float32(batch[name]) / 127.5 - 1 for name in ("target", "truth")}
    known = [distance(pictures["target"], swapped)[0], distance(pictures["truth"], swapped)[1]]
    assert alone == pytest.approx(3.0 * sum(known) / 4, rel=1e-4)

    teacher = draw_weights(facedancer.build_generator(CONFIG), 9)
    taught_by = ReSwapperObjective(encoder, Weights(content_lambda=3.0, teacher="x"), teacher, encoder)
    embedding = encoder(np.float32(batch["source"]) / 127.5 - 1)["embedding"]
    taught = distance(np.asarray(teacher([tf.constant(pictures["target"]), embedding])), swapped)[2:]
    assert content_of(taught_by, networks, batch)[0] == pytest.approx(3.0 * (sum(known) + sum(taught)) / 4, rel=1e-3)


def test_a_teacher_has_its_own_encoder(networks, batch):
    teacher = draw_weights(facedancer.build_generator(CONFIG), 9)
    encoders = [draw_weights(build_encoder(), seed) for seed in (1, 2)]
    weights = Weights(teacher="x", i_lambda=0.0)
    objectives = [ReSwapperObjective(encoders[0], weights, teacher, one) for one in encoders]
    first, second = (content_of(one, networks, batch)[0] for one in objectives)
    assert first != second
    assert [len(one.frozen) for one in objectives] == [2, 3]


def test_the_identity_loss_is_the_square_of_the_distance_of_projected_embeddings(networks, batch):
    """As the original's numbers are, and with a gradient, which the original's loses."""
    draw, projection = np.random.default_rng(0), networks["generator"].get_layer("projected_embedding")
    projection.set_weights([draw.normal(size=(8, 8))])
    encoder = draw_weights(build_encoder(), 1)
    own = ReSwapperObjective(encoder, Weights(content_lambda=0.0))
    prepared = prepare_batch(batch)
    with tf.GradientTape() as tape:
        outputs = own.forward(networks, prepared, training=True)
        found = own.generator_losses(networks, prepared, outputs, training=True)
    assert set(found) == {"identity"}
    (emap,) = projection.get_weights()
    directions = []
    for embedding in (encoder(outputs["swapped"])["embedding"], outputs["source_embedding"]):
        projected = np.asarray(embedding) @ emap
        directions.append(projected / np.linalg.norm(projected, axis=1, keepdims=True))
    cosines = (directions[0] * directions[1]).sum(1)
    assert float(found["identity"]) == pytest.approx(10 * (((1 - cosines) / 2) ** 2).mean(), rel=1e-3)
    gradients = tape.gradient(found["identity"], networks["generator"].trainable_variables)
    assert max(np.abs(gradient).max() for gradient in gradients) > 0


def build(*words, shrink_factor="1.0"):
    config = parse_config([*FLAGS, "--shrink_factor", shrink_factor, *words])
    return build_session(config, open_engine(config), 10)


def test_any_export_teaches_and_the_teacher_is_not_trained(export, batch, monkeypatch):
    use_tiny_networks(monkeypatch.setattr)
    trainer = build("--teacher", str(export()), "--i_lambda", "0", "--lr", "0.003", "--warmup", "0").trainer
    before = [variable.numpy() for variable in trainer.objective.teacher.variables]
    step = tf.function(trainer.train_step, autograph=False)
    batch = tf.nest.map_structure(tf.constant, batch)
    found = [float(step(batch)["content"]) for _ in range(40)]
    assert found[-1] < 0.7 * found[0]
    for old, variable in zip(before, trainer.objective.teacher.variables, strict=True):
        np.testing.assert_array_equal(old, variable.numpy())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shrink_factor": 0.7}, "aligned with shrink factor 0.7000; this run's have 32 pixels and 1.0000"),
        ({"family": "nobody"}, "no family of swap networks is named nobody"),
        ({"needs": "decoder", "decoders": ("ann",), "embedding_dim": None}, "it has decoders and takes no source"),
    ],
)
def test_a_teacher_of_other_faces_is_refused(export, monkeypatch, changes, message):
    use_tiny_networks(monkeypatch.setattr)
    with pytest.raises(UserError, match=message):
        build("--teacher", str(export(**changes)))


def test_faces_without_inswappers_crop_are_refused():
    """Of another alignment it would be another part of the face."""
    frozen = types.SimpleNamespace(encoder=build_encoder())
    words = [*FLAGS, "--image_size", "144", "--inswapper_crop", "True"]
    assert objective.build(parse_config([*words, "--shrink_factor", "0.7778"]), frozen).teacher is None
    with pytest.raises(UserError, match=r"--shrink_factor 1.0: inswapper's crop lies in faces of 144 pixels"):
        objective.build(parse_config(words), frozen)


def test_what_nothing_teaches_is_said(batch):
    assert Weights().needs == {"truth": "there is no --teacher, and --a_lambda is 0"}
    assert not Weights(teacher="x").needs and not Weights(a_lambda=1.0).needs
    with pytest.raises(UserError, match="--i_lambda must not be negative"):
        Weights(i_lambda=-1.0)
