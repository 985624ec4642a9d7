"""Swaps of rendered people against the picture that is their true result.

Of photographs nobody knows what the true swap looks like; of rendered people it can be rendered (`synthetic`).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facedancer.core.console import UserError, progress
from facedancer.core.images import ImageError, read_image
from facedancer.dataset.true_pairs import read_pairs


@dataclass(frozen=True)
class SwapAgainstTruth:
    """One swap beside its truth.

    Attributes:
        target, source, swapped, truth: (H, W, 3) uint8 RGB.
        error: mean absolute difference of swap and truth where target and truth differ, in grey levels [0, 255].
        target_error: the same of the target, left as it is: what doing nothing scores.
        identity_to_source, identity_to_truth, identity_to_target: cosine similarities of the swap's identity; NaN where
            no face was found in one of the pictures.
    """

    target: np.ndarray
    source: np.ndarray
    swapped: np.ndarray
    truth: np.ndarray
    error: float
    target_error: float
    identity_to_source: float
    identity_to_truth: float
    identity_to_target: float


def measure_pairs(swapper, world, count):
    """Swaps the pairs of a synthetic world and compares them with the truth.

    Args:
        swapper: `FaceSwapper`.
        world: folder that `facedancer synthesize --swaps` wrote.
        count: pairs to measure, at most.

    Returns:
        A list of `SwapAgainstTruth`; a pair in whose source no face is found is left out.

    Raises:
        UserError: if there are no pairs, or a picture is damaged.
    """
    world = Path(world)
    lines = list(read_pairs(world).values())[:count]
    measured = []
    for pair in progress(lines, desc="measure", unit="pair"):
        try:
            target, source, truth = (read_image(world / pair[name].file) for name in ("target", "source", "swapped"))
        except ImageError as error:
            raise UserError(f"{world}: a picture of a pair cannot be read ({error}); make the pairs again") from None
        try:
            swapped = swapper.swap(target, source)
        except UserError:  # no face in the source
            continue
        measured.append(_compare(swapper, target, source, swapped, truth))
    if not measured:
        raise UserError(f"{world}: in none of {len(lines)} pairs a face was found in the source")
    return measured


def average(measured):
    """Returns the mean of every number over a list of `SwapAgainstTruth`, pairs without it left out."""
    names = ("error", "target_error", "identity_to_source", "identity_to_truth", "identity_to_target")
    return {name: float(np.nanmean([getattr(one, name) for one in measured])) for name in names}


def _compare(swapper, target, source, swapped, truth):
    changes = (target != truth).any(axis=-1)

    def error(image):
        return float(np.abs(image[changes].astype(np.float32) - truth[changes]).mean())

    embeddings = [_embed(swapper, image) for image in (swapped, source, truth, target)]
    similarities = [_cosine(embeddings[0], other) for other in embeddings[1:]]
    return SwapAgainstTruth(target, source, swapped, truth, error(swapped), error(target), *similarities)


def _embed(swapper, image):
    try:
        return swapper.embed(image)
    except UserError:  # no face in it
        return np.full(swapper.encoder.dim, np.nan, np.float32)


def _cosine(a, b):
    return float(np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)))
