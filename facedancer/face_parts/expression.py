"""Expression and gaze of a face, from its landmarks and irises.

Expression: the landmarks, turned back, are brought by one matrix to the weights of ARKit's face units. Gaze: the places
of the irises between the corners of the eyes are brought likewise to degrees. Both maps are least squares over rendered
people, whose truth is known (`fit_expression`), so that they say little of whose face it is.
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
    """Returns (n, k) weights of face units, `load_maps()["units"]`, about 0 to 1, of landmarks (n, 468, 3)."""
    maps = load_maps()
    turned, _ = turn_back(points)
    return (turned.reshape(len(turned), -1) - maps["points_mean"]) @ maps["to_units"] + maps["units_mean"]


def expression_distance(a, b):
    """Returns how far expressions (n, k) are apart, (n,), in deviations of their error from person to person.

    The root of the mean square over the units: 1.4 is what errors alone make of one expression on two people.
    """
    apart = (a - b) @ load_maps()["whiten"]
    return np.sqrt(np.mean(apart**2, axis=1))


def measure_gaze(faces, points):
    """Measures where eyes look, within the head.

    Args:
        faces: (n, S, S, 3) uint8 RGB, aligned.
        points: (n, 468, 3), their landmarks.

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
    """Returns (n, 10): of each eye where its iris lies, x and y, by the corners' distance from their middle and along
    the line between them, and how far it is open; yaw and pitch of the head, in radians; their products with the mean x
    and y.
    """
    _, rotations = turn_back(points)
    pose = np.radians(yaw_pitch_roll(rotations)[:, :2])
    eyes = iris.find_irises(faces, points[..., :2])
    mean = eyes[..., :2].mean(1)
    return np.concatenate([eyes.reshape(len(eyes), -1), pose, pose * mean], 1)
