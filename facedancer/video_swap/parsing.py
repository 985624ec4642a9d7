"""A face-parsing network that the user brings, as a mask.

The conventions are those of BiSeNet trained on CelebAMask-HQ (Lee et al., CVPR 2020), in which such networks are
published: FFHQ's crop, RGB with ImageNet's mean and deviation taken off, the classes' logits (n, 19, h, w) as the
first output. Skin, brows, eyes, nose, mouth and lips are swapped; the target's hair, hats, ears and glasses stay.
"""

import cv2
import numpy as np

from facedancer.core.alignment import landmark_template
from facedancer.core.console import UserError
from facedancer.video_swap.crops import FFHQ_SHRINK
from facedancer.video_swap.onnx_network import OnnxNetwork

# Of CelebAMask-HQ: 0 background, 1 skin, 2-3 brows, 4-5 eyes, 6 glasses, 7-9 ears and earrings, 10 nose, 11 mouth,
# 12-13 lips, 14-15 neck and necklace, 16 cloth, 17 hair, 18 hat.
CLASSES, SHOWN = 19, (1, 2, 3, 4, 5, 10, 11, 12, 13)
_MEAN, _DEVIATION = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


class ParsingNetwork:
    """Says of each pixel of a crop how likely it is one that is swapped.

    Args:
        path: the .onnx file.

    Attributes:
        size, template: of the crop that it takes.

    Raises:
        UserError: as of `OnnxNetwork`, or if it has not those classes.
    """

    def __init__(self, path):
        self._network = OnnxNetwork(path)
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
        return np.stack([cv2.resize(mask, (self.size, self.size)) for mask in shown])[..., None]

    def _logits(self, crops):
        return self._network((np.float32(crops) / 255 - _MEAN) / _DEVIATION)
