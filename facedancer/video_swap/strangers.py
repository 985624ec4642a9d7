"""Anonymizing: people who do not exist take the place of people who must not be recognized.

`strangers.npz` holds the identity embeddings of such people, no images: one array (n, dim) float16 per identity
encoder, by its name. Each person in a video gets a stranger who does not look like them, and keeps that one.
"""

from importlib import resources

import numpy as np

from facedancer.core.console import UserError
from facedancer.video_swap.sources import Source
from facedancer.video_swap.tracking import similarity


def load_strangers(swapper):
    """Returns the `Source`s of the included people who do not exist.

    Args:
        swapper: `FaceSwapper`.

    Raises:
        UserError: if the swapper takes something else than the embedding of an encoder that they are known to.
    """
    if swapper.decoders or swapper.shapes is not None:
        raise UserError("--anonymize: this model needs more of a source than its identity; give a source instead")
    with resources.files("facedancer.video_swap").joinpath("strangers.npz").open("rb") as file, np.load(file) as known:
        if swapper.encoder.name not in known.files:
            raise UserError(
                f"--anonymize: the included people are known to {', '.join(known.files)}, this model takes embeddings"
                f" of {swapper.encoder.name}; give an image of somebody who does not exist as --swap_source"
            )
        return [Source(embedding, None) for embedding in known[swapper.encoder.name].astype(np.float32)]


class Cast:
    """Who takes whose place. A person who comes back, in the same video or another picture, gets the same stranger.

    A stranger is drawn from the half that looks least like the person, so that the result does not reveal who was
    replaced. As long as there are enough, no two people get the same one.

    Args:
        strangers: list of `Source`.
        threshold: minimum cosine of two embeddings of one person.
        seed: of the draws.
    """

    def __init__(self, strangers, threshold, seed):
        self.strangers, self.threshold = strangers, threshold
        self._random = np.random.default_rng(seed)
        self._people = []

    def strangers_of(self, tracks):
        """Returns `{track's index: Source}` for `{index: Track}`; without an embedding, each is a new person."""
        return {index: self.strangers[self._stranger_of(track.embedding)] for index, track in tracks.items()}

    def _stranger_of(self, embedding):
        numbers = range(len(self.strangers))
        if embedding is not None:
            for known, stranger in self._people:
                if known is not None and similarity(embedding, known) >= self.threshold:
                    return stranger
            numbers = sorted(numbers, key=lambda number: similarity(embedding, self.strangers[number].embedding))
            numbers = numbers[: (len(numbers) + 1) // 2]
        taken = {stranger for _, stranger in self._people}
        stranger = int(self._random.choice([number for number in numbers if number not in taken] or numbers))
        self._people.append((embedding, stranger))
        return stranger
