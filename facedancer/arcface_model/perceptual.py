"""Feature maps of ImageNet classifiers for perceptual losses.

FaceDancer uses VGG16 (Simonyan and Zisserman, ICLR 2015) after each of its five pools. Changed on purpose: VGG16 gets
its own preprocessing, where the original fed it [-1, 1]. MobileNetV2 is the small default of the `lite` presets.
"""

import hashlib
import http.client
import os
import urllib.request
from pathlib import Path

import keras
from keras import layers, ops

from facedancer.arcface_model.frozen import frozen, without_batch_norms
from facedancer.arcface_model.mobilenet_v2 import build_mobilenet_v2
from facedancer.core.console import UserError
from facedancer.core.files import atomic_path
from facedancer.core.keras_h5 import load_by_layer_name
from facedancer.core.weights import find_weights
from facedancer.core.weights_to_come import weights_to_come

_KERAS_URL = "https://storage.googleapis.com/tensorflow/keras-applications"
# Networks that Keras publishes: folder, file, and the MD5 sum that Keras itself checks.
_KERAS_FILES = {
    "VGG16": ("vgg16", "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5", "6d6bbae143d832006294945121d1f1fc"),
    "InceptionV3": (
        "inception_v3",
        "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "bcbd6486424b2319ff4ef7d526e38f63",
    ),
}
_INCEPTION_SIZE = 299
_VGG16_MEAN_BGR = (103.939, 116.779, 123.68)
_OTHER_NETWORK = "or choose the perceptual network mobilenet_v2"
_VGG16_TAPS = tuple(f"block{block}_pool" for block in range(1, 6))


@weights_to_come()
@frozen
def build_perceptual_network(kind, image_size):
    """Builds a frozen network of feature maps with its weights.

    Args:
        kind: "vgg16" (fetched on first use) or "mobilenet_v2" (fetched by `facedancer weights get`).
        image_size: side of the images in pixels, at least 32.

    Returns:
        A Keras model: (n, S, S, 3) signed RGB -> a list of five feature maps, at strides 2, 4, 8, 16 and 32.

    Raises:
        UserError: if the weights are missing; the message says what to put where.
    """
    inputs = keras.Input((image_size, image_size, 3), name="signed")
    if kind == "mobilenet_v2":
        features = build_mobilenet_v2(image_size)
        features = without_batch_norms(load_by_layer_name(features, find_weights("mobilenet_v2")))
        outputs = features(layers.Rescaling(0.5, 0.5, name="to_unit")(inputs))
    elif kind == "vgg16":
        features = load_by_layer_name(build_vgg16(image_size), _find_keras_file("VGG16", _OTHER_NETWORK))
        bgr = ops.flip(layers.Rescaling(127.5, 127.5, name="to_255")(inputs), axis=-1)
        outputs = features(layers.Rescaling(1.0, [-mean for mean in _VGG16_MEAN_BGR], name="center")(bgr))
    else:
        raise ValueError(f"no perceptual network is named {kind}; known are vgg16 and mobilenet_v2")
    return keras.Model(inputs, outputs, name=f"perceptual_{kind}")


@frozen
def build_vgg16(image_size):
    """Returns VGG16 without weights: (n, S, S, 3) BGR, ImageNet's mean subtracted -> its five pools."""
    vgg16 = keras.applications.VGG16(include_top=False, weights=None, input_shape=(image_size, image_size, 3))
    return keras.Model(vgg16.input, [vgg16.get_layer(name).output for name in _VGG16_TAPS], name="vgg16")


@frozen
def build_inception(image_size):
    """Builds InceptionV3 with Keras' weights: (n, S, S, 3) signed RGB -> (n, 2048), the mean of its last feature map.

    Pictures are scaled to its 299 pixels (Szegedy et al., CVPR 2016).

    Raises:
        UserError: if the weights are not there, with what to put where.
    """
    inputs = keras.Input((image_size, image_size, 3), name="signed")
    network = load_inception()
    scaled = layers.Resizing(_INCEPTION_SIZE, _INCEPTION_SIZE, name="to_network_size")(inputs)
    return keras.Model(inputs, network(scaled), name="inception_on_faces")


@weights_to_come()
def load_inception():
    """Returns the network itself: (n, 299, 299, 3) in [-1, 1] -> (n, 2048)."""
    size = (_INCEPTION_SIZE, _INCEPTION_SIZE, 3)
    network = keras.applications.InceptionV3(include_top=False, weights=None, input_shape=size, pooling="avg")
    network.load_weights(_find_keras_file("InceptionV3", "or leave --inception out"))
    return network


def _find_keras_file(name, otherwise):
    """Returns the path of a network's weights in Keras' own cache, fetched if it is not there."""
    folder, file, checksum = _KERAS_FILES[name]
    home = os.environ.get("KERAS_HOME") or Path.home() / ".keras"
    path, url = Path(home, "models", file), f"{_KERAS_URL}/{folder}/{file}"
    if not path.is_file():
        try:
            with urllib.request.urlopen(url, timeout=60) as response:
                content = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise UserError(
                f"could not fetch {name}'s weights ({error}); on a machine without network, download {url}"
                f" elsewhere and put it at {path}, {otherwise}"
            ) from None
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
    with open(path, "rb") as file:
        if hashlib.file_digest(file, "md5").hexdigest() != checksum:
            raise UserError(f"{path}: not {name}'s weights as Keras publishes them; remove the file to fetch it again")
    return path
