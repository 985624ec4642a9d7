"""Aligned faces -> identity and expression embeddings, also as differentiable models for training.

Each network has its own conventions (crop, range, raw features); this module gives all of them one interface: aligned
RGB faces of any size. For dlib's network, the mean embedding is subtracted and the rest is scaled by 20: raw embeddings
of different people have a cosine of 0.83, since all lie in one cone, and a cosine loss would hardly see a difference.
Afterward, the cosine is about 0, and the variance per dimension is about that of raw ArcFace.
"""

import json
from dataclasses import dataclass, replace
from importlib import resources

import keras
import numpy as np
from keras import layers, ops

from facedancer.arcface_model import arcface_resnet50, dlib_resnet, expression_network, faceres, iresnet, irse
from facedancer.arcface_model.face_window import FaceWindow, Window
from facedancer.arcface_model.frozen import frozen, without_batch_norms
from facedancer.arcface_model.onnx_iresnet import load_iresnet
from facedancer.arcface_model.torch_iresnet import load_torch_iresnet
from facedancer.core.console import UserError
from facedancer.core.images import to_signed
from facedancer.core.inference import runner
from facedancer.core.keras_h5 import load_by_layer_name, read_keras_h5
from facedancer.core.weights import find_weights
from facedancer.core.weights_to_come import weights_to_come

_BATCH = 32
DLIB_SCALE = 20.0


@dataclass(frozen=True)
class _Network:
    """A network with its conventions.

    Attributes:
        name: of the network.
        model: its Keras model, input -> dict of outputs.
        window: position of its input on an aligned face.
        embedding: the name of the output that is the embedding.
        taps: names of the outputs for IFSR, deepest first.
        scale, offset: from signed values to its own range, one for all channels or one per channel.
        center, embedding_scale: our embedding is `(raw - center) * embedding_scale`.
        gray: whether it takes grayscale pictures.
    """

    name: str
    model: keras.Model
    window: Window
    embedding: str = "embedding"
    taps: tuple[str, ...] = ()
    scale: float | list[float] = 1.0
    offset: float | list[float] = 0.0
    center: np.ndarray | None = None
    embedding_scale: float = 1.0
    gray: bool = False


class _FaceEmbedder:
    """A frozen network on aligned faces.

    Attributes:
        name: of the network.
        dim: length of the embedding.
    """

    def __init__(self, network, shrink_factor, image_size):
        self._network = replace(network, model=without_batch_norms(network.model))
        self._shrink_factor = shrink_factor
        self._run, self._run_size = None, None
        self.name = network.name
        self.dim = network.model.output[network.embedding].shape[-1]
        if image_size is not None:
            self._prepare(image_size)

    def __call__(self, faces):
        """Embeds aligned faces in batches, so that memory stays bounded.

        Args:
            faces: (n, S, S, 3) uint8 RGB.

        Returns:
            (n, dim) float32.
        """
        faces = np.asarray(faces)
        if faces.dtype != np.uint8 or faces.ndim != 4 or faces.shape[3] != 3 or faces.shape[1] != faces.shape[2]:
            raise ValueError(f"expected (n, S, S, 3) uint8 faces, not {faces.shape} {faces.dtype}")
        self._prepare(faces.shape[1])
        embeddings = np.empty((len(faces), self.dim), np.float32)
        for start in range(0, len(faces), _BATCH):
            part = to_signed(faces[start : start + _BATCH])
            embeddings[start : start + _BATCH] = self._run(part)
        return embeddings

    def _prepare(self, image_size):
        if self._run_size != image_size:
            model = self._connect(image_size, self._shrink_factor)
            self._run = runner(keras.Model(model.input, model.output["embedding"]))
            self._run_size = image_size

    @frozen
    def _connect(self, image_size, shrink_factor, precision="float32"):
        """Builds a model from signed aligned faces to {"embedding", taps}."""
        network = self._network
        inputs = x = keras.Input((image_size, image_size, 3), name="aligned_signed")
        x = FaceWindow(**vars(network.window), shrink_factor=shrink_factor, name="window")(x)
        if network.gray:
            x = ops.image.rgb_to_grayscale(x)
        if (network.scale, network.offset) != (1.0, 0.0):
            x = layers.Rescaling(network.scale, network.offset, name="to_network_range")(x)
        model = network.model if precision == "float32" else _in_precision(network.model, precision)
        found = model(x)
        embedding = found[network.embedding]
        if network.center is not None:
            offset = -network.embedding_scale * network.center
            embedding = layers.Rescaling(network.embedding_scale, offset.tolist(), name="embedding")(embedding)
        outputs = {"embedding": embedding, **{tap: ops.cast(found[tap], "float32") for tap in network.taps}}
        return keras.Model(inputs, outputs, name=f"{network.name}_on_aligned_faces")


class IdentityEncoder(_FaceEmbedder):
    """Aligned faces -> identity embeddings.

    Args:
        weights: a name of the registry, or the path of a file: our `Dlib-ResNet.h5`, `ArcFace-Res50.h5` or SimSwap's
            `arcface_checkpoint.tar` as published, or an ArcFace file of InsightFace, ONNX or PyTorch's; `faceres` for
            evaluation. None is the embedded dlib network.
        shrink_factor: shrink factor of the aligned faces passed to it.
        image_size: their size, to build the network immediately.

    Attributes:
        ifsr_margins: dict, name of an intermediate output -> its margin in the IFSR loss, deepest first; 0 if
            none has been measured yet.

    Raises:
        UserError: if the file is missing, holds another kind of network, or does not match completely.
    """

    def __init__(self, weights=None, shrink_factor=1.0, image_size=None):
        super().__init__(_load_identity_network(find_weights(weights or "dlib_resnet")), shrink_factor, image_size)
        package = resources.files("facedancer.arcface_model")
        margins = json.loads((package / "ifsr_margins.json").read_text(encoding="utf-8")).get(self.name, {})
        self.ifsr_margins = {tap: margins.get(tap, 0.0) for tap in self._network.taps}

    def build_model(self, image_size, shrink_factor=1.0, precision="float32"):
        """Builds a differentiable model on aligned faces, for losses. Its weights are this encoder's own, and frozen.

        Args:
            precision: computation dtype of its layers. In "bfloat16", embeddings of dlib's network have a cosine of
                0.9998 to the exact ones, and their gradients one of 0.97, in half the time on hardware that
                supports it.

        Returns:
            A Keras model: (n, S, S, 3) signed RGB -> {"embedding": (n, dim), **{tap: features}}, float32.
        """
        return self._connect(image_size, shrink_factor, precision)


class ExpressionEmbedder(_FaceEmbedder):
    """Aligned faces -> expression embeddings, whose Euclidean distance measures how much two expressions differ.

    The embedding is the mean of the last feature maps of a classifier of seven emotions, not its seven outputs: it
    distinguishes frames of one video that the outputs do not, and separates smiles from neutral faces across people
    as well.

    Args:
        weights: None for the registry's, or the path of a file in the same format.
        shrink_factor, image_size: of the aligned faces passed to it, as for `IdentityEncoder`.

    Raises:
        UserError: if the file is missing or does not match completely.
    """

    def __init__(self, weights=None, shrink_factor=1.0, image_size=None):
        path = find_weights(weights or "fer_expression")
        with weights_to_come():
            model = load_by_layer_name(expression_network.build_expression_network(), path)
        network = _Network("fer_expression", model, expression_network.WINDOW, embedding="features", gray=True)
        super().__init__(network, shrink_factor, image_size)

    @frozen
    def build_model(self, image_size, shrink_factor=1.0):
        """Builds a differentiable model: (n, S, S, 3) signed RGB -> (n, dim) embedding, float32."""
        model = self._connect(image_size, shrink_factor)
        return keras.Model(model.input, model.output["embedding"], name="expression_embedder")


@weights_to_come()
def _in_precision(model, precision):
    """Returns a copy of a model that computes in another precision, with weights stored in it: none is trained."""

    def copy(layer):
        return type(layer).from_config({**layer.get_config(), "dtype": precision})

    copied = keras.models.clone_model(model, clone_function=copy)
    copied.set_weights(model.get_weights())
    return copied


@weights_to_come()
def _load_identity_network(path):
    """Loads an identity network, detecting which one from the file."""
    if path.suffix in (".onnx", ".pth", ".ckpt"):
        model, units = load_iresnet(path) if path.suffix == ".onnx" else load_torch_iresnet(path)
        return _Network(model.name, model, iresnet.WINDOW, taps=iresnet.ifsr_taps(units))
    if path.suffix == ".tar":
        return _Network(
            "arcface_irse", irse.load_irse(path), irse.WINDOW, scale=list(irse.SCALE), offset=list(irse.OFFSET)
        )
    stored = read_keras_h5(path)
    if arcface_resnet50.is_arcface_resnet50(stored):
        model = arcface_resnet50.load_arcface_resnet50(stored)
        taps = arcface_resnet50.IFSR_TAPS
        return _Network("arcface_res50", model, arcface_resnet50.WINDOW, taps=taps, scale=0.5, offset=0.5)
    if "stem_conv" in stored.weights:
        model = load_by_layer_name(dlib_resnet.build_dlib_resnet(), path)
        return _Network(
            "dlib_resnet",
            model,
            dlib_resnet.WINDOW,
            taps=dlib_resnet.IFSR_TAPS,
            scale=127.5,
            offset=127.5,
            center=_read_center("dlib_center.npy"),
            embedding_scale=DLIB_SCALE,
        )
    if "faceres_stem" in stored.weights:
        model = load_by_layer_name(faceres.build_faceres(), path)
        return _Network(
            "faceres", model, faceres.WINDOW, scale=127.5, offset=127.5, center=_read_center("faceres_center.npy")
        )
    raise UserError(
        f"{path}: no identity encoder that is known (dlib ResNet, ArcFace-Res50, FaceRes, InsightFace .onnx"
        " or .pth, SimSwap's .tar)"
    )


def _read_center(name):
    """Reads the mean embedding of many faces, included in the package."""
    with resources.files("facedancer.arcface_model").joinpath(name).open("rb") as file:
        return np.load(file)
