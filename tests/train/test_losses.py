"""Losses against values worked out by hand or in numpy."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from facedancer.train import losses


def test_cosine_distance():
    a = np.array([[1.0, 0.0], [1.0, 1.0], [2.0, 0.0]], np.float32)
    b = np.array([[3.0, 0.0], [-1.0, -1.0], [0.0, 5.0]], np.float32)
    assert np.allclose(losses.cosine_distance(a, b), [0.0, 2.0, 1.0], atol=1e-6)
    maps = a.reshape(3, 1, 2, 1)
    assert np.allclose(losses.cosine_distance(maps, maps), 0.0, atol=1e-6)


def test_masked_l1_counts_only_pairs_of_one_identity():
    a = np.zeros((4, 2, 2, 3), np.float32)
    b = np.stack([np.full((2, 2, 3), value, np.float32) for value in (0.5, 9.0, 9.0, 1.0)])
    found = losses.masked_l1(a, b, np.array([1, 0, 0, 1], np.float32))
    assert float(found) == pytest.approx((0.5 + 1.0) / 4)


def test_adversarial_losses_are_the_logistic_ones():
    real, fake = np.array([[2.0], [-1.0]], np.float32), np.array([[0.5], [3.0]], np.float32)
    swapped, slope = np.ones((2, 2, 2, 3), np.float32), np.ones((2, 2, 2, 3), np.float32)
    found = losses.adversarial_by_slope(swapped, fake, slope)
    assert float(found) == pytest.approx(np.log1p(np.exp(-fake)).mean(), rel=1e-5)
    expected = np.log1p(np.exp(-real)).mean() + np.log1p(np.exp(fake)).mean()
    assert float(losses.discriminator_adversarial(real, fake)) == pytest.approx(expected, rel=1e-5)


def test_gradient_penalty_is_the_squared_norm():
    gradient = np.random.default_rng(0).normal(size=(3, 4, 4, 3)).astype(np.float32)
    expected = (np.linalg.norm(gradient.reshape(3, -1), axis=1) ** 2).mean()
    assert float(losses.gradient_penalty(gradient)) == pytest.approx(expected, rel=1e-5)


def test_ifsr_is_free_up_to_the_scaled_margin():
    target = {"a": np.array([[1.0, 0.0]], np.float32), "b": np.array([[1.0, 0.0]], np.float32)}
    swapped = {"a": np.array([[0.0, 1.0]], np.float32), "b": np.array([[1.0, 1.0]], np.float32)}
    b = 1 - np.sqrt(0.5)
    both = losses.feature_similarity(target, swapped, {"a": 0.5, "b": 0.1}, 1.2)
    assert float(both) == pytest.approx((1 - 0.6) + (b - 0.12), rel=1e-4)
    assert float(losses.feature_similarity(target, swapped, {"a": 0.9, "b": 0.9}, 1.2)) == 0.0


def test_structural_similarity_is_the_originals():
    """A recorded pair of pictures, its SSIM, and the gradient of 1 - SSIM in the first."""
    path = Path(__file__).resolve().parents[3] / "shared/fixtures/reswapper/losses_io.npz"
    if not path.is_file():
        pytest.skip("needs ../shared/fixtures, which is not in the repository")
    with np.load(path) as io:
        a, b = (tf.constant(io[name].transpose(0, 2, 3, 1)) for name in "ab")
        with tf.GradientTape() as tape:
            tape.watch(a)
            loss = 1.0 - losses.structural_similarity(a, b)[0]
        assert float(loss) == pytest.approx(float(io["content_loss"]), rel=1e-4)
        gradient = tape.gradient(loss, a).numpy().transpose(0, 3, 1, 2)
        assert np.abs(gradient - io["grad_content"]).max() < 1e-4 * np.abs(io["grad_content"]).max()


def test_structural_similarity_is_one_of_a_picture_with_itself_and_of_each_row():
    pictures = np.random.default_rng(0).uniform(size=(3, 16, 12, 3)).astype(np.float32)
    others = pictures.copy()
    others[1] = 1 - others[1]
    found = losses.structural_similarity(pictures, others)
    assert found.shape == (3,) and np.allclose(found[::2], 1.0, atol=1e-5) and found[1] < 0
