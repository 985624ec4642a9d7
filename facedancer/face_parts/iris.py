"""Locates the iris in an eye with MediaPipe's iris network, rebuilt in Keras.

Ablavatski et al., "Real-time Pupil Tracking from Monocular Video for Digital Puppetry", 2020. The network's eye and
brow contours are omitted.
"""

import functools

import cv2
import keras
import numpy as np
from keras import layers

from facedancer.core.inference import runner
from facedancer.core.keras_h5 import load_by_layer_name
from facedancer.core.weights import find_weights
from facedancer.core.weights_to_come import weights_to_come
from facedancer.face_parts.face_mesh import SumPReLU

POINTS, CROP_SIZE = 5, 64
# Eye corners among the 468 landmarks, outer first.
LEFT_CORNERS, RIGHT_CORNERS = (33, 133), (263, 362)

_UNITS, _WIDTHS = (4, 4, 2, 2, 2), (64, 128, 128, 128, 128)
# The network was trained on image-left eyes, in crops this much wider than the eye.
_WIDER = 2.3
_BATCH = 64


def build_iris_network():
    """Builds the network: (n, 64, 64, 3) in [0, 1] -> (n, 5, 3): the iris' center, then its right, top, left and
    bottom end; x, y in the crop's pixels, and depth."""
    inputs = keras.Input((CROP_SIZE, CROP_SIZE, 3), name="eye_unit")
    x = layers.Conv2D(_WIDTHS[0], 3, 2, padding="same", name="stem_conv")(inputs)
    x = _prelu(x, "stem")
    for stage, width in enumerate(_WIDTHS):
        if stage:
            x = _unit(x, width, f"stage{stage}_halve", strides=2)
        for unit in range(_UNITS[stage]):
            x = _unit(x, width, f"stage{stage}_unit{unit}")
    x = layers.Conv2D(3 * POINTS, 2, name="head_conv")(x)
    return keras.Model(inputs, layers.Reshape((POINTS, 3), name="points")(x), name="iris")


def _unit(x, width, name, strides=1):
    """A residual unit with a bottleneck; if it halves the size, its shortcut is pooled and zero-padded in channels."""
    y = layers.Conv2D(width // 2, strides, strides, name=f"{name}_narrow_conv")(x)
    y = layers.DepthwiseConv2D(3, padding="same", name=f"{name}_depthwise")(_prelu(y, f"{name}_narrow"))
    y = layers.Conv2D(width, 1, name=f"{name}_conv")(y)
    if strides > 1:
        x = layers.MaxPooling2D(2, name=f"{name}_pool")(x)
    if x.shape[-1] < width:
        x = keras.ops.pad(x, [(0, 0), (0, 0), (0, 0), (0, width - x.shape[-1])])
    return SumPReLU(shared_axes=(1, 2), name=f"{name}_prelu")([x, y])


def _prelu(x, name):
    return layers.PReLU(shared_axes=(1, 2), name=f"{name}_prelu")(x)


@functools.cache
@weights_to_come()
def load_iris_network():
    """Returns the network with its weights, as a function of crops. Raises `UserError` if they were not fetched."""
    return runner(load_by_layer_name(build_iris_network(), find_weights("iris")))


def find_irises(faces, points):
    """Finds the irises of faces.

    Args:
        faces: (n, S, S, 3) uint8 RGB.
        points: (n, 468, 2) their landmarks, pixels.

    Returns:
        (n, 2, 3) float32 for the image-left and image-right eye: x and y of the iris' center relative to the middle
        between the eye corners, along the line between them (to image-right) and across (down), and the distance of the
        lids; all in units of the distance between the corners.
    """
    crops, matrices = [], []
    for face, found in zip(faces, points, strict=True):
        for corners in (LEFT_CORNERS, RIGHT_CORNERS):
            matrices.append(_to_crop(*found[list(corners)]))
            crops.append(cv2.warpAffine(face, matrices[-1], (CROP_SIZE, CROP_SIZE), borderMode=cv2.BORDER_REPLICATE))
    crops = np.float32(crops) / 255
    middles = np.concatenate([
        load_iris_network()(crops[start : start + _BATCH])[:, 0, :2]
        for start in range(0, len(crops), _BATCH)
    ])  # fmt: skip
    middles = ((middles - (CROP_SIZE - 1) / 2) * (_WIDER / CROP_SIZE)).reshape(-1, 2, 2)
    middles[:, 1, 0] *= -1  # this crop is mirrored
    width = np.linalg.norm(points[:, [33, 263]] - points[:, [133, 362]], axis=-1)
    opening = np.linalg.norm(points[:, [159, 386]] - points[:, [145, 374]], axis=-1) / width
    return np.concatenate([middles, opening[..., None]], -1).astype(np.float32)


def _to_crop(outer, inner):
    """Returns the matrix (2, 3) from the face to the eye's crop, with the outer corner on the left."""
    middle, along = (outer + inner) / 2, inner - outer
    # The image-right eye has its outer corner on the right: it is mirrored, not rotated.
    across = np.array([-along[1], along[0]]) * np.sign(along[0] or 1.0)
    scale = CROP_SIZE / (_WIDER * max(along @ along, 1e-6))
    linear = np.stack([along, across]) * scale
    return np.column_stack([linear, (CROP_SIZE - 1) / 2 - linear @ middle])
