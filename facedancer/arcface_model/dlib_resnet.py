"""dlib's face recognition network: a ResNet of 29 convolutions that gives 128 numbers per face.

D. King, "High Quality Face Recognition with Deep Metric Learning", 2017; a smaller variant of He et al., CVPR 2016.
It was trained so that two pictures of the same person have a Euclidean distance below 0.6. Deliberate change: the
affine layers left from batch normalization are folded into the preceding convolutions.
"""

import keras
from keras import layers, ops

from facedancer.arcface_model.face_window import Window
from facedancer.arcface_model.frozen import frozen

# dlib's 150-pixel crop on ArcFace's template; verification is as accurate as with dlib's own five-point crop.
WINDOW = Window(size=150, x=7.5454, y=22.8579, step=0.65333)
MEAN_RGB = (122.782, 117.001, 104.298)
# dlib's names: the highest-numbered level is next to the input. (level, filters, units, first unit halves)
LEVELS = ((4, 32, 3, False), (3, 64, 4, True), (2, 128, 3, True), (1, 256, 3, True), (0, 256, 1, True))

# Chosen like FaceDancer's taps of ArcFace-Res50: the last unit at 1/4 of the input size, and all at 1/8 and 1/16,
# deepest first.
IFSR_TAPS = (
    *(f"level2_unit{unit}_out" for unit in range(2, -1, -1)),
    *(f"level3_unit{unit}_out" for unit in range(3, -1, -1)),
    "level4_unit2_out",
)


@keras.saving.register_keras_serializable("facedancer")
class ZeroPadTo(keras.layers.Layer):
    """Zero-pads at the bottom, the right and in channels, as dlib's addition does with the smaller operand.

    Args:
        height, width, channels: of the output.
    """

    def __init__(self, height, width, channels, **kwargs):
        super().__init__(**kwargs)
        self.shape = (int(height), int(width), int(channels))

    def call(self, x):
        missing = [(0, wanted - found) for wanted, found in zip(self.shape, x.shape[1:], strict=True)]
        return ops.pad(x, [(0, 0), *missing])

    def compute_output_shape(self, input_shape):
        return (input_shape[0], *self.shape)

    def get_config(self):
        return {**super().get_config(), **dict(zip(("height", "width", "channels"), self.shape, strict=True))}


def unit_names():
    """Returns `(name, filters, halves)` for each residual unit, starting at the input."""
    return [
        (f"level{level}_unit{unit}", filters, halves and unit == 0)
        for level, filters, units, halves in LEVELS
        for unit in range(units)
    ]


def convolution_names():
    """Returns the names of all convolutions, starting at the input, as in the published file."""
    return ["stem_conv", *(f"{name}_conv{i}" for name, _, _ in unit_names() for i in (1, 2))]


@frozen
def build_dlib_resnet():
    """Builds the network.

    Returns:
        A Keras model: (n, 150, 150, 3) RGB in [0, 255] -> {"embedding": (n, 128), "<unit>_out": features, …}, the
        units being `unit_names()`. The embedding is raw: its length is about 1.45.
    """
    inputs = keras.Input((WINDOW.size, WINDOW.size, 3), name="rgb")
    x = layers.Rescaling(1 / 256, [-mean / 256 for mean in MEAN_RGB], name="normalize")(inputs)
    x = layers.Conv2D(32, 7, strides=2, name="stem_conv")(x)
    x = layers.ReLU(name="stem_relu")(x)
    x = layers.MaxPooling2D(3, 2, name="stem_pool")(x)
    outputs = {}
    for name, filters, halves in unit_names():
        x = outputs[f"{name}_out"] = _residual_unit(x, filters, halves, name)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    embedding = layers.Dense(128, use_bias=False, name="embedding")(x)
    return keras.Model(inputs, {"embedding": embedding, **outputs}, name="dlib_resnet")


def _residual_unit(x, filters, halves, name):
    padding = "valid" if halves else "same"
    y = layers.Conv2D(filters, 3, strides=2 if halves else 1, padding=padding, name=f"{name}_conv1")(x)
    y = layers.ReLU(name=f"{name}_relu1")(y)
    y = layers.Conv2D(filters, 3, padding="same", name=f"{name}_conv2")(y)
    if halves:
        x = layers.AveragePooling2D(2, 2, name=f"{name}_skip")(x)
    size = [max(sides) for sides in zip(x.shape[1:], y.shape[1:], strict=True)]
    if list(x.shape[1:]) != size:
        x = ZeroPadTo(*size, name=f"{name}_skip_pad")(x)
    if list(y.shape[1:]) != size:
        y = ZeroPadTo(*size, name=f"{name}_conv_pad")(y)
    return layers.ReLU(name=f"{name}_out")(layers.Add(name=f"{name}_add")([x, y]))
