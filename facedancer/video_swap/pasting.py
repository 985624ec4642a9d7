"""Pastes swapped faces back into their frames: masks, color transfer, blending and enhancement."""

from dataclasses import dataclass

import numpy as np

from facedancer.core.alignment import invert_affine
from facedancer.core.flags import flag
from facedancer.video_swap.blending import BLENDINGS, paste_face
from facedancer.video_swap.color_transfer import COLOR_TRANSFERS, transfer_colors
from facedancer.video_swap.enhancing import Enhancer
from facedancer.video_swap.masks import MASKS, FaceMasks, check_masks


@dataclass(frozen=True)
class PasteOptions:
    """The flags of pasting; raises `UserError` for an unknown mask."""

    mask: tuple[str, ...] = flag(
        ("box",),
        f"part of the swapped face to show; several masks are combined by their minimum: {', '.join(MASKS)}, or a"
        " face-parsing network's .onnx or .pth file",
        metavar="KIND",
    )
    restore_mouth: bool = flag(False, "keep the target's own mouth")
    restore_eyes: bool = flag(False, "keep the target's own eyes")
    color_transfer: str = flag(
        "none", "match the swapped face's colors to the target's, in CIE Lab", choices=COLOR_TRANSFERS
    )
    blending: str = flag("mix", "how to blend the face into the frame", choices=BLENDINGS)
    enhancer: str | None = flag(None, "face restorer, .onnx, to run on each swapped face", metavar="FILE")

    def __post_init__(self):
        check_masks(self.mask)


class FacePaster:
    """Pastes aligned faces into frames.

    Args:
        options: `PasteOptions`.
        size: side S of the aligned face in pixels.
        shrink_factor: shrink factor of its landmark template.

    Attributes:
        crops: list of `Crop`, the parts of a frame that masks and enhancer read.

    Raises:
        UserError: if a network is missing or of the wrong kind.
    """

    def __init__(self, options, size, shrink_factor):
        self._options = options
        self._masks = FaceMasks(options.mask, size, shrink_factor, options.restore_mouth, options.restore_eyes)
        self._enhancer = options.enhancer and Enhancer(options.enhancer, size, shrink_factor)
        self.crops = [*self._masks.crops, *([self._enhancer.crop] if self._enhancer else [])]

    def masks(self, frames, frames_to_aligned):
        """Returns the masks of n faces, one in each of n frames; see `FaceMasks`."""
        return self._masks(frames, frames_to_aligned)

    def paste(self, frame, face, target, mask, frame_to_aligned, weight=1.0):
        """Pastes a swapped face into its frame, in place.

        Args:
            frame: (H, W, 3) uint8 RGB.
            face: the swapped face, (S, S, 3) float32 in [0, 255].
            target: the aligned face that it replaces, (S, S, 3) uint8.
            mask: (S, S, 1) float32 in [0, 1]; 0 keeps the frame's pixel.
            frame_to_aligned: (2, 3).
            weight: opacity of the face, [0, 1].

        Returns:
            The region `(x1, y1, x2, y2)` that may have changed, end excluded; None if nothing did.
        """
        face = transfer_colors(face, target, mask, self._options.color_transfer)
        mask = mask * np.float32(weight)
        region = paste_face(frame, face, mask, invert_affine(frame_to_aligned), self._options.blending)
        if region and self._enhancer:
            region = _union(region, self._enhancer.enhance(frame, mask, frame_to_aligned))
        return region


def _union(a, b):
    """Returns the smallest region that contains both; the second may be None."""
    return a if b is None else (min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3]))
