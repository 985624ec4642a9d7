"""BiSeNet as published, and the mask that is made of what it says."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from facedancer.core.console import UserError
from facedancer.face_parts.parsing import build_parsing_network, load_parsing_network
from facedancer.video_swap.masks import FaceMasks, check_masks
from facedancer.video_swap.parsing import SHOWN, soft_erosion

FIXTURES = Path(__file__).resolve().parents[3] / "shared" / "fixtures" / "simswap"


@pytest.fixture(scope="module")
def fixtures():
    if not FIXTURES.is_dir():
        pytest.skip("needs ../shared/fixtures/simswap, which is not in the repository")
    return FIXTURES


def test_number_of_parameters():
    """PyTorch does not count the statistics of batch normalization."""
    model = build_parsing_network(64, 64)
    assert sum(int(np.prod(variable.shape)) for variable in model.trainable_variables) == 13_300_416


def test_a_published_file_gives_what_the_original_gave(fixtures):
    """In PyTorch's old format, a stream of pickles."""
    stored = np.load(fixtures / "bisenet19_small_io.npz")
    model = load_parsing_network(fixtures / "79999_iter_small.pth", 64, 96)
    found = model.predict_on_batch(stored["image"].transpose(0, 2, 3, 1))
    for logits, name in zip(found, ("out", "out16", "out32"), strict=True):
        expected = stored[name]
        assert np.abs(logits.transpose(0, 3, 1, 2) - expected).max() < 1e-4 * np.abs(expected).max()


def test_another_file_is_refused(fixtures, tmp_path):
    path = tmp_path / "79999_iter.pth"
    shutil.copyfile(fixtures / "latest_net_G_small.pth", path)
    with pytest.raises(UserError, match="not a BiSeNet for faces"):
        load_parsing_network(path, 64, 64)


def test_the_mask_is_eroded_as_the_originals(fixtures):
    stored = np.load(fixtures / "parsing_mask.npz")
    mask = np.isin(stored["labels"], (*SHOWN, 6)).astype(np.float32)  # the original shows glasses too
    np.testing.assert_array_equal(mask, stored["mask"][0, 0])
    soft = soft_erosion(mask)
    np.testing.assert_allclose(soft, stored["soft"][0, 0], atol=1e-5)
    hard = stored["hard"][0, 0]
    assert (soft[hard] == 1).all() and np.sum(soft[~hard] == 1) == 1  # the highest below the threshold reaches 1


def test_erosion_of_nothing_and_of_everything():
    assert soft_erosion(np.zeros((40, 40), np.float32)).max() == 0
    np.testing.assert_array_equal(soft_erosion(np.ones((40, 40), np.float32)), 1)


def test_a_published_file_makes_masks(fixtures):
    path = str(fixtures / "79999_iter_small.pth")
    check_masks([path, "parsing"])
    frame = np.random.default_rng(0).integers(0, 255, (120, 120, 3), np.uint8)
    (mask,) = FaceMasks((path,), 64)([frame], [np.float64([[0.5, 0, 0], [0, 0.5, 0]])])
    assert mask.shape == (64, 64, 1) and mask.dtype == np.float32
    assert 0 <= mask.min() <= mask.max() <= 1
