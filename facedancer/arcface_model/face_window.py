"""A differentiable layer from an aligned face of any size to a frozen network's input pixels.

Each frozen network was trained on its own crop of the face. The crop's pixels are defined once, in the coordinates of
ArcFace's 112-pixel template, for any image size and shrink factor of our aligned faces. (The original's resizing maps
half-pixel centers to corners, which shifts ArcFace's input by a quarter of a pixel; ours does not.) Sampling is
separable, so it is two constant matrix products: the gradient is exact, and reduction averages, unlike plain bilinear
resizing.
"""

from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

_TEMPLATE_SIZE = 112.0


@dataclass(frozen=True)
class Window:
    """The position of a network's input on the 112-pixel template.

    Attributes:
        size: side of the network's input in pixels.
        x, y: template coordinates of the center of its first pixel.
        step: distance between its pixels on the template.
    """

    size: int
    x: float = 0.0
    y: float = 0.0
    step: float = 1.0


def window_positions(window, image_size, shrink_factor=1.0):
    """Returns the positions of a window's columns and rows on the aligned face.

    Args:
        window: a `Window`.
        image_size: side of the aligned face in pixels.
        shrink_factor: of its landmark template, see `core.alignment.landmark_template`.

    Returns:
        Two float64 arrays (window.size,): x and y in pixels of the aligned face, with the first pixel's center at 0.
    """
    steps = window.step * np.arange(window.size)
    scale = image_size / _TEMPLATE_SIZE
    center = _TEMPLATE_SIZE / 2

    def place(start):
        return (center + shrink_factor * (start + steps - center)) * scale

    return place(window.x), place(window.y)


def sampling_matrix(positions, size):
    """Returns the (len(positions), size) float32 matrix that samples `size` pixels at evenly spaced positions.

    The weights form a triangle over two pixels, or over two steps if a step is longer than a pixel. Beyond the
    picture, border pixels are replicated.
    """
    width = max(1.0, positions[1] - positions[0])
    matrix = np.zeros((len(positions), size))
    for row, position in zip(matrix, positions, strict=True):
        pixels = np.arange(np.floor(position - width), np.ceil(position + width) + 1)
        weights = np.maximum(0.0, 1.0 - np.abs(pixels - position) / width)
        np.add.at(row, np.clip(pixels, 0, size - 1).astype(int), weights / weights.sum())
    return matrix.astype(np.float32)


@keras.saving.register_keras_serializable("facedancer")
class FaceWindow(keras.layers.Layer):
    """Samples a window from aligned faces: (n, S, S, channels) -> (n, size, size, channels).

    Args:
        size, x, y, step: the `Window`.
        shrink_factor: of the aligned faces' landmark template.
    """

    def __init__(self, size, x=0.0, y=0.0, step=1.0, shrink_factor=1.0, **kwargs):
        super().__init__(**kwargs)
        self.window = Window(int(size), float(x), float(y), float(step))
        self.shrink_factor = float(shrink_factor)

    def build(self, input_shape):
        _, height, width, _ = input_shape
        columns, rows = window_positions(self.window, width, self.shrink_factor)
        if height != width:
            raise ValueError(f"aligned faces are square, not {height} by {width}")
        self._rows, self._columns = sampling_matrix(rows, height), sampling_matrix(columns, width)

    def call(self, faces):
        rows = ops.cast(self._rows, self.compute_dtype)
        columns = ops.cast(self._columns, self.compute_dtype)
        return ops.einsum("xw,nywc->nyxc", columns, ops.einsum("yh,nhwc->nywc", rows, faces))

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.window.size, self.window.size, input_shape[3])

    def get_config(self):
        window = self.window
        return {
            **super().get_config(),
            "size": window.size,
            "x": window.x,
            "y": window.y,
            "step": window.step,
            "shrink_factor": self.shrink_factor,
        }
