"""The swapper in the package: small, whole, as its card says, and one that changes faces."""

import h5py
import numpy as np

from facedancer.core.card import read_card
from facedancer.core.fetching import sha256_of
from facedancer.core.weights import find_weights
from facedancer.models import load_swapper
from facedancer.models.facedancer import PRESETS, build_generator


def test_the_file_is_the_cards_and_small():
    path = find_weights("lite")
    card = read_card(path)
    assert path.stat().st_size <= 12_000_000
    assert card.files == {path.name: {"sha256": sha256_of(path)}}
    assert (card.image_size, card.embedding_dim, card.identity_encoder) == (128, 128, "dlib_resnet")
    assert "/" not in card.training["log_name"] and not card.training["data_dir"].startswith("/")
    page = path.with_name("README.md").read_text(encoding="utf-8")
    assert f"{card.step:,} steps" in page and "FIX" not in page
    with h5py.File(path) as file:
        kinds = set()
        file["model_weights"].visititems(
            lambda _, item: kinds.add(item.dtype) if isinstance(item, h5py.Dataset) else None
        )
    assert kinds == {np.dtype(np.float16)}


def test_it_is_the_presets_network_and_goes_by_the_source():
    swapper = load_swapper(find_weights("lite"))
    assert swapper.count_params() == build_generator(PRESETS["lite"]).count_params()
    rng = np.random.default_rng(0)
    target = np.tile(rng.uniform(-0.5, 0.5, (1, 1, 1, 3)).astype(np.float32), (2, 128, 128, 1))
    embedding = rng.normal(0, 1, (2, 128)).astype(np.float32)
    swapped = swapper.predict_on_batch({"target": target, "source_embedding": embedding})
    assert np.isfinite(swapped).all() and np.abs(swapped[0] - swapped[1]).mean() > 1e-3
