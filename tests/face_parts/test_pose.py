"""Pose from landmarks whose truth is known, as the mean face was turned by hand."""

import numpy as np
import pytest

from facedancer.face_parts import pose
from facedancer.face_parts.dense_landmarks import load_mean_face


def turned(yaw=0.0, pitch=0.0, roll=0.0):
    """The rotation (3, 3) by angles in degrees: about the vertical, the horizontal and the line of sight."""
    a, b, c = np.radians([yaw, pitch, roll])
    about_y = np.array([[np.cos(a), 0, -np.sin(a)], [0, 1, 0], [np.sin(a), 0, np.cos(a)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), np.sin(b)], [0, -np.sin(b), np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return about_z @ about_x @ about_y


@pytest.mark.parametrize("angles", [(0, 0, 0), (30, 0, 0), (0, -15, 0), (0, 0, 20), (-25, 10, 5)])
def test_a_turned_mean_face_has_the_pose_it_was_turned_by(angles):
    rotation = turned(*angles)
    points = 0.7 * load_mean_face() @ rotation.T + [50, 60, 0]
    found = pose.estimate_pose(points[None])
    assert pose.angle_between(found, rotation[None])[0] < 0.1
    if sum(map(bool, angles)) == 1:
        assert np.abs(pose.yaw_pitch_roll(found)[0] - angles).max() < 0.1


def test_a_turned_face_is_brought_back():
    face = load_mean_face().astype(np.float64)
    found, rotations = pose.turn_back((0.3 * face @ turned(20, 10, 5).T + [9, 8, 7])[None])
    center = face[[10]] - found[0, 10]
    np.testing.assert_allclose(found[0] + center, face, atol=0.02 * np.ptp(face))
    assert pose.angle_between(rotations, turned(20, 10, 5)[None])[0] < 0.1
