"""RetinaFace: predicts a face score, a box and five landmarks for every anchor in one convolutional pass.

Deng et al., "RetinaFace: Single-Shot Multi-Level Face Localisation in the Wild", CVPR 2020, in the form of the
published weights: three pyramid levels, no mesh branch. Deliberate differences: the input is RGB in [0, 255] and the
first layer normalizes it (for networks trained on BGR, the first kernel's channels are swapped when weights are read);
height and width are multiples of 32, so that each level is exactly half the one before.
"""

from dataclasses import dataclass

import keras


@dataclass(frozen=True)
class RetinaFaceConfig:
    """The variant of a RetinaFace.

    Attributes:
        backbone: "mobilenet025", "mobilenet_v2" or "resnet50".
        taps: the backbone's layers whose outputs enter the pyramid, at strides 8, 16 and 32.
        channels: width of the pyramid; up to 64 its activations are leaky, as in the published networks.
        batch_normalization: whether pyramid and context modules have it; if not, it is folded into their convolutions.
        input_scale: factor on the input, …
        input_offset: … and offsets then added to red, green and blue.
    """

    backbone: str
    taps: tuple[str, str, str]
    channels: int
    batch_normalization: bool
    input_scale: float
    input_offset: tuple[float, float, float]


MOBILENET025 = RetinaFaceConfig(
    backbone="mobilenet025",
    taps=("stage1_5_relu", "stage2_5_relu", "stage3_1_relu"),
    channels=64,
    batch_normalization=False,
    input_scale=1.0,
    input_offset=(-123.0, -117.0, -104.0),
)


def build_retinaface(config):
    """Builds the network of a `RetinaFaceConfig`.

    Returns:
        A `keras.Model` from (n, H, W, 3) RGB [0, 255], H and W multiples of 32, to a dict over the anchors of
        `anchors.build_anchors(H, W)`: `boxes` (n, anchors, 4) and `landmarks` (n, anchors, 10), relative to the anchor
        as `anchors.decode_boxes` and `anchors.decode_landmarks` read them, and `scores` (n, anchors, 2), the
        probabilities of background and face.
    """
    picture = keras.Input((None, None, 3), name="picture")
    x = keras.layers.Rescaling(config.input_scale, config.input_offset, name="normalize")(picture)
    backbone = keras.Model(picture, _BACKBONES[config.backbone](x))
    levels = _pyramid([backbone.get_layer(tap).output for tap in config.taps], config)
    levels = [_context_module(x, f"ssh{i}", config) for i, x in enumerate(levels, 1)]
    outputs = {
        "boxes": _head(levels, "box_head", 4),
        "landmarks": _head(levels, "landmark_head", 10),
        "scores": keras.layers.Softmax(name="scores")(_head(levels, "score_head", 2)),
    }
    return keras.Model(picture, outputs, name=f"retinaface_{config.backbone}")


def _mobilenet025(x):
    """MobileNet at a quarter of its width, with batch normalization folded into the convolutions."""
    x = _halve(x, "stage1_0")
    x = keras.layers.Conv2D(8, 3, 2, name="stage1_0_conv")(x)
    x = keras.layers.LeakyReLU(0.1, name="stage1_0_relu")(x)
    widths = {"stage1": [16, 32, 32, 64, 64], "stage2": [128] * 6, "stage3": [256] * 2}
    halved = {"stage1_2", "stage1_4", "stage2_0", "stage3_0"}
    for stage in widths:
        for index, width in enumerate(widths[stage], 1 if stage == "stage1" else 0):
            name = f"{stage}_{index}"
            if name in halved:
                x = keras.layers.DepthwiseConv2D(3, 2, name=f"{name}_depthwise")(_halve(x, name))
            else:
                x = keras.layers.DepthwiseConv2D(3, padding="same", name=f"{name}_depthwise")(x)
            x = keras.layers.LeakyReLU(0.1, name=f"{name}_depthwise_relu")(x)
            x = keras.layers.Conv2D(width, 1, name=f"{name}_conv")(x)
            x = keras.layers.LeakyReLU(0.1, name=f"{name}_relu")(x)
    return x


def _halve(x, name):
    """Pads as PyTorch does for a 3x3 convolution of stride 2; Keras' "same" would pad the other side."""
    return keras.layers.ZeroPadding2D(((1, 0), (1, 0)), name=f"{name}_pad")(x)


def _mobilenet_v2(x):
    return keras.applications.MobileNetV2(include_top=False, weights=None, input_tensor=x).output


def _resnet50(x):
    return keras.applications.ResNet50(include_top=False, weights=None, input_tensor=x).output


_BACKBONES = {"mobilenet025": _mobilenet025, "mobilenet_v2": _mobilenet_v2, "resnet50": _resnet50}


def _pyramid(taps, config):
    """Feature pyramid: adds the coarser level to each level."""
    fine, middle, coarse = (
        _conv_unit(x, f"fpn_output{i}", config.channels, 1, config, activate=True) for i, x in enumerate(taps, 1)
    )
    middle = keras.layers.Add(name="fpn_add2")([middle, keras.layers.UpSampling2D(name="fpn_double3")(coarse)])
    middle = _conv_unit(middle, "fpn_merge2", config.channels, 3, config, activate=True)
    fine = keras.layers.Add(name="fpn_add1")([fine, keras.layers.UpSampling2D(name="fpn_double2")(middle)])
    fine = _conv_unit(fine, "fpn_merge1", config.channels, 3, config, activate=True)
    return fine, middle, coarse


def _context_module(x, name, config):
    """SSH (Najibi et al., ICCV 2017): concatenates receptive fields of 3, 5 and 7, built from 3x3 convolutions."""
    half, quarter = config.channels // 2, config.channels // 4
    field3 = _conv_unit(x, f"{name}_3x3", half, 3, config, activate=False)
    shared = _conv_unit(x, f"{name}_5x5_1", quarter, 3, config, activate=True)
    field5 = _conv_unit(shared, f"{name}_5x5_2", quarter, 3, config, activate=False)
    field7 = _conv_unit(shared, f"{name}_7x7_2", quarter, 3, config, activate=True)
    field7 = _conv_unit(field7, f"{name}_7x7_3", quarter, 3, config, activate=False)
    x = keras.layers.Concatenate(name=f"{name}_concat")([field3, field5, field7])
    return keras.layers.ReLU(name=f"{name}_relu")(x)


def _conv_unit(x, name, width, kernel_size, config, activate):
    x = keras.layers.Conv2D(
        width, kernel_size, padding="same", use_bias=not config.batch_normalization, name=f"{name}_conv"
    )(x)
    if config.batch_normalization:
        x = keras.layers.BatchNormalization(epsilon=1e-5, name=f"{name}_bn")(x)
    if activate:
        x = keras.layers.LeakyReLU(0.1 if config.channels <= 64 else 0.0, name=f"{name}_relu")(x)
    return x


def _head(levels, name, values):
    """Predicts `values` numbers for each of a cell's two anchors, and concatenates the anchors of all levels."""
    parts = []
    for i, x in enumerate(levels, 1):
        x = keras.layers.Conv2D(2 * values, 1, name=f"{name}{i}")(x)
        parts.append(keras.layers.Reshape((-1, values), name=f"{name}{i}_anchors")(x))
    return keras.layers.Concatenate(axis=1, name=f"{name}_concat")(parts)
