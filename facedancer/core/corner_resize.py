"""Bilinear resizing with the corners kept, PyTorch's `align_corners=True`, which Keras has not."""

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable(package="facedancer")
class ResizeByCorners(keras.layers.Layer):
    """Bilinear, the corner pixels' centers onto each other: (n, h, w, C) -> (n, height, width, C)."""

    def __init__(self, height, width, **kwargs):
        super().__init__(**kwargs)
        self.height, self.width = int(height), int(width)

    def build(self, input_shape):
        self._rows, self._columns = _sampling(input_shape[1], self.height), _sampling(input_shape[2], self.width)

    def call(self, x):
        rows, columns = (ops.cast(matrix, self.compute_dtype) for matrix in (self._rows, self._columns))
        return ops.einsum("xw,nywc->nyxc", columns, ops.einsum("yh,nhwc->nywc", rows, x))

    def compute_output_shape(self, input_shape):
        return input_shape[0], self.height, self.width, input_shape[3]

    def get_config(self):
        return {**super().get_config(), "height": self.height, "width": self.width}


def _sampling(size, wanted):
    """The (wanted, size) matrix of one axis."""
    places = np.linspace(0, size - 1, wanted)
    return np.maximum(0, 1 - np.abs(places[:, None] - np.arange(size))).astype(np.float32)
