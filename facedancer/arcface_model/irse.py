"""The ArcFace network that SimSwap takes identities from (`arcface_checkpoint.tar`): residual units with attention.

Deng et al., ArcFace, CVPR 2019, with squeeze and excitation (Hu et al., CVPR 2018). The file is a module saved whole;
its tensors are read without it. Layers have the names of its tensors.
"""

from collections import Counter

import keras
from keras import layers

from facedancer.arcface_model.face_window import Window
from facedancer.arcface_model.frozen import frozen
from facedancer.arcface_model.mobilenet_v2 import DEVIATION_RGB, MEAN_RGB
from facedancer.core.console import UserError
from facedancer.core.torch_file import read_torch_module
from facedancer.core.torch_weights import give_torch_weights
from facedancer.core.weights_to_come import weights_to_come

# SimSwap's crop of faces from the front, reduced to 112 pixels: ArcFace's at 0.9 of its size.
WINDOW = Window(size=112, x=56 - 56 / 0.9, y=56 - 56 / 0.9, step=1 / 0.9)
# From [-1, 1] to pictures with ImageNet's mean and deviation taken off.
SCALE = tuple(0.5 / deviation for deviation in DEVIATION_RGB)
OFFSET = tuple((0.5 - mean) / deviation for mean, deviation in zip(MEAN_RGB, DEVIATION_RGB, strict=True))
_OUTPUT = "_output"  # ends the name of an activation that has another one's weights


@weights_to_come()
def load_irse(path):
    """Loads the network from the file, of any number of channels.

    Raises:
        UserError: in one line, what does not fit.
    """
    state = read_torch_module(path)
    units = Counter(name.split(".")[0] for name in state if name.endswith(".conv2.weight"))
    try:
        widths = tuple(state[f"layer{stage}.0.conv2.weight"].shape[0] for stage in range(1, 5))
        dim = state["fc.weight"].shape[0]
        squeezed = state["layer1.0.se.fc.0.weight"].shape[0]
    except KeyError as error:
        raise UserError(f"{path}: not SimSwap's ArcFace (lacks {error})") from None
    model = build_irse(tuple(units[f"layer{stage}"] for stage in range(1, 5)), widths, dim, widths[0] // squeezed)
    places = {layer.name: layer.name.removesuffix(_OUTPUT) for layer in model.layers if layer.weights}
    give_torch_weights(model, places, state, path)
    return model


@frozen
def build_irse(units=(3, 4, 6, 3), widths=(64, 128, 256, 512), dim=512, reduction=16):
    """Builds the network, 112-pixel input.

    Args:
        units: residual units per stage.
        widths: channels per stage.
        dim: length of the embedding.
        reduction: by how much the attention has fewer channels inside.

    Returns:
        A Keras model: (n, 112, 112, 3) RGB, ImageNet's mean and deviation taken off -> {"embedding": (n, dim) raw}.
    """
    picture = keras.Input((WINDOW.size, WINDOW.size, 3), name="picture")
    x = layers.Conv2D(widths[0], 3, use_bias=False, name="conv1")(picture)
    x = _prelu("prelu")(_norm("bn1")(x))
    x = layers.MaxPooling2D(2, name="maxpool")(x)
    for stage, (count, width) in enumerate(zip(units, widths, strict=True), 1):
        for unit in range(count):
            stride = 2 if stage > 1 and not unit else 1
            x = _residual_unit(x, width, stride, reduction, f"layer{stage}.{unit}")
    x = layers.Permute((3, 1, 2), name="channels_first")(_norm("bn2")(x))  # the order of the weights after it
    x = layers.Dense(dim, name="fc")(layers.Flatten(name="flatten")(x))
    return keras.Model(picture, {"embedding": _norm("bn3")(x)}, name="arcface_irse")


def _residual_unit(x, width, stride, reduction, name):
    y = _norm(f"{name}.bn0")(x)
    y = layers.Conv2D(x.shape[-1], 3, padding="same", use_bias=False, name=f"{name}.conv1")(y)
    y = _prelu(f"{name}.prelu")(_norm(f"{name}.bn1")(y))
    y = layers.ZeroPadding2D(1, name=f"{name}.pad")(y)  # PyTorch's, which "same" is not at a stride of two
    y = layers.Conv2D(width, 3, strides=stride, use_bias=False, name=f"{name}.conv2")(y)
    y = _norm(f"{name}.bn2")(y)

    weight = layers.GlobalAveragePooling2D(name=f"{name}.se.avg")(y)
    weight = layers.Dense(width // reduction, name=f"{name}.se.fc.0")(weight)
    weight = layers.PReLU(name=f"{name}.se.fc.1")(weight)
    weight = layers.Dense(width, activation="sigmoid", name=f"{name}.se.fc.2")(weight)
    y = layers.Multiply(name=f"{name}.se")([y, layers.Reshape((1, 1, width), name=f"{name}.se.reshape")(weight)])

    if stride > 1 or x.shape[-1] != width:
        x = layers.Conv2D(width, 1, strides=stride, use_bias=False, name=f"{name}.downsample.0")(x)
        x = _norm(f"{name}.downsample.1")(x)
    return _prelu(f"{name}.prelu{_OUTPUT}")(layers.Add(name=f"{name}.add")([y, x]))


def _norm(name):
    return layers.BatchNormalization(epsilon=1e-5, name=name)


def _prelu(name):
    return layers.PReLU(shared_axes=[1, 2], name=name)
