"""HifiFace's generator: an encoder, a decoder driven by the identity, and semantic facial fusion.

Wang et al., HifiFace: 3D Shape and Semantic Prior Guided High Fidelity Face Swapping, IJCAI 2021. The graph is that of
the unofficial PyTorch implementation's published weights, tensor for tensor. The identity is one vector: the source's
embedding, and coefficients of a parametric face, with the source's shape and all else from the target.

A mask weighs the decoder's features against the encoder's; images are fused in the same way, at a quarter of the size
and at full size. The masks end in a tanh, as in those weights; the paper's end in a sigmoid.

Changed on purpose: faces are in [-1, 1] at the interface, and the network computes in [0, 1]; size and widths are
arguments; the coefficients may come from any encoder (`arcface_model.face_shapes`). Coefficients and embedding are
inputs as the encoders return them; the network makes the identity vector from them.
"""

from dataclasses import dataclass
from pathlib import Path

from facedancer.core.card import ExportCard
from facedancer.core.console import UserError
from facedancer.core.flags import flag
from facedancer.core.lazy import LazyModule
from facedancer.core.torch_file import read_torch_state_dict
from facedancer.core.weights_to_come import weights_to_come

keras = LazyModule("keras")
layers = LazyModule("keras.layers")
own = LazyModule("facedancer.models.layers")
exports = LazyModule("facedancer.models.exports")
discriminators = LazyModule("facedancer.models.discriminators")
torch_weights = LazyModule("facedancer.core.torch_weights")

# The published weights; the checkpoint also holds both encoders, and implies how faces are aligned.
PUBLISHED = "hififace_299999"
COEFFICIENTS, SHAPE = 257, 80
_GENERATOR = "generator."
# The frozen encoder in the checkpoint, which is not part of the generator.
_ENCODERS = ("id_extractor.",)
_NAME = "hififace"


@dataclass(frozen=True)
class Config:
    """Shapes of the networks; the defaults are the published weights'. Those made by `flag` are flags of training.

    Attributes:
        image_size: side of the aligned face in pixels.
        face_shapes: encoder of the coefficients, see `arcface_model.face_shapes.load_face_shapes`.
        embedding_dim: length of the identity embedding.
        coefficients_dim: number of coefficients.
        shape_dim: number of coefficients, at the start, that describe the person's shape.
        widths: channels of the encoder at each resolution, from full resolution down by halves. Features at a quarter
            are fused; the decoder mirrors the encoder up to there.
        up_widths: channels of the blocks that upsample the fused features: two that double the size, one that does not.
        adain_base: constant added to AdaIN's scale, see `layers.AdaIN`.
        discriminator_width: channels of the discriminators' first layer, of which the others have multiples.
        discriminator_scales: number of discriminators.
    """

    image_size: int = flag(256, "side of the faces in pixels")
    face_shapes: str = flag(
        "deep3d", "encoder of 3D face coefficients: head (no file needed), deep3d, or a file", metavar="NAME"
    )
    embedding_dim: int = 512
    coefficients_dim: int = COEFFICIENTS
    shape_dim: int = SHAPE
    widths: tuple[int, ...] = (64, 128, 256, 512, 512, 512)
    up_widths: tuple[int, int, int] = (64, 16, 8)
    adain_base: float = 0.0
    discriminator_width: int = 64
    discriminator_scales: int = 3

    def __post_init__(self):
        if len(self.widths) < 4:
            raise UserError(f"widths {self.widths}: fusion at a quarter of the size needs four or more")
        if self.image_size < 1 or self.image_size % 2 ** (len(self.widths) - 1):
            raise UserError(f"image_size {self.image_size} cannot be halved {len(self.widths) - 1} times")

    @property
    def identity_dim(self):
        """Length of the identity vector: coefficients and embedding."""
        return self.coefficients_dim + self.embedding_dim


PRESETS = {
    "hififace": Config(),
    "lite": Config(
        image_size=128,
        face_shapes="head",
        embedding_dim=128,
        widths=(16, 32, 64, 128, 128),
        up_widths=(32, 16, 8),
        adain_base=1.0,
        discriminator_width=16,
    ),
}


def build_networks(config):
    """Returns the networks to train: `{"generator", "discriminator"}`."""
    return {
        "generator": build_generator(config),
        "discriminator": discriminators.build_patch_scales(
            config.image_size, config.discriminator_width, config.discriminator_scales
        ),
    }


def build_swapper(networks):
    """Returns the model to export: the generator with the swapped face (n, S, S, 3) as its only output."""
    generator = networks["generator"]
    return keras.Model(generator.inputs, generator.output["swapped"], name=generator.name)


def build_generator(config, height=None):
    """Builds the generator.

    Args:
        config: `Config`.
        height: height of the images in pixels, if they are not square.

    Returns:
        A functional model. Inputs: `target` (n, S, S, 3) in [-1, 1], `source_embedding` (n, embedding_dim),
        `source_coefficients` and `target_coefficients` (n, coefficients_dim). Outputs, a dict of float32: `swapped`
        (n, S, S, 3) and `swapped_low` (n, S/4, S/4, 3) in [-1, 1], linear, so clip them; `mask` (n, S, S, 1) and
        `mask_low` (n, S/4, S/4, 1) in [-1, 1], 1 where the swap replaces the target.
    """
    target = keras.Input((height or config.image_size, config.image_size, 3), name="target")
    source_embedding = keras.Input((config.embedding_dim,), name="source_embedding")
    coefficients = [
        keras.Input((config.coefficients_dim,), name=f"{whose}_coefficients") for whose in ("source", "target")
    ]
    fused = own.FusedCoefficients(config.shape_dim, name="fused_coefficients")(coefficients)
    unit_embedding = layers.UnitNormalization(name="unit_embedding")(source_embedding)
    identity = layers.Concatenate(name="identity")([fused, unit_embedding])
    return keras.Model(
        [target, source_embedding, *coefficients], swap_outputs(config, target, identity), name="generator"
    )


def swap_outputs(config, target, identity):
    """Returns the outputs of `build_generator` for tensors `target` and `identity` (n, identity_dim), by name."""
    picture = layers.Rescaling(0.5, 0.5, name="input_range")(target)

    x = layers.Conv2D(config.widths[0], 3, padding="same", name="encoder_conv")(picture)
    for index, channels in enumerate(config.widths[1:]):
        x = _residual(x, channels, "down", f"encoder{index}")
        if index == 1:
            encoded = x
    for index in range(len(config.widths) - 1, len(config.widths) + 1):
        x = _residual(x, config.widths[-1], None, f"encoder{index}")

    x = _adaptive_residual(x, identity, config.widths[-1], False, config.adain_base, "decoder0")
    for index, channels in enumerate((config.widths[-1], *config.widths[-2:1:-1]), 1):
        x = _adaptive_residual(x, identity, channels, index > 1, config.adain_base, f"decoder{index}")
    decoded = x

    mask_low = _tanh("mask_low")(_residual(decoded, 1, None, "fusion_mask"))
    skip = _residual(encoded, config.widths[2], None, "fusion_skip")
    x = own.AttentionFusion(name="fusion")([mask_low, skip, decoded])
    x = _adaptive_residual(x, identity, config.widths[2] + 3, False, config.adain_base, "fusion_block")
    picture_low = layers.AveragePooling2D(1, strides=4, name="quarter")(picture)  # the first pixel of four by four
    swapped_low = _blend(mask_low, picture_low, _channels(x, 0, 3, "fusion_picture"), "swapped_low")

    x = _channels(x, 3, None, "fusion_features")
    for index, channels in enumerate((*config.up_widths, 4)):
        x = _residual(x, channels, "up" if index < 2 else None, f"up{index}")
    mask = _tanh("mask")(_channels(x, 0, 1, "mask_channel"))
    swapped = _blend(mask, picture, _channels(x, 1, None, "picture_channels"), "swapped")
    return {"swapped": swapped, "swapped_low": swapped_low, "mask": mask, "mask_low": mask_low}


def _norm(name):
    return layers.GroupNormalization(groups=-1, epsilon=1e-5, center=False, scale=False, name=name)


def _leaky_relu(name):
    return layers.LeakyReLU(negative_slope=0.2, name=name)


def _tanh(name):
    return layers.Activation("tanh", dtype="float32", name=name)


def _channels(x, start, stop, name):
    return own.ChannelSlice(start, stop, name=name)(x)


def _blend(mask, picture, swap, name):
    """Blends the swap over the picture by the mask, and rescales to [-1, 1]."""
    blended = own.AttentionFusion(dtype="float32", name=f"{name}_blend")([mask, picture, swap])
    return layers.Rescaling(2.0, -1.0, dtype="float32", name=name)(blended)


def _resized(x, how, name):
    if how == "down":
        return layers.AveragePooling2D(2, name=name)(x)
    return layers.UpSampling2D(interpolation="bilinear", name=name)(x) if how == "up" else x


def _residual(x, channels, how, name):
    """A residual block: two normalized convolutions and a 1×1 shortcut; `how` is "down", "up" or None."""
    shortcut = _resized(layers.Conv2D(channels, 1, name=f"{name}_shortcut")(x), how, f"{name}_shortcut_resize")
    x = _leaky_relu(f"{name}_activation0")(_norm(f"{name}_norm0")(x))
    x = layers.Conv2D(channels, 3, padding="same", name=f"{name}_conv0")(x)
    x = _resized(x, how, f"{name}_resize")
    x = _leaky_relu(f"{name}_activation1")(_norm(f"{name}_norm1")(x))
    x = layers.Conv2D(channels, 3, padding="same", name=f"{name}_conv1")(x)
    return layers.Add(name=f"{name}_add")([x, shortcut])


def _adaptive_residual(x, identity, channels, is_doubled, base, name):
    """Like `_residual`, with AdaIN by the identity after each normalization."""
    how = "up" if is_doubled else None
    shortcut = _resized(layers.Conv2D(channels, 1, name=f"{name}_shortcut")(x), how, f"{name}_shortcut_resize")
    for index in range(2):
        x = own.AdaIN(base, name=f"{name}_adain{index}")([_norm(f"{name}_norm{index}")(x), identity])
        x = _leaky_relu(f"{name}_activation{index}")(x)
        x = layers.Conv2D(channels, 3, padding="same", name=f"{name}_conv{index}")(x)
        if index == 0:
            x = _resized(x, how, f"{name}_resize")
    return layers.Add(name=f"{name}_add")([x, shortcut])


def publishes(path):
    """Whether a file is named as the reimplementation's checkpoints are: `hififace_opensouce_299999.ckpt`."""
    path = Path(path)
    return path.suffix == ".ckpt" and path.name.startswith(_NAME)


def read_published(path):
    """Reads a swapper: an export of ours with its card next to it, or the original's `.ckpt`, without unpickling it.

    Returns:
        The network of `build_swapper`.

    Raises:
        UserError: if the file is missing, damaged or does not fit.
    """
    if publishes(path):
        generator = load_torch_generator(path)
        swapper = build_swapper({"generator": generator})
        swapper.shapes = generator.shapes
        return swapper
    return exports.load_export(path, Config, lambda config: build_swapper({"generator": build_generator(config)}))


def published_card(image_size, embedding_dim):
    """Returns a card for the published checkpoint, which has none: it was trained with the encoders that it holds."""
    return ExportCard(
        _NAME, image_size, embedding_dim, needs="coefficients", identity_encoder=PUBLISHED, face_shapes=PUBLISHED
    )


def save_published(swapper, path):
    """Writes nothing, as the original's files are pickles. Returns the paths written, an empty list."""
    return []


def torch_places(config):
    """Returns `{our layer's name: its prefix in the state dict of the original's generator}`."""
    places = {"encoder_conv": "encoder.conv_first"}

    def add(name, place, is_adaptive=False, is_resized=False):
        places[f"{name}_shortcut"] = f"{place}.side_path.0"
        if is_adaptive:
            for index in range(2):
                places[f"{name}_conv{index}"] = f"{place}.main_path{index + 1}.1"
                adain = f"{place}.adain{index + 1}"
                places[f"{name}_adain{index}"] = (f"{adain}.std_style_fc", f"{adain}.mean_style_fc")
        else:
            places[f"{name}_conv0"] = f"{place}.main_path.2"
            places[f"{name}_conv1"] = f"{place}.main_path.{6 if is_resized else 5}"

    depth = len(config.widths) - 1
    for index in range(depth + 2):
        add(f"encoder{index}", f"encoder.block_list.{index}", is_resized=index < depth)
    for index in range(depth):
        add(f"decoder{index}", f"decoder.block_list.{index}", is_adaptive=True)
    add("fusion_mask", "sff_module.low_mask_predict")
    add("fusion_skip", "sff_module.sigma")
    add("fusion_block", "sff_module.z_fuse_block", is_adaptive=True)
    for index in range(4):
        add(f"up{index}", f"sff_module.f_up.net.{index}", is_resized=index < 2)
    return places


@weights_to_come()
def load_torch_generator(path, image_size=256, height=None):
    """Loads the generator of the original's checkpoint (`hififace_opensouce_299999.ckpt`), without unpickling it.

    Args:
        path: the checkpoint, as PyTorch Lightning writes it.
        image_size, height: size of the faces in pixels; the network takes any.

    Returns:
        The network of `build_generator`, with its `Config` as attribute `shapes`.

    Raises:
        UserError: if the file is damaged or does not fit.
    """
    state = read_torch_state_dict(path, "state_dict")
    state = {name.removeprefix(_GENERATOR): array for name, array in state.items() if name.startswith(_GENERATOR)}
    try:
        config = _infer_config(state, image_size)
    except (KeyError, IndexError) as error:
        raise UserError(f"{path}: not a checkpoint of HifiFace's (lacks {error})") from None
    generator = build_generator(config, height)
    generator.shapes = config
    torch_weights.give_torch_weights(generator, torch_places(config), state, path, _ENCODERS)
    return generator


@weights_to_come()
def load_torch_discriminator(path, image_size=256):
    """Loads the discriminator of the original's checkpoint; see `load_torch_generator`."""
    prefix = "discriminator."
    state = read_torch_state_dict(path, "state_dict")
    state = {name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)}
    if "layer0.0.weight" not in state:
        raise UserError(f"{path}: holds no discriminator of HifiFace's")
    scales = len({name.split(".")[0] for name in state})
    discriminator = discriminators.build_patch_scales(image_size, state["layer0.0.weight"].shape[0], scales)
    torch_weights.give_torch_weights(discriminator, torch_discriminator_places(scales), state, path)
    return discriminator


def torch_discriminator_places(scales):
    """Like `torch_places`, for the original's discriminator, whose last scale sees the full size."""
    places = {}
    for scale in range(scales):
        for index, number in enumerate((0, 2, 5, 8, 11)):
            places[f"scale{scale}_conv{index}"] = f"layer{scales - 1 - scale}.{number}"
            if index in (1, 2, 3):
                places[f"scale{scale}_norm{index}"] = f"layer{scales - 1 - scale}.{number + 1}"
    return places


def _infer_config(state, image_size):
    """Infers the shapes of the networks from the tensors."""

    def channels(place):
        return state[f"{place}.weight"].shape[0]

    depth = 0
    while f"encoder.block_list.{depth}.main_path.6.weight" in state:
        depth += 1
    downs = [channels(f"encoder.block_list.{index}.main_path.2") for index in range(depth)]
    return Config(
        image_size=image_size,
        embedding_dim=state["decoder.block_list.0.adain1.std_style_fc.weight"].shape[1] - COEFFICIENTS,
        widths=(channels("encoder.conv_first"), *downs),
        up_widths=tuple(channels(f"sff_module.f_up.net.{index}.main_path.2") for index in range(3)),
    )
