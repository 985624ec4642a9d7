"""What training shows of its swaps: metrics over validation batches, and grids of pictures."""

import itertools

import keras
import numpy as np
from keras import ops

from facedancer.core.images import from_signed, tile_images, to_signed
from facedancer.train.losses import difference

PICTURES = ("target", "source", "truth")
METRICS = ("identity_to_source", "identity_to_target", "reconstruction", "expression_distance", "truth_error")


class SwapValidator:
    """Measures swaps of batches.

    Args:
        swapper: model, (target, source_embedding) -> swapped; or target -> swapped by the decoder of each of `people`.
        encoder: frozen model, faces [-1, 1] -> {"embedding", …}.
        expression: frozen model, faces [-1, 1] -> (batch, dim).
        people: names, in the order of the swapper's decoders; batches then have `people` and `warped`.
    """

    def __init__(self, swapper, encoder, expression, people=()):
        self.people = people
        inputs = {name: keras.Input(swapper.inputs[0].shape[1:], name=name) for name in PICTURES}
        source_embedding = encoder(inputs["source"])["embedding"]
        if people:
            inputs["decoder"] = keras.Input((len(people),), name="decoder")
            swapped = by_decoder(swapper([inputs["target"]]), inputs["decoder"])
        else:
            swapped = swapper([inputs["target"], source_embedding])
        swapped_embedding = encoder(swapped)["embedding"]
        outputs = {
            "swapped": swapped,
            "identity_to_source": cosine_similarity(swapped_embedding, source_embedding),
            "identity_to_target": cosine_similarity(swapped_embedding, encoder(inputs["target"])["embedding"]),
            "reconstruction": ops.mean(ops.abs(swapped - inputs["target"]), axis=(1, 2, 3)),
            "expression_distance": ops.norm(expression(swapped) - expression(inputs["target"]), axis=-1),
            **_truth_errors(swapped, inputs["target"], inputs["truth"]),
        }
        self.model = keras.Model(inputs, outputs, name="validator")

    def measure(self, batches):
        """Averages the metrics over batches of pairs.

        Returns:
            A dictionary: cosine similarity of the swap's identity to source and target, over pairs of two identities;
            mean absolute difference in [0, 2] to the target, over pairs of one (0 pairs: NaN); distance of expression
            embeddings, over all; error against the true swap, over pairs that have one, where target and truth differ,
            as a share of the target's. And their `score`, the higher the better: nearer to the source than to the
            target, the target given back where both are one person, and near the truth.
        """
        values = {name: [] for name in (*METRICS, "target_error")}
        is_same, has_truth = [], []
        for batch in batches:
            found = self._predict(batch)
            is_same.append(np.asarray(batch["is_same"]) > 0)
            has_truth.append(np.asarray(batch["has_truth"]) > 0)
            for name, parts in values.items():
                parts.append(found[name])
        is_same, has_truth = np.concatenate(is_same), np.concatenate(has_truth)
        values = {name: np.concatenate(parts) for name, parts in values.items()}
        rows = {
            "identity_to_source": ~is_same,
            "identity_to_target": ~is_same,
            "reconstruction": is_same,
            "expression_distance": np.ones_like(is_same),
            "truth_error": has_truth,
        }
        found = {name: float(values[name][rows[name]].mean()) if rows[name].any() else np.nan for name in METRICS}
        found["truth_error"] /= values["target_error"][has_truth].mean() if has_truth.any() else np.nan
        score = found["identity_to_source"] - found["identity_to_target"]
        score -= np.nansum([found["reconstruction"], found["truth_error"]])
        return {**found, "score": score}

    def swap_grid(self, batch, columns=8):
        """Returns a picture, (3 S, n S, 3) uint8: targets, sources, swaps and, if there are any, truths."""
        swapped = self._predict(batch)["swapped"]
        batch = {name: np.asarray(batch[name]) for name in PICTURES}
        rows = [batch["target"], batch["source"], map(from_signed, swapped)]
        if batch["truth"].any():
            rows.append(batch["truth"])
        return tile_images([itertools.islice(row, columns) for row in rows])

    def people_grids(self, batches, columns=8):
        """Returns person -> a picture of their faces as they are warped, as their decoder gives them back, and wanted.

        Of no people, none; and of each whom some of the batches show.
        """
        grids = {}
        for number, name in enumerate(self.people):
            rows = [(batch, row) for batch in batches for row in np.flatnonzero(batch["people"][:, 0] == number)][
                :columns
            ]
            if rows:
                faces = {key: np.stack([batch[key][row] for batch, row in rows]) for key in ("warped", "target")}
                own = np.full((len(rows), 2), number)
                shown = {"target": faces["warped"], "source": faces["target"], "truth": faces["target"], "people": own}
                decoded = map(from_signed, self._predict(shown)["swapped"])
                grids[name] = tile_images([faces["warped"], decoded, faces["target"]])
        return grids

    def _predict(self, batch):
        inputs = {name: to_signed(np.asarray(batch[name])) for name in PICTURES}
        if self.people:
            decoders = np.arange(len(self.people))
            inputs["decoder"] = (np.asarray(batch["people"])[:, 1:] == decoders).astype(np.float32)
        return self.model.predict_on_batch(inputs)


def by_decoder(faces, decoder):
    """Picks of each decoder's faces, a list of (batch, S, S, 3), by (batch, decoders) in {0, 1}."""
    faces = faces if isinstance(faces, list | tuple) else [faces]
    return sum(decoder[:, number, None, None, None] * face for number, face in enumerate(faces))


def _truth_errors(swapped, target, truth):
    """Distances of swap and target to the truth where those differ, each (batch,)."""
    changed = difference(truth, target)
    pictures = {"truth_error": swapped, "target_error": target}
    return {name: ops.mean(changed * ops.abs(picture - truth), axis=(1, 2, 3)) for name, picture in pictures.items()}


def cosine_similarity(a, b):
    """(batch, dim), (batch, dim) -> (batch,)."""
    return ops.sum(ops.normalize(a, axis=-1) * ops.normalize(b, axis=-1), axis=-1)
