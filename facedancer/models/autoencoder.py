"""The shared-encoder autoencoder: one encoder for all people, and one decoder per person.

Follows faceswap-pytorch, after the "deepfakes" networks of 2017. Each decoder learns to reconstruct its person's face
from the code of a warped one; a face is swapped by decoding it with another person's decoder. There is no identity
embedding, and only people seen in training can be swapped in. The networks are the original's, layer by layer, so that
its files fit (`models.autoencoder_files`). Changed on purpose: images are RGB in [-1, 1]; the network rescales them to
the original's [0, 1], and reading a file reorders its BGR weights.
"""

from dataclasses import dataclass
from pathlib import Path

from facedancer.core.card import ExportCard
from facedancer.core.console import UserError
from facedancer.core.flags import flag
from facedancer.core.lazy import LazyModule
from facedancer.models.crops import InnerCrop

keras = LazyModule("keras")
layers = LazyModule("keras.layers")
own = LazyModule("facedancer.models.layers")
exports = LazyModule("facedancer.models.exports")
autoencoder_files = LazyModule("facedancer.models.autoencoder_files")

# Recognizes people for --reference and --map; the networks themselves take no identity.
ENCODER = "dlib_resnet"


def original_crop_of(size):
    """Returns the `InnerCrop` that the original's networks of `size` pixels, a multiple of 64, swap.

    The original fits 51 landmarks to a mean face. On rendered people, whose landmarks are known, its median crop is a
    square of 0.605 times the side of ArcFace's crop, centered at (0.5034, 0.6369) of it. Rounding to whole pixels moves
    it by 0.1 of 64 pixels. The square ends within the face, so its border is soft.
    """
    scale = size // 64
    shrink_factor = 64 / 0.60487 / 107
    return InnerCrop(size, 107 * scale, 22 * scale, 36 * scale, shrink_factor, fade=8 * scale)


@dataclass(frozen=True)
class Config:
    """Shapes of the networks; the defaults are the original's first. Those made by `flag` are flags of training.

    Attributes:
        image_size: side of the aligned face in pixels.
        init_dim: channels of the encoder's first convolution; each of the next three doubles them.
        code_dim: length of the code.
        code_width: channels of the features expanded from the code, at a sixteenth of the resolution.
        widths: channels of the encoder's output, at an eighth of the resolution, and of the decoder's features up to
            full resolution.
        separable: whether the encoder's second and fourth convolutions are depthwise separable.
        coverage: share of the aligned face's side that the networks see; the rest is margin for random warps.
        people: names of the people, one decoder each, in order; None until the data have been read.
        original_crop: whether the swapper takes a larger aligned face and swaps only `original_crop_of` it.
        fix_enc: whether the encoder is frozen.
    """

    image_size: int = flag(64, "side of the faces in pixels")
    init_dim: int = flag(128, "channels of the encoder's first convolution")
    code_dim: int = flag(1024, "length of the code")
    code_width: int = 1024
    widths: tuple[int, int, int, int] = (512, 256, 128, 64)
    separable: bool = False
    coverage: float = flag(0.7, "share of the aligned face that the networks see; the rest is margin for warps")
    people: tuple[str, ...] | None = flag(
        None, "people to train, by folder name (default: everybody in the data)", metavar="NAME"
    )
    original_crop: bool = False
    fix_enc: bool = flag(False, "freeze the encoder and train only decoders; use with --finetune")

    def __post_init__(self):
        if self.image_size % 16:
            raise UserError(f"image_size {self.image_size} cannot be halved 4 times")
        if min(self.init_dim, self.code_dim) < 1:
            raise UserError("--init_dim and --code_dim must be at least 1")
        if not 0.0 < self.coverage <= 1.0:
            raise UserError(f"--coverage must be above 0 and at most 1, not {self.coverage}")
        if self.people is not None and (not self.people or len(set(self.people)) < len(self.people)):
            raise UserError("--people must name people, and nobody twice")


PRESETS = {
    "autoencoder": Config(),
    "ae64": Config(init_dim=256),
    "ae128": Config(image_size=128, code_dim=2048, widths=(512, 384, 224, 128), separable=True),
    "lite": Config(init_dim=32, code_dim=256, code_width=256, widths=(192, 128, 64, 32)),
}


def build_networks(config):
    """Returns the networks to train: `{"encoder", "decoder0", "decoder1", …}`, one decoder per `config.people`."""
    encoder = build_encoder(config)
    encoder.trainable = not config.fix_enc
    return {"encoder": encoder, **{f"decoder{i}": build_decoder(config, i) for i in range(len(config.people))}}


def build_swapper(networks, original_crop=False):
    """Returns the model to export: input `target` (n, S, S, 3) in [-1, 1], output one face (n, S, S, 3) per decoder.

    Its layers are those of the networks, so that it can be cut down to one decoder.

    Args:
        networks: from `build_networks`.
        original_crop: swap only `original_crop_of` a larger face and return the rest unchanged. The networks' size must
            be a multiple of 64.
    """
    size = networks["encoder"].input_shape[1]
    crop = original_crop_of(size) if original_crop else None
    side = crop.image_size if crop else size
    face = target = keras.Input((side, side, 3), name="target")
    if crop:
        face = crop.cut(target)
    encoded = _through(networks["encoder"], face)
    swapped = [_through(networks[f"decoder{index}"], encoded) for index in range(len(networks) - 1)]
    if crop:
        swapped = [crop.paste(target, one, f"decoder{index}_pasted") for index, one in enumerate(swapped)]
    return keras.Model([target], swapped, name="autoencoder")


def publishes(path):
    """Whether a file without a card is named as the original's are: `encoder.pth`, `decoder<id>.pth`."""
    path = Path(path)
    return path.suffix == ".pth" and path.name.startswith(("encoder", "decoder"))


def published_decoders(path):
    """Returns the names of the decoders in the original's files, see `read_published`."""
    return autoencoder_files.decoders_at(path)


def read_published(path):
    """Reads a swapper.

    Args:
        path: an export of ours with its card next to it; the original's `encoder.pth`, for all `decoder<id>.pth` next
            to it; or one `decoder<id>.pth` with the encoder next to it.

    Returns:
        The network of `build_swapper`.

    Raises:
        UserError: if a file is missing, damaged or does not fit.
    """
    if publishes(path):
        networks = autoencoder_files.read_networks(path)
        config = networks["encoder"].shapes
        swapper = build_swapper(networks, config.original_crop)
        swapper.shapes = config
        return swapper
    return exports.load_export(path, Config, lambda config: build_swapper(build_networks(config), config.original_crop))


def published_card(image_size, decoders):
    """Returns a card for a published swapper, which has none: its crop and the names of its decoders."""
    scale, rest = divmod(image_size, 107)
    crop = None if rest else original_crop_of(64 * scale)
    return ExportCard(
        "autoencoder",
        image_size,
        None,
        shrink_factor=crop.shrink_factor if crop else 1.0,
        identity_encoder=ENCODER,
        needs="decoder",
        decoders=decoders,
    )


def save_published(swapper, path):
    """Writes nothing, as the original reads only pickles. Returns the paths written, an empty list."""
    return []


def build_encoder(config):
    """Builds the encoder: faces (n, S, S, 3) in [-1, 1] -> (n, S/8, S/8, widths[0])."""
    size = config.image_size
    face = keras.Input((size, size, 3), name="face")
    x = layers.Rescaling(0.5, 0.5, name="encoder_unit")(face)
    for index in range(4):
        # PyTorch pads symmetrically; Keras' "same" would start one pixel later.
        x = layers.ZeroPadding2D(2, name=f"encoder_padding{index}")(x)
        kind = layers.SeparableConv2D if config.separable and index % 2 else layers.Conv2D
        x = kind(config.init_dim * 2**index, 5, strides=2, name=f"encoder_conv{index}")(x)
        x = _leaky_relu(f"encoder_activation{index}")(x)
    size //= 16
    x = layers.Flatten(name="encoder_flat")(x)
    x = layers.Dense(config.code_dim, name="encoder_code")(x)
    x = layers.Dense(size * size * config.code_width, name="encoder_expand")(x)
    x = layers.Reshape((size, size, config.code_width), name="encoder_features")(x)
    return keras.Model(face, _upscale(x, config.widths[0], "encoder_upscale"), name="encoder")


def build_decoder(config, number):
    """Builds decoder `number`: (n, S/8, S/8, widths[0]) -> faces (n, S, S, 3) in [-1, 1], float32."""
    size, name = config.image_size // 8, f"decoder{number}"
    encoded = keras.Input((size, size, config.widths[0]), name="encoded")
    x = encoded
    for index, width in enumerate(config.widths[1:]):
        x = _upscale(x, width, f"{name}_upscale{index}")
    x = layers.Conv2D(3, 5, padding="same", name=f"{name}_conv")(x)
    x = layers.Activation("sigmoid", dtype="float32", name=f"{name}_sigmoid")(x)
    return keras.Model(encoded, layers.Rescaling(2.0, -1.0, dtype="float32", name=f"{name}_face")(x), name=name)


def _upscale(x, width, name):
    x = layers.Conv2D(4 * width, 3, padding="same", name=name)(x)
    x = _leaky_relu(f"{name}_activation")(x)
    return own.DepthToSpace(name=f"{name}_pixels")(x)


def _leaky_relu(name):
    return layers.LeakyReLU(negative_slope=0.1, name=name)


def _through(network, x):
    """Calls a sequential network's layers one by one, so that they become layers of the caller's model."""
    for layer in network.layers[1:]:
        x = layer(x)
    return x
