"""Colors of the target, on what is seen of the face."""

import cv2
import numpy as np
import pytest

from facedancer.video_swap.color_transfer import COLOR_TRANSFERS, transfer_colors
from facedancer.video_swap.masks import soft_box

SIZE = 64
MASK = soft_box(SIZE)


def waves(seed, low=60, high=190):
    draw = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(draw.uniform(0, 1, (SIZE, SIZE, 3)).astype(np.float32), (0, 0), 4)
    noise = (noise - noise.min((0, 1))) / np.ptp(noise, axis=(0, 1))
    return low + (high - low) * noise


def lab(image):
    return cv2.cvtColor(np.float32(image) / 255, cv2.COLOR_RGB2Lab)[MASK[..., 0] > 0.5]


@pytest.mark.parametrize("kind", COLOR_TRANSFERS)
def test_a_face_that_has_the_colors_stays(kind):
    face = waves(0)
    assert np.abs(transfer_colors(face, np.uint8(np.rint(face)), MASK, kind) - face).max() < 2.5


def test_none_is_none():
    face = waves(0)
    assert transfer_colors(face, np.uint8(waves(1)), MASK, "none") is face


@pytest.mark.parametrize("kind", ["mean", "histogram"])
def test_the_colors_become_the_targets(kind):
    """A face in red light on a target in blue light."""
    face, target = waves(0) * [1.2, 0.9, 0.7], np.uint8(waves(1) * [0.7, 0.9, 1.2])
    done = transfer_colors(np.float32(face), target, MASK, kind)
    assert done.dtype == np.float32 and done.min() >= 0 and done.max() <= 255
    np.testing.assert_allclose(lab(done).mean(0), lab(target).mean(0), atol=1.5)
    before = np.corrcoef(face[..., 1].ravel(), done[..., 1].ravel())[0, 1]
    assert before > 0.75  # the picture is the same


def test_histogram_matches_more_than_moments():
    face = waves(0)
    target = np.uint8(np.where(waves(1) > 125, 200, 60))
    errors = {}
    for kind in ("mean", "histogram"):
        done = np.sort(lab(transfer_colors(np.float32(face), target, MASK, kind))[:, 0])
        errors[kind] = np.abs(done - np.sort(lab(target)[:, 0])).mean()
    assert errors["histogram"] < 0.5 * errors["mean"]
