"""Faces drawn by their landmarks: nothing changes in place, elsewhere they arrive, eyes and mouth are left out."""

import cv2
import numpy as np
import pytest

from facedancer.face_parts import drawing, occluders
from facedancer.face_parts.dense_landmarks import LEFT_EYE, load_mean_face

SIZE = 192


@pytest.fixture(scope="module")
def points():
    points = load_mean_face()[:, :2]
    return np.float32((points - points.mean(0)) * (100 / np.ptp(points[:, 1])) + SIZE / 2)


@pytest.fixture(scope="module")
def picture():
    coarse = np.random.default_rng(2).integers(20, 236, (12, 12, 3), dtype=np.uint8)
    return cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)


def test_triangles_cover_the_face_but_eyes_and_mouth(points):
    triangles = drawing.triangulate(points)
    assert 700 < len(triangles) < 920 and triangles.min() >= 0 and triangles.max() < 468
    _, mask = drawing.draw_onto(np.zeros((SIZE, SIZE, 3), np.uint8), points, points, triangles)
    hull = np.zeros_like(mask)
    cv2.fillConvexPoly(hull, cv2.convexHull(np.rint(points).astype(np.int32)), 1)
    for contour in (LEFT_EYE, drawing.INNER_LIPS):
        inside = np.zeros_like(mask)
        cv2.fillPoly(inside, [np.int32(points[list(contour)])], 1)
        assert mask[cv2.erode(inside, np.ones((3, 3), np.uint8)) > 0].mean() < 0.1
        hull[cv2.dilate(inside, np.ones((5, 5), np.uint8)) > 0] = 0
    assert mask[cv2.erode(hull, np.ones((5, 5), np.uint8)) > 0].mean() > 0.98


def test_a_face_drawn_onto_itself_is_the_picture(points, picture):
    drawn, mask = drawing.draw_onto(picture, points, points, drawing.triangulate(points))
    assert np.abs(drawn.astype(int) - picture)[mask > 0].max() <= 1


def test_a_face_arrives_where_it_is_drawn(points, picture):
    moved = points + np.float32([7, -5])
    drawn, mask = drawing.draw_onto(picture, points, moved, drawing.triangulate(points))
    rows, columns = np.nonzero(mask)
    assert np.abs(drawn[rows, columns].astype(int) - picture[rows + 5, columns - 7]).max() <= 1


def test_bending_moves_the_landmarks_and_fades(points, picture):
    places = points + np.float32([5, 3])
    bent = drawing.bend(np.float32(picture), points, places)
    x, y = np.int32(places[1])
    expected = picture[y - 3, x - 5].astype(float)
    assert np.abs(bent[y, x] - expected).mean() < 12
    assert np.abs(bent[:8] - picture[:8]).max() < 3
    assert np.abs(drawing.bend(np.float32(picture), points, points) - picture).max() < 1e-3


def test_colors_become_alike_within_the_mask(points, picture):
    other = np.clip(picture.astype(float) * 0.5 + 60, 0, 255).astype(np.uint8)
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[50:150, 50:150] = 1
    found = drawing.match_colors(picture, other, mask)
    assert np.abs(found[mask > 0].mean(0) - other[mask > 0].mean(0)).max() < 3


def test_landmarks_brought_onto_others_lose_shift_turn_and_scale(points):
    turn = np.array([[0.8, -0.6], [0.6, 0.8]])
    assert np.abs(drawing.bring_onto(points @ turn * 1.7 + 30, points) - points).max() < 1e-2
    assert abs(drawing.turn_of(points)) < 0.05


def test_an_occluder_hides_the_same_pixels_of_both_pictures():
    random = np.random.default_rng(1)
    textures = [np.full((192, 192, 3), 200, np.uint8)]
    for _ in range(12):
        colors, alpha = occluders.draw_occluder(textures, random)
        assert colors.shape == (128, 128, 3) and alpha.shape == (128, 128) and 0 <= alpha.min() <= alpha.max() <= 1
        a, b = occluders.put_in_front([np.zeros((128, 128, 3)), np.ones((128, 128, 3))], colors, alpha, random)
        hidden = cv2.erode(np.uint8(alpha > 0.999), np.ones((9, 9), np.uint8)) > 0
        assert np.abs(a - b)[hidden].max(initial=0) < 0.02
