"""An export gives what the model in memory gives, in every format."""

import hashlib
import warnings

import keras
import numpy as np
import onnxruntime
import pytest
from tiny_networks import CONFIG

import facedancer.models
from facedancer.core.card import read_card
from facedancer.core.console import UserError
from facedancer.models.facedancer import build_networks, build_swapper
from facedancer.train.export import export_swapper


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports")
    keras.utils.set_random_seed(1)
    swapper = build_swapper(build_networks(CONFIG))
    card = dict(family="facedancer", step=12, shrink_factor=0.9, identity_encoder="dlib_resnet")
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)  # a library's warning would be a line that nobody can act on
        return swapper, export_swapper(swapper, folder, training={"lr": 1e-4}, licence="none", **card)


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(0)
    return rng.uniform(-1, 1, (3, 32, 32, 3)).astype(np.float32), rng.normal(size=(3, 8)).astype(np.float32)


@pytest.mark.parametrize("index", [0, 1])
def test_keras_files_load_with_load_model_and_with_load_swapper(exported, inputs, index):
    swapper, paths = exported
    expected = swapper.predict_on_batch(list(inputs))
    for load in (keras.models.load_model, facedancer.models.load_swapper):
        model = load(paths[index])
        found = model.predict_on_batch({"target": inputs[0], "source_embedding": inputs[1]})
        assert np.abs(found - expected).max() < 1e-5


def test_the_originals_format_gives_the_same(exported, inputs):
    swapper, paths = exported
    found = facedancer.models.load_swapper(paths[3]).predict_on_batch(list(inputs))
    assert np.abs(found - swapper.predict_on_batch(list(inputs))).max() < 1e-5


def test_onnx_file_gives_the_same(exported, inputs):
    swapper, paths = exported
    session = onnxruntime.InferenceSession(paths[2])
    assert [end.name for end in session.get_inputs()] == ["target", "source_embedding"]
    (found,) = session.run(["swapped"], {"target": inputs[0], "source_embedding": inputs[1]})
    assert np.abs(found - swapper.predict_on_batch(list(inputs))).max() < 1e-4


def test_card_says_what_swapping_needs(exported):
    _, paths = exported
    assert [path.name for path in paths] == [
        "facedancer_12.h5", "facedancer_12.keras", "facedancer_12.onnx", "facedancer_12_keras2.h5"
    ]  # fmt: skip
    card = read_card(paths[0])
    assert (card.family, card.image_size, card.embedding_dim, card.step) == ("facedancer", 32, 8, 12)
    assert (card.shrink_factor, card.identity_encoder, card.value_range) == (0.9, "dlib_resnet", (-1.0, 1.0))
    for path in paths:
        assert card.files[path.name]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_damaged_card_is_refused(exported, tmp_path):
    (tmp_path / "card.json").write_text('{"family": "facedancer"}')
    with pytest.raises(UserError, match="card"):
        read_card(tmp_path / "x.h5")
