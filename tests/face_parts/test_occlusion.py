"""The occlusion network knows rendered faces from what covers them; its examples say the truth; it can be trained."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from facedancer.core.alignment import align_matrix, warp_to_aligned
from facedancer.face_parts.occlusion import CROP_SHRINK, CROP_SIZE, WEIGHTS_FILE, visible_face
from facedancer.face_parts.occlusion_data import is_face, photograph, plain_example, random_example, render_crop
from facedancer.face_parts.train_occlusion import HELD_OUT_FIRST, measure, train
from facedancer.synthetic.draws import draw_identity, draw_person
from facedancer.synthetic.render import render
from facedancer.synthetic.scenes import portrait_scene
from facedancer.synthetic.truth import HAIR, LABELS, OCCLUDER, SKIN


@pytest.fixture(scope="module")
def crops():
    """Crops that the network was not trained on."""
    return np.stack([render_crop(HELD_OUT_FIRST + number)["crop"] for number in range(0, 24, 4)])


def overlap(found, shown):
    return (found & shown).sum() / (found | shown).sum()


def test_knows_faces_it_was_not_trained_on(crops):
    plain = [plain_example(crop) for crop in crops]
    found = visible_face(np.stack([image for image, _ in plain]))
    assert found.shape == (len(crops), CROP_SIZE, CROP_SIZE, 1) and found.min() >= 0 and found.max() <= 1
    shown = is_face(np.stack([labels for _, labels in plain])) > 0.5
    assert overlap(found[..., 0] > 0.5, shown) > 0.88


@pytest.mark.parametrize("occluder", ["hand", "phone", "microphone"])
def test_what_covers_the_face_is_left_out(occluder):
    scene = replace(portrait_scene(3), occluder=occluder, occluder_seed=3)
    covered = render(draw_identity(3), draw_person(3), scene, size=256)
    matrix = align_matrix(covered.landmarks, CROP_SIZE, CROP_SHRINK)
    labels = cv2.warpAffine(covered.labels, matrix, (CROP_SIZE, CROP_SIZE), flags=cv2.INTER_NEAREST)
    assert (labels == OCCLUDER).sum() > 100
    (found,) = visible_face(warp_to_aligned(covered.image, matrix, CROP_SIZE)[None])[..., 0]
    assert found[labels == OCCLUDER].mean() < 0.2
    assert found[labels == SKIN].mean() > 0.85
    assert found[labels == HAIR].mean() < 0.15


def test_the_shipped_weights_are_small_and_have_a_card(repository):
    assert WEIGHTS_FILE.stat().st_size < 3_000_000
    report = json.loads(WEIGHTS_FILE.with_suffix(".json").read_text())["held_out"]
    card = WEIGHTS_FILE.with_suffix(".md").read_text()
    assert f"{report['iou']:.3f}" in card and f"{report['iou_covered']:.3f}" in card
    assert report["iou"] > 0.9 and set(report["shown"]) <= set(LABELS)


class TestExamples:
    def test_are_drawn_by_the_generator_alone(self, crops):
        first, second = ([random_example(crops, 1, np.random.default_rng(7)) for _ in range(2)] for _ in range(2))
        for (image, shown), (other, other_shown) in zip(first, second, strict=True):
            np.testing.assert_array_equal(image, other)
            np.testing.assert_array_equal(shown, other_shown)
            assert image.shape == (CROP_SIZE, CROP_SIZE, 3) and image.dtype == np.uint8
            assert set(np.unique(shown)) <= {0.0, 1.0}

    def test_labels_stay_with_the_picture(self):
        """A kept crop whose face is white and whose rest is black: light and cameras change no place."""
        crop = render_crop(HELD_OUT_FIRST)["crop"]
        crop[..., :3] = (is_face(crop[..., 3]) * 255)[..., None]
        random = np.random.default_rng(0)
        agreed = []
        for _ in range(20):
            image, shown = random_example(crop[None], 0, random)
            gray = image.mean(-1)
            if gray.std() > 30:
                agreed.append(((gray > (gray.max() + gray.min()) / 2) == (shown > 0.5)).mean())
        assert len(agreed) > 8 and np.median(agreed) > 0.93

    def test_things_cover_more_than_the_rendered_ones(self, crops):
        random = np.random.default_rng(1)
        shares = [random_example(crops, 0, random)[1].mean() for _ in range(30)]
        whole = is_face(plain_example(crops[0])[1]).mean()
        assert min(shares) < 0.6 * whole < np.median(shares) and max(shares) > 0.85 * whole

    def test_cameras_keep_the_picture(self):
        image = np.full((CROP_SIZE, CROP_SIZE, 3), 0.5, np.float32)
        for seed in range(10):
            spoiled = photograph(image, np.random.default_rng(seed))
            assert spoiled.dtype == np.uint8 and abs(spoiled.mean() - 128) < 8


def test_training_learns(crops):
    """A few steps on six crops: better than a network that says the most frequent answer everywhere."""
    model = train(crops, steps=12, batch=4, seed=0)
    images = np.stack([plain_example(crop)[0] for crop in crops])
    labels = is_face(np.stack([plain_example(crop)[1] for crop in crops])) > 0.5
    # Batch normalization's averages are young after so few steps; the batch's own are taken.
    found = np.asarray(model(images / 127.5 - 1, training=True))[..., 0]
    assert found[labels].mean() > found[~labels].mean() + 0.2
    report = measure(model, crops, seed=0)
    assert report["pictures"] == len(crops) and 0 <= report["iou"] <= 1 and "skin" in report["shown"]
