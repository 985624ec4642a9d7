"""Masks on the aligned face: how much of the swapped face is shown at each pixel.

Each mask is (S, S, 1) float32 in [0, 1] on the swap model's aligned face of S pixels. Several masks are combined by
their minimum.
"""

from math import erf, sqrt

import cv2
import numpy as np

from facedancer.core.alignment import landmark_template, transform_points
from facedancer.core.console import UserError
from facedancer.core.weights import find_weights
from facedancer.video_swap.crops import Crop

# FaceDancer's box on a 256-pixel face: it excludes forehead and crop border, and has a Gaussian edge.
_ROWS, _COLUMNS, _SIGMA, _SIZE = (77, 240), (32, 224), 7.0, 256

# As shares of the aligned face's side at a `shrink_factor` of 1: fade widths inward from the hull's edge, outward from
# restored lips and eyes, and inward from the crop's border; and the blur of a network's mask.
_HULL_FADE, _MOUTH_FADE, _EYE_FADE, _BORDER_FADE = 0.08, 0.06, 0.05, 0.12
_NETWORK_BLUR = 0.008

MASKS = ("box", "hull", "occlusion", "parsing")


class FaceMasks:
    """Computes the masks of faces in frames.

    Args:
        kinds: list of `MASKS` or paths of face-parsing networks (see `parsing`); "parsing" is the one in `models/`.
        size: side S of the aligned face in pixels.
        shrink_factor: shrink factor of the landmark template.
        restore_mouth, restore_eyes: whether to keep the target's own mouth and eyes.

    Attributes:
        crops: list of `Crop`, the crops of frames that it reads.

    Raises:
        UserError: if a network is missing or is not a face-parsing network.
    """

    def __init__(self, kinds=("box",), size=256, shrink_factor=1.0, restore_mouth=False, restore_eyes=False):
        self._size, self._shrink_factor = size, shrink_factor
        self._still = soft_box(size, shrink_factor) if "box" in kinds else border_fade(size, shrink_factor)
        self._has_hull = "hull" in kinds
        self._kept = []  # contours to keep, and their fade outward
        self.crops = []
        self._networks = []  # (function of crops (n, s, s, 3) uint8 -> masks (n, s, s, 1), its `Crop`)
        if self._has_hull or restore_mouth or restore_eyes:
            from facedancer.face_parts import dense_landmarks as dense

            dense.load_face_mesh()
            self._find_points = dense.find_points
            self._mesh_crop = self._crop(dense.TEMPLATE, dense.CROP_SIZE)
            if restore_mouth:
                self._kept += [(dense.LIPS, _MOUTH_FADE)]
            if restore_eyes:
                self._kept += [(dense.LEFT_EYE, _EYE_FADE), (dense.RIGHT_EYE, _EYE_FADE)]
        if "occlusion" in kinds:
            from facedancer.face_parts import occlusion

            template = landmark_template(occlusion.CROP_SIZE, occlusion.CROP_SHRINK)
            self._networks.append((occlusion.visible_face, self._crop(template, occlusion.CROP_SIZE)))
        for kind in (kind for kind in kinds if kind not in MASKS or kind == "parsing"):
            from facedancer.video_swap.parsing import ParsingNetwork

            network = ParsingNetwork(find_weights("face_parsing") if kind == "parsing" else kind)
            self._networks.append((network, self._crop(network.template, network.size)))

    def __call__(self, frames, frames_to_aligned):
        """Returns the masks of n faces, one in each of n frames: a list of (S, S, 1) float32 in [0, 1].

        Args:
            frames: list of n frames, (H, W, 3) uint8 RGB.
            frames_to_aligned: list of n matrices, (2, 3).
        """
        masks = [self._still] * len(frames)
        if not frames:
            return masks
        for network, crop in self._networks:
            found = network(crop.cut(frames, frames_to_aligned))
            masks = [self._within(mask, part, crop) for mask, part in zip(masks, found, strict=True)]
        if self._has_hull or self._kept:
            points = self._find_points(self._mesh_crop.cut(frames, frames_to_aligned))
            points = transform_points(self._mesh_crop.to_aligned, points)
            masks = [self._about(mask, face) for mask, face in zip(masks, points, strict=True)]
        return masks

    def _crop(self, template, size):
        crop = Crop(template, size, self._size, self._shrink_factor)
        self.crops.append(crop)
        return crop

    def _within(self, mask, found, crop):
        """Returns the minimum of a mask and a network's mask on its crop."""
        found = cv2.warpAffine(found, crop.to_aligned, (self._size, self._size), flags=cv2.INTER_LINEAR)
        found = cv2.GaussianBlur(found, (0, 0), _NETWORK_BLUR * self._size * self._shrink_factor)[..., None]
        found[found < 1 / 255] = 0  # too small to change a gray level
        return np.minimum(mask, found)

    def _about(self, mask, points):
        """Limits a mask to the hull of dense landmarks (468, 2), and excludes the target's restored parts."""
        scale = self._size * self._shrink_factor
        if self._has_hull:
            mask = np.minimum(mask, hull_mask(points, self._size, _HULL_FADE * scale))
        for contour, fade in self._kept:
            mask = np.minimum(mask, 1 - area_mask(points[list(contour)], self._size, fade * scale))
        return mask


def check_masks(kinds):
    """Raises `UserError` if a kind is neither one of `MASKS` nor a network's file name."""
    for kind in kinds:
        if kind not in MASKS and not kind.lower().endswith((".onnx", ".pth")):
            raise UserError(f"--mask {kind}: give {', '.join(MASKS)}, or a face-parsing network's .onnx or .pth file")


def soft_box(size, shrink_factor=1.0):
    """Returns FaceDancer's soft box, (size, size, 1) float32 in [0, 1].

    The box convolved with the Gaussian in closed form, so that it covers the same part of the face at every size.
    Values too small to change a gray level are 0; there a frame stays unchanged.

    Args:
        size: side of the aligned face in pixels.
        shrink_factor: of the landmark template (see `core.alignment`); below 1 the face fills less of the crop.
    """
    mask = _soft_step(_ROWS, size, shrink_factor)[:, None] * _soft_step(_COLUMNS, size, shrink_factor)
    mask[mask < 1 / 255] = 0
    return mask[..., None].astype(np.float32)


def _soft_step(interval, size, shrink_factor):
    """Returns a blurred interval of pixels: the share of a Gaussian around each pixel's center that lies inside."""
    scale = shrink_factor * size / _SIZE
    # Pixel i spans i - 0.5 to i + 0.5; the crop shrinks about `size / 2`, as the template does.
    low, high = ((edge - 0.5 - _SIZE / 2) * scale + size / 2 for edge in interval)
    width = _SIGMA * scale * sqrt(2)
    return np.array([(erf((high - i) / width) - erf((low - i) / width)) / 2 for i in range(size)])


def border_fade(size, shrink_factor=1.0):
    """Returns 1, falling to 0 at the crop's border, (size, size, 1) float32; beyond it, nothing was swapped."""
    distance = np.minimum(np.arange(size), np.arange(size)[::-1]).astype(np.float32)
    ramp = _soften(distance / (_BORDER_FADE * size * shrink_factor))
    return (ramp[:, None] * ramp)[..., None]


def hull_mask(points, size, fade):
    """Returns the convex hull of points, (size, size, 1) float32, falling to 0 at its edge.

    Args:
        points: (n, 2) in pixels of the aligned face; they may lie outside.
        size: side of the aligned face in pixels.
        fade: width of the fade in pixels, inward from the hull's edge.
    """
    margin = int(fade) + 2  # the hull's edge may lie beyond the crop's
    filled = _fill(cv2.convexHull(np.float32(points))[:, 0], size, margin)
    inside = cv2.distanceTransform(filled, cv2.DIST_L2, cv2.DIST_MASK_5)
    # Distances are to the center of the nearest pixel beyond the edge.
    return _soften((inside[margin:-margin, margin:-margin] - 0.5) / fade)[..., None]


def area_mask(points, size, fade):
    """Returns 1 inside a closed polygon (n, 2), falling to 0 at `fade` pixels outside; see `hull_mask`."""
    margin = int(fade) + 2
    outside = cv2.distanceTransform(1 - _fill(points, size, margin), cv2.DIST_L2, cv2.DIST_MASK_5)
    return _soften(1 - (outside[margin:-margin, margin:-margin] - 0.5) / fade)[..., None]


def _fill(points, size, margin):
    """Returns 1 inside a closed polygon, (size + 2 margin)² uint8."""
    canvas = np.zeros((size + 2 * margin, size + 2 * margin), np.uint8)
    bits = 4  # fractional bits of a pixel
    cv2.fillPoly(canvas, [np.int32(np.rint((np.asarray(points) + margin) * 2**bits))], 1, shift=bits)
    return canvas


def _soften(ramp):
    """Returns a ramp from 0 to 1 with smooth ends."""
    ramp = np.clip(ramp, 0, 1).astype(np.float32)
    return ramp * ramp * (3 - 2 * ramp)
