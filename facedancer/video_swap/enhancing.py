"""Runs a face restorer that the user provides on swapped faces.

The interface is that of published face restorers (GFPGAN, GPEN, CodeFormer): FFHQ's crop (n, 3, S, S), RGB in
[-1, 1], in; the same crop in [-1, 1] out, of the same size or larger. The crop shows the face after pasting, and
the output is pasted under the same mask.
"""

import cv2
import numpy as np

from facedancer.core.alignment import compose_affine, invert_affine, landmark_template
from facedancer.core.console import UserError
from facedancer.core.images import to_signed
from facedancer.video_swap.blending import paste_face
from facedancer.video_swap.crops import FFHQ_SHRINK, Crop
from facedancer.video_swap.onnx_network import OnnxNetwork


class Enhancer:
    """Enhances faces in frames.

    Args:
        path: the .onnx file.
        aligned_size, shrink_factor: side in pixels and shrink factor of the swapper's aligned face.

    Attributes:
        crop: `Crop`, the crop of frames that it reads.

    Raises:
        UserError: as for `OnnxNetwork`, or if the output is smaller than the input.
    """

    def __init__(self, path, aligned_size, shrink_factor):
        self._network = OnnxNetwork(path)
        size = self._network.size
        self.crop = Crop(landmark_template(size, FFHQ_SHRINK), size, aligned_size, shrink_factor)
        shape = self._network(np.zeros((1, size, size, 3), np.float32)).shape
        if len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3] or shape[2] < size:
            raise UserError(f"{path} returns {shape}; expected (n, 3, S, S), S at least {size}")
        self._factor = shape[2] / size

    def enhance(self, frame, mask, frame_to_aligned):
        """Enhances one face of a frame, in place.

        Args:
            frame: (H, W, 3) uint8, with the swapped face pasted.
            mask: (S, S, 1) float32 on the aligned face, the mask used for pasting.
            frame_to_aligned: (2, 3).

        Returns:
            The region that changed, see `paste_face`.
        """
        crop = self.crop.cut([frame], [frame_to_aligned])
        (enhanced,) = self._network(to_signed(crop)).transpose(0, 2, 3, 1)
        # Pixel centers: i of the crop is at factor * (i + 0.5) - 0.5 of the output.
        factor, shift = self._factor, (self._factor - 1) / 2
        grow = np.array([[factor, 0, shift], [0, factor, shift]])
        aligned_to_enhanced = compose_affine(grow, invert_affine(self.crop.to_aligned))
        enhanced_to_frame = invert_affine(compose_affine(grow, self.crop.matrix(frame_to_aligned)))
        side = (len(enhanced), len(enhanced))
        mask = cv2.warpAffine(mask, aligned_to_enhanced, side, flags=cv2.INTER_LINEAR)[..., None]
        return paste_face(frame, np.clip((enhanced + 1) * 127.5, 0, 255), mask, enhanced_to_frame)
