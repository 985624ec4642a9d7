"""IResNet, the network of InsightFace's ArcFace models (`w600k_r50.onnx`, `glintr100.onnx`).

Duta et al., "Improved Residual Networks for Image and Video Recognition", ICPR 2020, as Deng et al. (ArcFace, CVPR
2019) train it. Changed on purpose: batch normalization behind a convolution or the dense layer is folded into it.
"""

import keras
import numpy as np
from keras import layers

from facedancer.arcface_model.face_window import Window
from facedancer.arcface_model.frozen import frozen

WINDOW = Window(size=112)
EPSILON = 1e-5


@frozen
def build_iresnet(units, widths=(64, 128, 256, 512), dim=512):
    """Builds the network, 112-pixel input.

    Args:
        units: residual units per stage, (3, 4, 14, 3) for r50 and (3, 13, 30, 3) for r100.
        widths: channels per stage.
        dim: length of the embedding.

    Returns:
        A Keras model: (n, 112, 112, 3) RGB in [-1, 1] -> {"embedding": (n, dim) raw, "layer1_unit0_out": features,
        …}, named `arcface_iresnet<depth>`.
    """
    inputs = keras.Input((WINDOW.size, WINDOW.size, 3), name="rgb_signed")
    x = layers.Conv2D(widths[0], 3, padding="same", name="stem_conv")(inputs)
    x = layers.PReLU(shared_axes=[1, 2], name="stem_prelu")(x)
    outputs = {}
    for stage, (count, width) in enumerate(zip(units, widths, strict=True), 1):
        for unit in range(count):
            name = f"layer{stage}_unit{unit}"
            x = outputs[f"{name}_out"] = _residual_unit(x, width, halves=unit == 0, name=name)
    x = layers.BatchNormalization(epsilon=EPSILON, name="final_bn")(x)
    x = layers.Flatten(name="flatten")(x)
    embedding = layers.Dense(dim, name="embedding")(x)
    return keras.Model(inputs, {"embedding": embedding, **outputs}, name=f"arcface_iresnet{2 * sum(units) + 2}")


def _residual_unit(x, width, halves, name):
    y = layers.BatchNormalization(epsilon=EPSILON, name=f"{name}_bn")(x)
    y = layers.Conv2D(width, 3, padding="same", name=f"{name}_conv1")(y)
    y = layers.PReLU(shared_axes=[1, 2], name=f"{name}_prelu")(y)
    y = layers.ZeroPadding2D(1, name=f"{name}_pad")(y)  # PyTorch's padding, which "same" is not at stride two
    y = layers.Conv2D(width, 3, strides=2 if halves else 1, name=f"{name}_conv2")(y)
    if halves:
        x = layers.Conv2D(width, 1, strides=2, name=f"{name}_shortcut")(x)
    return layers.Add(name=f"{name}_out")([y, x])


def ifsr_taps(units):
    """Returns the outputs for IFSR, the deepest first.

    They are chosen as FaceDancer chose ArcFace-Res50's: the last unit of the first stage and up to four and six
    units, evenly spread, of the second and third.
    """
    taps = []
    for stage, wanted in ((3, 6), (2, 4), (1, 1)):
        count = units[stage - 1]
        chosen = np.linspace(count - 1, -1, min(wanted, count) + 1)[:-1]
        taps += [f"layer{stage}_unit{round(unit)}_out" for unit in chosen]
    return tuple(taps)
