"""Masks of faces from picture files: where a swap may change an aligned face.

A gray picture is white there. A colored one shows the parts that a face parser told apart, in the colors of
CelebAMask-HQ's tools; then the face is what HifiFace's training takes for it: skin, nose, brows, eyes, ears, lips and
mouth, without hair, hat, glasses, earrings, neck and clothes.
"""

import cv2
import numpy as np

from facedancer.core.images import IMAGE_SUFFIXES, ImageError, encode_image, read_image

# Skin, nose, left and right eye, left and right brow, left and right ear, mouth, upper and lower lip.
FACE_COLORS = (
    (204, 0, 0), (76, 153, 0), (204, 0, 204), (51, 51, 255), (255, 204, 204), (0, 255, 255), (102, 51, 0), (255, 0, 0),
    (102, 204, 0), (255, 255, 0), (0, 0, 153),
)  # fmt: skip


def find_mask(mask_dir, name):
    """Returns the path of the mask of a picture: the same path below another folder, with whatever picture's suffix.

    Args:
        mask_dir: folder of masks.
        name: path of the picture below its own folder.

    Raises:
        ImageError: if there is none.
    """
    for path in (mask_dir / name, *((mask_dir / name).with_suffix(suffix) for suffix in sorted(IMAGE_SUFFIXES))):
        if path.is_file():
            return path
    raise ImageError("no mask")


def read_mask(path, size):
    """Returns the mask in a file as a record has it, a gray PNG's bytes, 255 where the face is.

    Args:
        path: the file.
        size: side of its picture in pixels, to which it is brought.

    Raises:
        ImageError: if it cannot be read or is not square.
    """
    picture = read_image(path)
    if picture.shape[0] != picture.shape[1]:
        raise ImageError("mask not square")
    if (picture == picture[..., :1]).all():
        mask = np.where(picture[..., 0] > 127, np.uint8(255), np.uint8(0))
    else:
        is_face = [(picture == np.uint8(color)).all(-1) for color in FACE_COLORS]
        mask = np.where(np.any(is_face, axis=0), np.uint8(255), np.uint8(0))
    return encode_image(cv2.resize(mask, (size, size), interpolation=cv2.INTER_NEAREST), ".png")
