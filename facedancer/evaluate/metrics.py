"""Numbers of swaps, case by case, and their means with intervals."""

import numpy as np

from facedancer.evaluate import pose

# Differences of more than so many grey levels count as a change; less is what compression does.
CHANGED = 8


def measure(cases, swaps, own, judge, shrink_factor):
    """Measures a group of swaps; the sources of the group are the gallery of its retrieval.

    Args:
        cases: list of n `Case`.
        swaps: (n, S, S, 3) uint8, the swaps.
        own: (n, S, S, 3) uint8, the targets swapped with their own identity.
        judge: `IdentityEncoder`.
        shrink_factor: of the aligned faces.

    Returns:
        A list of n dictionaries of floats: `to_source`, `to_target`, cosines of the swap's identity;
        `nearer_to_source`, `rank_1`, `rank_5`, 1 where it is so; `pose`, degrees between the heads of swap and target;
        `expression`, distance to the target's in deviations, and `expression_kept`, 1 where it is nearer to the
        target's than to the source's; `landmarks`, mean distance to the target's by the distance of the eyes' inner
        corners; `self`, mean difference of target and its swap with its own identity, share of the range. Where the
        truth is known also `error` and `target_error`, mean differences of swap and target to it where those two
        differ, share of the range; `error_ratio`, the one by the other; `psnr` in decibels over the whole face.
    """
    targets, sources = (np.stack([getattr(case, name) for case in cases]) for name in ("target", "source"))
    identity = {name: _unit(judge(some)) for name, some in (("t", targets), ("s", sources), ("o", swaps))}
    gallery = identity["o"] @ identity["s"].T
    to_source, to_target = np.diag(gallery), (identity["o"] * identity["t"]).sum(1)
    rank = (gallery > to_source[:, None]).sum(1)
    faces = {"t": targets, "s": sources, "o": swaps}
    points = {name: pose.find_landmarks(some, shrink_factor) for name, some in faces.items()}
    expression = {name: pose.measure_expression(found) / pose.EXPRESSION_SPREAD for name, found in points.items()}
    turned = pose.angle_between(pose.estimate_pose(points["o"]), pose.estimate_pose(points["t"]))
    apart = {name: np.linalg.norm(expression["o"] - expression[name], axis=1) for name in ("t", "s")}
    eyes = np.linalg.norm(points["t"][:, 133, :2] - points["t"][:, 362, :2], axis=1)
    shift = np.linalg.norm(points["o"][..., :2] - points["t"][..., :2], axis=-1).mean(1) / eyes
    rows = []
    for index, case in enumerate(cases):
        row = {
            "to_source": to_source[index],
            "to_target": to_target[index],
            "nearer_to_source": to_source[index] > to_target[index],
            "rank_1": rank[index] < 1,
            "rank_5": rank[index] < 5,
            "pose": turned[index],
            "expression": apart["t"][index],
            "expression_kept": apart["t"][index] < apart["s"][index],
            "landmarks": shift[index],
            "self": np.abs(np.float32(own[index]) - case.target).mean() / 255,
        }
        if case.truth is not None:
            row |= _against_truth(swaps[index], case)
        rows.append({name: float(value) for name, value in row.items()})
    return rows


def summarise(rows, seed=0, draws=2000):
    """Returns name -> (mean, low, high): the ends of the 95 % bootstrap interval of the mean (Efron, 1979).

    Args:
        rows: list of dictionaries of floats; a name that is missing in some is averaged over the others.
    """
    found = {}
    for name in rows[0]:
        values = np.array([row[name] for row in rows if name in row])
        if name == "error_ratio":
            # Of sums, not the mean of ratios, which cases with nearly no change would rule.
            values = np.array([[row["error"], row["target_error"]] for row in rows if name in row])
        drawn = np.random.default_rng(seed).integers(0, len(values), (draws, len(values)))
        means = np.stack([values[indices].mean(0) for indices in drawn])
        centre = values.mean(0)
        if values.ndim == 2:
            centre, means = centre[0] / centre[1], means[:, 0] / means[:, 1]
        found[name] = (float(centre), *np.percentile(means, [2.5, 97.5]).tolist())
    return found


def _against_truth(swap, case):
    truth = np.float32(case.truth)
    changed = np.abs(np.float32(case.target) - truth).max(-1) > CHANGED
    if not changed.any():
        return {}
    errors = [np.abs(np.float32(face) - truth)[changed].mean() / 255 for face in (swap, case.target)]
    noise = np.mean((np.float32(swap) - truth) ** 2)
    return {
        "error": errors[0],
        "target_error": errors[1],
        "error_ratio": errors[0] / errors[1],
        "psnr": 10 * np.log10(255**2 / max(noise, 1e-6)),
    }


def _unit(embeddings):
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
