"""Geometry by property: there and back is the identity, landmarks land where they should, pictures follow points."""

import cv2
import numpy as np
import pytest

from facedancer.core.alignment import (
    align_matrix,
    estimate_similarity,
    invert_affine,
    landmark_template,
    scale_of,
    transform_points,
    warp_to_aligned,
)


def similarity(scale, angle, shift):
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[cosine, -sine, shift[0]], [sine, cosine, shift[1]]])


def draw_dots(size, points, sigma):
    """A black picture with a soft white dot at each point."""
    y, x = np.mgrid[: size[0], : size[1]]
    dots = sum(np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * sigma**2)) for px, py in points)
    return np.repeat(np.rint(255 * np.clip(dots, 0, 1)).astype(np.uint8)[..., None], 3, axis=-1)


def find_dots(picture, points, radius):
    """The center of brightness around each point."""
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]]
    found = []
    for px, py in points:
        weight = picture[..., 0] * (np.hypot(x - px, y - py) < radius)
        found.append([(weight * x).sum() / weight.sum(), (weight * y).sum() / weight.sum()])
    return np.array(found)


@pytest.mark.parametrize("angle", [0.0, 0.4, -2.5, np.pi])
def test_estimate_similarity_finds_the_map(angle):
    points = np.random.default_rng(0).uniform(0, 100, (5, 2))
    truth = similarity(0.37, angle, (12.5, -40.0))
    np.testing.assert_allclose(estimate_similarity(points, transform_points(truth, points)), truth, atol=1e-9)


def test_estimate_similarity_does_not_mirror():
    points = landmark_template(112)
    found = estimate_similarity(points, points * [-1, 1])
    assert np.linalg.det(found[:, :2]) > 0


def test_estimate_similarity_has_the_least_squares():
    generator = np.random.default_rng(1)
    source, target = generator.uniform(0, 100, (2, 5, 2))

    def error(matrix):
        return ((transform_points(matrix, source) - target) ** 2).sum()

    best = estimate_similarity(source, target)
    for change in (1e-3, -1e-3):
        for turned in ([[1, 0], [0, 1]], [[0, -1], [1, 0]]):  # the two directions that keep it a similarity
            other = best.copy()
            other[:, :2] += change * np.array(turned)
            assert error(other) > error(best)
        for row in (0, 1):
            other = best.copy()
            other[row, 2] += change
            assert error(other) > error(best)


def test_coinciding_landmarks_are_refused():
    with pytest.raises(ValueError, match="coincide"):
        align_matrix(np.full((5, 2), 7.0), 112)


def test_inverse():
    matrix = similarity(1.7, 0.3, (5, 9))
    points = np.random.default_rng(2).uniform(-50, 50, (7, 2))
    there = transform_points(matrix, points)
    np.testing.assert_allclose(transform_points(invert_affine(matrix), there), points, atol=1e-9)
    assert scale_of(matrix) == pytest.approx(1.7)


def test_template_of_arcface_at_its_own_size():
    np.testing.assert_allclose(landmark_template(112)[0], [38.2946, 51.6963])
    np.testing.assert_allclose(landmark_template(256), landmark_template(112) * 256 / 112)


def test_shrunk_template_holds_arcface_crop_in_its_center():
    """The central part of the fraction is ArcFace's crop: cutting it out gives back the template."""
    size, fraction = 256, 0.75
    kept = fraction * size
    center = (landmark_template(size, fraction) - (size - kept) / 2) * (112 / kept)
    np.testing.assert_allclose(center, landmark_template(112), atol=1e-9)


@pytest.mark.parametrize("scale", [0.1, 0.24, 0.45, 0.6, 1.0, 2.5])
@pytest.mark.parametrize("shrink_factor", [1.0, 0.6])
def test_landmarks_land_on_the_template(scale, shrink_factor):
    """Dots drawn at the landmarks appear on the template, also where the face is first reduced."""
    size = 128
    aligned_to_frame = similarity(1 / scale, 0.35, (0, 0))
    landmarks = transform_points(aligned_to_frame, landmark_template(size, shrink_factor))
    landmarks += [61.3, 40.7] - landmarks.min(0)
    frame_size = np.ceil(landmarks.max(0) + 60).astype(int)[::-1]
    frame = draw_dots(frame_size, landmarks, 2.0 / scale)
    aligned = warp_to_aligned(frame, align_matrix(landmarks, size, shrink_factor), size)
    template = landmark_template(size, shrink_factor)
    assert aligned.shape == (size, size, 3) and aligned.dtype == np.uint8
    assert np.abs(find_dots(aligned, template, 8) - template).max() < 0.1


def test_a_large_face_does_not_alias():
    """Stripes of two pixels are nearly gray after shrinking to a tenth; sampling alone would leave them."""
    frame = np.zeros((1200, 1200, 3), np.uint8)
    frame[:, ::4] = frame[:, 1::4] = 255
    matrix = similarity(0.1, 0.2, (10, 0))
    inside = warp_to_aligned(frame, matrix, 112)[40:70, 40:70]
    assert np.abs(inside.astype(int) - 127).max() < 20
    sampled = cv2.warpAffine(frame, matrix, (112, 112))[40:70, 40:70]
    assert np.abs(sampled.astype(int) - 127).max() > 60


def test_black_where_the_frame_ends():
    frame = np.full((300, 300, 3), 200, np.uint8)
    for scale in (1.0, 0.3):
        aligned = warp_to_aligned(frame, similarity(scale, 0.0, (64, 0)), 128)
        assert (aligned[:, :60] == 0).all() and (aligned[10:60, 70:100] == 200).all()


def test_a_crop_that_shows_nothing_of_the_frame_is_black():
    frame = np.full((50, 50, 3), 200, np.uint8)
    assert not warp_to_aligned(frame, similarity(0.2, 0.0, (5000, 5000)), 64).any()
