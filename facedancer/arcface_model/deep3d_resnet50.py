"""The network that estimates the coefficients of a parametric face from an image (`epoch_20.pth`).

Deng et al., Accurate 3D Face Reconstruction with Weakly-Supervised Learning, CVPR workshops 2019, in the PyTorch format
of Deep3DFaceRecon: a ResNet-50 (He et al., CVPR 2016) and one linear head per kind of coefficient. Layers are named
after its tensors.
"""

from pathlib import Path

import keras
from keras import layers

from facedancer.arcface_model.frozen import frozen
from facedancer.core.console import UserError
from facedancer.core.torch_file import read_torch_state_dict
from facedancer.core.torch_weights import give_torch_weights
from facedancer.core.weights_to_come import weights_to_come

SIZE = 224  # side of its training images in pixels
# Number of coefficients of each head, in order: identity, expression, texture, angles, light, xy and z translation.
HEADS = (80, 64, 80, 3, 27, 2, 1)
BLOCKS = (3, 4, 6, 3)
_IN_CHECKPOINT = "generator.id_extractor.f_3d."


@weights_to_come()
def load_deep3d(path, size=SIZE):
    """Loads the network from a file, with any channel widths, without unpickling.

    Args:
        path: `epoch_20.pth`, or a PyTorch Lightning checkpoint (`.ckpt`) of HifiFace's training, which contains it.
        size: side of the pictures in pixels.

    Raises:
        UserError: if the file does not match the network.
    """
    if Path(path).suffix == ".ckpt":
        whole = read_torch_state_dict(path, "state_dict")
        prefix = _IN_CHECKPOINT
        state = {name.removeprefix(prefix): array for name, array in whole.items() if name.startswith(prefix)}
    else:
        state = read_torch_state_dict(path, "net_recon")
    if "backbone.conv1.weight" not in state:
        raise UserError(f"{path}: not Deep3DFaceRecon's network (lacks backbone.conv1.weight)")
    model = build_deep3d_resnet50(state["backbone.conv1.weight"].shape[0], size)
    places = {layer.name: layer.name for layer in model.layers if layer.weights}
    give_torch_weights(model, places, state, path)
    return model


@frozen
def build_deep3d_resnet50(width=64, size=SIZE):
    """Builds the network.

    Args:
        width: channels of the first convolution; the others have multiples of it.
        size: side of the pictures in pixels.

    Returns:
        A Keras model: (n, size, size, 3) RGB in [0, 1] -> coefficients (n, 257), in the order of `HEADS`.
    """
    picture = keras.Input((size, size, 3), name="picture")
    x = layers.ZeroPadding2D(3, name="pad")(picture)
    x = layers.Conv2D(width, 7, strides=2, use_bias=False, name="backbone.conv1")(x)
    x = layers.ReLU(name="relu")(_norm("backbone.bn1")(x))
    x = layers.ZeroPadding2D(1, name="maxpool_pad")(x)  # zero padding, since the input is not negative
    x = layers.MaxPooling2D(3, 2, name="maxpool")(x)
    for stage, count in enumerate(BLOCKS, 1):
        for block in range(count):
            stride = 2 if stage > 1 and not block else 1
            x = _bottleneck(x, width * 2 ** (stage - 1), stride, not block, f"backbone.layer{stage}.{block}")
    x = layers.GlobalAveragePooling2D(keepdims=True, name="pooled")(x)
    heads = [layers.Conv2D(count, 1, name=f"final_layers.{index}")(x) for index, count in enumerate(HEADS)]
    coefficients = layers.Flatten(name="coefficients")(layers.Concatenate(name="heads")(heads))
    return keras.Model(picture, coefficients, name="deep3d_resnet50")


def _norm(name):
    return layers.BatchNormalization(epsilon=1e-5, name=name)


def _bottleneck(x, width, stride, is_projected, name):
    shortcut = x
    if is_projected:
        shortcut = layers.Conv2D(4 * width, 1, strides=stride, use_bias=False, name=f"{name}.downsample.0")(x)
        shortcut = _norm(f"{name}.downsample.1")(shortcut)
    x = layers.Conv2D(width, 1, use_bias=False, name=f"{name}.conv1")(x)
    x = layers.ReLU(name=f"{name}.relu1")(_norm(f"{name}.bn1")(x))
    x = layers.ZeroPadding2D(1, name=f"{name}.pad")(x)  # PyTorch's padding, which differs from "same" at stride 2
    x = layers.Conv2D(width, 3, strides=stride, use_bias=False, name=f"{name}.conv2")(x)
    x = layers.ReLU(name=f"{name}.relu2")(_norm(f"{name}.bn2")(x))
    x = _norm(f"{name}.bn3")(layers.Conv2D(4 * width, 1, use_bias=False, name=f"{name}.conv3")(x))
    return layers.ReLU(name=f"{name}.relu3")(layers.Add(name=f"{name}.add")([x, shortcut]))
