"""Swap models on aligned faces, for evaluation: called with a list of cases, they return the swaps."""

import cv2
import numpy as np

from facedancer.core.card import read_card
from facedancer.core.console import UserError
from facedancer.core.fetching import sha256_of
from facedancer.core.images import from_signed, to_signed


class Swapper:
    """A model that swaps aligned faces of any size, each resized to its own.

    Args:
        path: the export.
        card: its `ExportCard`, from `read_model_card`.

    Attributes:
        name: name for reports.
        key: name of its journal, see `key_of`.
        card: `ExportCard`.
    """

    def __init__(self, path, card):
        from facedancer.arcface_model import IdentityEncoder
        from facedancer.arcface_model.face_shapes import load_face_shapes
        from facedancer.video_swap.engines import DecoderEngine, load_engine

        self.name, self.key, self.card = name_of(path), key_of(path), card
        self._path = path
        if card.decoders:
            self._model = DecoderEngine(path, "keras", "float32")
        else:
            self._model = load_engine(path)
            self._encoder = IdentityEncoder(card.identity_encoder, shrink_factor=card.shrink_factor)
        self._shapes = card.face_shapes and load_face_shapes(card.face_shapes, card.image_size, card.shrink_factor)

    def __call__(self, cases):
        """Swaps a list of n `Case`s; returns (n, S, S, 3) uint8 RGB.

        Raises:
            UserError: if the model has decoders, but none for a source's person.
        """
        targets = np.stack([case.target for case in cases])
        faces = _resized(targets, self.card.image_size)
        given = self._identities(cases, faces)
        swapped = []
        for start in range(0, len(targets), self._model.batch_size):
            part = slice(start, start + self._model.batch_size)
            inputs = {"target": to_signed(faces[part])}
            inputs |= {name: values[part] for name, values in given.items()}
            swapped.append(from_signed(self._model.predict_on_batch(inputs)))
        return _resized(np.concatenate(swapped), targets.shape[1])

    def _identities(self, cases, targets):
        """Returns the engine's inputs that carry the identity, by name."""
        if self.card.decoders:
            from facedancer.video_swap.swapper import find_decoder

            return {"decoder": np.array([find_decoder(self._path, self.card.decoders, c.source_person) for c in cases])}
        sources = np.stack([case.source for case in cases])
        inputs = {"source_embedding": self._encoder(sources)}
        if self._shapes:
            sources = _resized(sources, self.card.image_size)
            inputs |= {"source_coefficients": self._shapes(sources), "target_coefficients": self._shapes(targets)}
        return inputs


def _resized(faces, size):
    """Resizes faces: (n, S, S, 3) uint8 -> (n, size, size, 3) uint8."""
    if faces.shape[1] == size:
        return faces
    how = cv2.INTER_AREA if faces.shape[1] > size else cv2.INTER_CUBIC
    return np.stack([cv2.resize(face, (size, size), interpolation=how) for face in faces])


def name_of(path):
    """Returns the name of an export in reports: its folder and stem."""
    return f"{path.parent.name}/{path.stem}"


def key_of(path):
    """Returns the name of an export's journal, which includes its checksum: trained further, it is another model."""
    return f"{path.stem}-{sha256_of(path)[:12]}"


def read_model_card(path, judge=None, names_people=False):
    """Returns the card of an export.

    Args:
        path: the export.
        judge: name of the identity encoder that judges, if any.
        names_people: whether the cases name their people, which models with decoders need.

    Raises:
        UserError: if there is no card, the model needs what the cases lack, or it was trained with the judge.
    """
    card = read_card(path)
    if card is None:
        raise UserError(f"{path} has no card.json next to it, which says how its faces are aligned")
    if card.needs == "decoder" and not names_people:
        raise UserError(
            f"{path} shows only people that it has decoders for: evaluate it with --protocol synthetic, on rendered"
            " people it was trained on"
        )
    if judge is not None and card.identity_encoder == judge:
        raise UserError(f"{path} was trained with {judge}: its own encoder cannot judge it; give another --judge")
    return card
