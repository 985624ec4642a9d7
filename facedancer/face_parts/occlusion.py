"""Predicts which pixels of an aligned face show the face rather than a hand, hair, glasses or the background.

A small U-Net of our own (Ronneberger et al., MICCAI 2015), trained by `train_occlusion` on rendered people with exact
labels; `occlusion.md` is its model card. Its crop is wider than ArcFace's, to see what reaches into the face.
"""

import functools
from pathlib import Path

from facedancer.core.images import to_signed
from facedancer.core.inference import runner
from facedancer.core.keras_h5 import load_by_layer_name
from facedancer.core.lazy import LazyModule
from facedancer.core.weights_to_come import weights_to_come

# Processes that draw occluders read the crop's size here without loading Keras.
keras = LazyModule("keras")
layers = LazyModule("keras.layers")

WEIGHTS_FILE = Path(__file__).with_name("occlusion.h5")
CROP_SIZE, CROP_SHRINK = 128, 0.85

_WIDTHS = (16, 24, 32, 64, 96)  # at 1/2, 1/4, … of the crop's side


def build_occlusion_network():
    """Builds the network: (n, 128, 128, 3) in [-1, 1] -> (n, 128, 128, 1) probability that a pixel shows the face."""
    inputs = x = keras.Input((CROP_SIZE, CROP_SIZE, 3), name="face_signed")
    skips = []
    for level, width in enumerate(_WIDTHS):
        x = _convolve(x, width, f"down{level}_halve", strides=2)
        x = _convolve(x, width, f"down{level}") if level else x
        skips.append(x)
    x = _convolve(x, _WIDTHS[-1], "middle")
    for level in reversed(range(len(_WIDTHS) - 1)):
        width = _WIDTHS[level]
        x = _convolve(x, width, f"up{level}_narrow", kernel=1)
        x = layers.UpSampling2D(interpolation="bilinear", name=f"up{level}_double")(x)
        x = layers.Concatenate(name=f"up{level}_join")([x, skips[level]])
        x = _convolve(x, width, f"up{level}")
    x = layers.UpSampling2D(interpolation="bilinear", name="full_double")(x)
    # Edges must follow the picture's, which half the resolution cannot show.
    x = layers.Concatenate(name="full_join")([x, _convolve(inputs, 8, "full_look")])
    x = _convolve(x, 8, "full")
    shown = layers.Conv2D(1, 1, activation="sigmoid", name="shown")(x)
    return keras.Model(inputs, shown, name="occlusion")


def _convolve(x, width, name, kernel=3, strides=1):
    x = layers.Conv2D(width, kernel, strides, padding="same", use_bias=False, name=f"{name}_conv")(x)
    x = layers.BatchNormalization(momentum=0.97, name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


@functools.cache
@weights_to_come()
def load_occlusion_network():
    """Returns the network with the weights next to this module, as a function of signed crops."""
    return runner(load_by_layer_name(build_occlusion_network(), WEIGHTS_FILE))


def visible_face(crops):
    """Returns the probability (n, 128, 128, 1) float32 that a pixel of a crop (n, 128, 128, 3) uint8 shows the face."""
    return load_occlusion_network()(to_signed(crops))
