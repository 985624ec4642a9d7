"""Face crops for networks other than the swap model, and the transforms between them and the aligned face."""

import cv2
import numpy as np

from facedancer.core.alignment import (
    compose_affine,
    estimate_similarity,
    invert_affine,
    landmark_template,
    transform_points,
    warp_to_aligned,
)

# FFHQ's crop (Karras et al., 2019), used by networks that parse or enhance faces, has ArcFace's as its central part.
FFHQ_SHRINK = 0.78


class Crop:
    """A crop of the swapper's faces by another template.

    Args:
        template: (5, 2) landmarks on the crop in pixels; that of `core.alignment` up to a similarity.
        size: its side in pixels.
        aligned_size, shrink_factor: side in pixels and shrink factor of the swapper's aligned face.

    Attributes:
        to_aligned: (2, 3), from the crop's pixels to the aligned face's.
        corners: (4, 2) the crop's corners, in pixels of the aligned face.
    """

    def __init__(self, template, size, aligned_size, shrink_factor):
        self.size = size
        self._from_aligned = estimate_similarity(landmark_template(aligned_size, shrink_factor), template)
        self.to_aligned = invert_affine(self._from_aligned)
        self.corners = transform_points(self.to_aligned, [[0, 0], [size, 0], [0, size], [size, size]])

    def matrix(self, frame_to_aligned):
        """Returns the (2, 3) map from the frame to the crop."""
        return compose_affine(self._from_aligned, frame_to_aligned)

    def cut(self, frames, frames_to_aligned):
        """Returns crops (n, size, size, 3) uint8 of n faces, one in each of n frames (H, W, 3) uint8."""
        return np.stack(
            [
                warp_to_aligned(frame, self.matrix(matrix), self.size, cv2.BORDER_REPLICATE)
                for frame, matrix in zip(frames, frames_to_aligned, strict=True)
            ]
        )
