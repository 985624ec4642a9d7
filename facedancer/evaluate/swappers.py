"""Swap models as the evaluation uses them, on aligned faces: called with a list of cases, they return the swaps."""

import numpy as np

from facedancer.core.card import read_card
from facedancer.core.console import UserError
from facedancer.core.images import from_signed, to_signed
from facedancer.core.weights import sha256_of


class Swapper:
    """A model on aligned faces.

    Attributes:
        name: for people.
        key: of its journal, see `key_of`.
        card: `ExportCard`.
    """

    def __init__(self, path, card):
        from facedancer.arcface_model import IdentityEncoder
        from facedancer.arcface_model.face_shapes import load_face_shapes
        from facedancer.video_swap.engines import load_engine

        self.name, self.key, self.card = name_of(path), key_of(path), card
        self._model = load_engine(path)
        self._encoder = IdentityEncoder(card.identity_encoder, shrink_factor=card.shrink_factor)
        self._shapes = card.face_shapes and load_face_shapes(card.face_shapes, card.image_size, card.shrink_factor)

    def __call__(self, cases):
        """Swaps a list of n `Case`; returns (n, S, S, 3) uint8."""
        targets, sources = (np.stack([getattr(case, side) for case in cases]) for side in ("target", "source"))
        inputs = {"target": targets, "source_embedding": self._encoder(sources)}
        if self._shapes:
            inputs |= {"source_coefficients": self._shapes(sources), "target_coefficients": self._shapes(targets)}
        swapped = []
        for start in range(0, len(targets), self._model.batch_size):
            part = {name: values[start : start + self._model.batch_size] for name, values in inputs.items()}
            part["target"] = to_signed(part["target"])
            swapped.append(from_signed(self._model.predict_on_batch(part)))
        return np.concatenate(swapped)


def name_of(path):
    """Returns what people call the swapper in a file."""
    return f"{path.parent.name}/{path.stem}"


def key_of(path):
    """Returns what the results of the swapper in a file are kept under: trained further, it is another one."""
    return f"{path.stem}-{sha256_of(path)[:12]}"


def read_model_card(path, judge=None):
    """Returns the card of an export.

    Raises:
        UserError: if it has none, takes no source's picture, or was trained with the judge.
    """
    card = read_card(path)
    if card is None:
        raise UserError(f"{path} has no card.json beside it, which says how its faces are aligned")
    if card.needs == "decoder":
        raise UserError(f"{path} needs {card.needs}: what is measured here are swappers that take any source's picture")
    if judge is not None and card.identity_encoder == judge:
        raise UserError(
            f"{path} was trained with {judge}: it would be measured by what it learnt to please; give another --judge"
        )
    return card
