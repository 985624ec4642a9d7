"""Flags as fields of frozen dataclasses, so that name, type, default and help are defined in one place."""

from dataclasses import field, fields
from types import NoneType
from typing import get_args

from facedancer.core.console import add_boolean

_METAVARS = {int: "N", float: "X"}


def flag(default, help, **options):
    """Returns a field with the help text and argparse options of its flag."""
    return field(default=default, metadata={"help": help, **options})


def flags_of(config):
    """Returns the fields of a dataclass, or of an instance, that are flags."""
    return [item for item in fields(config) if "help" in item.metadata]


def flag_values(config):
    """Returns name -> value of an object's flags."""
    return {item.name: getattr(config, item.name) for item in flags_of(config)}


def add_flags(parser, config, presets=None):
    """Adds the flags of a dataclass to a parser; flags not given are None.

    Args:
        parser: `argparse`'s.
        config: the dataclass.
        presets: name -> instance, if the defaults depend on a preset; for the help text.
    """
    for item in flags_of(config):
        options = {key: value for key, value in item.metadata.items() if key != "help"}
        options["help"] = item.metadata["help"] + _default_text(item, presets)
        kind = word_type(item.type)
        if kind is bool:
            add_boolean(parser, f"--{item.name}", None, options["help"])
            continue
        if "tuple" in str(item.type):
            options["nargs"] = "+"
        if "choices" not in options and kind in _METAVARS:
            options.setdefault("metavar", _METAVARS[kind])
        parser.add_argument(f"--{item.name}", type=kind, **options)


def word_type(annotation):
    """Returns the type of one word of a flag: `tuple[float, ...] | None` -> float."""
    inner = [part for part in get_args(annotation) if part not in (NoneType, Ellipsis)]
    return word_type(inner[0]) if inner else annotation


def _default_text(item, presets):
    values = {name: getattr(config, item.name) for name, config in (presets or {}).items()}
    if len(set(values.values())) > 1:
        (_, first), *others = [(name, _as_text(value)) for name, value in values.items()]
        return f" (default: the preset's: {', '.join([first, *(f'{name} {value}' for name, value in others)])})"
    return "" if item.default is None else f" (default: {_as_text(item.default)})"


def _as_text(value):
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
