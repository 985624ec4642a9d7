"""The card of an export: `card.json` next to it, the only contract between training and swapping."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from facedancer.core.console import UserError
from facedancer.core.files import write_json
from facedancer.core.schemas import Coordinate, Count, Dimension, Name, ShrinkFactor, Side, read_json

CARD_NAME = "card.json"
# Inputs besides the target: only the source's embedding; also 3D coefficients of target and source; or, instead of the
# embedding, one of the swapper's decoders.
Needs = Literal["nothing", "coefficients", "decoder"]


@dataclass(frozen=True)
class ExportCard:
    """What an exported model needs for swapping.

    Attributes:
        family: name in `facedancer.models.families`.
        image_size: side of the aligned face in pixels.
        shrink_factor: of the landmark template (see `core.alignment`).
        identity_encoder: name of its weights in the registry, or a path.
        embedding_dim: length of the identity embedding that the swapper takes, or None.
        value_range: of the model's pictures, in and out.
        step: training steps done; None if unknown.
        training: what it was trained on and how, in words.
        licence: of the weights.
        files: the exported files, by name, with their SHA-256.
        network: values of the family's `Config`, by name; empty on older cards.
        needs: one of `Needs`.
        decoders: names of the swapper's outputs in their order, one for each person, where it needs a decoder.
        face_shapes: encoder of the coefficients, where it needs them: a name of `arcface_model.face_shapes`, or a path.
    """

    family: Name
    image_size: Side
    embedding_dim: Dimension | None
    shrink_factor: ShrinkFactor = 1.0
    identity_encoder: Name = "arcface_res50"
    value_range: tuple[Coordinate, Coordinate] = (-1.0, 1.0)
    step: Count | None = None
    training: dict = field(default_factory=dict)
    licence: str = "unknown"
    files: dict = field(default_factory=dict)
    network: dict = field(default_factory=dict)
    needs: Needs = "nothing"
    decoders: tuple[Name, ...] = ()
    face_shapes: Name | None = None

    def __post_init__(self):
        has_decoders = self.needs == "decoder"
        if has_decoders != bool(self.decoders) or has_decoders != (self.embedding_dim is None):
            raise ValueError(
                "a swapper takes an embedding, or has decoders: needs, embedding_dim and decoders disagree"
            )
        if (self.needs == "coefficients") != (self.face_shapes is not None):
            raise ValueError("a swapper that needs coefficients has an encoder of them: needs and face_shapes disagree")


def write_card(folder, card):
    """Writes `card.json` into an export's folder."""
    write_json(Path(folder) / CARD_NAME, asdict(card))


def read_card(model_path):
    """Returns the card next to an exported model, or None (the original's files have none).

    Raises:
        UserError: if the card is damaged, or has a missing field, an unknown field or a value out of range.
    """
    try:
        return read_json(Path(model_path).parent / CARD_NAME, ExportCard)
    except FileNotFoundError:
        return None
    except UserError as error:
        raise UserError(f"{error}; not the card of an export, or one by a newer version") from None
