"""The 468 landmarks of a face, by MediaPipe's face mesh (`face_mesh`).

Importing this module imports no Keras, as processes that draw faces only need the landmarks' indices.
"""

import functools
from pathlib import Path

import numpy as np

from facedancer.core.alignment import landmark_template
from facedancer.core.inference import runner
from facedancer.core.keras_h5 import load_by_layer_name
from facedancer.core.weights import find_weights
from facedancer.core.weights_to_come import weights_to_come

POINTS, CROP_SIZE = 468, 192
# The five landmarks on the mesh's crop. As in MediaPipe, its side is 1.5 times that of the 468 landmarks' box; side and
# center are medians over 80 photographs, in pixels of ArcFace's crop.
SIDE, CENTER = 142.0, (56.0, 68.7)
TEMPLATE = (landmark_template(112) - CENTER) * (CROP_SIZE / SIDE) + CROP_SIZE / 2

# Indices of the points around lips and eyes, in order, in the canonical face model that the network was trained with.
LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
LEFT_EYE = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
RIGHT_EYE = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)


def load_mean_face():
    """Returns the mean landmarks (468, 3) of 826 frontal people who do not exist; unit and origin are arbitrary."""
    return np.load(Path(__file__).with_name("mean_face.npy"))


@functools.cache
@weights_to_come()
def load_face_mesh():
    """Returns the network with its weights, as a function of crops; raises `UserError` if they are not installed."""
    from facedancer.face_parts.face_mesh import build_face_mesh

    return runner(load_by_layer_name(build_face_mesh(), find_weights("face_mesh")))


def find_points(crops):
    """Returns the landmarks (n, 468, 2) float32, in pixels of crops (n, 192, 192, 3) uint8 RGB by `TEMPLATE`."""
    return find_points_3d(crops)[..., :2]


def find_points_3d(crops):
    """Like `find_points`, with depth: (n, 468, 3), in pixels too, smaller toward the camera."""
    return _run(crops)["points"]


def find_faces(crops):
    """Returns the landmarks (n, 468, 2) of `find_points`, and the logits (n,) that a crop shows an upright face."""
    found = _run(crops)
    return found["points"][..., :2], found["presence"][:, 0]


def _run(crops):
    return load_face_mesh()(np.float32(crops) / 255)
