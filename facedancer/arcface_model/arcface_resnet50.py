"""ResNet50 ArcFace, the identity encoder of the original FaceDancer (file `ArcFace-Res50.h5`).

He et al., CVPR 2016, in the form of Keras' applications (stride in the first convolution of a block), with ArcFace's
head (Deng et al., CVPR 2019): batch normalization, dense layer, batch normalization. The graph is rebuilt here and
the file's weights are matched by name and shape, since Keras 3 cannot load the file's own graph. Deliberate change: no
dropout in the head, since the encoder is never trained.
"""

import keras
import numpy as np
from keras import layers

from facedancer.arcface_model.face_window import Window
from facedancer.arcface_model.frozen import frozen
from facedancer.core.console import UserError
from facedancer.core.weights_to_come import weights_to_come

WINDOW = Window(size=112)
# (stage, filters of a block's bottleneck, blocks, stride of the first block)
STAGES = ((2, 64, 3, 1), (3, 128, 4, 2), (4, 256, 6, 2), (5, 512, 3, 2))
# FaceDancer's choice, the deepest first.
IFSR_TAPS = (
    *(f"conv4_block{block}_out" for block in range(6, 0, -1)),
    *(f"conv3_block{block}_out" for block in range(4, 0, -1)),
    "conv2_block3_out",
)
_EPSILON = 1.001e-5
# The head's layers, in the order of the file's nested model `OutputLayer`, whose names Keras has numbered.
_HEAD = ("head_bn", "head_dense", "embedding")


@frozen
def build_arcface_resnet50():
    """Builds the network, 112-pixel input.

    Returns:
        A Keras model: (n, 112, 112, 3) RGB in [0, 1] -> {"embedding": (n, 512) raw, "conv2_block1_out": features, …}.
    """
    inputs = keras.Input((WINDOW.size, WINDOW.size, 3), name="rgb_unit")
    x = layers.ZeroPadding2D(3, name="conv1_pad")(inputs)
    x = layers.Conv2D(64, 7, strides=2, name="conv1_conv")(x)
    x = _normalize_activate(x, "conv1")
    x = layers.ZeroPadding2D(1, name="pool1_pad")(x)
    x = layers.MaxPooling2D(3, 2, name="pool1_pool")(x)
    outputs = {}
    for stage, filters, blocks, stride in STAGES:
        for block in range(1, blocks + 1):
            name = f"conv{stage}_block{block}"
            x = outputs[f"{name}_out"] = _bottleneck(x, filters, stride if block == 1 else 1, block == 1, name)
    x = layers.BatchNormalization(name="head_bn")(x)
    x = layers.Flatten(name="head_flatten")(x)
    x = layers.Dense(512, name="head_dense")(x)
    embedding = layers.BatchNormalization(name="embedding")(x)
    return keras.Model(inputs, {"embedding": embedding, **outputs}, name="arcface_res50")


def _normalize_activate(x, name):
    x = layers.BatchNormalization(epsilon=_EPSILON, name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


def _bottleneck(x, filters, stride, project, name):
    shortcut = x
    if project:
        shortcut = layers.Conv2D(4 * filters, 1, strides=stride, name=f"{name}_0_conv")(x)
        shortcut = layers.BatchNormalization(epsilon=_EPSILON, name=f"{name}_0_bn")(shortcut)
    x = layers.Conv2D(filters, 1, strides=stride, name=f"{name}_1_conv")(x)
    x = _normalize_activate(x, f"{name}_1")
    x = layers.Conv2D(filters, 3, padding="same", name=f"{name}_2_conv")(x)
    x = _normalize_activate(x, f"{name}_2")
    x = layers.Conv2D(4 * filters, 1, name=f"{name}_3_conv")(x)
    x = layers.BatchNormalization(epsilon=_EPSILON, name=f"{name}_3_bn")(x)
    return layers.ReLU(name=f"{name}_out")(layers.Add(name=f"{name}_add")([shortcut, x]))


def is_arcface_resnet50(stored):
    """Returns whether a `KerasH5` has this layout: a backbone `resnet50` and a head `OutputLayer`."""
    return {"resnet50", "OutputLayer"} <= stored.weights.keys()


@weights_to_come()
def load_arcface_resnet50(stored):
    """Builds the network with a file's weights.

    Args:
        stored: the file, a `KerasH5`.

    Raises:
        UserError: if a weight is missing, extra or misshapen.
    """
    if unknown := sorted(stored.weights.keys() - {"resnet50", "OutputLayer"}):
        raise UserError(f"{stored.path}: has unknown layers {', '.join(unknown)}; expected resnet50 and OutputLayer")
    model = build_arcface_resnet50()
    head = _by_layer(stored.weights["OutputLayer"])
    if len(head) != len(_HEAD):
        raise UserError(f"{stored.path}: its OutputLayer has the layers {', '.join(head)}, expected {len(_HEAD)}")
    found = {**_by_layer(stored.weights["resnet50"]), **dict(zip(_HEAD, head.values(), strict=True))}
    arrays = {f"{layer}/{name}": array for layer, weights in found.items() for name, array in weights.items()}
    wanted = {f"{layer.name}/{weight.name}": weight for layer in model.layers for weight in layer.weights}
    for problem, names in (("lacks", wanted.keys() - arrays.keys()), ("has unknown", arrays.keys() - wanted.keys())):
        if names:
            raise UserError(f"{stored.path}: {problem} weights {', '.join(sorted(names)[:5])}; expected ArcFace-Res50")
    for name, weight in wanted.items():
        if tuple(weight.shape) != arrays[name].shape:
            raise UserError(f"{stored.path}: {name} has shape {arrays[name].shape}, expected {tuple(weight.shape)}")
        weight.assign(np.asarray(arrays[name]))
    return model


def _by_layer(weights):
    """Groups a nested model's weights, `layer/weight:0`, by layer, in order of first appearance."""
    layers_of = {}
    for name, array in weights.items():
        layer, _, weight = name.removesuffix(":0").rpartition("/")
        layers_of.setdefault(layer.rpartition("/")[2], {})[weight] = array
    return layers_of
