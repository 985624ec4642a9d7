"""FaceRes: a MobileNet that was trained on VGGFace2, whose pooled features tell people apart.

Howard et al., "MobileNets", 2017; published by V. Mandic for TensorFlow.js, with heads for age and sex, which are left
out. It is the second opinion: no loss of ours uses it, so swappers are evaluated with it.
"""

import keras
from keras import layers

from facedancer.arcface_model.face_window import Window
from facedancer.arcface_model.frozen import frozen

# ArcFace's crop at twice its template's resolution, half-pixel centers on half-pixel centers.
WINDOW = Window(size=224, x=-0.25, y=-0.25, step=0.5)
MEAN_BGR = (103.939, 116.779, 123.68)
DIM = 1024
# Channels after each pair of a depthwise 3×3 and a pointwise convolution, and the stride of the first.
_PAIRS = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1),
)  # fmt: skip


@frozen
def build_faceres():
    """Builds the network: (n, 224, 224, 3) RGB in [0, 255] -> {"embedding": (n, 1024)}."""
    inputs = keras.Input((WINDOW.size, WINDOW.size, 3), name="rgb_255")
    x = layers.Rescaling(1.0, [-mean for mean in MEAN_BGR], name="center")(keras.ops.flip(inputs, axis=-1))
    x = layers.Conv2D(32, 3, 2, padding="same", name="faceres_stem")(x)
    x = layers.ReLU(6.0, name="faceres_stem_relu")(x)
    for index, (channels, stride) in enumerate(_PAIRS, 1):
        x = layers.DepthwiseConv2D(3, stride, padding="same", name=f"pair{index}_depthwise")(x)
        x = layers.ReLU(6.0, name=f"pair{index}_depthwise_relu")(x)
        x = layers.Conv2D(channels, 1, name=f"pair{index}_pointwise")(x)
        x = layers.ReLU(6.0, name=f"pair{index}_pointwise_relu")(x)
    embedding = layers.GlobalAveragePooling2D(name="embedding")(x)
    return keras.Model(inputs, {"embedding": embedding}, name="faceres")


def published_names():
    """Returns our layer -> the published file's names of kernel, factor (None for a kernel that has it) and bias."""
    names = {"faceres_stem": ("conv1/convolution/merged_input", None, "conv1_bn/batchnorm_1/sub")}
    for index in range(1, len(_PAIRS) + 1):
        depthwise, pointwise = f"conv_dw_{index}", f"conv_pw_{index}"
        names[f"pair{index}_depthwise"] = (
            f"{depthwise}/depthwise_kernel",
            f"{depthwise}_bn/batchnorm_1/mul",
            f"{depthwise}_bn/batchnorm_1/sub",
        )
        names[f"pair{index}_pointwise"] = (
            f"{pointwise}/convolution/merged_input",
            None,
            f"{pointwise}_bn/batchnorm_1/sub",
        )
    return names
