"""Swaps beside their truth: a perfect swapper, one that does nothing, pictures without faces."""

import json

import numpy as np
import pytest

from facedancer.core.console import UserError
from facedancer.core.images import write_image
from facedancer.evaluate.truth import average, measure_pairs


class Swapper:
    """Answers from a table; a picture's identity is its mean colour, black pictures show no face."""

    class encoder:
        dim = 3

    def __init__(self, swap):
        self.swap = swap

    def embed(self, image):
        if not image.any():
            raise UserError("there is no face in the source picture")
        return image.reshape(-1, 3).mean(0).astype(np.float32)


@pytest.fixture
def world(tmp_path):
    """Two scenes, of which the second picture is the first with the portrait's colour on its left half.

    The last portrait shows no face.
    """
    scenes, portraits = [], []
    at = {"landmarks": [[2, 2], [6, 2], [4, 4], [2, 6], [6, 6]]}

    def write(file, image, identity):
        write_image(tmp_path / file, image)
        return {"file": file, "identity": identity, **at}

    for index, source_colour in enumerate([(10, 200, 10), (0, 0, 0)]):
        target = np.full((8, 8, 3), (200, 10, 10), np.uint8)
        source = np.full((8, 8, 3), source_colour, np.uint8)
        truth = target.copy()
        truth[:, :4] = source[:, :4]
        names = (f"swaps/{index}/0.png", f"swaps/{index}/1.png")
        pictures = [write(names[0], target, 9), write(names[1], truth, index)]
        scenes.append(json.dumps({"pictures": pictures}) + "\n")
        portraits.append(json.dumps(write(f"portraits/{index}.png", source, index)) + "\n")
    portraits.append(json.dumps(write("portraits/9.png", np.zeros((8, 8, 3), np.uint8), 9)) + "\n")
    (tmp_path / "swaps.jsonl").write_text("".join(scenes))
    (tmp_path / "portraits.jsonl").write_text("".join(portraits))
    return tmp_path


def swap_perfectly(target, source):
    if not source.any():
        raise UserError("there is no face in the source picture")
    truth = target.copy()
    truth[:, :4] = source[:, :4]
    return truth


def swap_nothing(target, source):
    if not source.any():
        raise UserError("there is no face in the source picture")
    return target.copy()


def test_a_perfect_swap_has_no_error(world):
    (one,) = measure_pairs(Swapper(swap_perfectly), world, 10)
    assert one.error == 0 and one.identity_to_truth == pytest.approx(1)
    assert one.target_error == pytest.approx((190 + 190 + 0) / 3)


def test_doing_nothing_scores_what_the_target_does(world):
    (one,) = measure_pairs(Swapper(swap_nothing), world, 10)
    assert one.error == one.target_error > 0
    assert one.identity_to_target == pytest.approx(1) and one.identity_to_source < 0.2
    assert average([one, one])["error"] == one.error


def test_worlds_without_pairs_and_without_faces_are_said(world, tmp_path):
    with pytest.raises(UserError, match=r"holds no portraits.jsonl"):
        measure_pairs(Swapper(swap_nothing), tmp_path / "pairs", 10)
    (line,) = (world / "swaps.jsonl").read_text().splitlines()[1:]
    (world / "swaps.jsonl").write_text(line + "\n")
    with pytest.raises(UserError, match="in none of 2 pairs"):
        measure_pairs(Swapper(swap_nothing), world, 10)
