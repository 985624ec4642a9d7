"""468 landmarks of a face, by MediaPipe's face mesh: its network in layers of ours.

Kartynnik et al., "Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs", 2019. The network's flag
whether there is a face is left out.
"""

import functools
from pathlib import Path

import keras
import numpy as np
from keras import layers

from facedancer.core.alignment import landmark_template
from facedancer.core.keras_h5 import load_by_layer_name
from facedancer.core.weights import find_weights

POINTS, CROP_SIZE = 468, 192
# Where the five landmarks lie on its crop, which has 1.5 times the side of the 468's box, as MediaPipe cuts it out.
# Side and centre are the medians of 80 photographs, in pixels of ArcFace's crop.
_SIDE, _CENTRE = 142.0, (56.0, 68.7)
TEMPLATE = (landmark_template(112) - _CENTRE) * (CROP_SIZE / _SIDE) + CROP_SIZE / 2

_UNITS, _WIDTHS = 2, (16, 32, 64, 128, 128, 128)

# Points about the lips and the eyes, in order, of the canonical face model that the network was trained with.
LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
LEFT_EYE = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
RIGHT_EYE = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)


def load_mean_face():
    """Returns the mean (468, 3) of 826 people who do not exist and look ahead; its unit and middle mean nothing."""
    return np.load(Path(__file__).with_name("mean_face.npy"))


def build_face_mesh():
    """Builds the network: (n, 192, 192, 3) in [0, 1] -> (n, 468, 3), x, y in the crop's pixels, and depth."""
    inputs = keras.Input((CROP_SIZE, CROP_SIZE, 3), name="face_unit")
    x = layers.Conv2D(_WIDTHS[0], 3, 2, padding="same", name="stem_conv")(inputs)
    x = _prelu(x, "stem")
    for stage, width in enumerate(_WIDTHS):
        if stage:
            x = _unit(x, width, f"stage{stage}_halve", strides=2)
        for unit in range(_UNITS):
            x = _unit(x, width, f"stage{stage}_unit{unit}")
    x = _prelu(layers.Conv2D(32, 1, name="head_narrow_conv")(x), "head_narrow")
    x = _unit(x, 32, "head_unit")
    x = layers.Conv2D(3 * POINTS, 3, name="head_conv")(x)
    return keras.Model(inputs, layers.Reshape((POINTS, 3), name="points")(x), name="face_mesh")


def _unit(x, width, name, strides=1):
    """A residual unit; where it halves, its shortcut is pooled, and filled up with zero channels."""
    y = layers.DepthwiseConv2D(3, strides, padding="same", name=f"{name}_depthwise")(x)
    y = layers.Conv2D(width, 1, name=f"{name}_conv")(y)
    if strides > 1:
        x = layers.MaxPooling2D(2, name=f"{name}_pool")(x)
    if x.shape[-1] < width:
        x = keras.ops.pad(x, [(0, 0), (0, 0), (0, 0), (0, width - x.shape[-1])])
    return _prelu(layers.Add(name=f"{name}_add")([x, y]), name)


def _prelu(x, name):
    return layers.PReLU(shared_axes=(1, 2), name=f"{name}_prelu")(x)


@functools.cache
def load_face_mesh():
    """Returns the network with its weights. Raises `UserError` if they were not fetched."""
    model = load_by_layer_name(build_face_mesh(), find_weights("face_mesh"))
    model.jit_compile = False
    return model


def find_points(crops):
    """Returns the landmarks (n, 468, 2) float32, pixels, on crops (n, 192, 192, 3) uint8 by `TEMPLATE`."""
    return find_points_3d(crops)[..., :2]


def find_points_3d(crops):
    """As `find_points`, with depth, (n, 468, 3): in pixels as well, smaller towards the camera."""
    return load_face_mesh().predict_on_batch(np.float32(crops) / 255)
