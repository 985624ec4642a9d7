"""Encoders of 3D face shape: aligned faces -> coefficients -> 68 landmarks, all differentiable.

The first coefficients are the person's own shape; the others describe the image: expression, pose, light. There are two
encoders. `head`, the default, is our own CC0 head, fitted to the landmarks of MediaPipe's face mesh. `deep3d` is the
published one (Deng et al., CVPR workshops 2019), whose network and basis are files that the user provides.

Deep3DFaceRecon fits its mean face's five landmarks by a least-squares affine map, of which it keeps position and scale.
With ArcFace's template this is a fixed window of our aligned faces. The window is a little larger than ArcFace's crop,
so only faces aligned with a shrink factor of 0.72 or less contain all of it. HifiFace's own checkpoint has the same
network, but trained and run on the whole aligned face.
"""

import functools
from pathlib import Path

import keras
import numpy as np
from keras import layers

from facedancer.arcface_model import deep3d_resnet50
from facedancer.arcface_model.face_window import FaceWindow, Window
from facedancer.arcface_model.frozen import frozen
from facedancer.arcface_model.parametric_face import PARTS, ParametricFace
from facedancer.core.images import to_signed
from facedancer.core.inference import runner
from facedancer.core.weights import find_weights

DEFAULT = "head"
_STEP = 0.57857  # the mean face's unit is 59.014 pixels of ArcFace's template, and 102 of the network's
DEEP3D_WINDOW = Window(deep3d_resnet50.SIZE, x=56.208 - 111.5 * _STEP, y=69.286 - 111.5 * _STEP, step=_STEP)
_BATCH = 32


class FaceShapes:
    """An encoder of face shapes for aligned faces of one size.

    Args:
        model: frozen Keras model, (n, S, S, 3) in [-1, 1] -> (n, dim) coefficients, float32.
        shape_dim: number of coefficients, at the start, that describe the person's shape.
        landmarks: differentiable function, coefficients (n, dim) -> (n, 68, 2) in pixels of a 224-pixel image.

    Attributes:
        dim: number of coefficients.
        name: name of the model.
        models: the frozen models that it uses.
    """

    def __init__(self, model, shape_dim, landmarks):
        self.model, self.shape_dim, self.landmarks = model, shape_dim, landmarks
        self.dim = model.output.shape[-1]
        self.name = model.name
        self.models = [model]

    def coefficients(self, faces):
        """Returns the coefficients (n, dim) of a tensor of aligned faces (n, S, S, 3) in [-1, 1]; differentiable."""
        return self.model(faces, training=False)

    def __call__(self, faces):
        """Returns the coefficients (n, dim) float32 of an array of aligned faces (n, S, S, 3) uint8 RGB."""
        found = [self._run(to_signed(faces[start : start + _BATCH])) for start in range(0, len(faces), _BATCH)]
        return np.concatenate(found) if found else np.empty((0, self.dim), np.float32)

    @functools.cached_property
    def _run(self):
        return runner(self.model)


def swapper_inputs(shapes, target, source, source_embedding):
    """Returns the list of a swapper's inputs, from tensors of aligned faces (n, S, S, 3) in [-1, 1].

    Args:
        shapes: `FaceShapes`, or None for a swapper that takes no coefficients.
        target, source: aligned faces.
        source_embedding: (n, dim), the source's identity.
    """
    coefficients = [] if shapes is None else [shapes.coefficients(faces) for faces in (source, target)]
    return [target, source_embedding, *coefficients]


def load_face_shapes(name, image_size, shrink_factor):
    """Loads an encoder of face shapes.

    Args:
        name: "head"; "deep3d"; or the path of Deep3DFaceRecon's `epoch_20.pth`, or of a checkpoint of HifiFace's
            (`.ckpt`), which holds the same network.
        image_size, shrink_factor: side in pixels and shrink factor of the aligned faces.

    Returns:
        A `FaceShapes`. Except with "head", its landmarks need `BFM_model_front.mat`, which is read on first use.

    Raises:
        UserError: if a file is missing or does not fit.
    """
    if name == DEFAULT:
        from facedancer.arcface_model import head_shape

        return head_shape.load(image_size, shrink_factor)
    path = find_weights(name)
    window = None if Path(path).suffix == ".ckpt" else DEEP3D_WINDOW
    network = deep3d_resnet50.load_deep3d(path, image_size if window is None else window.size)
    face = functools.cache(lambda: ParametricFace(find_weights("bfm_model_front")))
    model = connect(network, window, image_size, shrink_factor)
    return FaceShapes(model, PARTS["identity"], lambda coefficients: face().landmarks(coefficients))


@frozen
def connect(network, window, image_size, shrink_factor):
    """Builds a model from aligned faces.

    Args:
        network: Keras model, images (n, s, s, 3) in [0, 1] -> coefficients (n, dim).
        window: `Window` of its images on an aligned face; None if it sees the whole face as it is.
        image_size, shrink_factor: side in pixels and shrink factor of the aligned faces.

    Returns:
        A frozen Keras model, (n, S, S, 3) in [-1, 1] -> (n, dim).
    """
    x = faces = keras.Input((image_size, image_size, 3), name="aligned_signed")
    if window is not None:
        x = FaceWindow(**vars(window), shrink_factor=shrink_factor, name="window")(x)
    x = layers.Rescaling(0.5, 0.5, name="to_unit")(x)
    return keras.Model(faces, network(x), name=f"{network.name}_on_aligned_faces")
