"""FaceDancer's networks: the generator with its AFFA decoder, and the discriminator.

Rosberg et al., FaceDancer: Pose- and Occlusion-Aware High Fidelity Face Swapping, WACV 2023. The graphs are those of
the original code, layer by layer, so that published weights fit (`models.published`). Changed on purpose: size, widths
and depth are arguments, and under mixed precision both networks still return float32.

A block's name states the resolution that it returns, `decoder_64x64_conv0`, as the original's mask layers (`64x64`) do.
"""

from dataclasses import dataclass
from pathlib import Path

from facedancer.core.card import ExportCard
from facedancer.core.console import UserError
from facedancer.core.flags import flag
from facedancer.core.lazy import LazyModule

keras = LazyModule("keras")
layers = LazyModule("keras.layers")
own = LazyModule("facedancer.models.layers")
published = LazyModule("facedancer.models.published")
keras2 = LazyModule("facedancer.models.keras2")

UP_TYPES = ("affa", "d_affa", "do_affa", "concat", "add", "no_skip")


@dataclass(frozen=True)
class Config:
    """Shapes of the networks; the defaults are the paper's. Those made by `flag` are flags of training.

    Attributes:
        image_size: side of the aligned face in pixels.
        embedding_dim: length of the identity embedding.
        mapping_depth: number of dense layers between embedding and AdaIN; may be 0.
        mapping_size: width of those layers.
        widths: channels of the encoder per resolution, from full resolution down by halves. The decoder mirrors them.
        up_types: how each decoder block fuses the encoder's features, from the lowest resolution up; one of `UP_TYPES`
            per width.
        discriminator_widths: channels of the discriminator, from full resolution down by halves.
        half_stem: whether the network works at half the face's resolution: its first convolution has a stride of 2, and
            its last one returns 2×2 pixels per position. `widths` then begin at half the resolution.
        identity_blocks: number of residual blocks after each decoder block, from the lowest resolution up. A block has
            two convolutions, each with AdaIN. At low resolution it costs little and affects the whole face.
        adain_base: constant added to AdaIN's scale, see `layers.AdaIN`.
    """

    image_size: int = flag(256, "side of the faces in pixels")
    embedding_dim: int = 512
    mapping_depth: int = flag(4, "dense layers of the mapping network")
    mapping_size: int = flag(512, "width of these layers")
    widths: tuple[int, ...] = (64, 128, 256, 512, 512, 512)
    up_types: tuple[str, ...] = flag(
        ("no_skip", "no_skip", "affa", "affa", "affa", "concat"),
        "decoder block types, lowest resolution first: affa, d_affa, do_affa, concat, add, no_skip",
        metavar="TYPE",
    )
    discriminator_widths: tuple[int, ...] = (64, 128, 256, 512, 512, 512, 512)
    half_stem: bool = False
    identity_blocks: tuple[int, ...] = ()
    adain_base: float = 0.0

    def __post_init__(self):
        if unknown := [kind for kind in self.up_types if kind not in UP_TYPES]:
            raise UserError(f"up_types: no block is named {unknown[0]}; known are {', '.join(UP_TYPES)}")
        if len(self.up_types) != len(self.widths):
            raise UserError(f"up_types: {len(self.up_types)} blocks given, this size of network has {len(self.widths)}")
        if len(self.identity_blocks) > len(self.widths):
            raise UserError(
                f"identity_blocks: {len(self.identity_blocks)} numbers given for {len(self.widths)} decoder blocks"
            )
        for halves in (len(self.widths) - 1 + self.half_stem, len(self.discriminator_widths) - 1):
            if self.image_size % 2**halves:
                raise UserError(f"image_size {self.image_size} cannot be halved {halves} times")


PRESETS = {
    "facedancer": Config(),
    "lite": Config(
        image_size=128,
        embedding_dim=128,
        mapping_depth=2,
        mapping_size=192,
        widths=(32, 64, 160, 224),
        up_types=("no_skip", "affa", "affa", "concat"),
        discriminator_widths=(16, 32, 64, 128, 160, 192),
        half_stem=True,
        identity_blocks=(2, 2),
        adain_base=1.0,
    ),
}


def build_networks(config):
    """Returns the networks to train: `{"generator", "discriminator"}`."""
    return {"generator": build_generator(config), "discriminator": build_discriminator(config)}


def build_swapper(networks):
    """Returns the model to export, the generator: inputs `target` and `source_embedding`, output the swapped face."""
    return networks["generator"]


def read_published(path):
    """Reads a swapper.

    Args:
        path: the original's `.h5`; weights of one of its checkpoints (`gen_30.h5`) with `gen.json` next to them; or an
            export of ours.

    Returns:
        The network of `build_generator`.

    Raises:
        UserError: if the file does not fit our network exactly.
    """
    return published.load_generator(path)


def publishes(path):
    """Whether a file without a card is of the kind that the original publishes."""
    return Path(path).suffix == ".h5"


def published_card(image_size, embedding_dim):
    """Returns a card for a published swapper, which has none: the original's ArcFace and its crop."""
    return ExportCard("facedancer", image_size, embedding_dim, shrink_factor=1.0, identity_encoder="arcface_res50")


def save_published(swapper, path):
    """Writes a swapper in the original's format, for its scripts: `<path>_keras2.h5`.

    Returns:
        List of the paths written; empty if the network has layers that the original lacks.
    """
    if not keras2.is_originals(swapper):
        return []
    path = Path(f"{path}_keras2.h5")
    keras2.save_keras2_h5(swapper, path)
    return [path]


def read_network(name, path, architecture):
    """Reads the network `name` of a checkpoint, ours or the original's: weights in `path`, JSON in `architecture`."""
    load = published.load_discriminator if name == "discriminator" else published.load_generator
    return load(path, architecture)


def build_generator(config):
    """Builds the generator.

    Returns:
        A functional model. Inputs: `target` (n, S, S, 3) in [-1, 1], and `source_embedding` (n, embedding_dim) as the
        identity encoder returns it. Output: the swapped face (n, S, S, 3), float32 whatever the precision inside;
        trained to lie in [-1, 1] but linear, so clip it.
    """
    size = config.image_size
    target = keras.Input((size, size, 3), name="target")
    source_embedding = keras.Input((config.embedding_dim,), name="source_embedding")

    identity = source_embedding
    for index in range(config.mapping_depth):
        if index:
            identity = _leaky_relu(f"mapping_activation{index - 1}")(identity)
        identity = layers.Dense(config.mapping_size, name=f"mapping_dense{index}")(identity)

    if config.half_stem:
        size //= 2
        stem = layers.Conv2D(config.widths[0], 4, strides=2, padding="same", name=f"encoder_{size}x{size}_conv")
        x = stem(target)
    else:
        x = _conv(config.widths[0], 3, f"encoder_{size}x{size}_conv")(target)
    skips = [x]
    for width in config.widths[1:]:
        size //= 2
        x = _encoder_block(x, width, f"encoder_{size}x{size}", _pooling)
        skips.append(x)
    x = _encoder_block(x, config.widths[-1], f"bottleneck_{size}x{size}")

    def adain(x, name):
        return own.AdaIN(config.adain_base, name=f"{name}_adain")([x, identity])

    def decode(x, width, name, resampling=None, blocks=0):
        x = _decoder_block(x, adain, width, name, resampling)
        for index in range(blocks):
            x = _identity_block(x, adain, f"{name}_block{index}")
        return x

    blocks = [*config.identity_blocks, *[0] * len(config.widths)]
    x = decode(x, config.widths[-1], f"decoder_{size}x{size}", blocks=blocks[0])
    for index, (kind, width) in enumerate(zip(config.up_types[:-1], config.widths[-2::-1], strict=True), 1):
        size *= 2
        name = f"decoder_{size}x{size}"
        x = _fuse(kind, skips.pop(), x, name)
        x = decode(x, width, name, _upsampling, blocks[index])
    x = _fuse(config.up_types[-1], skips.pop(), x, "final")
    swapped = _decoder_block(x, adain, 12 if config.half_stem else 3, "final", dtype="float32")
    if config.half_stem:
        swapped = own.DepthToSpace(dtype="float32", name="final_pixels")(swapped)
    return keras.Model([target, source_embedding], swapped, name="generator")


def build_discriminator(config):
    """Builds the discriminator: (n, S, S, 3) in [-1, 1] -> logits (n, 1), float32."""
    size = config.image_size
    image = keras.Input((size, size, 3), name="image")
    x = _conv(config.discriminator_widths[0], 3, f"{size}x{size}_conv")(image)
    for width in config.discriminator_widths[1:]:
        size //= 2
        x = _discriminator_block(x, width, f"{size}x{size}")
    x = layers.Conv2D(config.discriminator_widths[-1], size, name="logits_conv0")(x)
    x = _leaky_relu("logits_activation")(x)
    x = layers.Conv2D(1, 1, name="logits_conv1")(x)
    logits = layers.Reshape((1,), dtype="float32", name="logits")(x)
    return keras.Model(image, logits, name="discriminator")


def _encoder_block(x, width, name, resampling=None):
    shortcut = _conv(width, 1, f"{name}_shortcut")(x)
    x = _norm(f"{name}_norm")(x)
    x = _leaky_relu(f"{name}_activation")(x)
    x = _conv(width, 3, f"{name}_conv0")(x)
    return _resampled_sum(x, shortcut, name, resampling)


def _decoder_block(x, adain, width, name, resampling=None, dtype=None):
    shortcut = _conv(width, 1, f"{name}_shortcut")(x)
    x = _norm(f"{name}_norm")(x)
    x = adain(x, name)
    x = _leaky_relu(f"{name}_activation")(x)
    x = _conv(width, 3, f"{name}_conv0")(x)
    return _resampled_sum(x, shortcut, name, resampling, dtype)


def _identity_block(x, adain, name):
    shortcut, width = x, x.shape[-1]
    for index in range(2):
        x = _norm(f"{name}_norm{index}")(x)
        x = adain(x, f"{name}_{index}")
        x = _leaky_relu(f"{name}_activation{index}")(x)
        x = _conv(width, 3, f"{name}_conv{index}")(x)
    return layers.Add(name=f"{name}_add")([x, shortcut])


def _resampled_sum(x, shortcut, name, resampling, dtype=None):
    # As in the original's graph; `folding` adds first and resamples once.
    if resampling:
        shortcut = resampling(f"{name}_shortcut_resampling")(shortcut)
        x = resampling(f"{name}_resampling")(x)
    return layers.Add(dtype=dtype, name=f"{name}_add")([x, shortcut])


def _discriminator_block(x, width, name):
    shortcut = _conv(width, 1, f"{name}_shortcut")(x)
    shortcut = _pooling(f"{name}_shortcut_resampling")(shortcut)
    x = _norm(f"{name}_norm0")(x)
    x = _leaky_relu(f"{name}_activation0")(x)
    x = _conv(width, 3, f"{name}_conv0")(x)
    x = _pooling(f"{name}_resampling")(x)
    x = _norm(f"{name}_norm1")(x)
    x = _leaky_relu(f"{name}_activation1")(x)
    x = _conv(width, 3, f"{name}_conv1")(x)
    return layers.Add(name=f"{name}_add")([x, shortcut])


def _fuse(kind, skip, x, name):
    """Fuses the encoder's features with the decoder's, both (n, H, W, C)."""
    if kind == "no_skip":
        return x
    if kind == "add":
        return layers.Add(name=f"{name}_fusion")([skip, x])
    if kind == "concat":
        return layers.Concatenate(name=f"{name}_fusion")([skip, x])
    if kind == "d_affa":
        x = _affa(skip, x, f"{name}_affa0")
        return _affa(skip, x, f"{name}_affa1")
    return _affa(skip, x, f"{name}_affa", one_channel_mask=kind == "do_affa")


def _affa(skip, x, name, one_channel_mask=False):
    """Adaptive feature fusion attention (AFFA): a mask computed from both features weighs one against the other.

    With `one_channel_mask` (`do_affa`), the mask of each channel is multiplied by one that all channels share.
    """
    channels = x.shape[-1]
    both = layers.Concatenate(name=f"{name}_concat")([skip, x])
    if one_channel_mask:
        shared = _mask(both, channels, 1, f"{name}_shared")
        mask = layers.Multiply(name=f"{name}_product")([_mask(both, channels, channels, name), shared])
    else:
        mask = _mask(both, channels // 4, channels, name)
    return own.AttentionFusion(name=f"{name}_fusion")([mask, skip, x])


def _mask(x, hidden, channels, name):
    x = _conv(hidden, 3, f"{name}_conv")(x)
    x = _leaky_relu(f"{name}_activation")(x)
    x = _norm(f"{name}_norm")(x)
    return _conv(channels, 1, f"{name}_mask", activation="sigmoid")(x)


def _conv(width, size, name, activation=None):
    return layers.Conv2D(width, size, padding="same", activation=activation, name=name)


def _norm(name):
    return layers.GroupNormalization(groups=-1, epsilon=1e-3, name=name)


def _leaky_relu(name):
    return layers.LeakyReLU(negative_slope=0.2, name=name)


def _upsampling(name):
    return layers.UpSampling2D(interpolation="bilinear", name=name)


def _pooling(name):
    return layers.AveragePooling2D(2, name=name)
