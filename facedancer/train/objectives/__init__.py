"""Objectives: what each family of networks is trained to do, in a module of its name."""

import importlib

from facedancer.models.families import FAMILIES


def find_objective(family):
    """Returns the module `facedancer.train.objectives.<family>`; the family is one of `FAMILIES`."""
    assert family in FAMILIES
    return importlib.import_module(f"facedancer.train.objectives.{family}")
