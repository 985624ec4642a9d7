"""The families of swap networks, and how to find one.

A family is two modules named after it. `facedancer.models.<family>` has the networks: `Config`, `PRESETS`,
`build_networks`, `build_swapper`, `publishes`, `read_published`, `published_card` and `save_published`; with one
decoder per person, also `published_decoders`. `facedancer.train.objectives.<family>` has what they are trained to do:
`Weights`, `PRESETS` and `build`.
"""

import importlib

import numpy as np

from facedancer.core.card import read_card
from facedancer.core.console import UserError

# Name -> what sets it apart.
FAMILIES = {
    "autoencoder": "one shared encoder, one decoder per person (deepfakes, faceswap); needs no source image",
    "facedancer": "attention fuses features of target and swap (AFFA); features stay near the target's (IFSR)",
    "hififace": "the source's 3D face shape drives the decoder; predicted masks fuse features and pictures",
    "reswapper": "inswapper's generator: style blocks driven by the identity; learns from a teacher's swaps",
    "simswap": "blocks inject the identity at the lowest resolution; weak feature matching on a frozen network",
}
DEFAULT_FAMILY = "facedancer"


def find_family(name):
    """Returns the module `facedancer.models.<name>`.

    Raises:
        UserError: if no family has that name.
    """
    if not isinstance(name, str) or name not in FAMILIES:  # a file may say anything
        raise UserError(f"no family of swap networks is named {name}; known are {', '.join(FAMILIES)}")
    return importlib.import_module(f"facedancer.models.{name}")


def load_swapper(path, decoder=None):
    """Loads a swap network for inference or further training.

    Args:
        path: an export of ours (`.h5`, `.keras`), with its card next to it, or a file published by a family's authors.
        decoder: number of the decoder to keep, if the swapper has several (`decoders_of`).

    Returns:
        Keras model with inputs `target` (n, S, S, 3) in [-1, 1] and, unless it has decoders, `source_embedding`
        (n, dim); output swapped, one per decoder if none was chosen. One read from PyTorch's or InsightFace's format
        has the family's `Config` as its attribute `shapes`, unless a decoder was chosen.

    Raises:
        UserError: one line that says what does not fit.
    """
    swapper = family_of(path).read_published(path)
    if decoder is None:
        return swapper
    import keras

    return keras.Model(swapper.inputs, swapper.outputs[decoder], name=swapper.name)


def decoders_of(path):
    """Returns the names of a swapper's decoders in the order of its outputs; empty if it takes a source."""
    if card := read_card(path):
        return card.decoders
    family = family_of(path)
    return family.published_decoders(path) if hasattr(family, "published_decoders") else ()


def card_of(path, image_size, embedding_dim):
    """Returns the card next to a swapper, or the family's defaults for published files.

    Args:
        path: the swapper's file.
        image_size, embedding_dim: what the network in it takes; where it has decoders the card has their names.
    """
    return read_card(path) or family_of(path).published_card(image_size, decoders_of(path) or embedding_dim)


def move_embedding(path, embedding, direction, steps):
    """Moves an identity along an attribute's direction, such as a beard's; the result is an identity of the same norm.

    Args:
        path: the swapper that takes the embedding; its family says in which space directions are.
        embedding: (dim,) float32.
        direction: (dim,), of any nonzero length.
        steps: how far, in lengths of the embedding; negative for the opposite direction.

    Returns:
        (dim,) float32, as long as the embedding.
    """
    family = family_of(path)
    if hasattr(family, "move_embedding"):
        return family.move_embedding(path, embedding, direction, steps)
    length = np.linalg.norm(embedding)
    moved = embedding / length + steps * direction / np.linalg.norm(direction)
    return np.float32(length * moved / np.linalg.norm(moved))


def family_of(path):
    """Returns the module of the family whose swapper a file holds: its card says so, or the file's kind."""
    if card := read_card(path):
        return find_family(card.family)
    return next(
        (family for family in map(find_family, FAMILIES) if family.publishes(path)), find_family(DEFAULT_FAMILY)
    )
