"""The card of an export: `card.json` beside it, the sole contract between training and swapping."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from facedancer.core.console import UserError
from facedancer.core.files import write_json
from facedancer.core.schemas import Coordinate, Count, Dimension, Name, ShrinkFactor, Side, read_json

CARD_NAME = "card.json"
# Nothing; 3D coefficients of target and source; the name of the decoder that shows the source.
Needs = Literal["nothing", "coefficients", "decoder"]


@dataclass(frozen=True)
class ExportCard:
    """What one must know to swap with an exported model.

    Attributes:
        family: name in `facedancer.models.families`.
        image_size: side of the aligned face in pixels.
        shrink_factor: of the landmark template (see `core.alignment`).
        identity_encoder: name of its weights in the registry, or a path.
        embedding_dim: length of the identity embedding.
        value_range: of the model's pictures, in and out.
        step: training steps done, None where unknown.
        training: what it was trained on and how, for people.
        licence: of the weights.
        files: the exported files, by name, with their SHA-256.
        network: values of the family's `Config`, by name; empty on cards that are older.
        needs: one of `Needs`: what the swapper takes beside the target and the source's embedding.
    """

    family: Name
    image_size: Side
    embedding_dim: Dimension
    shrink_factor: ShrinkFactor = 1.0
    identity_encoder: Name = "arcface_res50"
    value_range: tuple[Coordinate, Coordinate] = (-1.0, 1.0)
    step: Count | None = None
    training: dict = field(default_factory=dict)
    licence: str = "unknown"
    files: dict = field(default_factory=dict)
    network: dict = field(default_factory=dict)
    needs: Needs = "nothing"


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
