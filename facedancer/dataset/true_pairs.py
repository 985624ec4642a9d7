"""The pairs of a synthetic world as records: target, source and the true swap, which no photographs have."""

import json
from pathlib import Path

import numpy as np

from facedancer.core.alignment import align_matrix, warp_to_aligned
from facedancer.core.console import UserError
from facedancer.core.images import encode_image, read_image
from facedancer.core.records import FaceRecord

PAIRS_NAME = "pairs.jsonl"


def read_pairs(world):
    """Reads the list of pairs that `facedancer synthesize --pairs` wrote.

    Args:
        world: its folder.

    Returns:
        Name of the pair, "pairs/00003", -> its line: `target`, `source`, `swapped`, each with `file` and `landmarks`.

    Raises:
        UserError: if there is no such list, or it is damaged.
    """
    path = Path(world) / PAIRS_NAME
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for line in lines:
            for name in ("target", "source", "swapped"):
                np.array(line[name]["landmarks"], np.float32).reshape(5, 2)
                line[name]["file"].rpartition("/")
        return {line["target"]["file"].rpartition("/")[0]: line for line in lines}
    except FileNotFoundError:
        raise UserError(f"{world} holds no {PAIRS_NAME}; make it with `facedancer synthesize --pairs True`") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path} is damaged; make the pairs again") from None


def build_pair_record(world, line, image_size, shrink_factor):
    """Aligns a pair; returns its `FaceRecord`. A pair is an identity of its own: no other picture shows it.

    Raises:
        ImageError: if a picture cannot be read.
    """
    matrices = {
        name: align_matrix(np.array(line[name]["landmarks"], np.float32), image_size, shrink_factor)
        for name in ("target", "source")
    }
    matrices["swapped"] = matrices["target"]
    aligned = {
        name: encode_image(warp_to_aligned(read_image(Path(world, line[name]["file"])), matrix, image_size), ".png")
        for name, matrix in matrices.items()
    }
    name = line["target"]["file"]
    return FaceRecord(
        face=aligned["target"],
        identity=name.rpartition("/")[0],
        name=name,
        source=aligned["source"],
        truth=aligned["swapped"],
    )
