"""The true swaps of a synthetic world as records: target, source and the true swap, which photographs cannot provide.

A scene shows several identities on one person: any picture can be the target, and any other picture is its true swap,
with a portrait of that identity as the source.
"""

import itertools
from pathlib import Path

import cv2
import numpy as np

from facedancer.core.alignment import align_matrix, warp_to_aligned
from facedancer.core.console import UserError
from facedancer.core.images import ImageError, encode_image, read_image
from facedancer.core.records import FaceRecord
from facedancer.core.schemas import WorldPicture, WorldScene, path_inside, read_json_lines

SWAPS_NAME, PORTRAITS_NAME = "swaps.jsonl", "portraits.jsonl"

# A mask extends this many pixels (of 128) beyond the differences.
_MARGIN = 3


def read_pairs(world):
    """Reads the list of true swaps that `facedancer synthesize --swaps` wrote.

    Args:
        world: its folder.

    Returns:
        A dictionary, name of the pair ("swaps/00003/0-2", ordered by scene) -> `target`, `source`, `swapped`, each a
        `core.schemas.WorldPicture`. A world of N identities and K swaps has N (K + 1) K.

    Raises:
        UserError: if the list is missing or damaged.
    """
    world = Path(world)
    portraits = {portrait.identity: portrait for portrait in _read_lines(world / PORTRAITS_NAME, WorldPicture)}
    pairs = {}
    for scene in _read_lines(world / SWAPS_NAME, WorldScene):
        folder = scene.pictures[0].file.rpartition("/")[0]
        for (a, target), (b, swapped) in itertools.permutations(enumerate(scene.pictures), 2):
            if swapped.identity not in portraits:
                raise UserError(f"{world / PORTRAITS_NAME} lacks identity {swapped.identity}; make the world again")
            pairs[f"{folder}/{a}-{b}"] = {"target": target, "source": portraits[swapped.identity], "swapped": swapped}
    return pairs


def _read_lines(path, kind):
    """Yields the lines of a world's file; their pictures are in its folder."""
    try:
        for number, line in read_json_lines(path, kind):
            for picture in line.pictures if kind is WorldScene else [line]:
                path_inside(path.parent, picture.file, f"{path}, line {number}")
            yield line
    except FileNotFoundError:
        raise UserError(f"{path.parent} holds no {path.name}; make it with `facedancer synthesize --swaps 1`") from None
    except UserError as error:
        raise UserError(f"{error}; make the world again") from None


def build_pair_record(world, name, pair, image_size, shrink_factor):
    """Aligns a pair; returns its `FaceRecord`, with the pair's name, and its scene as the identity.

    Its mask covers the differences between target and truth, dilated.

    Raises:
        ImageError: if a picture cannot be read, or its landmarks coincide.
    """
    try:
        matrices = {
            part: align_matrix(np.array(pair[part].landmarks, np.float32), image_size, shrink_factor)
            for part in ("target", "source")
        }
    except ValueError as error:
        raise ImageError(str(error)) from None
    matrices["swapped"] = matrices["target"]
    aligned = {
        part: warp_to_aligned(read_image(Path(world, pair[part].file)), matrix, image_size)
        for part, matrix in matrices.items()
    }
    changed = np.uint8((aligned["target"] != aligned["swapped"]).any(-1)) * 255
    side = 2 * max(1, round(_MARGIN * image_size / 128)) + 1
    mask = cv2.dilate(changed, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)))
    return FaceRecord(
        face=encode_image(aligned["target"], ".png"),
        identity=name.rpartition("/")[0],
        name=name,
        source=encode_image(aligned["source"], ".png"),
        truth=encode_image(aligned["swapped"], ".png"),
        mask=encode_image(mask, ".png"),
    )
