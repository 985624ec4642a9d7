"""The card of an export: `card.json` beside it, the sole contract between training and swapping."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from facedancer.core.console import UserError
from facedancer.core.files import write_json
from facedancer.core.schemas import Coordinate, Count, Dimension, Name, ShrinkFactor, Side, read_json

CARD_NAME = "card.json"
# Beside the target: nothing but the source's embedding; 3D coefficients of target and source, too; or, in place of the
# embedding, one of the decoders that the swapper holds.
Needs = Literal["nothing", "coefficients", "decoder"]


@dataclass(frozen=True)
class ExportCard:
    """What one must know to swap with an exported model.

    Attributes:
        family: name in `facedancer.models.families`.
        image_size: side of the aligned face in pixels.
        shrink_factor: of the landmark template (see `core.alignment`).
        identity_encoder: name of its weights in the registry, or a path.
        embedding_dim: length of the identity embedding that the swapper takes, None where it takes none.
        value_range: of the model's pictures, in and out.
        step: training steps done, None where unknown.
        training: what it was trained on and how, for people.
        licence: of the weights.
        files: the exported files, by name, with their SHA-256.
        network: values of the family's `Config`, by name; empty on cards that are older.
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
    """Returns the card beside an exported model, or None where there is none (the original's files have none).

    Raises:
        UserError: if the card is damaged, lacks a field, has an unknown one or a value out of range.
    """
    try:
        return read_json(Path(model_path).parent / CARD_NAME, ExportCard)
    except FileNotFoundError:
        return None
    except UserError as error:
        raise UserError(f"{error}; not the card of an export, or one by a newer version") from None
