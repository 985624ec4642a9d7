"""Expression and pose of aligned faces by their landmarks: as `face_parts` measures them, but differentiable."""

import keras
import numpy as np
from keras import layers, ops

from facedancer.arcface_model.frontal_landmarks import find_frontal_landmarks
from facedancer.arcface_model.frozen import frozen
from facedancer.core.weights_to_come import weights_to_come
from facedancer.face_parts import expression

# Error of the angles across people, in degrees (`face_parts/expression.json`).
_ANGLE_ERROR = 5.0


@weights_to_come()
@frozen
def build_face_motion(image_size, shrink_factor):
    """Builds the frozen network.

    Args:
        image_size, shrink_factor: side in pixels and shrink factor of the aligned faces.

    Returns:
        A Keras model: (n, S, S, 3) in [-1, 1] -> (n, dim). All values are in standard deviations of their error across
        people: expression, as in `expression.expression_distance`, then yaw, pitch and roll.

    Raises:
        UserError: if the face mesh's weights are missing.
    """
    maps = expression.load_maps()
    faces = keras.Input((image_size, image_size, 3), name="aligned_signed")
    frontal, angles = find_frontal_landmarks(faces, shrink_factor)
    flat = layers.Flatten(name="frontal")(frontal)
    to_units = np.float32(maps["to_units"] @ maps["whiten"])
    units = ops.matmul(flat - np.float32(maps["points_mean"]), to_units)
    angles = angles / np.float32(np.radians(_ANGLE_ERROR))
    return keras.Model(faces, layers.Concatenate(name="motion")([units, angles]), name="face_motion")
