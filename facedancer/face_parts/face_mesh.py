"""MediaPipe's face mesh, a network that finds 468 landmarks, rebuilt in Keras.

Kartynnik et al., "Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs", 2019. The
network also predicts whether its crop shows an upright, centered face.
"""

import keras
from keras import layers, ops

from facedancer.face_parts.dense_landmarks import CROP_SIZE, POINTS

_UNITS, _WIDTHS = 2, (16, 32, 64, 128, 128, 128)


def build_face_mesh():
    """Builds the network, which takes (n, 192, 192, 3) in [0, 1].

    Returns:
        A `keras.Model` to a dict: `points` (n, 468, 3), x, y in the crop's pixels, and depth; `presence` (n, 1), the
        logit of an upright face.
    """
    inputs = keras.Input((CROP_SIZE, CROP_SIZE, 3), name="face_unit")
    x = layers.Conv2D(_WIDTHS[0], 3, 2, padding="same", name="stem_conv")(inputs)
    x = _prelu(x, "stem")
    for stage, width in enumerate(_WIDTHS):
        if stage:
            before = x
            x = _unit(x, width, f"stage{stage}_halve", strides=2)
        for unit in range(_UNITS):
            x = _unit(x, width, f"stage{stage}_unit{unit}")
    y = _unit(before, _WIDTHS[-1], "presence_halve", strides=2)
    outputs = {
        "points": layers.Reshape((POINTS, 3), name="points")(_head(x, 3 * POINTS, "head")),
        "presence": layers.Reshape((1,), name="presence")(_head(y, 1, "presence")),
    }
    return keras.Model(inputs, outputs, name="face_mesh")


def _head(x, values, name):
    x = _prelu(layers.Conv2D(32, 1, name=f"{name}_narrow_conv")(x), f"{name}_narrow")
    x = _unit(x, 32, f"{name}_unit")
    return layers.Conv2D(values, 3, name=f"{name}_conv")(x)


def _unit(x, width, name, strides=1):
    """A residual unit; if it halves the size, its shortcut is pooled and zero-padded in channels."""
    y = layers.DepthwiseConv2D(3, strides, padding="same", name=f"{name}_depthwise")(x)
    y = layers.Conv2D(width, 1, name=f"{name}_conv")(y)
    if strides > 1:
        x = layers.MaxPooling2D(2, name=f"{name}_pool")(x)
    if x.shape[-1] < width:
        x = ops.pad(x, [(0, 0), (0, 0), (0, 0), (0, width - x.shape[-1])])
    return SumPReLU(shared_axes=(1, 2), name=f"{name}_prelu")([x, y])


def _prelu(x, name):
    return layers.PReLU(shared_axes=(1, 2), name=f"{name}_prelu")(x)


class SumPReLU(layers.PReLU):
    """PReLU of the sum of two inputs, computed twice, once for each sign.

    TensorFlow fuses convolution, bias, sum and ReLU even if something else reads the sum, which then fails ("remapper
    failed") and leaves the whole graph unoptimized.
    """

    def build(self, input_shape):
        super().build(input_shape[0])
        self.input_spec = None  # of one input

    def call(self, inputs):
        x, y = inputs
        return ops.relu(x + y) - self.alpha * ops.relu(-x - y)

    def compute_output_shape(self, input_shape):
        return input_shape[0]
