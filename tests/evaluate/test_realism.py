"""FID and KID on features whose distances are known."""

import numpy as np
import pytest
from scipy import linalg

from facedancer.arcface_model import perceptual
from facedancer.evaluate.realism import (
    INCEPTION,
    MOBILENET,
    Moments,
    Realism,
    build_features,
    frechet_distance,
    kernel_distance,
)


def moments(features, parts=3):
    found = Moments()
    for part in np.array_split(features, parts):
        found.add(part)
    return found.result()


@pytest.fixture
def features():
    random = np.random.default_rng(0)
    mix = random.normal(size=(24, 24))
    return random.normal(size=(200, 24)) @ mix, random.normal(0.3, 1.2, (150, 24)) @ mix


def test_moments_in_parts_are_those_of_the_whole(features):
    mean, covariance = moments(features[0])
    np.testing.assert_allclose(mean, features[0].mean(0), atol=1e-12)
    np.testing.assert_allclose(covariance, np.cov(features[0], rowvar=False), atol=1e-10)


def test_the_frechet_distance_is_the_papers_formula(features):
    (mean_a, a), (mean_b, b) = map(moments, features)
    # As the paper writes it, with the root of a product that is not symmetric.
    wanted = np.sum((mean_a - mean_b) ** 2) + np.trace(a + b - 2 * linalg.sqrtm(a @ b).real)
    assert frechet_distance(mean_a, a, mean_b, b) == pytest.approx(wanted, rel=1e-6)
    assert frechet_distance(mean_a, a, mean_a, a) == pytest.approx(0, abs=1e-6)


def test_two_normal_distributions_on_a_line():
    one = np.array([[4.0]])
    assert frechet_distance(np.array([0.0]), one, np.array([3.0]), np.array([[1.0]])) == pytest.approx(9 + 1)


def test_the_kernel_distance_is_nought_on_average_within_a_set_and_grows_between_two(features):
    a, b = features
    halves = [kernel_distance(*np.split(a[np.random.default_rng(seed).permutation(len(a))], 2)) for seed in range(30)]
    between = kernel_distance(a, b)
    assert between > 0 and abs(np.mean(halves)) < 0.1 * between


def test_pictures_against_themselves_have_no_distance_and_blurred_ones_have(tmp_path):
    import cv2

    faces = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    network = build_features(MOBILENET, 32)
    blurred = [cv2.GaussianBlur(face, (0, 0), 2) for face in faces]
    for name, swaps in (("same", faces), ("blurred", blurred)):
        realism = Realism(tmp_path / name, network)
        realism.add(0, faces[:3], swaps[:3])
        realism.add(1, faces[3:], swaps[3:])
        fid, kids = realism.summarize(2)
        assert len(kids) == 2
        assert fid == pytest.approx(0, abs=1e-6) if name == "same" else fid > 1


def test_inception_sees_its_own_size_and_range(monkeypatch):
    """The network itself is Keras'; here it is one that gives back what it sees."""
    import keras

    seen = keras.Input((299, 299, 3))
    monkeypatch.setattr(perceptual, "load_inception", lambda: keras.Model(seen, keras.ops.mean(seen, (1, 2))))
    network = build_features(INCEPTION, 32)
    faces = np.full((2, 32, 32, 3), -0.5, np.float32)
    np.testing.assert_allclose(network.predict_on_batch(faces), np.full((2, 3), -0.5), atol=1e-6)
