"""An inswapper's file in our swapper: the crop that InsightFace cuts out, swapped as InsightFace swaps it."""

import types
from pathlib import Path

import numpy as np
import pytest

from facedancer.core.alignment import invert_affine, transform_points
from facedancer.models.families import card_of
from facedancer.video_swap import FaceSwapper
from facedancer.video_swap.engines import load_engine
from facedancer.video_swap.swapper import PlacedFace

FIXTURES = Path(__file__).resolve().parents[3] / "shared" / "fixtures" / "reswapper"


@pytest.mark.parametrize("engine", ["keras", "onnxruntime"])
def test_a_picture_is_swapped_as_by_insightface(tmp_path, engine):
    """In the middle of the face, where both masks show the swap alone; theirs is eroded otherwise."""
    if not FIXTURES.is_dir():
        pytest.skip("needs ../shared/fixtures, which is not in the repository")
    path = tmp_path / "inswapper_128.onnx"
    path.write_bytes((FIXTURES / "reswapper-1019500_small.onnx").read_bytes())
    network = load_engine(path, engine)
    card = card_of(path, network.image_size, network.embedding_dim)
    encoder = types.SimpleNamespace(dim=network.embedding_dim)
    swapper = FaceSwapper(network, None, encoder, network.image_size, card.shrink_factor)
    with np.load(FIXTURES / "inswapper_pasteback_io.npz") as io:
        frame, theirs = io["image_bgr"][..., ::-1].copy(), io["merged_bgr"][..., ::-1].astype(int)
        face = PlacedFace(io["landmarks"], io["normed_embedding"])
        grid = np.stack(np.meshgrid(np.arange(44, 85, 5), np.arange(40, 85, 5)), -1).reshape(-1, 2)
        x, y = np.round(transform_points(invert_affine(io["matrix"]), grid)).astype(int).T
    (swapped,) = swapper.swap_placed([frame], [[face]])
    apart = np.abs(swapped.image[y, x].astype(int) - theirs[y, x])
    assert np.abs(frame[y, x].astype(int) - theirs[y, x]).mean() > 20
    assert apart.mean() < 2 and apart.max() < 12
