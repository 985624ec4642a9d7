"""SimSwap's ArcFace out of a module that was saved whole."""

from pathlib import Path

import numpy as np
import pytest

from facedancer.arcface_model import IdentityEncoder
from facedancer.arcface_model.irse import OFFSET, SCALE, build_irse, load_irse
from facedancer.core.console import UserError
from facedancer.core.torch_file import read_torch_state_dict

FIXTURES = Path(__file__).resolve().parents[3] / "shared" / "fixtures" / "simswap"
FILES = ("arcface_checkpoint_small.tar", "arcface_checkpoint_small_stream.tar")


@pytest.fixture(scope="module")
def fixtures():
    if not FIXTURES.is_dir():
        pytest.skip("needs ../shared/fixtures/simswap, which is not in the repository")
    return FIXTURES


def test_number_of_parameters():
    """PyTorch does not count the statistics of batch normalization, and has one slope where Keras has one a channel."""
    model = build_irse()
    statistics = sum(int(np.prod(x.shape)) for x in model.weights if "moving" in x.path)
    slopes = [layer for layer in model.layers if type(layer).__name__ == "PReLU"]
    repeated = sum(layer.count_params() for layer in slopes) - (1 + 2 * (3 + 4 + 6 + 3))
    assert model.count_params() - statistics - repeated == 31_969_165


@pytest.mark.parametrize("name", FILES)
def test_a_published_file_gives_what_the_original_gave(fixtures, name):
    stored = np.load(fixtures / "arcface_small_io.npz")
    found = load_irse(fixtures / name)(stored["image"].transpose(0, 2, 3, 1))["embedding"]
    assert np.abs(found - stored["embedding"]).max() < 1e-4 * np.abs(stored["embedding"]).max()


def test_it_is_an_identity_encoder(fixtures):
    """Faces aligned as SimSwap's are seen whole."""
    encoder = IdentityEncoder(fixtures / FILES[0], shrink_factor=0.9)
    faces = np.random.default_rng(0).integers(0, 255, (2, 112, 112, 3), np.uint8)
    expected = load_irse(fixtures / FILES[0])((faces / 127.5 - 1) * SCALE + OFFSET)["embedding"]
    found = encoder(faces)
    assert encoder.dim == 32 and encoder.ifsr_margins == {}
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())


def test_a_module_is_no_state_dict_and_a_state_dict_no_module(fixtures):
    with pytest.raises(UserError, match=r"refused, it asks for models\.arcface_models\.ResNet"):
        read_torch_state_dict(fixtures / FILES[0])
    with pytest.raises(UserError, match="instead of a module"):
        load_irse(fixtures / "latest_net_G_small.pth")
