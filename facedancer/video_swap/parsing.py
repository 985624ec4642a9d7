"""A face-parsing network that the user provides, used as a mask.

The interface is that of BiSeNet trained on CelebAMask-HQ (Lee et al., CVPR 2020), the usual form of such networks:
FFHQ's crop, RGB normalized by ImageNet's mean and deviation. In ONNX files, the class logits (n, 19, h, w) are the
first output; PyTorch's `79999_iter.pth` is loaded into our own network. Skin, brows, eyes, nose, mouth and lips are
swapped; the target's hair, hats, ears and glasses stay. The mask is eroded and softened, as in SimSwap (Chen et al.,
ACM Multimedia 2020), which also swaps glasses.
"""

from pathlib import Path

import cv2
import numpy as np

from facedancer.core.alignment import landmark_template
from facedancer.core.console import UserError
from facedancer.video_swap.crops import FFHQ_SHRINK
from facedancer.video_swap.onnx_network import OnnxNetwork

# Indices of the classes of `face_parts.parsing`.
CLASSES, SHOWN = 19, (1, 2, 3, 4, 5, 10, 11, 12, 13)
_MEAN, _DEVIATION = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
_EROSION = 8 / 512  # share of the crop's side: half the neighborhood of `soft_erosion`, 17 pixels of 512
_SIZE = 512  # crop size for a `.pth`, the size it was trained on


class ParsingNetwork:
    """Computes, for each pixel of a crop, the probability that it belongs to the swapped parts.

    Args:
        path: the .onnx or .pth file.

    Attributes:
        size, template: of its input crop.

    Raises:
        UserError: as for `OnnxNetwork` and `load_parsing_network`, or if the classes differ.
    """

    def __init__(self, path):
        self._network = _PublishedNetwork(path) if Path(path).suffix == ".pth" else OnnxNetwork(path)
        self.size = self._network.size
        self.template = landmark_template(self.size, FFHQ_SHRINK)
        classes = self._logits(np.zeros((1, self.size, self.size, 3), np.uint8)).shape
        if len(classes) != 4 or classes[1] != CLASSES:
            raise UserError(f"{path} gives {classes}; expected (n, {CLASSES}, h, w), the classes of CelebAMask-HQ")

    def __call__(self, crops):
        """Returns masks (n, S, S, 1) float32 for crops (n, S, S, 3) uint8."""
        logits = self._logits(crops)
        share = np.exp(logits - logits.max(1, keepdims=True))
        shown = share[:, list(SHOWN)].sum(1) / share.sum(1)
        shown = [cv2.resize(mask, (self.size, self.size)) for mask in shown]
        size = 2 * round(_EROSION * self.size) + 1
        return np.stack([soft_erosion(mask, size) for mask in shown])[..., None]

    def _logits(self, crops):
        return self._network((np.float32(crops) / 255 - _MEAN) / _DEVIATION)


class _PublishedNetwork:
    """A `.pth` network with the interface of `OnnxNetwork`."""

    def __init__(self, path):
        import keras

        from facedancer.face_parts.parsing import load_parsing_network

        self.size = _SIZE
        model = load_parsing_network(path, _SIZE, _SIZE)
        self._model = keras.Model(model.input, model.outputs[0])
        self._model.compile(jit_compile=False)

    def __call__(self, pictures):
        return np.concatenate([self._model.predict_on_batch(picture[None]) for picture in pictures]).transpose(
            0, 3, 1, 2
        )


def soft_erosion(mask, size=17, threshold=0.9, iterations=7):
    """Moves a mask's edge inward and softens it.

    Each iteration but the last takes the minimum of the mask and its mean over a neighborhood, weighted toward nearer
    pixels; the last takes the mean. Values above the threshold become 1, and the rest are scaled up to match.

    Args:
        mask: (H, W) float32 in [0, 1].
        size: side of the neighborhood in pixels, odd.
    """
    y, x = np.mgrid[:size, :size] - size // 2
    distance = np.hypot(x, y)
    kernel = distance.max() - distance
    kernel = np.float32(kernel / kernel.sum())

    def mean(mask):  # a face that extends beyond the border is not eroded there
        return cv2.filter2D(mask, -1, kernel, borderType=cv2.BORDER_REPLICATE)

    for _ in range(iterations - 1):
        mask = np.minimum(mask, mean(mask))
    mask = mean(mask)
    below = mask < threshold
    highest = mask[below].max(initial=0)
    return np.where(below, mask / max(highest, 1e-6), 1).astype(np.float32)
