"""Discriminators shared by several families: two kinds of patch discriminators, and one on projected features.

Patches: Wang et al., pix2pixHD, CVPR 2018, at two scales, as in SimSwap's first training; and SPADE's, as in HifiFace.
Projected features: Sauer et al., Projected GANs Converge Faster, NeurIPS 2021. That discriminator sees features of a
network trained on ImageNet, mixed across channels and scales by random weights that are never trained.

Changed on purpose: the frozen network is not part of the discriminator, which takes its features; so checkpoints need
not hold it, and other losses can use the same features. It is a MobileNetV2; SimSwap's EfficientNet-Lite0 (timm's
tf_efficientnet_lite0) is not among our networks. The number of layers follows from the size of the faces.
"""

import math

import keras
from keras import layers, ops

from facedancer.core.console import UserError
from facedancer.core.corner_resize import ResizeByCorners

# Channels of the projected features, at strides 4, 8, 16 and 32: MobileNetV2's.
FEATURE_WIDTHS = (24, 32, 96, 320)
_SMALLEST_PROJECTED, _SMALLEST_PATCHED = 128, 32


def build_patch_pair(image_size, width=64):
    """Builds two patch discriminators, one for the faces and one for the faces at half the size.

    Args:
        image_size: side of the faces in pixels.
        width: channels of the first layer, of which the others have multiples.

    Returns:
        A model: faces (n, S, S, 3) in [0, 1] -> one list per scale with the output of each layer (n, h, w, C); the last
        is the logits (n, h, w, 1).

    Raises:
        UserError: if the faces are too small.
    """
    if image_size < _SMALLEST_PATCHED:
        raise UserError(f"image_size {image_size}: two scales of patches need at least {_SMALLEST_PATCHED} pixels")
    picture = keras.Input((image_size, image_size, 3), name="picture")
    halved = HalvedPicture(name="halved")(picture)
    count = max(1, min(4, int(math.log2(image_size / 8))))
    widths = [2**index * width for index in range(count)]
    outputs = [_patch_layers(x, [*widths, widths[-1]], 1, f"scale{scale}") for scale, x in enumerate((picture, halved))]
    return keras.Model(picture, outputs, name="discriminator")


def build_patch_scales(image_size, width=64, scales=3):
    """Builds SPADE's patch discriminators: for the faces, the faces at half the size, and so on.

    Park et al., CVPR 2019; with batch normalization, as in HifiFace's reimplementation.

    Args:
        image_size: side of the faces in pixels.
        width: channels of the first layer, of which the others have multiples.
        scales: number of scales.

    Returns:
        A model like that of `build_patch_pair`.

    Raises:
        UserError: if the faces are too small, or cannot be halved.
    """
    if image_size < 8 * 2**scales or image_size % 2 ** (scales - 1):
        raise UserError(f"image_size {image_size}: does not allow {scales} scales of patches")
    picture = x = keras.Input((image_size, image_size, 3), name="picture")
    outputs = []
    for scale in range(scales):
        if scale:
            x = HalvedPicture(name=f"halved{scale}")(x)
        outputs.append(_patch_layers(x, [width, 2 * width, 4 * width, 8 * width], 2, f"scale{scale}"))
    return keras.Model(picture, outputs, name="discriminator")


def _patch_layers(x, widths, padding, name):
    """Returns the outputs of the layers of one scale; all but the last width's and the logits' halve the size."""
    outputs = []
    for index, width in enumerate([*widths, 1]):
        x = layers.ZeroPadding2D(padding, name=f"{name}_pad{index}")(x)
        is_last, stride = index == len(widths), 2 if index < len(widths) - 1 else 1
        dtype = "float32" if is_last else None
        x = layers.Conv2D(width, 4, strides=stride, dtype=dtype, name=f"{name}_conv{index}")(x)
        if index and not is_last:
            x = _batch_norm(f"{name}_norm{index}")(x)
        if not is_last:
            x = _leaky_relu(f"{name}_activation{index}")(x)
        outputs.append(x)
    return outputs


def build_projected(image_size, width=64, feature_widths=FEATURE_WIDTHS):
    """Builds the discriminator of projected features.

    Args:
        image_size: side of the faces in pixels.
        width: channels of the projection of the largest features; the others have multiples.
        feature_widths: channels of the faces' features at strides 4, 8, 16 and 32.

    Returns:
        A model: list of feature maps (n, h, w, C), largest first -> logits (n, m) of all patches at all scales. Only
        the layers after the projections are trained.

    Raises:
        UserError: if the faces are too small, or their size is not a multiple of 32.
    """
    if image_size < _SMALLEST_PROJECTED or image_size % 32:
        raise UserError(
            f"image_size {image_size}: projected features need multiples of 32, at least {_SMALLEST_PROJECTED} pixels"
        )
    sides = [image_size // stride for stride in (4, 8, 16, 32)]
    shapes = zip(sides, feature_widths, strict=True)
    features = [keras.Input((side, side, channels), name=f"features{i}") for i, (side, channels) in enumerate(shapes)]
    mixed = [_fixed_conv(min(2**index, 8) * width, f"channel_mix{index}")(x) for index, x in enumerate(features)]
    logits, x = [], None
    for index in reversed(range(len(mixed))):
        x = mixed[index] if x is None else layers.Add(name=f"scale_mix{index}_add")([x, mixed[index]])
        x = ResizeByCorners(2 * x.shape[1], 2 * x.shape[2], name=f"scale_mix{index}_up")(x)
        x = _fixed_conv(max(2 ** (index - 1), 1) * width, f"scale_mix{index}")(x)
        logits.insert(0, _judge(x, width, f"scale{index}"))
    logits = layers.Concatenate(dtype="float32", name="logits")(logits)
    return keras.Model(features, logits, name="discriminator")


def _judge(x, width, name):
    """The patches' logits (n, m) of one scale's features."""
    count = max(1, min(4, math.ceil(math.log2(x.shape[1] / 8))))
    for index in range(count):
        channels = 2 ** (4 - count + index) * width
        x = layers.ZeroPadding2D(1, name=f"{name}_pad{index}")(x)
        x = SpectralConv2D(channels, 4, strides=2, name=f"{name}_conv{index}")(x)
        x = _batch_norm(f"{name}_norm{index}")(x)
        x = _leaky_relu(f"{name}_activation{index}")(x)
    x = SpectralConv2D(1, 4, use_bias=False, name=f"{name}_conv{count}")(x)
    return layers.Flatten(name=f"{name}_logits")(x)


def _batch_norm(name):
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)


def _leaky_relu(name):
    return layers.LeakyReLU(negative_slope=0.2, name=name)


def _fixed_conv(width, name):
    return layers.Conv2D(width, 1, kernel_initializer="he_normal", trainable=False, name=name)


@keras.saving.register_keras_serializable(package="facedancer")
class HalvedPicture(layers.Layer):
    """The 3×3 mean at every second pixel, without pixels beyond the border: (n, H, W, C) -> (n, H/2, W/2, C).

    H and W must be even.
    """

    def call(self, x):
        def sums(x):
            return ops.average_pool(ops.pad(x, ((0, 0), (1, 0), (1, 0), (0, 0))), 3, 2, padding="valid")

        return sums(x) / sums(ops.ones_like(x[:1, :, :, :1]))

    def compute_output_shape(self, input_shape):
        number, height, width, channels = input_shape
        return number, height // 2, width // 2, channels


@keras.saving.register_keras_serializable(package="facedancer")
class SpectralConv2D(layers.Conv2D):
    """A convolution whose kernel is divided by its largest singular value.

    Miyato et al., Spectral Normalization for Generative Adversarial Networks, ICLR 2018, algorithm 1: the value is
    estimated by one step of power iteration per training step.
    """

    def build(self, input_shape):
        super().build(input_shape)
        *others, width = self.kernel.shape
        lengths = {"left": math.prod(others), "right": width}
        self.left, self.right = (
            self.add_weight(
                (length,), keras.initializers.RandomNormal(), "float32", trainable=False, autocast=False, name=name
            )
            for name, length in lengths.items()
        )

    def call(self, x, training=False):
        kernel = ops.cast(self.kernel, "float32")
        matrix = ops.reshape(kernel, (-1, self.filters))
        left, right = self.left.value, self.right.value
        if training:
            fixed = ops.stop_gradient(matrix)
            left = ops.normalize(ops.sum(fixed * right, axis=1), axis=-1, epsilon=1e-12)
            right = ops.normalize(ops.sum(fixed * left[:, None], axis=0), axis=-1, epsilon=1e-12)
            self.left.assign(left)
            self.right.assign(right)
        value = ops.sum(matrix * right * left[:, None])
        x = ops.conv(x, ops.cast(kernel / value, self.compute_dtype), list(self.strides), padding=self.padding)
        return x + ops.cast(self.bias, self.compute_dtype) if self.use_bias else x

    def save_own_variables(self, store):
        layers.Layer.save_own_variables(self, store)  # Conv2D's own method saves only kernel and bias

    def load_own_variables(self, store):
        layers.Layer.load_own_variables(self, store)
