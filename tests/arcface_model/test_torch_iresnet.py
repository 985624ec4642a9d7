"""InsightFace's IResNet from a PyTorch state dict."""

from pathlib import Path

import keras
import numpy as np
import pytest
from torch_recipe import last, relative

from facedancer.arcface_model.encoder import IdentityEncoder
from facedancer.arcface_model.torch_iresnet import torch_iresnet
from facedancer.core.console import UserError
from facedancer.core.torch_file import read_torch_state_dict

FIXTURES = Path(__file__).resolve().parents[3] / "shared" / "fixtures" / "hififace"
CHECKPOINT = FIXTURES / "hififace_opensouce_299999_small.ckpt"
PREFIX = "generator.id_extractor.f_id."


@pytest.fixture(scope="module")
def state():
    """The identity encoder of a checkpoint of HifiFace's."""
    if not FIXTURES.is_dir():
        pytest.skip("needs ../shared/fixtures/hififace, which is not in the repository")
    whole = read_torch_state_dict(CHECKPOINT, "state_dict")
    return {name.removeprefix(PREFIX): array for name, array in whole.items() if name.startswith(PREFIX)}


def test_embeddings_are_the_originals(state):
    stored = np.load(FIXTURES / "identity_vector_small_io.npz")
    model, units = torch_iresnet(state, CHECKPOINT)
    assert len(units) == 4
    for name in ("source", "source2"):
        picture = keras.ops.image.resize(last(stored[name]), (112, 112), "bilinear")
        embedding = keras.ops.normalize(model(picture * 2 - 1)["embedding"], axis=1)
        assert relative(embedding, stored[f"v_{name}"]) < 1e-4


def test_the_encoder_takes_a_checkpoint(state):
    model, _ = torch_iresnet(state, CHECKPOINT)
    encoder = IdentityEncoder(str(CHECKPOINT))
    assert encoder.dim == 32 and encoder.name == model.name
    faces = np.random.default_rng(2).integers(0, 256, (2, 112, 112, 3)).astype(np.uint8)
    assert relative(encoder(faces), model(faces / np.float32(127.5) - 1)["embedding"]) < 1e-4


def test_a_file_of_something_else_is_one_line(state):
    with pytest.raises(UserError, match="not InsightFace's IResNet"):
        IdentityEncoder(str(FIXTURES / "discriminator_features_small.pth"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.pop("layer2.0.bn3.weight"), "lacks 'layer2.0.bn3.weight'"),
        (lambda state: state.update({"layer1.0.more": np.zeros(3)}), "has layer1.0.more, which an IResNet does not"),
        (lambda state: state.update({"prelu.weight": np.zeros(3)}), "stem_prelu has weights of shapes"),
        (lambda state: state.update({"fc.weight": np.zeros((32, 7))}), "not InsightFace's IResNet"),
    ],
)
def test_what_does_not_fit_is_named(state, change, said):
    state = dict(state)
    change(state)
    with pytest.raises(UserError) as error:
        torch_iresnet(state, "file.pth")
    assert said in str(error.value) and "\n" not in str(error.value)
