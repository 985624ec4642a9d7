"""Expression and gaze of a face, from its landmarks and irises.

Expression: one matrix maps the frontalized landmarks to the weights of ARKit's face units. Gaze: another maps the
positions of the irises between the eye corners to degrees. Both are least-squares fits over rendered people with known
truth (`fit_expression`), so that they depend little on identity.
"""

import functools
from pathlib import Path

import numpy as np

from facedancer.face_parts import iris
from facedancer.face_parts.pose import turn_back, yaw_pitch_roll

WEIGHTS = Path(__file__).with_name("expression.npz")


@functools.cache
def load_maps():
    """Returns the fitted maps: name -> array.

    `units` (k,) names of face units; `points_mean` (1404,), `to_units` (1404, k), `units_mean` (k,); `whiten` (k, r),
    which makes the errors on held-out people uncorrelated with variance 1; `gaze_mean` (g,), `to_gaze` (g, 2),
    `gaze_offset` (2,), see `gaze_features`.
    """
    with np.load(WEIGHTS, allow_pickle=False) as found:
        return {name: found[name] for name in found.files}


def measure_expression(points):
    """Returns the weights (n, k) of the face units `load_maps()["units"]`, about 0 to 1, for landmarks (n, 468, 3)."""
    maps = load_maps()
    turned, _ = turn_back(points)
    return (turned.reshape(len(turned), -1) - maps["points_mean"]) @ maps["to_units"] + maps["units_mean"]


def expression_distance(a, b):
    """Returns the distances (n,) between expressions (n, k), in standard deviations of their error across people.

    It is the root mean square over the units: errors alone give 1.4 for the same expression on two people.
    """
    apart = (a - b) @ load_maps()["whiten"]
    return np.sqrt(np.mean(apart**2, axis=1))


def measure_gaze(faces, points):
    """Measures the gaze direction relative to the head.

    Args:
        faces: (n, S, S, 3) uint8 RGB, aligned.
        points: (n, 468, 3) their landmarks.

    Returns:
        (n, 2) degrees, yaw and pitch: positive to image-right and up.
    """
    maps = load_maps()
    return (gaze_features(faces, points) - maps["gaze_mean"]) @ maps["to_gaze"] + maps["gaze_offset"]


def angle_between_gazes(a, b):
    """Returns the angles (n,) in degrees between directions (n, 2), yaw and pitch in degrees."""
    directions = []
    for yaw, pitch in (np.radians(a).T, np.radians(b).T):
        directions.append(np.stack([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)], 1))
    return np.degrees(np.arccos(np.clip(np.sum(directions[0] * directions[1], axis=1), -1, 1)))


def gaze_features(faces, points):
    """Returns (n, 10): for each eye, the iris position x and y relative to the middle between the corners, in units of
    their distance and along their line, and how far it is open; the head's yaw and pitch in radians; and their products
    with the mean x and y.
    """
    _, rotations = turn_back(points)
    pose = np.radians(yaw_pitch_roll(rotations)[:, :2])
    eyes = iris.find_irises(faces, points[..., :2])
    mean = eyes[..., :2].mean(1)
    return np.concatenate([eyes.reshape(len(eyes), -1), pose, pose * mean], 1)
