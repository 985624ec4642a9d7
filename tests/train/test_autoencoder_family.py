"""People with a decoder each, trained by the command on drawn faces, exported, and trained further."""

import functools
import json
import shutil
from dataclasses import replace

import keras
import numpy as np
import onnxruntime
import pytest
import tensorflow as tf
from drawn_faces import draw_face
from tiny_run import run_eagerly, use_tiny_networks

from facedancer.core.alignment import landmark_template
from facedancer.core.card import read_card
from facedancer.core.images import encode_image, read_image
from facedancer.core.keras_h5 import read_keras_h5
from facedancer.core.records import FaceRecord, RecordWriter
from facedancer.dataset.pairing import People, StreamOptions
from facedancer.dataset.record_loader import iterate_batches
from facedancer.models import load_swapper
from facedancer.models.autoencoder import Config, build_networks
from facedancer.train.objectives.autoencoder import AutoencoderObjective, Weights
from facedancer.train.train import main
from facedancer.train.trainer import SwapTrainer

TINY = ["--family", "autoencoder", "--preset", "lite", "--arcface_path", "tiny", "--image_size", "32"]
TINY += ["--init_dim", "4", "--code_dim", "8", "--batch_size", "4", "--log_every", "1"]
CONFIG = Config(
    image_size=32, init_dim=8, code_dim=32, code_width=32, widths=(32, 24, 16, 8), people=("ann", "ben")
)  # fmt: skip


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Six pictures of each of two people to train, two more to validate, and three of a third."""
    folder = tmp_path_factory.mktemp("people")
    for name, people, variations in (("train", "ab", range(6)), ("val", "ab", range(6, 8)), ("new", "c", range(3))):
        with open(folder / f"{name}.records", "wb") as file:
            writer = RecordWriter(file)
            for person in people:
                for variation in variations:
                    face = encode_image(draw_face(ord(person), 64, variation), ".png")
                    writer.write(
                        FaceRecord(face, {"a": "ann", "b": "ben", "c": "cleo"}[person], landmark_template(64, 0.7))
                    )
    return folder


@pytest.fixture
def run(shards, tmp_path, monkeypatch):
    """Function that runs the command in an empty folder and returns its exit status."""
    monkeypatch.chdir(tmp_path)
    use_tiny_networks(monkeypatch.setattr)
    run_eagerly(monkeypatch.setattr)
    return lambda name, *words: main([*TINY, "--data_dir", str(shards / f"{name}.records"), *words])


def state_of(folder, step):
    """Every array of a checkpoint."""
    with np.load(folder / "state" / f"{step}.npz") as stored:
        arrays = dict(stored)
    for path in folder.glob(f"*/*_{step}.h5"):
        for layer, weights in read_keras_h5(path).weights.items():
            arrays |= {f"{path.name} {layer} {name}": array for name, array in weights.items()}
    return arrays


def test_trained_exported_and_gone_on_with(run, shards, tmp_path, capsys):
    words = ["--log_name", "whole", "--num_steps", "4", "--save_every", "2", "--log_interval", "1", "--export"]
    assert run("train", *words, "--eval_dir", str(shards / "val.records")) == 0
    assert "identity_to_source" in capsys.readouterr().out
    results = tmp_path / "runs/whole/results"
    assert sorted(path.name for path in (results / "face_id").iterdir()) == [
        f"{name}_{step:08d}.png" for name in ("ann", "ben") for step in (2, 4)
    ]  # each turn of both, which --log_interval counts
    assert read_image(results / "face_id/ann_00000004.png").shape[0] == 3 * 32
    assert (results / "validation_00000004.png").is_file()

    # Gone on with from its second step, it is the same to the bit.
    shutil.copytree("runs/whole/checkpoints", "runs/parts/checkpoints")
    assert run("train", "--log_name", "parts", "--num_steps", "4", "--load", "2") == 0
    assert (tmp_path / "runs/parts/checkpoints/state/4.json.set_aside").is_file()
    folders = [tmp_path / f"runs/{name}/checkpoints" for name in ("whole", "parts")]
    assert json.loads((folders[0] / "state/4.json").read_text())["config"]["people"] == ["ann", "ben"]
    states = [state_of(folder, 4) for folder in folders]
    assert states[0].keys() == states[1].keys() and len(states[0]) > 100
    assert [key for key in states[0] if not np.array_equal(states[0][key], states[1][key])] == []

    # All formats give the same, for each person their own.
    exported = tmp_path / "runs/whole/exports/autoencoder_4.h5"
    card = read_card(exported)
    assert (card.needs, card.decoders, card.embedding_dim, card.shrink_factor) == ("decoder", ("ann", "ben"), None, 1.0)
    target = np.random.default_rng(0).uniform(-1, 1, (3, 32, 32, 3)).astype(np.float32)
    expected = load_swapper(exported)({"target": target})
    assert np.abs(expected[0] - expected[1]).max() > 1e-3
    others = [
        load_swapper(exported.with_suffix(".keras"))({"target": target}),
        keras.models.load_model(exported)({"target": target}),
        onnxruntime.InferenceSession(exported.with_suffix(".onnx")).run(["ann", "ben"], {"target": target}),
    ]
    for found in others:
        assert all(np.abs(a - b).max() < 1e-4 for a, b in zip(found, expected, strict=True))

    # Somebody new gets a decoder to the encoder that is there, which stays.
    words = ("--log_name", "more", "--num_steps", "2", "--finetune", str(exported), "--fix_enc", "--export")
    assert run("new", *words) == 0
    more = load_swapper(tmp_path / "runs/more/exports/autoencoder_2.h5")
    old = load_swapper(exported)
    for layer in more.layers:
        if layer.weights and layer.name.startswith("encoder"):
            for a, b in zip(layer.get_weights(), old.get_layer(layer.name).get_weights(), strict=True):
                np.testing.assert_allclose(a, b, atol=1e-6)
    assert read_card(tmp_path / "runs/more/exports/autoencoder_2.h5").decoders == ("cleo",)


@pytest.mark.parametrize(
    "name, words, message",
    [
        ("train", ("--people", "dora"), "has nobody named dora"),
        ("train", ("--shrink_factor", "1"), "leaves no margin for --coverage 0.7"),
        ("train", ("--inner_loop", "0"), "--inner_loop and --log_interval must be at least 1"),
        ("new", ("--eval_dir", "val.records"), "has ann, who has no decoder"),
    ],
)
def test_what_cannot_be_trained_is_said(run, shards, capsys, name, words, message):
    words = [str(shards / word) if word.endswith(".records") else word for word in words]
    assert run(name, *words) == 2
    assert message in capsys.readouterr().err


def make_trainer(**weights):
    keras.utils.set_random_seed(3)
    trainer = SwapTrainer(build_networks(CONFIG), AutoencoderObjective(Weights(**weights)))
    trainer.compile(keras.optimizers.Adam(2e-3, beta_1=0.5), jit_compile=False)
    return trainer


@pytest.fixture(scope="module")
def batch(shards):
    """Four warped faces of each of both people."""
    options = StreamOptions(4, 32, people=People(CONFIG.people, 1, 0.7))
    pattern = str(shards / "train.records")
    pair = [next(iterate_batches(pattern, replace(options, start_step=i), processes=0)) for i in range(2)]
    return {name: np.concatenate([one[name] for one in pair]) for name in pair[0]}


def test_one_batch_overfits(batch):
    trainer = make_trainer()
    stream = tf.data.Dataset.from_tensors(batch).repeat()
    history = []
    keep = keras.callbacks.LambdaCallback(on_train_batch_end=lambda _, logs: history.append(dict(logs)))
    trainer.fit(stream, steps_per_epoch=300, shuffle=False, verbose=0, callbacks=[keep])
    assert history[-1]["reconstruction"] < 0.4 * history[0]["reconstruction"]


def test_a_decoder_learns_from_its_person_alone(batch):
    """Whoever else is in the batch; and shapes that are fixed give the same gradients."""
    tensors = functools.partial(tf.nest.map_structure, tf.constant)
    trainer = make_trainer()
    names = [variable.path for variable in trainer._variables(discriminator=False)]
    losses, (both,) = trainer._losses_and_gradients(tensors(batch))
    trainer.objective.has_fixed_shapes = True
    for a, b in zip(both, trainer._losses_and_gradients(tensors(batch))[1][0], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    trainer.objective.has_fixed_shapes = False
    changed = {**batch, "target": np.where(batch["people"][:, :1, None, None] == 1, 0, batch["target"])}
    _, (other,) = trainer._losses_and_gradients(tensors(changed))
    for name, a, b in zip(names, both, other, strict=True):
        is_same = np.allclose(a, b, atol=1e-7)
        assert is_same == name.startswith("decoder0"), name
    nobody = {**batch, "people": np.full_like(batch["people"], -1)}
    losses, (none,) = trainer._losses_and_gradients(tensors(nobody))
    assert all(float(value) == 0 for value in losses.values()) and all(not np.any(gradient) for gradient in none)
