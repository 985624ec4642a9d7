"""Validation during training: metrics over validation batches, and image grids."""

import itertools

import keras
import numpy as np
from keras import ops

from facedancer.arcface_model.face_shapes import swapper_inputs
from facedancer.core import measures
from facedancer.core.images import from_signed, tile_images, to_signed

PICTURES = ("target", "source", "truth")
METRICS = ("identity_to_source", "identity_to_target", "reconstruction", "expression_distance", "truth_error")


class SwapValidator:
    """Measures swaps of batches.

    Args:
        swapper: model, (target, source_embedding) -> swapped, with the coefficients of source and target as further
            inputs if it needs them; or target -> one swap per decoder, for each of `people`.
        encoder: frozen model, faces (batch, S, S, 3) in [-1, 1] -> {"embedding", …}.
        expression: frozen model, faces (batch, S, S, 3) in [-1, 1] -> (batch, dim).
        people: names in the order of the swapper's decoders; batches then have `people` and `warped`.
        face_shapes: `FaceShapes` of the coefficients that the swapper needs; None if it needs none.
    """

    def __init__(self, swapper, encoder, expression, people=(), face_shapes=None):
        self.people = people
        inputs = {name: keras.Input(swapper.inputs[0].shape[1:], name=name) for name in ("target", "source")}
        source_embedding = encoder(inputs["source"])["embedding"]
        if people:
            inputs["decoder"] = keras.Input((len(people),), name="decoder")
            swapped = by_decoder(swapper([inputs["target"]]), inputs["decoder"])
        else:
            swapped = swapper(swapper_inputs(face_shapes, inputs["target"], inputs["source"], source_embedding))
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
            A dictionary of floats, NaN if no pair counts:
            `identity_to_source`, `identity_to_target`: cosine similarity of the swap's identity to that of the source
                and the target, over pairs of two people;
            `reconstruction`: mean difference to the target as a share of the range, over same-person pairs;
            `expression_distance`: distance of expression embeddings to the target's, over all pairs;
            `truth_error`: error against the true swap where target and truth differ, as a share of the target's own
                error, over pairs that have a true swap;
            `score`: `identity_to_source` minus `identity_to_target`, `reconstruction` and `truth_error`; higher is
                better.
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
        inputs = {name: to_signed(np.asarray(batch[name])) for name in ("target", "source")}
        if self.people:
            inputs["decoder"] = np.float32(np.asarray(batch["people"])[:, 1:] == np.arange(len(self.people)))
        return self.model.predict_on_batch(inputs)

    def swap_grid(self, batch, columns=8):
        """Returns an image, (3 S or 4 S, n S, 3) uint8 RGB, with rows of targets, sources, swaps and any truths."""
        swapped = from_signed(self._swap(batch)["swapped"])
        batch = {name: np.asarray(batch[name]) for name in PICTURES}
        rows = [batch["target"], batch["source"], swapped]
        if batch["truth"].any():
            rows.append(batch["truth"])
        return tile_images([itertools.islice(row, columns) for row in rows])

    def people_grids(self, batches, columns=8):
        """Returns person -> an image with rows of their warped faces, their decoder's outputs, and the targets.

        Only people who appear in the batches have one.
        """
        grids = {}
        for number, name in enumerate(self.people):
            found = [(batch, row) for batch in batches for row in np.flatnonzero(batch["people"][:, 0] == number)]
            if rows := found[:columns]:
                faces = {key: np.stack([batch[key][row] for batch, row in rows]) for key in ("warped", "target")}
                own = np.full((len(rows), 2), number)
                pair = {"target": faces["warped"], "source": faces["target"], "people": own}
                decoded = from_signed(self._swap(pair)["swapped"])
                grids[name] = tile_images([faces["warped"], decoded, faces["target"]])
        return grids


def by_decoder(faces, decoder):
    """Picks each row's face from the decoders' outputs.

    Args:
        faces: list of (batch, S, S, 3), one per decoder.
        decoder: (batch, decoders) in {0, 1}, one-hot.

    Returns:
        (batch, S, S, 3).
    """
    faces = faces if isinstance(faces, list | tuple) else [faces]
    return sum(decoder[:, number, None, None, None] * face for number, face in enumerate(faces))
