"""What families with a source embedding can do: learn a batch, go on where they stopped, be exported, run anywhere."""

import functools
import importlib.util
import shutil
from pathlib import Path

import h5py
import keras
import numpy as np
import onnxruntime
import pytest
import tensorflow as tf
from drawn_faces import draw_face
from tiny_networks import ADVERSARIAL_FLAGS
from tiny_run import run_eagerly, use_tiny_networks

from facedancer.core.alignment import landmark_template
from facedancer.core.card import read_card
from facedancer.core.console import UserError
from facedancer.core.images import encode_image
from facedancer.core.records import FaceRecord, RecordWriter, shard_name
from facedancer.models import FAMILIES, load_swapper
from facedancer.models.families import DEFAULT_FAMILY, find_family
from facedancer.train.config import parse_config
from facedancer.train.engines import open_engine
from facedancer.train.export import export_swapper
from facedancer.train.session import build_session
from facedancer.train.train import main
from facedancer.video_swap.engines import load_engine

FLAGS = ["--preset", "lite", "--arcface_path", "tiny", "--image_size", "32", "--batch_size", "2", "--log_every", "1"]
# Each reads either file; two of the three export it to ONNX first.
ENGINES = {"keras": ".h5", "onnxruntime": ".keras", "openvino": ".h5"}
# Its swapper takes a decoder's name in place of an embedding: test_autoencoder_family.py.
TESTED_APART = {"autoencoder"}
JUDGED = {"discriminator", "adversarial", "r1", "gradient_penalty"}


@pytest.fixture(params=[name for name in FAMILIES if name not in TESTED_APART])
def family(request, monkeypatch):
    """A family's name; its networks and those that its objective looks through are tiny."""
    use_tiny_networks(monkeypatch.setattr)
    return request.param


@pytest.fixture(params=[name for name in FAMILIES if name not in {DEFAULT_FAMILY, *TESTED_APART}])
def other_family(request, monkeypatch):
    """Likewise, of those beside the first, whose training `test_trainer` and `test_resume` look at."""
    use_tiny_networks(monkeypatch.setattr)
    return request.param


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Eight drawn faces of four people; half of them have a source of their own, and what is called a true swap."""
    folder = tmp_path_factory.mktemp("shards")
    with open(folder / shard_name("x", "train", 0, 1), "wb") as file:
        writer = RecordWriter(file)
        for number in range(8):
            face, another = (encode_image(draw_face(person, 32, number % 2), ".png") for person in (number // 2, 9))
            more = {"source": another, "truth": another} if number < 4 else {}
            more["mask"] = encode_image(np.full((32, 32, 1), 255 * (number % 2), np.uint8).repeat(3, -1), ".png")
            writer.write(FaceRecord(face, f"p{number // 2}", landmark_template(32), **more))
    return str(folder / "x_train_*")


def test_a_batch_is_learned(other_family, batch, quick_graphs):
    """What is asked for beside deceiving the discriminator comes nearer."""
    flags = [*FLAGS, *ADVERSARIAL_FLAGS[other_family], "--lr", "0.003", "--warmup", "0"]
    config = parse_config(["--family", other_family, "--data_dir", "none", *flags])
    trainer = build_session(config, open_engine(config), 100).trainer
    step = tf.function(trainer.train_step, autograph=False)
    batch = tf.nest.map_structure(tf.constant, batch)
    first, *_, last = [
        {name: float(value) for name, value in step(batch).items() if name not in JUDGED} for _ in range(25)
    ]
    assert len(first) > 1 and sum(last.values()) < 0.7 * sum(first.values()), (first, last)


def test_a_run_that_goes_on_equals_an_unbroken_one(other_family, shards, tmp_path, monkeypatch):
    run_eagerly(monkeypatch.setattr)
    monkeypatch.chdir(tmp_path)
    flags = [*FLAGS, *ADVERSARIAL_FLAGS[other_family], "--family", other_family, "--data_dir", shards]
    flags += ["--deterministic", *(["--lambda_cyc", "0"] if other_family == "hififace" else [])]  # half of a step

    assert main([*flags, "--log_name", "unbroken", "--num_steps", "4", "--save_every", "2"]) == 0
    shutil.copytree("runs/unbroken/checkpoints", "runs/broken/checkpoints")
    assert main([*flags, "--log_name", "broken", "--num_steps", "4", "--load", "2"]) == 0
    assert Path("runs/broken/checkpoints/state/4.json.set_aside").is_file()
    unbroken, broken = (arrays_of(tmp_path / "runs" / name / "checkpoints", 4) for name in ("unbroken", "broken"))
    assert unbroken.keys() == broken.keys() and len(unbroken) > 50
    assert [name for name in unbroken if not np.array_equal(unbroken[name], broken[name])] == []


def arrays_of(folder, step):
    """Every array of a checkpoint by name."""
    with np.load(folder / "state" / f"{step}.npz") as stored:
        arrays = dict(stored)
    for path in folder.glob(f"*/*_{step}.h5"):
        with h5py.File(path) as file:
            file.visititems(
                lambda name, item, path=path: (
                    arrays.update({f"{path.name}/{name}": item[()]}) if isinstance(item, h5py.Dataset) else None
                )
            )
    return arrays


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """Function that returns inputs, what a family's swapper makes of them, and the paths of its files."""

    @functools.cache
    def export(family):
        module, rng = find_family(family), np.random.default_rng(0)
        config = module.PRESETS["lite"]
        keras.utils.set_random_seed(1)
        swapper = module.build_swapper(module.build_networks(config))
        for variable in swapper.weights:  # those that begin as 0 or 1, too
            variable.assign(variable + rng.normal(0, 0.05, variable.shape))
        inputs = {
            tensor.name: rng.uniform(-1, 1, (3, *tensor.shape[1:])).astype(np.float32) for tensor in swapper.inputs
        }
        card = {"shrink_factor": 0.9, "identity_encoder": "dlib_resnet", "network": vars(config)}
        folder = tmp_path_factory.mktemp(family)
        paths = export_swapper(swapper, folder, family=family, step=12, training={}, licence="none", **card)
        return inputs, swapper(inputs).numpy(), paths

    return export


def test_an_export_gives_the_same_in_every_format_and_on_every_engine(family, exports):
    inputs, expected, paths = exports(family)
    assert read_card(paths[0]).family == family
    for path in paths[:2]:
        for load in (load_swapper, keras.models.load_model):
            np.testing.assert_allclose(load(path)(inputs), expected, atol=1e-4)
    (found,) = onnxruntime.InferenceSession(paths[2]).run(["swapped"], inputs)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    for name, ending in ENGINES.items():
        if importlib.util.find_spec(name):
            network = load_engine(paths[0].with_suffix(ending), name)
            np.testing.assert_allclose(network.predict_on_batch(inputs), expected, atol=1e-3)


@pytest.mark.parametrize("damage", ["missing", "misshapen"])
def test_a_weight_that_is_not_as_it_should_be_is_named(family, exports, tmp_path, damage):
    whole = exports(family)[2][0]
    shutil.copytree(whole.parent, tmp_path, dirs_exist_ok=True)
    path = tmp_path / whole.name
    with h5py.File(path, "r+") as file:
        weights = file["model_weights"]
        layer = next(name for name in weights if name.startswith("encoder") and list(weights[name]))
        (name, *_) = weights[layer].attrs["weight_names"]
        name = name.decode() if isinstance(name, bytes) else name
        array = weights[layer][name][()]
        del weights[layer][name]
        if damage == "misshapen":
            weights[layer][name] = array[..., :-1]
    with pytest.raises(UserError, match=layer):
        load_swapper(path)
