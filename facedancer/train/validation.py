"""What training shows of its swaps: metrics over validation batches, and grids of pictures."""

import itertools

import keras
import numpy as np
from keras import ops

from facedancer.core.images import from_signed, tile_images, to_signed

METRICS = ("identity_to_source", "identity_to_target", "reconstruction", "expression_distance")


class SwapValidator:
    """Measures swaps of batches.

    Args:
        generator: model, (target, source_embedding) -> swapped.
        encoder: frozen model, faces [-1, 1] -> {"embedding", …}.
        expression: frozen model, faces [-1, 1] -> (batch, dim).
    """

    def __init__(self, generator, encoder, expression):
        inputs = {name: keras.Input(generator.input_shape[0][1:], name=name) for name in ("target", "source")}
        source_embedding = encoder(inputs["source"])["embedding"]
        swapped = generator([inputs["target"], source_embedding])
        swapped_embedding = encoder(swapped)["embedding"]
        outputs = {
            "swapped": swapped,
            "identity_to_source": cosine_similarity(swapped_embedding, source_embedding),
            "identity_to_target": cosine_similarity(swapped_embedding, encoder(inputs["target"])["embedding"]),
            "reconstruction": ops.mean(ops.abs(swapped - inputs["target"]), axis=(1, 2, 3)),
            "expression_distance": ops.norm(expression(swapped) - expression(inputs["target"]), axis=-1),
        }
        self.model = keras.Model(inputs, outputs, name="validator")

    def measure(self, batches):
        """Averages the metrics over batches of pairs.

        Returns:
            A dictionary: cosine similarity of the swap's identity to source and target, over pairs of two identities;
            mean absolute difference in [0, 2] to the target, over pairs of one (0 pairs: NaN); distance of expression
            embeddings, over all. And their `score`, the higher the better: nearer to the source than to the target, and
            the target given back where both are one person.
        """
        values = {name: [] for name in METRICS}
        is_same = []
        for batch in batches:
            found = self.model.predict_on_batch({name: to_signed(batch[name]) for name in ("target", "source")})
            is_same.append(np.asarray(batch["is_same"]) > 0)
            for name in METRICS:
                values[name].append(found[name])
        is_same = np.concatenate(is_same)
        values = {name: np.concatenate(parts) for name, parts in values.items()}
        rows = {
            "identity_to_source": ~is_same,
            "identity_to_target": ~is_same,
            "reconstruction": is_same,
            "expression_distance": np.ones_like(is_same),
        }
        found = {name: float(values[name][rows[name]].mean()) if rows[name].any() else np.nan for name in METRICS}
        score = found["identity_to_source"] - found["identity_to_target"] - found["reconstruction"]
        return {**found, "score": score}

    def swap_grid(self, batch, columns=8):
        """Returns a picture, (3 S, n S, 3) uint8: targets, sources and swaps below each other."""
        batch = {name: np.asarray(batch[name]) for name in ("target", "source")}
        swapped = self.model.predict_on_batch({name: to_signed(face) for name, face in batch.items()})["swapped"]
        rows = [batch["target"], batch["source"], map(from_signed, swapped)]
        return tile_images([itertools.islice(row, columns) for row in rows])


def cosine_similarity(a, b):
    """(batch, dim), (batch, dim) -> (batch,)."""
    return ops.sum(ops.normalize(a, axis=-1) * ops.normalize(b, axis=-1), axis=-1)
