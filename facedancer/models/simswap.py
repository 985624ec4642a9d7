"""SimSwap's networks: an encoder, blocks that inject the identity, a decoder; and its discriminators.

Chen et al., SimSwap: An Efficient Framework For High Fidelity Face Swapping, ACM Multimedia 2020. The graph is that of
the published weights, tensor for tensor. There are three kinds with the same tensor names: for 224 pixels; for 512,
with one more outer stage; and the training code's, with ImageNet-normalized images and without a final tanh. The file's
name tells them apart (`read_published`).

Changed on purpose: faces are in [-1, 1] at the interface, whatever range the network computes in; the network scales
the embedding to unit length; size, widths and depth are arguments; batch statistics use the biased variance, where
PyTorch's is larger by n / (n - 1).
"""

import itertools
import re
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

PICTURES = ("imagenet", "unit")
DISCRIMINATORS = ("projected", "patch")
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's
_PUBLISHED_NAME = re.compile(r"(latest|\d+)_net_G.*\.pth")


@dataclass(frozen=True)
class Config:
    """Shapes of the networks; the defaults are the training code's. Those made by `flag` are flags of training.

    Attributes:
        image_size: side of the aligned face in pixels.
        embedding_dim: length of the identity embedding.
        widths: channels of the encoder per resolution, from full resolution down by halves. The decoder mirrors them.
        identity_blocks: number of residual blocks that inject the identity, at the lowest resolution.
        pictures: range of images inside the network, one of `PICTURES`: "imagenet", normalized by ImageNet's mean and
            deviation, unbounded; or "unit", [0, 1], bounded by a tanh.
        discriminator: one of `DISCRIMINATORS`.
        discriminator_width: channels of its first layer, of which the others have multiples.
    """

    image_size: int = flag(224, "side of the faces in pixels")
    embedding_dim: int = 512
    widths: tuple[int, ...] = (64, 128, 256, 512)
    identity_blocks: int = flag(9, "residual blocks that inject the identity")
    pictures: str = flag(
        "imagenet",
        "range of the network's images: normalized as for ImageNet, or [0, 1] and bounded, as published",
        choices=PICTURES,
    )
    discriminator: str = flag(
        "projected",
        "discriminator: on features of a frozen network, or the older pair of patch discriminators",
        choices=DISCRIMINATORS,
    )
    discriminator_width: int = 64

    def __post_init__(self):
        if self.image_size % 2 ** (len(self.widths) - 1) or self.image_size < 2 ** len(self.widths):
            raise UserError(f"image_size {self.image_size} cannot be halved {len(self.widths) - 1} times")
        if self.identity_blocks < 1:
            raise UserError(f"identity_blocks must be at least 1, not {self.identity_blocks}")
        for name, known in (("pictures", PICTURES), ("discriminator", DISCRIMINATORS)):
            if getattr(self, name) not in known:
                raise UserError(f"{name}: none is named {getattr(self, name)}; known are {', '.join(known)}")


PRESETS = {
    "simswap": Config(),
    "deep": Config(widths=(64, 128, 256, 512, 512)),
    "512": Config(image_size=512, widths=(32, 64, 128, 256, 512)),
    "lite": Config(
        image_size=128,
        embedding_dim=128,
        widths=(24, 48, 96, 192),
        identity_blocks=6,
        discriminator="patch",
        discriminator_width=16,
    ),
}


def build_networks(config):
    """Returns the networks to train: `{"generator", "discriminator"}`.

    A "patch" discriminator takes faces (n, S, S, 3) in [0, 1]; a "projected" one takes four feature maps of a frozen
    network (see `discriminators`).
    """
    build = {"projected": discriminators.build_projected, "patch": discriminators.build_patch_pair}
    discriminator = build[config.discriminator](config.image_size, config.discriminator_width)
    return {"generator": build_generator(config), "discriminator": discriminator}


def build_swapper(networks):
    """Returns the model to export, the generator: inputs `target` and `source_embedding`, output the swapped face."""
    return networks["generator"]


def build_generator(config):
    """Builds the generator.

    Returns:
        A functional model. Inputs: `target` (n, S, S, 3) in [-1, 1], and `source_embedding` (n, embedding_dim) as the
        identity encoder returns it. Output: the swapped face (n, S, S, 3) in [-1, 1], float32 whatever the precision
        inside; with "imagenet" it is linear, so clip it.
    """
    size, depth = config.image_size, len(config.widths) - 1
    target = keras.Input((size, size, 3), name="target")
    source_embedding = keras.Input((config.embedding_dim,), name="source_embedding")
    identity = layers.UnitNormalization(name="unit_identity")(source_embedding)
    sizes = [size >> index for index in range(depth + 1)]

    scale, offset = _range_of(config.pictures)
    x = layers.Rescaling(scale, offset, name="input_range")(target)
    x = own.ReflectionPadding2D(3, name="input_pad")(x)
    x = _convolved(layers.Conv2D(config.widths[0], 7, name=f"encoder_{size}x{size}_conv")(x), f"encoder_{size}x{size}")
    for width, side in zip(config.widths[1:], sizes[1:], strict=True):
        name = f"encoder_{side}x{side}"
        x = layers.ZeroPadding2D(1, name=f"{name}_pad")(x)  # as PyTorch pads; "same" differs at stride 2
        x = _convolved(layers.Conv2D(width, 3, strides=2, name=f"{name}_conv")(x), name)
    for index in range(config.identity_blocks):
        x = _identity_block(x, identity, f"identity{index}")
    for width, side in zip(config.widths[-2::-1], sizes[-2::-1], strict=True):
        name = f"decoder_{side}x{side}"
        x = layers.UpSampling2D(interpolation="bilinear", name=f"{name}_up")(x)
        x = _convolved(layers.Conv2D(width, 3, padding="same", name=f"{name}_conv")(x), name)
    x = own.ReflectionPadding2D(3, name="output_pad")(x)
    x = layers.Conv2D(3, 7, name="output_conv")(x)
    if config.pictures == "unit":
        # (tanh + 1) / 2 in [0, 1] is tanh in [-1, 1].
        swapped = layers.Activation("tanh", dtype="float32", name="swapped")(x)
    else:
        back = [1 / factor for factor in scale], [-shift / factor for factor, shift in zip(scale, offset, strict=True)]
        swapped = layers.Rescaling(*back, dtype="float32", name="swapped")(x)
    return keras.Model([target, source_embedding], swapped, name="generator")


def _range_of(pictures):
    """Returns the scale and offset, per channel or for all, from [-1, 1] to the range inside the network."""
    if pictures == "unit":
        return 0.5, 0.5
    return (
        [0.5 / deviation for deviation in _DEVIATION],
        [(0.5 - mean) / deviation for mean, deviation in zip(_MEAN, _DEVIATION, strict=True)],
    )


def _convolved(x, name):
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_norm")(x)
    return layers.ReLU(name=f"{name}_activation")(x)


def _identity_block(x, identity, name):
    """A residual block: two convolutions, each followed by normalization and AdaIN by the identity."""
    shortcut, width = x, x.shape[-1]
    for index in range(2):
        x = own.ReflectionPadding2D(1, name=f"{name}_pad{index}")(x)
        x = layers.Conv2D(width, 3, name=f"{name}_conv{index}")(x)
        x = layers.GroupNormalization(groups=-1, epsilon=1e-8, center=False, scale=False, name=f"{name}_norm{index}")(x)
        x = own.AdaIN(1.0, name=f"{name}_adain{index}")([x, identity])
        if index == 0:
            x = layers.ReLU(name=f"{name}_activation")(x)
    return layers.Add(name=f"{name}_add")([x, shortcut])


def publishes(path):
    """Whether a file is named as the original's generators are: `latest_net_G.pth`, `550000_net_G.pth`."""
    return _PUBLISHED_NAME.fullmatch(Path(path).name) is not None


def read_published(path):
    """Reads a swapper: an export of ours with its card next to it, or the original's `.pth`, without unpickling it.

    The tensors do not show whether images are in the range of the published generators or of the training code, but the
    name does: `latest_net_G.pth`, and any file with the outer stage for 512 pixels, was published; a name with a number
    of steps, `10000_net_G.pth`, comes from training. Faces have 512 or 224 pixels.

    Returns:
        The network of `build_generator`.

    Raises:
        UserError: if the file is missing, damaged or does not fit.
    """
    if not publishes(path):
        return exports.load_export(path, Config, build_generator)
    return load_torch_generator(path)


@weights_to_come()
def load_torch_generator(path, image_size=None):
    """Like `read_published` for a `.pth`, but for faces of any size in pixels, as the network takes any."""
    state = read_torch_state_dict(path)
    # The generators differ in the number of their first stage and in how many follow.
    first = 0 if "down0.0.weight" in state else 1
    try:
        config = _infer_config(state, first, path, image_size)
    except (KeyError, IndexError) as error:
        raise UserError(f"{path}: not a generator of SimSwap's (lacks {error})") from None
    generator = build_generator(config)
    generator.shapes = config
    torch_weights.give_torch_weights(generator, torch_places(config, first), state, path)
    return generator


def _infer_config(state, first, path, image_size):
    """Infers the shapes of the network from the tensors."""
    kernels = [state["first_layer.1.weight"]]
    while f"down{first + len(kernels) - 1}.0.weight" in state:
        kernels.append(state[f"down{first + len(kernels) - 1}.0.weight"])
    blocks = 1
    while f"BottleNeck.{blocks}.conv1.1.weight" in state:
        blocks += 1
    was_published = first == 0 or Path(path).name.startswith("latest")
    return Config(
        image_size=image_size or (512 if first == 0 else 224),
        embedding_dim=state["BottleNeck.0.style1.linear.weight"].shape[1],
        widths=tuple(kernel.shape[0] for kernel in kernels),
        identity_blocks=blocks,
        pictures="unit" if was_published else "imagenet",
    )


def published_card(image_size, embedding_dim):
    """Returns a card for a published swapper, which has none: its ArcFace, and our crop nearest to its own.

    The 512-pixel model was trained on FFHQ's crop. The 224-pixel model picks one of five templates by head pose; the
    frontal one is nearest to ArcFace's at 0.9 of its size.
    """
    shrink_factor = 0.78 if image_size == 512 else 0.9
    return ExportCard("simswap", image_size, embedding_dim, shrink_factor, identity_encoder="arcface_irse")


def save_published(swapper, path):
    """Writes nothing, as the original's files are pickles. Returns the paths written, an empty list."""
    return []


def torch_places(config, first=1):
    """Returns `{our layer's name: its prefix in the original's state dict}`; `first` is its first stage's number."""
    sizes = [config.image_size >> index for index in range(len(config.widths))]
    full = f"encoder_{sizes[0]}x{sizes[0]}"
    places = {f"{full}_conv": "first_layer.1", f"{full}_norm": "first_layer.2", "output_conv": "last_layer.1"}
    for index, (above, size) in enumerate(itertools.pairwise(sizes), first):
        places[f"encoder_{size}x{size}_conv"] = f"down{index}.0"
        places[f"encoder_{size}x{size}_norm"] = f"down{index}.1"
        places[f"decoder_{above}x{above}_conv"] = f"up{index}.1"
        places[f"decoder_{above}x{above}_norm"] = f"up{index}.2"
    for index in range(config.identity_blocks):
        for half in range(2):
            places[f"identity{index}_conv{half}"] = f"BottleNeck.{index}.conv{half + 1}.1"
            places[f"identity{index}_adain{half}"] = f"BottleNeck.{index}.style{half + 1}"
    return places
