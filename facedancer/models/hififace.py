"""HifiFace's generator: an encoder, a decoder that the identity drives, and semantic facial fusion.

Wang et al., HifiFace: 3D Shape and Semantic Prior Guided High Fidelity Face Swapping, IJCAI 2021. The graph is that of
the unofficial PyTorch implementation's published weights, tensor for tensor. The identity is one vector: coefficients
of a parametric face, of which the shape is the source's and all else the target's, and the source's embedding.

Where features are fused a mask says which are the decoder's and which the encoder's, and the same is done with
pictures, at a quarter of the size and at the full one. Masks are a tanh's, as in those weights; the paper's are a
sigmoid's.

Changed on purpose: faces are in [-1, 1] outside, where the network computes in [0, 1]; size and widths are arguments.
"""

from dataclasses import dataclass

import keras
from keras import layers, ops

from facedancer.core.console import UserError
from facedancer.core.torch_file import read_torch_state_dict
from facedancer.core.torch_weights import give_torch_weights
from facedancer.models.discriminators import build_patch_scales
from facedancer.models.layers import AdaIN, AttentionFusion

COEFFICIENTS = 257
SHAPE = 80  # the first of them, of the shape that is the person's
INTERPOLATIONS = ("all", "identity", "3d")
_GENERATOR = "generator."
# Of the checkpoint, beside the generator: frozen networks that it looked through.
_ENCODERS = ("id_extractor.",)


@dataclass(frozen=True)
class Config:
    """Shapes of the networks; the defaults are those of the published weights.

    Attributes:
        image_size: side of the aligned face in pixels, a multiple of 32.
        identity_dim: length of the identity vector, coefficients and embedding.
        widths: channels of the encoder at each resolution, from the full one down by halves; those at a quarter are
            fused. The decoder mirrors it up to there.
        up_widths: channels of the blocks that enlarge the fused features: two that double them, one that does not.
        discriminator_width: channels of the discriminators' first layer, of which the others have multiples.
    """

    image_size: int = 256
    identity_dim: int = COEFFICIENTS + 512
    widths: tuple[int, ...] = (64, 128, 256, 512, 512, 512)
    up_widths: tuple[int, int, int] = (64, 16, 8)
    discriminator_width: int = 64

    def __post_init__(self):
        if len(self.widths) < 4:
            raise UserError(f"widths {self.widths}: fusion at a quarter of the size needs four or more")
        if self.image_size < 1 or self.image_size % 2 ** (len(self.widths) - 1):
            raise UserError(f"image_size {self.image_size} cannot be halved {len(self.widths) - 1} times")


def build_networks(config):
    """Returns what is trained: `{"generator", "discriminator"}`."""
    return {
        "generator": build_generator(config),
        "discriminator": build_patch_scales(config.image_size, config.discriminator_width),
    }


def build_generator(config, height=None):
    """Builds the generator.

    Args:
        config: `Config`.
        height: of the picture in pixels, where it is not as high as wide.

    Returns:
        A functional model: inputs `target` (n, S, S, 3) in [-1, 1] and `identity` (n, identity_dim); a dict of outputs,
        float32: `swapped` (n, S, S, 3) and `swapped_low` (n, S/4, S/4, 3) in [-1, 1], linear, so clip them; `mask`
        (n, S, S, 1) and `mask_low` (n, S/4, S/4, 1) in [-1, 1], 1 where the picture is the swap's.
    """
    height, width = height or config.image_size, config.image_size
    target = keras.Input((height, width, 3), name="target")
    identity = keras.Input((config.identity_dim,), name="identity")
    picture = layers.Rescaling(0.5, 0.5, name="input_range")(target)

    x = layers.Conv2D(config.widths[0], 3, padding="same", name="encoder_conv")(picture)
    for index, channels in enumerate(config.widths[1:]):
        x = _residual(x, channels, "down", f"encoder{index}")
        if index == 1:
            encoded = x
    for index in range(len(config.widths) - 1, len(config.widths) + 1):
        x = _residual(x, config.widths[-1], None, f"encoder{index}")

    x = _adaptive_residual(x, identity, config.widths[-1], False, "decoder0")
    for index, channels in enumerate((config.widths[-1], *config.widths[-2:1:-1]), 1):
        x = _adaptive_residual(x, identity, channels, index > 1, f"decoder{index}")
    decoded = x

    mask_low = _tanh("mask_low")(_residual(decoded, 1, None, "fusion_mask"))
    skip = _residual(encoded, config.widths[2], None, "fusion_skip")
    x = AttentionFusion(name="fusion")([mask_low, skip, decoded])
    x = _adaptive_residual(x, identity, config.widths[2] + 3, False, "fusion_block")
    picture_low = layers.AveragePooling2D(1, strides=4, name="quarter")(picture)  # the first pixel of four by four
    swapped_low = _blend(mask_low, picture_low, _channels(x, 0, 3, "fusion_picture"), "swapped_low")

    x = _channels(x, 3, None, "fusion_features")
    for index, channels in enumerate((*config.up_widths, 4)):
        x = _residual(x, channels, "up" if index < 2 else None, f"up{index}")
    mask = _tanh("mask")(_channels(x, 0, 1, "mask_channel"))
    swapped = _blend(mask, picture, _channels(x, 1, None, "picture_channels"), "swapped")
    outputs = {"swapped": swapped, "swapped_low": swapped_low, "mask": mask, "mask_low": mask_low}
    return keras.Model([target, identity], outputs, name="generator")


def _norm(name):
    return layers.GroupNormalization(groups=-1, epsilon=1e-5, center=False, scale=False, name=name)


def _leaky_relu(name):
    return layers.LeakyReLU(negative_slope=0.2, name=name)


def _tanh(name):
    return layers.Activation("tanh", dtype="float32", name=name)


def _channels(x, start, stop, name):
    return ChannelSlice(start, stop, name=name)(x)


def _blend(mask, picture, swap, name):
    """The swap where the mask is 1, in [-1, 1]."""
    blended = AttentionFusion(dtype="float32", name=f"{name}_blend")([mask, picture, swap])
    return layers.Rescaling(2.0, -1.0, dtype="float32", name=name)(blended)


def _resized(x, how, name):
    if how == "down":
        return layers.AveragePooling2D(2, name=name)(x)
    return layers.UpSampling2D(interpolation="bilinear", name=name)(x) if how == "up" else x


def _residual(x, channels, how, name):
    """Two convolutions, the features normalised before each, beside a convolution of 1×1; halved or doubled."""
    shortcut = _resized(layers.Conv2D(channels, 1, name=f"{name}_shortcut")(x), how, f"{name}_shortcut_resize")
    x = _leaky_relu(f"{name}_activation0")(_norm(f"{name}_norm0")(x))
    x = layers.Conv2D(channels, 3, padding="same", name=f"{name}_conv0")(x)
    x = _resized(x, how, f"{name}_resize")
    x = _leaky_relu(f"{name}_activation1")(_norm(f"{name}_norm1")(x))
    x = layers.Conv2D(channels, 3, padding="same", name=f"{name}_conv1")(x)
    return layers.Add(name=f"{name}_add")([x, shortcut])


def _adaptive_residual(x, identity, channels, is_doubled, name):
    """As `_residual`, what was normalised scaled and shifted by the identity."""
    how = "up" if is_doubled else None
    shortcut = _resized(layers.Conv2D(channels, 1, name=f"{name}_shortcut")(x), how, f"{name}_shortcut_resize")
    for index in range(2):
        x = AdaIN(name=f"{name}_adain{index}")([_norm(f"{name}_norm{index}")(x), identity])
        x = _leaky_relu(f"{name}_activation{index}")(x)
        x = layers.Conv2D(channels, 3, padding="same", name=f"{name}_conv{index}")(x)
        if index == 0:
            x = _resized(x, how, f"{name}_resize")
    return layers.Add(name=f"{name}_add")([x, shortcut])


@keras.saving.register_keras_serializable(package="facedancer")
class ChannelSlice(layers.Layer):
    """The channels from `start` to before `stop`, or to the last: (n, H, W, C) -> (n, H, W, stop - start)."""

    def __init__(self, start, stop=None, **kwargs):
        super().__init__(**kwargs)
        self.start, self.stop = start, stop

    def call(self, x):
        return x[..., self.start : self.stop]

    def compute_output_shape(self, input_shape):
        return *input_shape[:-1], len(range(input_shape[-1])[self.start : self.stop])

    def get_config(self):
        return {**super().get_config(), "start": self.start, "stop": self.stop}


def fuse_coefficients(source, target):
    """The source's shape, and the target's expression, texture, pose and light: (n, 257), (n, 257) -> (n, 257)."""
    return ops.concatenate([source[:, :SHAPE], target[:, SHAPE:]], axis=1)


def identity_vector(source, target, embedding):
    """Returns the generator's `identity` (n, 257 + d).

    Args:
        source, target: coefficients (n, 257) of either's face.
        embedding: of the source, (n, d), of any length but 0.
    """
    return ops.concatenate([fuse_coefficients(source, target), ops.normalize(embedding, axis=1)], axis=1)


def mixed_identity_vector(kind, share, sources, target, embeddings):
    """Returns the `identity` of a face between two persons' (n, 257 + d).

    Args:
        kind: one of `INTERPOLATIONS`, what is between theirs: shape and embedding, the embedding alone, or the shape
            alone. The other is the first one's.
        share: how much the first one has, 0 to 1.
        sources: coefficients (n, 257) of the first and of the second.
        target: coefficients (n, 257).
        embeddings: of the first and of the second, (n, d), at length 1.
    """
    if kind not in INTERPOLATIONS:
        raise ValueError(f"no interpolation is named {kind}; known are {', '.join(INTERPOLATIONS)}")
    shapes = embedding_shares = (share, 1.0 - share)
    if kind == "identity":
        shapes = (1.0, 0.0)
    if kind == "3d":
        embedding_shares = (1.0, 0.0)
    coefficients, embedding = (
        shares[0] * first + shares[1] * second
        for shares, (first, second) in ((shapes, sources), (embedding_shares, embeddings))
    )
    return identity_vector(coefficients, target, embedding)


def torch_places(config):
    """Returns our layer's name -> its place in the state dict of the original's generator."""
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


def load_torch_generator(path, image_size=256, height=None):
    """Loads the generator of the original's checkpoint (`hififace_opensouce_299999.ckpt`), without unpickling it.

    Args:
        path: the checkpoint, as PyTorch Lightning writes it.
        image_size, height: of the faces; the network takes any.

    Raises:
        UserError: in one line, what does not fit.
    """
    state = read_torch_state_dict(path, "state_dict")
    state = {name.removeprefix(_GENERATOR): array for name, array in state.items() if name.startswith(_GENERATOR)}
    try:
        config = _infer_config(state, image_size)
    except (KeyError, IndexError) as error:
        raise UserError(f"{path}: not a checkpoint of HifiFace's (lacks {error})") from None
    generator = build_generator(config, height)
    give_torch_weights(generator, torch_places(config), state, path, _ENCODERS)
    return generator


def load_torch_discriminator(path, image_size=256):
    """Loads the discriminator of the original's checkpoint; as `load_torch_generator`."""
    prefix = "discriminator."
    state = read_torch_state_dict(path, "state_dict")
    state = {name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)}
    if "layer0.0.weight" not in state:
        raise UserError(f"{path}: holds no discriminator of HifiFace's")
    scales = len({name.split(".")[0] for name in state})
    discriminator = build_patch_scales(image_size, state["layer0.0.weight"].shape[0], scales)
    give_torch_weights(discriminator, torch_discriminator_places(scales), state, path)
    return discriminator


def torch_discriminator_places(scales):
    """As `torch_places`, of the original's discriminator, the last of whose scales sees the full size."""
    places = {}
    for scale in range(scales):
        for index, number in enumerate((0, 2, 5, 8, 11)):
            places[f"scale{scale}_conv{index}"] = f"layer{scales - 1 - scale}.{number}"
            if index in (1, 2, 3):
                places[f"scale{scale}_norm{index}"] = f"layer{scales - 1 - scale}.{number + 1}"
    return places


def _infer_config(state, image_size):
    """Reads the shapes off the tensors."""

    def channels(place):
        return state[f"{place}.weight"].shape[0]

    depth = 0
    while f"encoder.block_list.{depth}.main_path.6.weight" in state:
        depth += 1
    downs = [channels(f"encoder.block_list.{index}.main_path.2") for index in range(depth)]
    return Config(
        image_size=image_size,
        identity_dim=state["decoder.block_list.0.adain1.std_style_fc.weight"].shape[1],
        widths=(channels("encoder.conv_first"), *downs),
        up_widths=tuple(channels(f"sff_module.f_up.net.{index}.main_path.2") for index in range(3)),
    )
