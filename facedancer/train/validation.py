"""What training shows of its swaps: metrics over validation batches, and grids of pictures."""

import itertools

import keras
import numpy as np
from keras import ops

from facedancer.core import measures
from facedancer.core.images import from_signed, tile_images, to_signed

PICTURES = ("target", "source", "truth")
METRICS = ("identity_to_source", "identity_to_target", "reconstruction", "expression_distance", "truth_error")


class SwapValidator:
    """Measures swaps of batches.

    Args:
        swapper: model, (target, source_embedding) -> swapped.
        encoder: frozen model, faces [-1, 1] -> {"embedding", …}.
        expression: frozen model, faces [-1, 1] -> (batch, dim).
    """

    def __init__(self, swapper, encoder, expression):
        inputs = {name: keras.Input(swapper.input_shape[0][1:], name=name) for name in ("target", "source")}
        source_embedding = encoder(inputs["source"])["embedding"]
        swapped = swapper([inputs["target"], source_embedding])
        outputs = {
            "swapped": swapped,
            "identity_of_source": source_embedding,
            "identity_of_target": encoder(inputs["target"])["embedding"],
            "identity_of_swapped": encoder(swapped)["embedding"],
            "expression_distance": ops.norm(expression(swapped) - expression(inputs["target"]), axis=-1),
        }
        self.model = keras.Model(inputs, outputs, name="validator")

    def measure(self, batches):
        """Averages the metrics over batches of pairs.

        Returns:
            A dictionary: cosine similarity of the swap's identity to source and target, over pairs of two identities;
            mean difference to the target, share of the range, over pairs of one (0 pairs: NaN); distance of expression
            embeddings, over all; error against the true swap, over pairs that have one, where target and truth differ,
            as a share of the target's. And their `score`, the higher the better: nearer to the source than to the
            target, the target given back where both are one person, and near the truth.
        """
        values = {name: [] for name in METRICS}
        target_errors = []
        for batch in batches:
            batch = {name: np.asarray(values) for name, values in batch.items()}
            found = self._swap(batch)
            identity = {name: found[f"identity_of_{name}"] for name in ("source", "target", "swapped")}
            is_same, swaps = batch["is_same"] > 0, from_signed(found["swapped"])
            for name in ("source", "target"):
                similarity = measures.cosines(identity["swapped"], identity[name])
                values[f"identity_to_{name}"] += similarity[~is_same].tolist()
            values["expression_distance"] += found["expression_distance"].tolist()
            for index, swap in enumerate(swaps):
                target = batch["target"][index]
                if is_same[index]:
                    values["reconstruction"].append(measures.mean_difference(swap, target))
                if batch["has_truth"][index]:
                    errors = measures.errors_against_truth(swap, target, batch["truth"][index])
                    if errors is not None:
                        values["truth_error"].append(errors[0])
                        target_errors.append(errors[1])
        found = {name: float(np.mean(some)) if some else np.nan for name, some in values.items()}
        found["truth_error"] /= np.mean(target_errors) if target_errors else np.nan
        score = found["identity_to_source"] - found["identity_to_target"]
        score -= np.nansum([found["reconstruction"], found["truth_error"]])
        return {**found, "score": score}

    def _swap(self, batch):
        return self.model.predict_on_batch({name: to_signed(batch[name]) for name in ("target", "source")})

    def swap_grid(self, batch, columns=8):
        """Returns a picture, (3 S, n S, 3) uint8: targets, sources, swaps and, if there are any, truths."""
        batch = {name: np.asarray(batch[name]) for name in PICTURES}
        rows = [batch["target"], batch["source"], from_signed(self._swap(batch)["swapped"])]
        if batch["truth"].any():
            rows.append(batch["truth"])
        return tile_images([itertools.islice(row, columns) for row in rows])
