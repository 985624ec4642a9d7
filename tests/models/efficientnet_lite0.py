"""EfficientNet-Lite0 as the original projects its features, to compare with; layers have the names of its tensors."""

import keras
from keras import layers

# name, kernel, channels, units, stride of the first unit
STAGES = (
    ("layer0.4", 3, 24, 2, 2), ("layer1.0", 5, 40, 2, 2), ("layer2.0", 3, 80, 3, 2), ("layer2.1", 5, 112, 3, 1),
    ("layer3.0", 5, 192, 4, 2), ("layer3.1", 3, 320, 1, 1),
)  # fmt: skip
TAPS = ("layer0.4", "layer1.0", "layer2.1", "layer3.1")
PLACE = "feature_network.pretrained."


def build_efficientnet_lite0(size):
    """Pictures (n, S, S, 3), ImageNet's mean and deviation taken off -> features at the strides 4, 8, 16 and 32."""
    picture = keras.Input((size, size, 3))
    x = _conv(picture, 32, 3, 2, f"{PLACE}layer0.0", f"{PLACE}layer0.1")
    name = f"{PLACE}layer0.3.0."
    x = _conv(x, None, 3, 1, f"{name}conv_dw", f"{name}bn1")
    x = _norm(f"{name}bn2")(layers.Conv2D(16, 1, use_bias=False, name=f"{name}conv_pw")(x))
    outputs = []
    for stage, kernel, channels, units, stride in STAGES:
        for unit in range(units):
            name = f"{PLACE}{stage}.{unit}."
            y = _conv(x, 6 * x.shape[-1], 1, 1, f"{name}conv_pw", f"{name}bn1")
            y = _conv(y, None, kernel, 1 if unit else stride, f"{name}conv_dw", f"{name}bn2")
            y = _norm(f"{name}bn3")(layers.Conv2D(channels, 1, use_bias=False, name=f"{name}conv_pwl")(y))
            x = layers.Add()([x, y]) if unit else y
        if stage in TAPS:
            outputs.append(x)
    return keras.Model(picture, outputs)


def _conv(x, channels, kernel, stride, name, norm):
    if channels is None:
        x = layers.DepthwiseConv2D(kernel, stride, padding="same", use_bias=False, name=name)(x)
    else:
        x = layers.Conv2D(channels, kernel, stride, padding="same", use_bias=False, name=name)(x)
    return layers.ReLU(6.0)(_norm(norm)(x))


def _norm(name):
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-3, name=name)
