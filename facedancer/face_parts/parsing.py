"""BiSeNet for face parsing: classifies each pixel into CelebAMask-HQ's 19 classes.

Yu et al., BiSeNet: Bilateral Segmentation Network, ECCV 2018, in the published variant for faces
(`79999_iter.pth`): ResNet-18 as the context path, with its stride-8 features in place of a spatial path. Layers are
named after the file's tensors; the file is read as plain data. Nothing is trained here.
"""

from pathlib import Path

import keras
from keras import layers

from facedancer.core.console import UserError
from facedancer.core.corner_resize import ResizeByCorners
from facedancer.core.torch_file import read_torch_state_dict
from facedancer.core.torch_weights import give_torch_weights
from facedancer.core.weights_to_come import weights_to_come

# 0 background, 1 skin, 2-3 brows, 4-5 eyes, 6 glasses, 7-9 ears and earrings, 10 nose, 11 mouth, 12-13 lips, 14-15 neck
# and necklace, 16 cloth, 17 hair, 18 hat.
CLASSES = 19


@weights_to_come()
def load_parsing_network(path, height, width):
    """Loads a published network.

    Args:
        path: the `.pth` file, with any channel widths.
        height, width: input size, multiples of 32.

    Returns:
        The model of `build_parsing_network`.

    Raises:
        UserError: if the file does not match the network.
    """
    state = read_torch_state_dict(path)
    first = state.get("cp.resnet.conv1.weight")
    if first is None:
        raise UserError(f"{path}: not a BiSeNet for faces (lacks cp.resnet.conv1.weight)")
    model = build_parsing_network(height, width, first.shape[0])
    places = {layer.name: layer.name for layer in model.layers if layer.weights}
    # A leftover ImageNet classifier.
    give_torch_weights(model, places, state, Path(path), unneeded=["cp.resnet.fc."])
    model.trainable = False
    return model


def build_parsing_network(height, width, channels=64):
    """Builds the network.

    Returns:
        A model: (n, height, width, 3) RGB, normalized by ImageNet's mean and deviation -> [logits (n, height, width,
        19), and auxiliary training logits from strides 8 and 16 of the context path].
    """
    picture = keras.Input((height, width, 3), name="picture")
    feat8, feat16, feat32 = _resnet18(picture, channels)

    mean = layers.GlobalAveragePooling2D(keepdims=True, name="cp.avg")(feat32)
    mean = _conv_block(mean, 2 * channels, 1, "cp.conv_avg")
    x = layers.Add(name="cp.sum32")([_refined(feat32, 2 * channels, "cp.arm32"), mean])
    context16 = _conv_block(layers.UpSampling2D(name="cp.up32")(x), 2 * channels, 3, "cp.conv_head32")
    x = layers.Add(name="cp.sum16")([_refined(feat16, 2 * channels, "cp.arm16"), context16])
    context8 = _conv_block(layers.UpSampling2D(name="cp.up16")(x), 2 * channels, 3, "cp.conv_head16")

    x = layers.Concatenate(name="ffm.concat")([feat8, context8])
    x = _conv_block(x, 4 * channels, 1, "ffm.convblk")
    weight = layers.GlobalAveragePooling2D(keepdims=True, name="ffm.avg")(x)
    weight = layers.Conv2D(channels, 1, use_bias=False, activation="relu", name="ffm.conv1")(weight)
    weight = layers.Conv2D(4 * channels, 1, use_bias=False, activation="sigmoid", name="ffm.conv2")(weight)
    fused = layers.Add(name="ffm.out")([layers.Multiply(name="ffm.weighted")([x, weight]), x])

    outputs = [
        _logits(features, middle, height, width, name)
        for features, middle, name in (
            (fused, 4 * channels, "conv_out"), (context8, channels, "conv_out16"), (context16, channels, "conv_out32")
        )
    ]  # fmt: skip
    return keras.Model(picture, outputs, name="bisenet")


def _resnet18(x, channels):
    """Returns features at strides 8, 16 and 32."""
    x = layers.ZeroPadding2D(3, name="cp.resnet.pad")(x)
    x = layers.Conv2D(channels, 7, strides=2, use_bias=False, name="cp.resnet.conv1")(x)
    x = layers.ReLU(name="cp.resnet.relu")(_norm("cp.resnet.bn1")(x))
    x = layers.ZeroPadding2D(1, name="cp.resnet.maxpool_pad")(
        x
    )  # zero padding works because ReLU outputs are never below 0
    x = layers.MaxPooling2D(3, 2, name="cp.resnet.maxpool")(x)
    outputs = []
    for stage in range(4):
        for unit in range(2):
            stride = 2 if stage and not unit else 1
            x = _basic_block(x, channels * 2**stage, stride, f"cp.resnet.layer{stage + 1}.{unit}")
        outputs.append(x)
    return outputs[1:]


def _basic_block(x, channels, stride, name):
    y = _conv3(x, channels, f"{name}.conv1", stride)
    y = layers.ReLU(name=f"{name}.relu1")(_norm(f"{name}.bn1")(y))
    y = _norm(f"{name}.bn2")(_conv3(y, channels, f"{name}.conv2"))
    if stride > 1:
        x = layers.Conv2D(channels, 1, strides=stride, use_bias=False, name=f"{name}.downsample.0")(x)
        x = _norm(f"{name}.downsample.1")(x)
    return layers.ReLU(name=f"{name}.relu2")(layers.Add(name=f"{name}.add")([x, y]))


def _refined(x, channels, name):
    """Attention refinement: weights each channel of the features."""
    x = _conv_block(x, channels, 3, f"{name}.conv")
    weight = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}.avg")(x)
    weight = layers.Conv2D(channels, 1, use_bias=False, name=f"{name}.conv_atten")(weight)
    weight = layers.Activation("sigmoid", name=f"{name}.sigmoid_atten")(_norm(f"{name}.bn_atten")(weight))
    return layers.Multiply(name=f"{name}.out")([x, weight])


def _logits(x, middle, height, width, name):
    x = _conv_block(x, middle, 3, f"{name}.conv")
    x = layers.Conv2D(CLASSES, 1, use_bias=False, name=f"{name}.conv_out")(x)
    return ResizeByCorners(height, width, name=f"{name}.up")(x)


def _conv_block(x, channels, size, name):
    if size == 3:
        x = _conv3(x, channels, f"{name}.conv")
    else:
        x = layers.Conv2D(channels, 1, use_bias=False, name=f"{name}.conv")(x)
    return layers.ReLU(name=f"{name}.relu")(_norm(f"{name}.bn")(x))


def _conv3(x, channels, name, stride=1):
    x = layers.ZeroPadding2D(1, name=f"{name}_pad")(x)  # PyTorch's padding, which differs from "same" at stride 2
    return layers.Conv2D(channels, 3, strides=stride, use_bias=False, name=name)(x)


def _norm(name):
    return layers.BatchNormalization(epsilon=1e-5, name=name)
