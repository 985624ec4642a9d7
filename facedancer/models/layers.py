"""Layers of swap networks that Keras lacks.

Adaptive instance normalization and AFFA's fusion follow Rosberg et al., FaceDancer, WACV 2023, with the original's
weights in the original's order. Its third custom layer, tensorflow-addons' InstanceNormalization, is
`keras.layers.GroupNormalization(groups=-1, epsilon=1e-3)`.
"""

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable(package="facedancer")
class AdaIN(keras.layers.Layer):
    """Scales and shifts each channel by affine functions of the identity: `x * scale(w) + offset(w)`.

    The normalization is a separate layer before it, with a learned scale and offset.

    Called on `[features (n, H, W, C), identity (n, d)]`; returns (n, H, W, C).

    Args:
        base: constant added to the scale. The original has 0; with 1, features pass through from the first step, and
            deep networks learn sooner.
    """

    def __init__(self, base=0.0, **kwargs):
        super().__init__(**kwargs)
        self.base = float(base)

    def build(self, input_shape):
        features, identity = input_shape
        self.scale = keras.layers.Dense(features[-1], dtype=self.dtype_policy, name="scale")
        self.offset = keras.layers.Dense(features[-1], dtype=self.dtype_policy, name="offset")
        self.scale.build(identity)
        self.offset.build(identity)

    def call(self, inputs):
        features, identity = inputs
        scale = self.scale(identity) + self.base
        return features * scale[:, None, None, :] + self.offset(identity)[:, None, None, :]

    def compute_output_shape(self, input_shape):
        return input_shape[0]

    def get_config(self):
        return {**super().get_config(), "base": self.base}


@keras.saving.register_keras_serializable(package="facedancer")
class DepthToSpace(keras.layers.Layer):
    """Rearranges groups of four channels to 2×2 pixels: (n, H, W, 4 C) -> (n, 2 H, 2 W, C).

    Shi et al., CVPR 2016, equation 4.
    """

    def call(self, x):
        height, width, channels = x.shape[1], x.shape[2], x.shape[3] // 4
        x = ops.reshape(x, (-1, height, width, 2, 2, channels))
        return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, 2 * height, 2 * width, channels))

    def compute_output_shape(self, input_shape):
        number, height, width, channels = input_shape
        return number, 2 * height, 2 * width, channels // 4


@keras.saving.register_keras_serializable(package="facedancer")
class AttentionFusion(keras.layers.Layer):
    """Blends encoder and decoder features by AFFA's mask: `(1 - mask) * skip + mask * decoded` (equation 1).

    Called on `[mask (n, H, W, C) or (n, H, W, 1) in [0, 1], skip (n, H, W, C), decoded (n, H, W, C)]`; returns
    (n, H, W, C).
    """

    def call(self, inputs):
        mask, skip, decoded = inputs
        return skip + mask * (decoded - skip)

    def compute_output_shape(self, input_shape):
        return input_shape[1]


@keras.saving.register_keras_serializable(package="facedancer")
class ReflectionPadding2D(keras.layers.Layer):
    """Pads by `size` mirrored pixels, without repeating the border: (n, H, W, C) -> (n, H + 2 size, W + 2 size, C)."""

    def __init__(self, size, **kwargs):
        super().__init__(**kwargs)
        self.size = int(size)

    def call(self, x):
        return ops.pad(x, ((0, 0), (self.size, self.size), (self.size, self.size), (0, 0)), mode="reflect")

    def compute_output_shape(self, input_shape):
        number, height, width, channels = input_shape
        return number, height + 2 * self.size, width + 2 * self.size, channels

    def get_config(self):
        return {**super().get_config(), "size": self.size}


@keras.saving.register_keras_serializable(package="facedancer")
class EmbeddingProjection(keras.layers.Layer):
    """Inswapper's projected embedding: the unit embedding times `emap`, at unit length; (n, d) -> (n, d).

    `emap` (d, d) is not trained; it is the identity matrix unless a file holds another.
    """

    def build(self, input_shape):
        dim = input_shape[-1]
        self.emap = self.add_weight(shape=(dim, dim), initializer="identity", trainable=False, name="emap")

    def call(self, embedding):
        return ops.normalize(ops.matmul(ops.normalize(embedding, axis=-1), self.emap), axis=-1)

    def compute_output_shape(self, input_shape):
        return input_shape


@keras.saving.register_keras_serializable(package="facedancer")
class PasteInto(keras.layers.Layer):
    """Pastes an image into a larger one: called on `[around (n, H, W, C), inner (n, h, w, C)]`, returns (n, H, W, C).

    Args:
        top, left: first row and column that the inner image covers.
        fade: width in pixels of the inner one's soft border, where it passes into what it covers; 0 for none.
    """

    def __init__(self, top, left, fade=0, **kwargs):
        super().__init__(**kwargs)
        self.top, self.left, self.fade = int(top), int(left), int(fade)

    def call(self, inputs):
        around, inner = inputs
        bottom, right = self.top + inner.shape[1], self.left + inner.shape[2]
        beside = around[:, self.top : bottom]
        if self.fade:
            rows, columns = (_soft_border(length, self.fade) for length in inner.shape[1:3])
            share = ops.cast(rows[:, None, None] * columns[:, None], self.compute_dtype)
            inner = share * inner + (1.0 - share) * beside[:, :, self.left : right]
        rows = ops.concatenate([beside[:, :, : self.left], inner, beside[:, :, right:]], axis=2)
        return ops.concatenate([around[:, : self.top], rows, around[:, bottom:]], axis=1)

    def compute_output_shape(self, input_shape):
        return input_shape[0]

    def get_config(self):
        return {**super().get_config(), "top": self.top, "left": self.left, "fade": self.fade}


def _soft_border(length, fade):
    """Returns (length,) float32: 1, falling to 0 over `fade` pixels at either end."""
    inside = np.minimum(np.arange(length), np.arange(length)[::-1]) + 0.5
    ramp = np.minimum(inside / fade, 1.0).astype(np.float32)
    return ramp * ramp * (3 - 2 * ramp)


@keras.saving.register_keras_serializable(package="facedancer")
class ChannelSlice(keras.layers.Layer):
    """Channels `start` to `stop` (exclusive; None is the end): (n, H, W, C) -> (n, H, W, stop - start)."""

    def __init__(self, start, stop=None, **kwargs):
        super().__init__(**kwargs)
        self.start, self.stop = start, stop

    def call(self, x):
        return x[..., self.start : self.stop]

    def compute_output_shape(self, input_shape):
        return *input_shape[:-1], len(range(input_shape[-1])[self.start : self.stop])

    def get_config(self):
        return {**super().get_config(), "start": self.start, "stop": self.stop}


def fuse_coefficients(source, target, shape_dim):
    """Returns coefficients (n, d) with the source's first `shape_dim` and the target's others."""
    return ops.concatenate([source[:, :shape_dim], target[:, shape_dim:]], axis=1)


@keras.saving.register_keras_serializable(package="facedancer")
class FusedCoefficients(keras.layers.Layer):
    """`fuse_coefficients` as a layer, called on `[source (n, d), target (n, d)]`.

    Args:
        shape_dim: number of coefficients, at the start, that describe the shape.
    """

    def __init__(self, shape_dim, **kwargs):
        super().__init__(**kwargs)
        self.shape_dim = int(shape_dim)

    def call(self, inputs):
        return fuse_coefficients(*inputs, self.shape_dim)

    def compute_output_shape(self, input_shape):
        return input_shape[1]

    def get_config(self):
        return {**super().get_config(), "shape_dim": self.shape_dim}
