"""The mask covers the same part of a face at every size, and is FaceDancer's."""

import cv2
import numpy as np
import pytest

from facedancer.core.alignment import estimate_similarity, landmark_template, transform_points
from facedancer.video_swap.masks import soft_box


def test_is_the_box_of_the_original():
    box = np.zeros((256, 256), np.float32)
    box[77:240, 32:224] = 1
    blurred = cv2.GaussianBlur(box, (57, 57), 7, borderType=cv2.BORDER_CONSTANT)
    mask = soft_box(256)
    assert mask.shape == (256, 256, 1) and mask.dtype == np.float32
    assert np.abs(mask[..., 0] - blurred).max() < 1 / 255
    assert mask.max() <= 1 and mask.min() == 0


@pytest.mark.parametrize("size, shrink_factor", [(128, 1.0), (512, 1.0), (256, 0.75), (112, 0.86)])
def test_covers_the_same_part_of_the_face(size, shrink_factor):
    # On the slopes of the box, within it, and outside, on the original's crop.
    points = np.array([[128, 76.5], [128, 84], [35, 150], [225, 150], [128, 236], [128, 150], [20, 150], [128, 60]])
    to_crop = estimate_similarity(landmark_template(256), landmark_template(size, shrink_factor))
    mask = soft_box(size, shrink_factor)[..., 0]
    found = cv2.remap(mask, *np.float32(transform_points(to_crop, points).T), cv2.INTER_LINEAR).ravel()
    np.testing.assert_allclose(found, [0.5, 0.858, 0.69, 0.426, 0.69, 1, 0.037, 0.009], atol=0.02)


def test_is_exactly_zero_at_the_upper_border():
    mask = soft_box(64)
    assert not mask[:10].any()
    assert set(np.unique(mask[mask < 1 / 255])) == {0.0}
