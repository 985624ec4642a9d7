"""Per-case metrics of swaps, and their means with intervals."""

import cv2
import numpy as np
from scipy.stats import bootstrap
from skimage.metrics import structural_similarity

from facedancer.core.images import to_signed
from facedancer.core.inference import runner
from facedancer.core.measures import changed_pixels, errors_against_truth, mean_difference, unit_rows
from facedancer.face_parts import expression, pose

# Cosines exceeded by one in a thousand pairs of different people: 717,000 pairs from 1,200 photographs of 240 people
# (test split of CelebA, our crop). For two pictures of the same person, faceres exceeds it in 78%, dlib_resnet in 74%.
VERIFICATION_THRESHOLDS = {"faceres": 0.4264, "dlib_resnet": 0.6641}
# Margin of the face around its landmarks, as a share of the aligned face's side.
FACE_MARGIN = 0.06


class FaceFinder:
    """Tells whether a detector finds a face in each aligned face.

    Args:
        detector: `FaceDetector`.
    """

    def __init__(self, detector):
        self._detector = detector

    def __call__(self, faces):
        """(n, S, S, 3) uint8 -> n booleans. Aligned faces fill their picture, so a border is added for detection."""
        margin = faces.shape[1] // 2
        bordered = np.pad(faces, ((0, 0), (margin, margin), (margin, margin), (0, 0)), mode="edge")
        return [bool(found) for found in self._detector.detect(list(bordered))]


class FeatureDistance:
    """Distance of two images in the features of the embedded MobileNetV2, over the pixels that count.

    At every level, the features at each position are normalized to unit length, and squared differences are averaged
    over positions (Zhang et al., CVPR 2018, without their learned weights).

    Args:
        size: side of the images.
    """

    def __init__(self, size):
        from facedancer.arcface_model.perceptual import build_perceptual_network

        self._run = runner(build_perceptual_network("mobilenet_v2", size))

    def __call__(self, a, b, where):
        """Pictures (n, S, S, 3) uint8, twice, and (n, S, S) bool -> (n,)."""
        pairs = zip(*(self._run(to_signed(np.stack(faces))) for faces in (a, b)), strict=True)
        total = np.zeros(len(a))
        for level in pairs:
            apart = np.square(np.subtract(*(f / np.maximum(np.linalg.norm(f, axis=-1, keepdims=True), 1e-6)
                                            for f in level))).sum(-1)  # fmt: skip
            side = apart.shape[1]
            for index, mask in enumerate(where):
                share = cv2.resize(np.float32(mask), (side, side), interpolation=cv2.INTER_AREA)
                total[index] += (apart[index] * share).sum() / max(share.sum(), 1e-6)
        return total


def measure(cases, swaps, own, judge, shrink_factor, is_detected, feature_distance):
    """Measures a group of swaps; the sources of the group are the gallery of its retrieval.

    Args:
        cases: list of n `Case`.
        swaps: (n, S, S, 3) uint8, the swaps.
        own: (n, S, S, 3) uint8, the targets swapped with their own identity.
        judge: `IdentityEncoder`.
        shrink_factor: of the aligned faces.
        is_detected: function of such images: whether a face is detected in each.
        feature_distance: `FeatureDistance`.

    Returns:
        A list of n dictionaries of floats: `to_source`, `to_target`, cosines of the swap's identity;
        `nearer_to_source`, `rank_1`, `rank_5`, 1 where it is so; `verified`, `still_target`, 1 where the cosine to
        source or target is above the judge's threshold for one person, if that is known; `undetected`, 1 where no face
        is detected in the swap, whatever its other numbers are; `background`, mean difference of swap and target
        outside the face, share of the range; `pose`, degrees between the heads of swap and target; `expression`,
        distance to the target's, see `expression_distance`, and `expression_kept`, 1 where it is nearer to the target's
        than to the source's; `gaze`, degrees between the looks of swap and target; `landmarks`, mean distance to the
        target's by the distance of the eyes' inner corners; `self`, mean difference of target and its swap with its own
        identity, share of the range. Where the truth is known also `error` and `target_error`, mean differences of swap
        and target to it where those two differ, share of the range; `error_ratio`, the one by the other; `features`,
        `feature_distance` to it, and `ssim` there; `psnr` in decibels over the whole face.
    """
    targets, sources = (np.stack([getattr(case, name) for case in cases]) for name in ("target", "source"))
    identity = {name: unit_rows(judge(some)) for name, some in (("t", targets), ("s", sources), ("o", swaps))}
    gallery = identity["o"] @ identity["s"].T
    to_source, to_target = np.diag(gallery), (identity["o"] * identity["t"]).sum(1)
    rank = (gallery > to_source[:, None]).sum(1)
    faces = {"t": targets, "s": sources, "o": swaps}
    points = {name: pose.find_landmarks(some, shrink_factor) for name, some in faces.items()}
    expressions = {name: expression.measure_expression(found) for name, found in points.items()}
    gazes = {name: expression.measure_gaze(faces[name], points[name]) for name in ("t", "o")}
    gaze = expression.angle_between_gazes(gazes["o"], gazes["t"])
    turned = pose.angle_between(pose.estimate_pose(points["o"]), pose.estimate_pose(points["t"]))
    apart = {name: expression.expression_distance(expressions["o"], expressions[name]) for name in ("t", "s")}
    eyes = np.linalg.norm(points["t"][:, 133, :2] - points["t"][:, 362, :2], axis=1)
    shift = np.linalg.norm(points["o"][..., :2] - points["t"][..., :2], axis=-1).mean(1) / eyes
    detected = is_detected(swaps)
    threshold = VERIFICATION_THRESHOLDS.get(getattr(judge, "name", None))
    rows = []
    for index, case in enumerate(cases):
        row = {
            "undetected": not detected[index],
            "background": _background(swaps[index], case.target, points["t"][index]),
            "to_source": to_source[index],
            "to_target": to_target[index],
            "nearer_to_source": to_source[index] > to_target[index],
            "rank_1": rank[index] < 1,
            "rank_5": rank[index] < 5,
            "pose": turned[index],
            "expression": apart["t"][index],
            "expression_kept": apart["t"][index] < apart["s"][index],
            "gaze": gaze[index],
            "landmarks": shift[index],
            "self": mean_difference(own[index], case.target),
        }
        if threshold is not None:
            row["verified"] = to_source[index] > threshold
            row["still_target"] = to_target[index] > threshold
        rows.append(row)
    if cases[0].truth is not None:
        for row, more in zip(rows, _against_truths(cases, swaps, feature_distance), strict=True):
            row |= more
    return [{name: float(value) for name, value in row.items()} for row in rows]


def summarize(rows, seed=0, draws=2000):
    """Returns name -> (mean, low, high): the ends of the 95 % bootstrap interval of the mean (Efron, 1979).

    Args:
        rows: list of dictionaries of floats; a name missing in some is averaged over the others.
    """
    found = {}
    for name in sorted({name for row in rows for name in row}):
        having = [row for row in rows if name in row]
        if name == "error_ratio":
            # A ratio of sums: a mean of ratios would be dominated by cases with almost no change.
            values, statistic = [[row[part] for row in having] for part in ("error", "target_error")], _ratio_of_means
        else:
            values, statistic = [[row[name] for row in having]], np.mean
        found[name] = interval(values, statistic, seed, draws)
    return found


def interval(values, statistic, seed=0, draws=2000):
    """Returns (value, low, high) of a statistic, with its 95% percentile bootstrap interval.

    Args:
        values: list of lists of floats, resampled together.
        statistic: function of them with an `axis` argument.
    """
    values = [np.asarray(one, np.float64) for one in values]
    center = float(statistic(*values, axis=-1))
    if len(values[0]) < 2:
        return (center, center, center)
    ends = bootstrap(
        values, statistic, n_resamples=draws, paired=True, vectorized=True, batch=100, method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    return (center, float(ends.low), float(ends.high))


def _ratio_of_means(a, b, axis):
    return np.mean(a, axis=axis) / np.mean(b, axis=axis)


def _background(swap, target, points):
    """Returns the mean difference outside the dilated hull of the target's landmarks (468, 3)."""
    size = target.shape[0]
    face = np.zeros((size, size), np.uint8)
    cv2.fillConvexPoly(face, cv2.convexHull(np.rint(points[:, :2]).astype(np.int32)), 1)
    side = 2 * max(1, round(FACE_MARGIN * size)) + 1
    outside = cv2.dilate(face, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))) == 0
    return mean_difference(swap, target, outside)


def _against_truths(cases, swaps, feature_distance):
    """Returns the measures against the true swaps, one dictionary per case."""
    changed = [changed_pixels(case.target, case.truth) for case in cases]
    features = feature_distance(swaps, [case.truth for case in cases], changed)
    rows = []
    for case, swap, where, distance in zip(cases, swaps, changed, features, strict=True):
        errors = errors_against_truth(swap, case.target, case.truth)
        if errors is None:
            rows.append({})
            continue
        noise = np.mean((np.float32(swap) - np.float32(case.truth)) ** 2)
        _, similarity = structural_similarity(swap, case.truth, channel_axis=-1, data_range=255, full=True)
        rows.append({
            "error": errors[0],
            "target_error": errors[1],
            "error_ratio": errors[0] / errors[1],
            "features": distance,
            "ssim": similarity[where].mean(),
            "psnr": 10 * np.log10(255**2 / max(noise, 1e-6)),
        })  # fmt: skip
    return rows
