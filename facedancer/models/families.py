"""The families of swap networks, and how to find one.

A family is two modules named after it. `facedancer.models.<family>` has the networks: `Config`, `PRESETS`,
`build_networks`, `build_swapper`, `publishes`, `read_published`, `published_card` and `save_published`; a family with
one decoder per person also has `published_decoders`. `facedancer.train.objectives.<family>` has what they are trained
to do: `Weights`, `PRESETS` and `build`.
"""

import importlib

import numpy as np

from facedancer.core.card import read_card
from facedancer.core.console import UserError

# Name -> what distinguishes it.
FAMILIES = {
    "autoencoder": "one shared encoder, one decoder per person (deepfakes, faceswap); needs no source image",
    "facedancer": "attention fuses features of target and swap (AFFA); features stay near the target's (IFSR)",
    "hififace": "the source's 3D face shape drives the decoder; predicted masks fuse features and images",
    "reswapper": "inswapper's generator: style blocks driven by the identity; learns from a teacher's swaps",
    "simswap": "blocks inject the identity at the lowest resolution; weak feature matching on a frozen network",
}
DEFAULT_FAMILY = "facedancer"


def find_family(name):
    """Returns the module `facedancer.models.<name>`.

    Raises:
        UserError: if no family has that name.
    """
    if not isinstance(name, str) or name not in FAMILIES:  # the name may come from an untrusted file
        raise UserError(f"no family of swap networks is named {name}; known are {', '.join(FAMILIES)}")
    return importlib.import_module(f"facedancer.models.{name}")


def load_swapper(path, decoder=None):
    """Loads a swap network for inference or further training.

    Args:
        path: an export (`.h5`, `.keras`) with its card next to it, or a file published by a family's authors.
        decoder: index of the only decoder to keep, if the swapper has several (`decoders_of`).

    Returns:
        Keras model. Inputs: `target` (n, S, S, 3) in [-1, 1]; `source_embedding` (n, dim) unless it has decoders; for
        HifiFace also the coefficients of both faces. Output: the swapped face (n, S, S, 3), or a list with one face per
        decoder if none was chosen. A model read from PyTorch's or InsightFace's format has the family's `Config` as
        its attribute `shapes`, unless a decoder was chosen.

    Raises:
        UserError: if the file is missing, damaged, or not a swapper of its family.
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
    """Returns the card next to a swapper, or the family's defaults for a published file.

    Args:
        path: the swapper's file.
        image_size: side of the network's faces in pixels.
        embedding_dim: length of its identity embedding; unused if it has decoders.
    """
    return read_card(path) or family_of(path).published_card(image_size, decoders_of(path) or embedding_dim)


def move_embedding(path, embedding, direction, steps):
    """Moves an identity along an attribute's direction, such as a beard's; the result is an identity of the same norm.

    Args:
        path: file of the swapper that takes the embedding; its family defines the space of directions.
        embedding: (dim,) float32.
        direction: (dim,), any nonzero length.
        steps: how far to move, as a multiple of the embedding's length; negative moves the opposite way.

    Returns:
        (dim,) float32, of the embedding's length.
    """
    family = family_of(path)
    if hasattr(family, "move_embedding"):
        return family.move_embedding(path, embedding, direction, steps)
    length = np.linalg.norm(embedding)
    moved = embedding / length + steps * direction / np.linalg.norm(direction)
    return np.float32(length * moved / np.linalg.norm(moved))


def family_of(path):
    """Returns the module of the family whose swapper a file holds, by its card or else by the kind of file."""
    if card := read_card(path):
        return find_family(card.family)
    return next(
        (family for family in map(find_family, FAMILIES) if family.publishes(path)), find_family(DEFAULT_FAMILY)
    )
