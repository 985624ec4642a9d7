"""LPIPS: how different two images look, by VGG16's features and a learned weight per channel.

Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, CVPR 2018, version 0.1 of its
weights. Layers are named after its tensors. No weights are included.
"""

import keras
from keras import layers, ops

from facedancer.arcface_model.frozen import frozen
from facedancer.core.torch_file import read_torch_state_dict
from facedancer.core.torch_weights import give_torch_weights
from facedancer.core.weights import find_weights
from facedancer.core.weights_to_come import weights_to_come

# For each of the five slices: the indices of its convolutions in torchvision's list of layers, and their channels.
SLICES = (((0, 2), 64), ((5, 7), 128), ((10, 12, 14), 256), ((17, 19, 21), 512), ((24, 26, 28), 512))
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


@weights_to_come()
def load_lpips(image_size):
    """Builds the network and loads torchvision's VGG16 and LPIPS' channel weights, without unpickling.

    Args:
        image_size: as for `build_lpips`.

    Raises:
        UserError: if a file is missing or does not fit.
    """
    network = build_lpips(image_size)
    vgg16, linear = find_weights("vgg16_torchvision"), find_weights("lpips_vgg")
    state = {**read_torch_state_dict(vgg16), **read_torch_state_dict(linear)}
    places = {layer.name: layer.name for layer in network.layers if layer.weights}
    features = {name: f"features.{name.split('.')[-1]}" for name in places if name.startswith("net.")}
    give_torch_weights(network, places | features, state, f"{vgg16}, {linear}", ("classifier.",))
    return network


@frozen
def build_lpips(image_size):
    """Builds the network, without weights.

    Args:
        image_size: side of the pictures in pixels, at least 16.

    Returns:
        A Keras model: images `first` and `second` (n, S, S, 3) in [-1, 1] -> {"slice1": (n,), …, "distance": (n,)}, the
        last being the sum over the five slices.
    """
    first = keras.Input((image_size, image_size, 3), name="first")
    second = keras.Input((image_size, image_size, 3), name="second")
    x = layers.Concatenate(axis=0, name="both")([first, second])  # so that each convolution is one call
    x = layers.Rescaling(
        [1.0 / scale for scale in _SCALE],
        [-shift / scale for shift, scale in zip(_SHIFT, _SCALE, strict=True)],
        name="scaling_layer",
    )(x)
    outputs = {}
    for index, (numbers, width) in enumerate(SLICES):
        if index:
            x = layers.MaxPooling2D(2, name=f"net.slice{index + 1}.pool")(x)
        for number in numbers:
            name = f"net.slice{index + 1}.{number}"
            x = layers.Conv2D(width, 3, padding="same", activation="relu", name=name)(x)
        squared = SquaredDifference(name=f"slice{index + 1}_difference")(x)
        weighted = layers.Conv2D(1, 1, use_bias=False, name=f"lin{index}.model.1")(squared)
        mean = layers.GlobalAveragePooling2D(name=f"slice{index + 1}_mean")(weighted)
        outputs[f"slice{index + 1}"] = layers.Flatten(name=f"slice{index + 1}_flat")(mean)[:, 0]
    outputs["distance"] = layers.Add(name="distance")(list(outputs.values()))
    return keras.Model([first, second], outputs, name="lpips_vgg")


@keras.saving.register_keras_serializable(package="facedancer")
class SquaredDifference(layers.Layer):
    """Of a batch's halves, every pixel's features at length 1: (2 n, H, W, C) -> (n, H, W, C)."""

    def call(self, x):
        # Added to the length, as the original does, where `ops.normalize` would bound it.
        unit = x / (ops.sqrt(ops.sum(ops.square(x), axis=-1, keepdims=True)) + 1e-10)
        first, second = ops.split(unit, 2, axis=0)
        return ops.square(first - second)

    def compute_output_shape(self, input_shape):
        number, *others = input_shape
        return (None if number is None else number // 2), *others
