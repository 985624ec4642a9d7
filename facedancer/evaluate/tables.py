"""Measures of swappers as tables, for the report and for the terminal."""

from facedancer.evaluate import report

# What is shown of the measures, and which way is better.
TITLES = {
    "error_ratio": "error against the truth, share of the target's ↓",
    "error": "error against the truth, share of the range ↓",
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
    "expression": "expression to the target's, deviations ↓",
    "expression_kept": "expression nearer to the target's ↑",
    "landmarks": "landmarks to the target's, share of the eye distance",
    "self": "swapped with oneself, share of the range ↓",
    "background": "change outside the face, share of the range ↓",
    "kid": "KID × 1,000 to the targets ↓",
    "fid": "FID to the targets ↓",
    "undetected": "no face detected in the swap ↓",
}
# Shown in percent; and without an interval.
SHARES = ("rank_1", "rank_5", "nearer_to_source", "verified", "still_target", "expression_kept", "undetected")
PLAIN = ("fid", "frames", "without_face", "unseen")
# Of these the report shows how often which values occur.
HISTOGRAMS = ("error_ratio", "to_source", "to_target", "pose", "expression")
VIDEO_TITLES = {
    "jitter": "jitter of the landmarks, times the target's ↓",
    "identity_flicker": "flicker of the identity, times the target's ↓",
    "warped_difference": "flicker of the pixels, times the target's ↓",
    "frames": "frames",
    "without_face": "frames without a face in the target, not measured",
    "unseen": "frames with no face in the swap where the target has one ↓",
}


def measures_table(found, titles):
    """Returns the HTML of a table: a line for each measure that any swapper has, a column for each swapper.

    Args:
        found: name of the swapper -> name of the measure -> (value, low, high).
        titles: name of the measure -> what people read.
    """
    lines = [
        [title, *(_cell(name, measures.get(name)) for measures in found.values())]
        for name, title in titles.items()
        if has_measure(found, name)
    ]
    return report.table([["", *found], *lines])


def print_measures(found, titles):
    """Prints the measures of each swapper, one a line."""
    for swapper, measures in found.items():
        print(swapper)
        for name, title in titles.items():
            if name in measures:
                print(f"  {title:60} {_cell(name, measures[name])}")


def has_measure(found, name):
    """Whether any swapper has a measure."""
    return any(name in measures for measures in found.values())


def _cell(name, measure):
    if measure is None:
        return ""
    if name in PLAIN:
        return f"{measure[0]:.4g}"
    if name in SHARES:
        return "{:.1f} % ({:.1f} to {:.1f})".format(*(100 * value for value in measure))
    return "{:.3f} ({:.3f} to {:.3f})".format(*measure)
