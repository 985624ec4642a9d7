"""MobileNetV2's feature extractor with torchvision's weights (ImageNet).

Sandler et al., CVPR 2018. Changed on purpose: the last convolution and the classifier are left out, as only feature
maps are wanted. Padding is PyTorch's, one pixel on every side, which Keras' "same" is not where the stride is two.
"""

import keras
from keras import layers

from facedancer.arcface_model.frozen import frozen

# (expansion, channels, units, stride of the first unit)
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
MEAN_RGB, DEVIATION_RGB = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# The last unit at each of the strides 2, 4, 8, 16, 32.
TAPS = ("features1_out", "features3_out", "features6_out", "features13_out", "features17_out")


@frozen
def build_mobilenet_v2(image_size):
    """Builds the network for pictures of `image_size` pixels.

    Returns:
        A Keras model: (n, S, S, 3) RGB in [0, 1], standardized inside -> the feature maps `TAPS`, as a list: 16, 24,
        32, 96 and 320 channels at the strides 2, 4, 8, 16 and 32.
    """
    inputs = keras.Input((image_size, image_size, 3), name="rgb_unit")
    mean, variance = MEAN_RGB, [deviation**2 for deviation in DEVIATION_RGB]
    x = layers.Normalization(mean=mean, variance=variance, name="standardize")(inputs)
    x = _convolution(x, 32, 3, 2, "features0")
    outputs, unit = {}, 1
    for expansion, channels, units, stride in _STAGES:
        for i in range(units):
            name = f"features{unit}"
            x = outputs[f"{name}_out"] = _inverted_residual(x, expansion, channels, stride if i == 0 else 1, name)
            unit += 1
    return keras.Model(inputs, [outputs[tap] for tap in TAPS], name="mobilenet_v2")


def _convolution(x, filters, kernel, stride, name):
    if kernel > 1:
        x = layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
    if filters is None:
        x = layers.DepthwiseConv2D(kernel, stride, use_bias=False, name=f"{name}_conv")(x)
    else:
        x = layers.Conv2D(filters, kernel, stride, use_bias=False, name=f"{name}_conv")(x)
    x = layers.BatchNormalization(epsilon=1e-5, name=f"{name}_bn")(x)
    return layers.ReLU(6.0, name=f"{name}_relu")(x)


def _inverted_residual(x, expansion, channels, stride, name):
    y = x
    if expansion > 1:
        y = _convolution(y, expansion * x.shape[-1], 1, 1, f"{name}_expand")
    y = _convolution(y, None, 3, stride, f"{name}_depthwise")
    y = layers.Conv2D(channels, 1, use_bias=False, name=f"{name}_project_conv")(y)
    linear = stride > 1 or x.shape[-1] != channels
    y = layers.BatchNormalization(epsilon=1e-5, name=f"{name}_out" if linear else f"{name}_project_bn")(y)
    return y if linear else layers.Add(name=f"{name}_out")([x, y])


def torch_names():
    """Returns our layer name -> its prefix in torchvision's state dict, of the layers that have weights."""
    names = {"features0_conv": "features.0.0", "features0_bn": "features.0.1"}
    unit, previous = 1, 32
    for expansion, channels, units, stride in _STAGES:
        for i in range(units):
            ours, theirs = f"features{unit}", f"features.{unit}.conv"
            parts = ["expand", "depthwise"] if expansion > 1 else ["depthwise"]
            for number, part in enumerate(parts):
                names[f"{ours}_{part}_conv"] = f"{theirs}.{number}.0"
                names[f"{ours}_{part}_bn"] = f"{theirs}.{number}.1"
            linear = (i == 0 and stride > 1) or previous != channels
            names[f"{ours}_project_conv"] = f"{theirs}.{len(parts)}"
            names[f"{ours}_out" if linear else f"{ours}_project_bn"] = f"{theirs}.{len(parts) + 1}"
            unit, previous = unit + 1, channels
    return names
