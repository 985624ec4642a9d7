"""The mask covers the same part of a face at every size, and is FaceDancer's."""

import cv2
import numpy as np
import pytest
from small_videos import similarity

from facedancer.core.alignment import (
    align_matrix,
    compose_affine,
    estimate_similarity,
    invert_affine,
    landmark_template,
    transform_points,
)
from facedancer.core.console import UserError
from facedancer.face_parts import dense_landmarks, occlusion
from facedancer.video_swap.masks import FaceMasks, area_mask, border_fade, hull_mask, soft_box
from facedancer.video_swap.pasting import PasteOptions


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


class TestShapes:
    def test_hull_fades_inwards(self):
        turn = np.linspace(0, 2 * np.pi, 60)
        circle = np.column_stack([64 + 40 * np.cos(turn), 60 + 40 * np.sin(turn)])
        points = np.concatenate([circle, np.random.default_rng(0).uniform(50, 70, (300, 2))])
        mask = hull_mask(points, 128, fade=10)
        assert mask.shape == (128, 128, 1) and mask.dtype == np.float32
        y, x = np.mgrid[:128, :128]
        distance = np.hypot(x - 64, y - 60)
        assert (mask[distance > 41, 0] == 0).all() and (mask[distance < 28, 0] == 1).all()
        at_half = mask[np.abs(distance - 35) < 0.5, 0]
        assert np.abs(at_half - 0.5).max() < 0.2 and abs(at_half.mean() - 0.5) < 0.05

    def test_hull_that_reaches_beyond_the_crop(self):
        points = np.array([[-30.0, 20], [90, 20], [90, 200], [-30, 200]])
        mask = hull_mask(points, 64, fade=6)[..., 0]
        assert (mask[28:, :] == 1).all() and (mask[:20] == 0).all()

    def test_area_fades_outwards(self):
        square = np.array([[40.0, 40], [80, 40], [80, 70], [40, 70]])
        mask = area_mask(square, 128, fade=8)[..., 0]
        assert (mask[41:70, 41:80] == 1).all()
        assert abs(mask[55, 84] - 0.5) < 0.1 and mask[55, 89] == 0 and mask[30, 60] == 0

    def test_border_fades(self):
        mask = border_fade(100)[..., 0]
        assert not mask[0].any() and not mask[:, -1].any() and (mask[12:-12, 12:-12] == 1).all()


SIZE = 96


@pytest.fixture
def frame():
    """White at the right of a line, black at the left."""
    image = np.zeros((200, 240, 3), np.uint8)
    image[:, 120:] = 255
    return image


def placed(shrink_factor):
    """A turned face about (120, 100); the same on every crop."""
    landmarks = (landmark_template(112) - 56) * 1.2 @ np.array([[0.98, 0.2], [-0.2, 0.98]]) + (120, 100)
    return align_matrix(landmarks, SIZE, shrink_factor)


class TestFaceMasks:
    def test_the_box_looks_at_nothing(self, frame):
        masks = FaceMasks(("box",), SIZE)([frame, frame], [placed(1.0), None])
        np.testing.assert_array_equal(masks[0], soft_box(SIZE))
        assert masks[0] is masks[1] and FaceMasks(("occlusion",), SIZE)([], []) == []

    @pytest.mark.parametrize("shrink_factor", [1.0, 0.8])
    def test_occlusion_lies_where_the_frame_says(self, frame, shrink_factor, monkeypatch):
        monkeypatch.setattr(occlusion, "visible_face", lambda crops: np.float32(crops[..., :1]) / 255)
        matrix = placed(shrink_factor)
        (mask,) = FaceMasks(("occlusion",), SIZE, shrink_factor)([frame], [matrix])
        assert mask.shape == (SIZE, SIZE, 1) and mask.dtype == np.float32
        points = transform_points(matrix, [[125, 90], [135, 120], [115, 90], [105, 120], [119.5, 100]])
        found = cv2.remap(mask, *np.float32(points.T), cv2.INTER_LINEAR).ravel()
        np.testing.assert_allclose(found, [1, 1, 0, 0, 0.5], atol=0.12)

    @pytest.mark.parametrize("shrink_factor", [1.0, 0.8])
    def test_hull_and_restored_parts(self, frame, shrink_factor, monkeypatch):
        """Landmarks on the canonical crop: a circle, with a mouth in its middle."""
        turn = np.linspace(0, 2 * np.pi, dense_landmarks.POINTS, endpoint=False)
        center = dense_landmarks.TEMPLATE.mean(0)
        points = center + 50 * np.column_stack([np.cos(turn), np.sin(turn)])
        lips = np.array(dense_landmarks.LIPS)
        points[lips] = center + 9 * np.column_stack([np.cos(turn[:: len(turn) // 20][:20]), np.sin(turn[::23][:20])])
        monkeypatch.setattr(dense_landmarks, "load_face_mesh", lambda: None)
        monkeypatch.setattr(dense_landmarks, "find_points", lambda crops: np.stack([points] * len(crops)))
        matrix = placed(shrink_factor)
        masks = FaceMasks(("hull",), SIZE, shrink_factor, restore_mouth=True)([frame, frame], [matrix, matrix])
        np.testing.assert_array_equal(*masks)
        # In the frame: that circle's center is the landmarks' mean, its radius 50 / 192 of the network's crop.
        to_frame = invert_affine(compose_affine(estimate_similarity(landmark_template(SIZE, shrink_factor),
                                                                    dense_landmarks.TEMPLATE), matrix))  # fmt: skip
        there = transform_points(to_frame, center + np.array([[0, 0], [25, 0], [0, -30], [48, 0], [54, 0]]))
        aligned = transform_points(matrix, there)
        found = cv2.remap(masks[0], *np.float32(aligned.T), cv2.INTER_LINEAR).ravel()
        assert found[0] < 0.05 and (found[1:3] > 0.95).all() and found[3] < 0.2 and found[4] < 0.01

    def test_a_face_that_is_covered_is_not_swapped(self, make_swapper, monkeypatch):
        monkeypatch.setattr(occlusion, "visible_face", lambda crops: np.zeros((len(crops), 128, 128, 1), np.float32))
        image = np.full((120, 160, 3), 90, np.uint8)
        image[0, 0, 0] = 1
        for transfer in ("none", "mean", "histogram"):
            paste = PasteOptions(mask=("occlusion",), color_transfer=transfer)
            swapper = make_swapper(similarity(1.5, 0.1, (80, 60)), paste=paste)
            (result,) = swapper.swap_frames([image], np.array([1.0, -1, -1], np.float32))
            np.testing.assert_array_equal(result.image, image)
            assert result.regions == []

    @pytest.mark.parametrize("kinds", [["boxes"], ["box", "parser.pt"]])
    def test_unknown_kinds(self, kinds):
        with pytest.raises(UserError, match="give box, hull, occlusion, parsing, or"):
            PasteOptions(mask=kinds)
