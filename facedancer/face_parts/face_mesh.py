"""MediaPipe's face mesh, a network that finds 468 landmarks, in layers of ours.

Kartynnik et al., "Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs", 2019. The network's flag
whether there is a face is left out.
"""

import keras
from keras import layers, ops

from facedancer.face_parts.dense_landmarks import CROP_SIZE, POINTS

_UNITS, _WIDTHS = 2, (16, 32, 64, 128, 128, 128)


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
        x = ops.pad(x, [(0, 0), (0, 0), (0, 0), (0, width - x.shape[-1])])
    return SumPReLU(shared_axes=(1, 2), name=f"{name}_prelu")([x, y])


def _prelu(x, name):
    return layers.PReLU(shared_axes=(1, 2), name=f"{name}_prelu")(x)


class SumPReLU(layers.PReLU):
    """PReLU of the sum of two inputs, which is taken twice, once for either sign.

    TensorFlow fuses a convolution, its bias, a sum and a ReLU also where something else reads the sum, which it then
    misses ("remapper failed"), and leaves the whole graph as it was.
    """

    def build(self, input_shape):
        super().build(input_shape[0])
        self.input_spec = None  # of one input

    def call(self, inputs):
        x, y = inputs
        return ops.relu(x + y) - self.alpha * ops.relu(-x - y)

    def compute_output_shape(self, input_shape):
        return input_shape[0]
