"""ReSwapper's networks: the generator of InsightFace's inswapper, as ReSwapper rebuilt it, and a discriminator.

After the description of the public inswapper_128.onnx; ReSwapper (somanchiu, 2024) trains the same graph. The
generator is theirs, layer by layer, so that published weights fit (`models.inswapper_files`). Changed on purpose:
images are in [-1, 1] instead of [0, 1]; the identity embedding is taken as the encoder returns it, and the network
normalizes it and multiplies it by `emap`. The discriminator is our own.

Inswapper's crop lies a little above ArcFace's. With `inswapper_crop`, the network takes a larger aligned face in which
that crop lies on whole pixels, swaps the crop, and returns the rest unchanged.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facedancer.core.card import ExportCard
from facedancer.core.console import UserError
from facedancer.core.flags import flag
from facedancer.core.lazy import LazyModule
from facedancer.models.crops import InnerCrop

keras = LazyModule("keras")
layers = LazyModule("keras.layers")
own = LazyModule("facedancer.models.layers")
exports = LazyModule("facedancer.models.exports")
inswapper_files = LazyModule("facedancer.models.inswapper_files")

# The encoder that the published networks were trained with.
IDENTITY_ENCODER = "insightface_r50"
NORM_EPSILON = 1e-8


def inswapper_crop(scale):
    """Returns the `InnerCrop` of 128 `scale` pixels that inswapper swaps.

    Inswapper moves ArcFace's template 8 pixels to the right on a crop of 128. As in ReSwapper, other sizes shift it by
    up to half a pixel, so that images of all sizes cover the same part of the face.
    """
    side = 143 * scale + 1
    return InnerCrop(128 * scale, side, left=7 * scale + 1, top=15 * scale + 1, shrink_factor=112 * scale / side)


def inswapper_crop_of(image_size):
    """Returns the `InnerCrop` within aligned faces of `image_size` pixels, or None if there is none for that size."""
    scale, rest = divmod(image_size - 1, 143)
    return inswapper_crop(scale) if scale > 0 and not rest else None


@dataclass(frozen=True)
class Config:
    """Shapes of the networks; the defaults are inswapper's. Those made by `flag` are flags of training.

    Attributes:
        image_size: side of the aligned face in pixels.
        embedding_dim: length of the identity embedding.
        inswapper_crop: whether only inswapper's crop is swapped, not the whole face; `image_size` is then 144 for its
            128 pixels, 287 for 256, 573 for 512.
        widths: channels of the encoder's convolutions: two at full resolution, one at a half, one at a quarter. The
            decoder mirrors them.
        blocks: number of style blocks, at a quarter of the resolution.
        adain_base: constant added to AdaIN's scale, see `layers.AdaIN`.
        discriminator_widths: channels of the discriminator, from half the resolution down by halves.
    """

    image_size: int = flag(144, "side of the faces in pixels")
    embedding_dim: int = 512
    inswapper_crop: bool = flag(True, "swap only inswapper's crop: 128 of 144 pixels, 256 of 287")
    widths: tuple[int, ...] = (128, 256, 512, 1024)
    blocks: int = flag(6, "style blocks")
    adain_base: float = 0.0
    discriminator_widths: tuple[int, ...] = (64, 128, 256, 512)

    def __post_init__(self):
        if len(self.widths) != 4:
            raise UserError(f"widths: the encoder has 4 convolutions, {len(self.widths)} widths given")
        if self.blocks < 1:
            raise UserError(f"--blocks must be at least 1, not {self.blocks}")
        if self.inswapper_crop and inswapper_crop_of(self.image_size) is None:
            raise UserError(
                f"image_size {self.image_size}: inswapper's crop lies in faces of 144, 287, 430 or 573 pixels;"
                " or give --inswapper_crop False"
            )
        if not self.inswapper_crop and self.image_size % 4:
            raise UserError(f"image_size {self.image_size} cannot be halved twice")


PRESETS = {
    "reswapper": Config(),
    "lite": Config(
        image_size=128,
        embedding_dim=128,
        inswapper_crop=False,
        widths=(24, 48, 96, 192),
        blocks=4,
        adain_base=1.0,
        discriminator_widths=(32, 64, 128, 128),
    ),
}


def build_networks(config):
    """Returns the networks to train: `{"generator", "discriminator"}`."""
    return {"generator": build_generator(config), "discriminator": build_discriminator(config)}


def build_swapper(networks):
    """Returns the model to export, the generator: inputs `target` and `source_embedding`, output the swapped face."""
    return networks["generator"]


def publishes(path):
    """Whether a file without a card is named as ReSwapper's `.pth` are, or is an `.onnx`, as InsightFace's are."""
    path = Path(path)
    return path.suffix == ".onnx" or (path.suffix == ".pth" and path.name.startswith("reswapper"))


def read_published(path):
    """Reads a swapper: ReSwapper's `.pth`, an inswapper `.onnx`, or an export of ours with its card next to it.

    Returns:
        The network of `build_generator`.

    Raises:
        UserError: if the file is missing, damaged or does not fit.
    """
    path = Path(path)
    if path.suffix == ".pth":
        return inswapper_files.read_pth(path)
    if path.suffix == ".onnx":
        return inswapper_files.read_onnx(path)
    return exports.load_export(path, Config, build_generator)


def published_card(image_size, embedding_dim):
    """Returns a card for a published swapper, which has none: InsightFace's encoder and inswapper's crop."""
    crop = inswapper_crop_of(image_size)
    return ExportCard(
        "reswapper",
        image_size,
        embedding_dim,
        shrink_factor=crop.shrink_factor if crop else 1.0,
        identity_encoder=IDENTITY_ENCODER,
    )


def save_published(swapper, path):
    """Writes a swapper in the format of InsightFace's `INSwapper`: `<path>_inswapper.onnx`.

    Returns:
        List of the paths written; empty if the network does not swap `INSwapper`'s crop.
    """
    if not any(layer.name == "crop" for layer in swapper.layers):
        return []
    path = Path(f"{path}_inswapper.onnx")
    inswapper_files.write_onnx(swapper, path)
    return [path]


def move_embedding(path, embedding, direction, steps):
    """Moves an identity along an attribute's direction in the space of projected embeddings, as ReSwapper does.

    Arguments and result are those of `families.move_embedding`. Unlike in the original, the moved projected embedding
    has length 1.
    """
    (emap,) = read_published(path).get_layer("projected_embedding").get_weights()
    projected = embedding @ emap
    moved = projected / np.linalg.norm(projected) + steps * direction / np.linalg.norm(direction)
    embedding_of_it = np.linalg.solve(emap.T.astype(np.float64), moved)
    return np.float32(np.linalg.norm(embedding) * embedding_of_it / np.linalg.norm(embedding_of_it))


def build_generator(config):
    """Builds the generator.

    Returns:
        A functional model. Inputs: `target` (n, S, S, 3) in [-1, 1], and `source_embedding` (n, embedding_dim) as the
        identity encoder returns it. Output: the swapped face (n, S, S, 3) in [-1, 1], float32 whatever the precision
        inside. Its layer `projected_embedding` returns (n, embedding_dim) of length 1.
    """
    crop = inswapper_crop_of(config.image_size) if config.inswapper_crop else None
    x = target = keras.Input((config.image_size, config.image_size, 3), name="target")
    source_embedding = keras.Input((config.embedding_dim,), name="source_embedding")
    projected = own.EmbeddingProjection(dtype="float32", name="projected_embedding")(source_embedding)
    if crop:
        x = crop.cut(x)
    swapped = _swap(x, projected, config)
    if crop:
        swapped = crop.paste(target, swapped, "pasted")
    return keras.Model([target, source_embedding], swapped, name="generator")


def _swap(x, projected, config):
    first, second, half, quarter = config.widths
    x = layers.Rescaling(0.5, 0.5, name="target_unit")(x)
    x = own.ReflectionPadding2D(3, name="encoder_padding0")(x)
    x = _activated(_conv(first, 7, "encoder_conv0", padding="valid")(x), "encoder_activation0")
    x = _activated(_conv(second, 3, "encoder_conv1")(x), "encoder_activation1")
    for index, width in enumerate((half, quarter), 2):
        # At stride 2, Keras' "same" pads on the other side.
        x = layers.ZeroPadding2D(1, name=f"encoder_padding{index}")(x)
        x = _conv(width, 3, f"encoder_conv{index}", strides=2, padding="valid")(x)
        x = _activated(x, f"encoder_activation{index}")
    for index in range(config.blocks):
        x = _style_block(x, projected, config, f"block{index}")
    for index, width in enumerate((half, second)):
        x = layers.UpSampling2D(interpolation="bilinear", name=f"decoder_upsampling{index}")(x)
        x = _activated(_conv(width, 3, f"decoder_conv{index}")(x), f"decoder_activation{index}")
    x = _activated(_conv(first, 3, "decoder_conv2")(x), "decoder_activation2")
    x = own.ReflectionPadding2D(3, name="decoder_padding3")(x)
    x = _conv(3, 7, "decoder_conv3", padding="valid")(x)
    return layers.Activation("tanh", dtype="float32", name="swapped")(x)


def _style_block(x, projected, config, name):
    shortcut, width = x, x.shape[-1]
    for index in range(2):
        if index:
            x = layers.ReLU(name=f"{name}_activation")(x)
        x = own.ReflectionPadding2D(1, name=f"{name}_padding{index}")(x)
        x = _conv(width, 3, f"{name}_conv{index}", padding="valid")(x)
        norm = layers.GroupNormalization(
            groups=-1, epsilon=NORM_EPSILON, center=False, scale=False, name=f"{name}_norm{index}"
        )
        x = own.AdaIN(config.adain_base, name=f"{name}_adain{index}")([norm(x), projected])
    return layers.Add(name=f"{name}_add")([x, shortcut])


def build_discriminator(config):
    """Builds the discriminator: (n, S, S, 3) in [-1, 1] -> logits (n, 1), float32, the mean over overlapping patches.

    Isola et al., pix2pix, CVPR 2017, without its normalization, which the R1 penalty makes unnecessary.
    """
    x = image = keras.Input((config.image_size, config.image_size, 3), name="image")
    for index, width in enumerate(config.discriminator_widths):
        x = _activated(_conv(width, 4, f"conv{index}", strides=2)(x), f"activation{index}")
    x = layers.Conv2D(1, 3, padding="same", name="logits_conv")(x)
    logits = layers.GlobalAveragePooling2D(dtype="float32", name="logits")(x)
    return keras.Model(image, logits, name="discriminator")


def _activated(x, name):
    return layers.LeakyReLU(negative_slope=0.2, name=name)(x)


def _conv(width, size, name, strides=1, padding="same"):
    return layers.Conv2D(width, size, strides=strides, padding=padding, name=name)
