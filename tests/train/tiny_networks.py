"""Tiny networks, and frozen encoders with random weights."""

import keras
import numpy as np
from keras import layers, ops

from facedancer.arcface_model.frozen import frozen
from facedancer.models.facedancer import Config

SIZE = 32
COEFFICIENTS, SHAPE = 10, 4
CONFIG = Config(
    image_size=SIZE,
    embedding_dim=8,
    mapping_depth=1,
    mapping_size=8,
    widths=(8, 8, 8),
    up_types=("no_skip", "affa", "concat"),
    discriminator_widths=(4, 8, 8),
)

# Losses of FaceDancer that take long, for tests that look at something else.
ASIDE = dict.fromkeys(("c_lambda", "ifsr_lambda", "own_lambda"), 0.0)

# Of the other families: what makes their networks tiny beside the size of the faces and of the embedding.
TINY_SHAPES = {
    "reswapper": {
        "inswapper_crop": False,
        "widths": (4, 4, 8, 8),
        "blocks": 1,
        "adain_base": 1.0,
        "discriminator_widths": (4, 8),
    },
    "simswap": {
        "widths": (8, 8, 8),
        "identity_blocks": 2,
        "discriminator": "patch",
        "discriminator_width": 4,
    },
}
TINY_SHAPES["hififace"] = {
    "coefficients_dim": COEFFICIENTS,
    "shape_dim": SHAPE,
    "widths": (4, 8, 8, 8),
    "up_widths": (8, 4, 4),
    "adain_base": 1.0,
    "discriminator_width": 4,
    "discriminator_scales": 2,
}
# Flags by which their preset `lite` trains a discriminator.
ADVERSARIAL_FLAGS = {
    "hififace": ["--lambda_gan", "1", "--lambda_cyc", "1"],
    "reswapper": ["--a_lambda", "0.01", "--r1_every", "3"],
    "simswap": ["--lambda_gan", "1"],
}


@frozen
def build_encoder():
    """Faces -> {"embedding", "tap"}, frozen."""
    image = keras.Input((SIZE, SIZE, 3))
    tap = layers.Conv2D(4, 3, strides=4, activation="relu")(image)
    embedding = layers.Dense(8)(layers.Flatten()(tap))
    encoder = keras.Model(image, {"embedding": embedding, "tap": tap})
    return encoder


@frozen
def build_shapes_model():
    """Faces -> coefficients, frozen."""
    image = keras.Input((SIZE, SIZE, 3))
    features = layers.Conv2D(4, 3, strides=4, activation="relu")(image)
    return keras.Model(image, layers.Dense(COEFFICIENTS)(layers.Flatten()(features)), name="tiny_shapes")


def to_landmarks(coefficients):
    """Coefficients (n, 10) -> landmarks (n, 68, 2), some linear map."""
    matrix = 5 * np.cos(np.arange(COEFFICIENTS * 136)).reshape(COEFFICIENTS, 136)
    return ops.reshape(ops.matmul(coefficients, np.float32(matrix)), (-1, 68, 2))


@frozen
def build_perceptual():
    """Faces -> two feature maps, frozen."""
    image = keras.Input((SIZE, SIZE, 3))
    first = layers.Conv2D(4, 3, strides=2, activation="relu")(image)
    second = layers.Conv2D(4, 3, strides=2, activation="relu")(first)
    perceptual = keras.Model(image, [first, second])
    return perceptual
