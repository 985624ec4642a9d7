"""Pasting back: exact to the sub-pixel, and nothing outside the mask is touched."""

import cv2
import numpy as np
import pytest

from facedancer.core.alignment import invert_affine, transform_points, warp_to_aligned
from facedancer.video_swap.blending import paste_face
from facedancer.video_swap.masks import soft_box


def placed(scale, angle, size, center=(150.3, 140.8)):
    """`aligned_to_frame` of a crop of `size` pixels, turned and scaled about its center."""
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.column_stack([turn, np.array(center) - turn @ [size / 2, size / 2]])


def smooth_frame(wavelength):
    y, x = np.mgrid[:280, :300]
    waves = [np.sin(x / wavelength), np.cos(y / wavelength), np.sin((x - y) / wavelength)]
    return np.rint(127.5 + 120 * np.stack(waves, -1)).astype(np.uint8)


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize("scale", [0.15, 0.4, 0.9, 1.0, 1.7, 3.0])
@pytest.mark.parametrize("angle", [0.0, 0.4])
def test_an_unchanged_face_leaves_the_frame(scale, angle):
    size = min(128, int(190 / scale))
    frame = smooth_frame(wavelength=18 * max(1.0, scale))  # finer waves would be lost in the crop already
    aligned_to_frame = placed(scale, angle, size)
    face = warp_to_aligned(frame, invert_affine(aligned_to_frame), size, cv2.BORDER_REPLICATE)
    pasted = frame.copy()
    region = paste_face(pasted, face.astype(np.float32), soft_box(size), aligned_to_frame)
    assert region is not None
    error = np.abs(pasted.astype(int) - frame)
    # The crop's own rounding, interpolated, reaches a second level here and there.
    assert (error > 1).mean() < 1e-3 and error.max() <= 2


def test_an_unchanged_face_cut_off_by_the_frame_gets_no_dark_rim():
    frame = smooth_frame(wavelength=54)
    aligned_to_frame = placed(3.0, 0.4, 128)
    face = warp_to_aligned(frame, invert_affine(aligned_to_frame), 128, cv2.BORDER_REPLICATE)
    pasted = frame.copy()
    assert paste_face(pasted, face.astype(np.float32), soft_box(128), aligned_to_frame) == (0, 0, 300, 280)
    assert np.abs(pasted.astype(int) - frame).max() <= 3


@pytest.mark.parametrize("scale", [0.3, 1.0, 2.5])
def test_pixels_outside_the_mask_are_bit_identical(scale):
    size, mask = 64, soft_box(64)
    frame = noise(280, 300, 3)
    aligned_to_frame = placed(scale, 0.7, size)
    pasted = frame.copy()
    x1, y1, x2, y2 = paste_face(pasted, 255.0 - noise(size, size, 3).astype(np.float32), mask, aligned_to_frame)

    shown = cv2.warpAffine(mask, aligned_to_frame, (300, 280)) > 0
    changed = (pasted != frame).any(-1)
    assert changed.sum() > 0.8 * shown.sum() > 0
    assert not changed[~shown].any()
    changed[y1:y2, x1:x2] = False
    assert not changed.any()
    # The region is no larger than it must be.
    rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
    assert y1 >= rows[0] - 3 * scale - 2 and y2 <= rows[-1] + 3 * scale + 3
    assert x1 >= columns[0] - 3 * scale - 2 and x2 <= columns[-1] + 3 * scale + 3


@pytest.mark.parametrize("scale", [0.37, 1.0, 2.9])
def test_is_exact_to_the_sub_pixel(scale):
    """A ramp on the face is the same ramp in the frame; half a pixel's error would be up to four gray levels."""
    size = 48
    slope = np.array([2.7, 1.9]) / max(scale, 0.75)
    y, x = np.mgrid[:size, :size]
    ramp = 127.5 + slope[0] * (x - size / 2) * 0.9 + slope[1] * (y - size / 2) * 0.5
    face = np.repeat(ramp[..., None], 3, -1).astype(np.float32)
    assert face.min() >= 0 and face.max() <= 255
    aligned_to_frame = placed(scale, 0.3, size)
    frame = np.zeros((280, 300, 3), np.uint8)
    paste_face(frame, face, soft_box(size), aligned_to_frame)

    alpha = cv2.warpAffine(soft_box(size), aligned_to_frame, (300, 280))
    rows, columns = np.nonzero(alpha > 0.999)
    on_face = transform_points(invert_affine(aligned_to_frame), np.column_stack([columns, rows]))
    expected = 127.5 + slope[0] * (on_face[:, 0] - size / 2) * 0.9 + slope[1] * (on_face[:, 1] - size / 2) * 0.5
    assert len(rows) > 20
    error = frame[rows, columns, 0] - expected * alpha[rows, columns]
    assert np.abs(error).max() < 0.7 and abs(error.mean()) < 0.1


def test_a_face_that_shrinks_does_not_alias():
    size = 128
    face = np.zeros((size, size, 3), np.float32)
    face[:, ::2] = 255
    frame = np.full((280, 300, 3), 127, np.uint8)
    paste_face(frame, face, soft_box(size), placed(0.3, 0.1, size))
    assert np.abs(frame.astype(int) - 127).max() <= 3


def test_a_face_that_grows_stays_within_range():
    size = 16
    face = np.zeros((size, size, 3), np.float32)
    face[:, size // 2 :] = 255  # cubic interpolation overshoots at such an edge
    frame = np.full((280, 300, 3), 255, np.uint8)
    paste_face(frame, face, np.ones((size, size, 1), np.float32), placed(9.0, 0.0, size))
    left, right = frame[140, 120:135, 0], frame[140, 180:200, 0]
    assert (left == 0).all() and (right == 255).all()


def test_the_mask_mixes():
    frame = np.full((40, 40, 3), 200, np.uint8)
    mask = np.full((16, 16, 1), 0.25, np.float32)
    paste_face(frame, np.full((16, 16, 3), 100, np.float32), mask, np.array([[1.0, 0, 10], [0, 1, 12]]))
    assert (frame[12:28, 10:26] == 175).all()
    assert (frame[:12] == 200).all() and (frame[28:] == 200).all()


def test_faces_at_and_beyond_the_border():
    mask = soft_box(32)
    face = np.zeros((32, 32, 3), np.float32)
    for center in [(0, 0), (299, 140), (150, 279)]:
        frame = noise(280, 300, 3)
        before = frame.copy()
        assert paste_face(frame, face, mask, placed(2.0, 0.2, 32, center)) is not None
        assert (frame != before).any()
    before = frame.copy()
    assert paste_face(frame, face, mask, placed(1.0, 0.0, 32, (-100, 50))) is None
    assert (frame == before).all()
