"""Tables of the metrics, for the report and for the terminal."""

import json
from importlib import resources

from facedancer.evaluate import report

# Titles of the measures shown, with the direction that is better.
TITLES = {
    "error_ratio": "error against the truth, share of the target's ↓",
    "error": "error against the truth, share of the range ↓",
    "features": "MobileNetV2's features to the truth's, there ↓",
    "ssim": "SSIM to the truth, where it differs from the target ↑",
    "psnr": "PSNR to the truth, dB ↑",
    "rank_1": "source found first among 100 ↑",
    "rank_5": "source among the first five ↑",
    "nearer_to_source": "nearer to the source than to the target ↑",
    "verified": "taken for the source, at 1 false acceptance in 1,000 ↑",
    "still_target": "taken for the target, likewise ↓",
    "to_source": "cosine to the source ↑",
    "to_target": "cosine to the target ↓",
    "pose": "pose to the target's, degrees ↓",
    "expression": "expression to the target's, deviations of its error ↓",
    "expression_kept": "expression nearer to the target's ↑",
    "gaze": "gaze to the target's, degrees ↓",
    "landmarks": "landmarks to the target's, share of the eye distance",
    "self": "swapped with oneself, share of the range ↓",
    "background": "change outside the face, share of the range ↓",
    "kid": "KID × 1,000 to the targets, MobileNetV2 ↓",
    "fid": "FID to the targets, MobileNetV2 ↓",
    "kid_inception_v3": "KID × 1,000 to the targets, InceptionV3 ↓",
    "fid_inception_v3": "FID to the targets, InceptionV3 ↓",
    "undetected": "no face detected in the swap ↓",
}
# Measures shown in percent, and those without an interval.
SHARES = ("rank_1", "rank_5", "nearer_to_source", "verified", "still_target", "expression_kept", "undetected")
PLAIN = ("fid", "fid_inception_v3", "frames", "without_face", "unseen")
# Measures with a histogram in the report.
HISTOGRAMS = ("error_ratio", "to_source", "to_target", "pose", "expression")
VIDEO_TITLES = {
    "jitter": "jitter of the landmarks, times the target's ↓",
    "identity_flicker": "flicker of the identity, times the target's ↓",
    "warped_difference": "flicker of the pixels, times the target's ↓",
    "frames": "frames",
    "without_face": "frames without a face in the target, not measured",
    "unseen": "frames with no face in the swap where the target has one ↓",
}


def read_estimator_errors():
    """Returns the estimators' errors on rendered people: name of the measure -> text."""
    path = resources.files("facedancer.face_parts") / "expression.json"
    errors = json.loads(path.read_text(encoding="utf-8"))["held_out"]
    return {
        "pose": f"{errors['pose']:.1f}",
        "expression": f"{errors['expression']:.2f}",
        "expression_kept": f"{100 * errors['expression_kept']:.0f} % of true swaps",
        "gaze": f"{errors['gaze']:.1f}",
        "landmarks": f"{errors['landmarks']:.3f}",
    }


def measures_table(found, titles, errors=None):
    """Returns the HTML of a table with one row per measure that any swapper has, and one column per swapper.

    Args:
        found: name of the swapper -> name of the measure -> (value, low, high).
        titles: name of the measure -> displayed title.
        errors: name of the measure -> its error, as the text of a last column.
    """
    lines = [
        [
            title,
            *(_cell(name, measures.get(name)) for measures in found.values()),
            *([errors.get(name, "")] if errors else []),
        ]
        for name, title in titles.items()
        if has_measure(found, name)
    ]
    return report.table([["", *found, *(["off by"] if errors else [])], *lines])


def print_measures(found, titles):
    """Prints each swapper's measures, one per line."""
    for swapper, measures in found.items():
        print(swapper)
        for name, title in titles.items():
            if name in measures:
                print(f"  {title:60} {_cell(name, measures[name])}")


def has_measure(found, name):
    """Returns whether any swapper has a measure."""
    return any(name in measures for measures in found.values())


def _cell(name, measure):
    if measure is None:
        return ""
    if name in PLAIN:
        return f"{measure[0]:.4g}"
    if name in SHARES:
        return "{:.1f} % ({:.1f} to {:.1f})".format(*(100 * value for value in measure))
    return "{:.3f} ({:.3f} to {:.3f})".format(*measure)
