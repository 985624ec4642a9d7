"""HifiFace's losses give what the original's code gave."""

from pathlib import Path

import numpy as np
import pytest
from torch_recipe import last, relative

from facedancer.arcface_model.parametric_face import ParametricFace
from facedancer.models.layers import fuse_coefficients
from facedancer.train import losses
from facedancer.train.objectives import hififace

FIXTURES = Path(__file__).resolve().parents[3] / "shared" / "fixtures" / "hififace"


@pytest.fixture(scope="module")
def stored():
    if not FIXTURES.is_dir():
        pytest.skip("needs ../shared/fixtures/hififace, which is not in the repository")
    arrays = np.load(FIXTURES / "losses_io.npz")
    return {name: last(arrays[name]) if arrays[name].ndim == 4 else arrays[name] for name in arrays}


def test_shape_and_identity(stored):
    face = ParametricFace(FIXTURES / "BFM_model_front_small.mat")
    found = {name: face.landmarks(stored[f"c_{name}"]) for name in ("fuse", "result", "low")}
    for name, landmarks in found.items():
        assert relative(landmarks, stored[f"q_{name}"]) < 1e-4
    # The source's coefficients are not stored, but the part of them that is used is.
    fused = fuse_coefficients(stored["c_fuse"], stored["c_target"], 80)
    np.testing.assert_array_equal(fused, stored["c_fuse"])
    shape = hififace.shape_loss(*found.values())
    identity = hififace.identity_loss(stored["v_source"], stored["v_result"], stored["v_low"])
    assert relative(shape, stored["shape_loss"]) < 1e-4
    assert relative(identity, stored["id_loss"]) < 1e-4
    weights = hififace.Weights()
    assert relative(weights.lambda_shape * shape + weights.lambda_id * identity, stored["sid_loss"]) < 1e-4


def test_a_quarter(stored):
    assert relative(hififace.quarter(stored["target"]), stored["target_quarter_bilinear"]) < 1e-6
    assert relative(hififace.quarter(stored["mask_target"]), stored["mask_target_quarter"]) < 1e-6


def test_masks_reconstruction_and_cycle(stored):
    found = {
        "segmentation_loss": hififace.mask_loss(stored["mask_target"], stored["mask_result"], stored["mask_low"]),
        "reconstruction_loss": hififace.reconstruction_loss(
            stored["target"], stored["result"], stored["low"], stored["same"][:, 0]
        ),
        "cycle_loss": hififace.cycle_loss(stored["target"], stored["cycle"]),
    }
    for name, loss in found.items():
        assert relative(loss, stored[name]) < 1e-4, name


@pytest.mark.parametrize(
    ("kind", "name"), [("hinge", "hinge"), ("least_squares", "ls"), ("original", "original"), ("wasserstein", "w")]
)
def test_adversarial_losses_of_three_scales(kind, name):
    if not FIXTURES.is_dir():
        pytest.skip("needs ../shared/fixtures/hififace, which is not in the repository")
    arrays = np.load(FIXTURES / "discriminator_small_io.npz")
    real, fake = ([arrays[f"{picture}_logits_{scale}"] for scale in range(3)] for picture in ("real", "fake"))
    found = {
        f"{name}_D_real": [losses.judging(kind, logits, is_real=True) for logits in real],
        f"{name}_D_fake": [losses.judging(kind, logits, is_real=False) for logits in fake],
        f"{name}_G": [losses.deceiving(kind, logits) for logits in fake],
    }
    for what, scales in found.items():
        assert relative(sum(scales) / 3, arrays[what]) < 1e-4, what
