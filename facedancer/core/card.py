"""The card of an export: `card.json` beside it, the sole contract between training and swapping."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from facedancer.core.console import UserError
from facedancer.core.files import write_json

CARD_NAME = "card.json"
# Nothing; 3D coefficients of target and source; the name of the decoder that shows the source.
NEEDS = ("nothing", "coefficients", "decoder")


# Of the fields that decide how the model is used.
_KINDS = {"family": str, "image_size": int, "embedding_dim": int, "shrink_factor": int | float, "identity_encoder": str}


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
        needs: one of `NEEDS`: what the swapper takes beside the target and the source's embedding.
    """

    family: str
    image_size: int
    embedding_dim: int
    shrink_factor: float = 1.0
    identity_encoder: str = "arcface_res50"
    value_range: tuple[float, float] = (-1.0, 1.0)
    step: int | None = None
    training: dict = field(default_factory=dict)
    licence: str = "unknown"
    files: dict = field(default_factory=dict)
    network: dict = field(default_factory=dict)
    needs: str = "nothing"


def write_card(folder, card):
    """Writes `card.json` into an export's folder."""
    write_json(Path(folder) / CARD_NAME, asdict(card))


def read_card(model_path):
    """Returns the card beside an exported model, or None where there is none (the original's files have none).

    Raises:
        UserError: if the card is damaged, lacks a field or has an unknown one.
    """
    path = Path(model_path).parent / CARD_NAME
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        known = {item.name for item in fields(ExportCard)}
        if unknown := sorted(values.keys() - known):
            raise UserError(f"{path}: unknown fields {', '.join(unknown)}; written by a newer version?")
        values["value_range"] = tuple(values["value_range"])
        card = ExportCard(**values)
        for name, kind in _KINDS.items():
            if not isinstance(getattr(card, name), kind):
                raise TypeError(f"{name} is {getattr(card, name)!r}")
        if card.needs not in NEEDS:
            raise TypeError(f"needs is {card.needs!r}")
        return card
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not the card of an export ({error})") from None
