"""Measures swappers against each other, and against what takes no training.

    facedancer evaluate --model runs/first/exports/facedancer_20000.h5 --protocol triplets \\
        --data 'shards/portraits_val_*.records' --out report
    facedancer evaluate --model a.h5 b.h5 --protocol pairs --data aligned --out report --count 500
    facedancer evaluate --model lite --protocol video --data videos/pairs.jsonl --out report

`report/metrics.json` has every number, `report/report.html` shows them with pictures, `report/pairs.jsonl` names the
pairs that `--protocol pairs` drew. A stopped run goes on; docs/evaluation.md says what the numbers mean.
"""

import argparse
import dataclasses
import importlib.util
import itertools
from pathlib import Path

import numpy as np

from facedancer.core.card import read_card
from facedancer.core.console import UserError, command, progress
from facedancer.core.files import Journal, keep_settings, write_json
from facedancer.core.images import from_signed, tile_images, to_signed
from facedancer.core.weights import find_weights, sha256_of
from facedancer.evaluate import report

PROTOCOLS = ("triplets", "synthetic", "pairs")
VIDEO = "video"
# The sources of so many pairs are the gallery in which a swap's source is sought.
GALLERY = 100
SHOWN = 12
SWAPPER_BATCH = 32
INSTALL = "evaluation needs SciPy and scikit-image: pip install 'facedancer[evaluate]'"
SETTINGS_NAME, METRICS_NAME, REPORT_NAME = "settings.json", "metrics.json", "report.html"
# What is shown of the measures, and which way is better.
TITLES = {
    "error_ratio": "error against the truth, share of the target's ↓",
    "error": "error against the truth, share of the range ↓",
    "ssim": "SSIM to the truth, where it differs from the target ↑",
    "psnr": "PSNR to the truth, dB ↑",
    "rank_1": f"source found first among {GALLERY} ↑",
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
    "unseen": "no face detected in the swap ↓",
}
SHARES = ("rank_1", "rank_5", "nearer_to_source", "verified", "still_target", "expression_kept", "unseen")
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


def evaluate(models, protocol, data, out, count=500, seed=0, judge="faceres", yardsticks=True):
    """Measures swappers, and writes metrics and report.

    Args:
        models: list of exports.
        protocol: one of `cases.PROTOCOLS`.
        data: what that reads, see `cases.read_cases`.
        out: folder to write to.
        count: pairs, at most.
        seed: integer, by which pairs are drawn and intervals found.
        judge: identity encoder that measures, none that a model was trained with.
        yardsticks: whether `yardsticks` are measured as well.

    Returns:
        Name of the swapper -> name of the measure -> (mean, low, high).

    Raises:
        UserError: if a file is missing or damaged, models want different faces, or one was trained with the judge.
    """
    from facedancer.arcface_model import IdentityEncoder
    from facedancer.evaluate.cases import read_cases
    from facedancer.evaluate.metrics import interval, summarise
    from facedancer.evaluate.realism import FEATURES, Realism
    from facedancer.evaluate.yardsticks import CopyPaste, LeaveTarget, TrueSwap
    from facedancer.retinaface import FaceDetector

    out = Path(out)
    models = [find_weights(path) for path in models]
    cards = [read_model_card(path, judge) for path in models]
    size, shrink_factor = cards[0].image_size, cards[0].shrink_factor
    if any((card.image_size, card.shrink_factor) != (size, shrink_factor) for card in cards):
        raise UserError("--model: the models take faces of different sizes or crops; evaluate them one by one")
    swappers = [Swapper(path, card) for path, card in zip(models, cards, strict=True)]
    if yardsticks:
        swappers += [LeaveTarget(), CopyPaste(shrink_factor)]
        swappers += [TrueSwap()] if protocol != "pairs" else []
    settings = {"protocol": protocol, "data": str(data), "count": count, "seed": seed, "judge": judge}
    keep_settings(out / SETTINGS_NAME, settings, "give another --out")
    encoder = IdentityEncoder(judge, shrink_factor=shrink_factor)

    def cases():
        return read_cases(protocol, data, out, count, size, shrink_factor, seed)

    is_seen = FaceFinder(FaceDetector())
    found, rows = {}, {}
    for swapper in swappers:
        realism = Realism(out / f"{swapper.key}-features", size)
        some = rows[swapper.name] = _measure(swapper, cases, out, count, encoder, shrink_factor, is_seen, realism)
        found[swapper.name] = summarise(some, seed)
        fid, kids = realism.summarise(-(-len(some) // GALLERY))
        found[swapper.name]["fid"] = (fid, fid, fid)
        if kids:
            found[swapper.name]["kid"] = interval([1000 * np.array(kids)], np.mean, seed)
    number = len(rows[swappers[0].name])
    write_json(out / METRICS_NAME, {**settings, "pairs": number, "realism": FEATURES, "swappers": found})
    _write_report(out, settings, number, found, rows, swappers, cases)
    return found


def evaluate_video(models, data, out, seed=0, judge="faceres"):
    """Swaps videos with models, measures how steady the swaps are, and writes metrics and report.

    Args:
        models, out, judge: as `evaluate` has them.
        data: list of videos and sources, see `video.read_video_list`.
        seed: integer, by which intervals are found.

    Returns:
        Name of the swapper -> name of the measure -> (mean over the videos, low, high), of a count the sum.

    Raises:
        UserError: as `evaluate` does, or if a video cannot be swapped.
    """
    from facedancer.arcface_model import IdentityEncoder
    from facedancer.evaluate import video
    from facedancer.evaluate.metrics import interval
    from facedancer.retinaface import FaceDetector

    out = Path(out)
    pairs = video.read_video_list(data)
    models = [find_weights(path) for path in models]
    for path in models:
        read_model_card(path, judge)
    keep_settings(out / SETTINGS_NAME, {"protocol": VIDEO, "data": str(data), "judge": judge}, "give another --out")
    watch = video.Watch(FaceDetector(), IdentityEncoder(judge))
    found, rows = {}, {}
    for path in models:
        name, key = f"{path.parent.name}/{path.stem}", f"{path.stem}-{sha256_of(path)[:12]}"
        with Journal(out / f"{key}.jsonl") as journal:
            for index, (target, source) in enumerate(pairs[len(journal.entries) :], len(journal.entries)):
                swapped = out / key / f"{index:04d}.mkv"
                video.swap_once(path, target, source, swapped)
                row = watch(video.read_pictures(target), video.read_pictures(swapped))
                journal.append(row)
                journal.entries.append(row)
            rows[name] = journal.entries
        found[name] = {}
        for measure in VIDEO_TITLES:
            if measure in video.MEASURES:
                shares = [row[measure][0] / row[measure][1] for row in rows[name] if row[measure][1] > 0]
                if shares:
                    found[name][measure] = interval([shares], np.mean, seed)
            else:
                total = sum(row[measure] for row in rows[name])
                found[name][measure] = (total, total, total)
    write_json(out / METRICS_NAME, {"videos": len(pairs), "judge": judge, "swappers": found})
    parts = [
        report.section(
            "What was measured",
            f"{len(pairs)} videos, the largest face of each frame; identity by {judge}. Every flicker is a share of the"
            " target's own, measured in the same places: 1 is a swap as steady as its target.",
        ),
        report.table([["", *found], *([title, *_cells(found, name)] for name, title in VIDEO_TITLES.items())]),
    ]
    report.write_report(out / REPORT_NAME, "Swapped videos, measured", parts)
    return found


class FaceFinder:
    """Says of aligned faces whether a detector sees a face in them.

    Args:
        detector: `FaceDetector`.
    """

    def __init__(self, detector):
        self._detector = detector

    def __call__(self, faces):
        """(n, S, S, 3) uint8 -> n booleans. An aligned face fills its picture: it is seen with a border about it."""
        margin = faces.shape[1] // 2
        bordered = np.pad(faces, ((0, 0), (margin, margin), (margin, margin), (0, 0)), mode="edge")
        return [bool(found) for found in self._detector.detect(list(bordered))]


class Swapper:
    """A model on aligned faces.

    Attributes:
        name: for people.
        key: of its journal: a model that was trained on is another one.
    """

    def __init__(self, path, card):
        from facedancer.arcface_model import IdentityEncoder
        from facedancer.video_swap.engines import load_engine

        self.name = f"{path.parent.name}/{path.stem}"
        self.key = f"{path.stem}-{sha256_of(path)[:12]}"
        self._model = load_engine(path)
        self._encoder = IdentityEncoder(card.identity_encoder, shrink_factor=card.shrink_factor)

    def __call__(self, cases):
        """Swaps a list of n `Case`; returns (n, S, S, 3) uint8."""
        targets, sources = (np.stack([getattr(case, side) for case in cases]) for side in ("target", "source"))
        embeddings = self._encoder(sources)
        swapped = []
        for start in range(0, len(targets), self._model.batch_size):
            part = slice(start, start + self._model.batch_size)
            inputs = {"target": to_signed(targets[part]), "source_embedding": embeddings[part]}
            swapped.append(from_signed(self._model.predict_on_batch(inputs)))
        return np.concatenate(swapped)


def read_model_card(path, judge=None):
    """Returns the card of an export; raises `UserError` if it has none, or was trained with the judge."""
    card = read_card(path)
    if card is None:
        raise UserError(f"{path} has no card.json beside it, which says how its faces are aligned")
    if judge is not None and card.identity_encoder == judge:
        raise UserError(
            f"{path} was trained with {judge}: it would be measured by what it learnt to please; give another --judge"
        )
    return card


def _measure(swapper, cases, out, count, judge, shrink_factor, is_seen, realism):
    """Returns the rows of a swapper, from its journal those that are there."""
    from facedancer.evaluate.metrics import measure

    with (
        Journal(out / f"{swapper.key}.jsonl") as journal,
        progress(total=count, initial=len(journal.entries), desc=swapper.name, unit="pair") as bar,
    ):
        rows = journal.entries[: len(journal.entries) // GALLERY * GALLERY]
        waiting = itertools.islice(cases(), len(rows), None)
        while group := list(itertools.islice(waiting, GALLERY)):
            swaps = swapper(group)
            own = swapper([dataclasses.replace(case, source=case.target, truth=case.target) for case in group])
            rows_of_group = measure(group, swaps, own, judge, shrink_factor, is_seen)
            realism.add(len(rows) // GALLERY, [case.target for case in group], swaps)
            for case, row in zip(group, rows_of_group, strict=True):
                rows.append({"name": case.name, **row})
                if len(rows) > len(journal.entries):
                    journal.append(rows[-1])
                bar.update()
    if not rows:
        raise UserError("there are no pairs to measure")
    return [{name: value for name, value in row.items() if name != "name"} for row in rows]


def _write_report(out, settings, number, found, rows, swappers, cases):
    from facedancer.evaluate.realism import FEATURES

    words = {"triplets": "single portraits, whose picture is the truth", "synthetic": "rendered people, with truth"}
    parts = [
        report.section(
            "What was measured",
            f"{number} pairs of {words.get(settings['protocol'], 'aligned faces')}; identity by {settings['judge']},"
            " which none of the swappers was trained with. Means with their 95 % bootstrap intervals. FID and KID"
            f" are of {FEATURES}: compare them within this project alone.",
        ),
        report.table(
            [["", *found], *([title, *_cells(found, name)] for name, title in TITLES.items() if _has(found, name))]
        ),
    ]
    parts += [
        report.histogram(TITLES[name].rstrip(" ↓↑"), {key: [row[name] for row in some if name in row]
                         for key, some in rows.items() if any(name in row for row in some)})
        for name in HISTOGRAMS
        if _has(found, name)
    ]  # fmt: skip
    judged = rows[swappers[0].name]
    margin = np.array([row["to_source"] - row["to_target"] for row in judged])
    order = np.argsort(-margin, kind="stable")
    middle = (len(order) - SHOWN) // 2
    shown = {
        "The most like their source": order[:SHOWN],
        "In the middle": order[max(0, middle) : max(0, middle) + SHOWN],
        "The least": order[::-1][:SHOWN],
    }
    wanted = set(np.concatenate(list(shown.values())).tolist())
    kept = {index: case for index, case in enumerate(cases()) if index in wanted}
    for title, indices in shown.items():
        some = [kept[index] for index in indices]
        targets, sources = (np.stack([getattr(case, side) for case in some]) for side in ("target", "source"))
        lines = [targets, sources, *(swapper(some) for swapper in swappers)]
        names = ["target", "source", *(swapper.name for swapper in swappers)]
        if some[0].truth is not None:
            lines.append(np.stack([case.truth for case in some]))
            names.append("truth")
        parts += [report.section(title, ""), report.picture(tile_images(lines), ", ".join(names))]
    report.write_report(out / REPORT_NAME, "Swappers, measured", parts)


def _has(found, name):
    return any(name in measures for measures in found.values())


def _cells(found, name):
    for measures in found.values():
        if name not in measures:
            yield ""
        elif name in ("fid", "frames", "without_face") or (name == "unseen" and isinstance(measures[name][0], int)):
            yield f"{measures[name][0]:.4g}"
        elif name in SHARES:
            yield "{:.1f} % ({:.1f} to {:.1f})".format(*(100 * value for value in measures[name]))
        else:
            yield "{:.3f} ({:.3f} to {:.3f})".format(*measures[name])


def build_parser():
    parser = argparse.ArgumentParser(
        prog="facedancer evaluate", description="Measures swappers, side by side, with intervals and pictures."
    )
    parser.add_argument("--model", required=True, nargs="+", metavar="FILE", help="exports, or `lite`, the shipped one")
    parser.add_argument("--protocol", required=True, choices=(*PROTOCOLS, VIDEO), help="what kind of pairs --data has")
    parser.add_argument(
        "--data",
        required=True,
        help="shards of triplets, a rendered world, aligned faces, or a list of videos",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write to; a stopped run goes on")
    parser.add_argument("--count", type=int, default=500, metavar="N", help="pairs, at most (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="by which pairs are drawn (default: %(default)s)")
    parser.add_argument("--judge", default="faceres", help="identity encoder that measures (default: %(default)s)")
    return parser


@command
def main(argv=None):
    args = build_parser().parse_args(argv)
    if args.count < 1:
        raise UserError(f"--count {args.count}: give at least 1")
    if importlib.util.find_spec("skimage") is None or importlib.util.find_spec("scipy") is None:
        raise UserError(INSTALL)
    if args.protocol == VIDEO:
        found, titles = evaluate_video(args.model, args.data, args.out, args.seed, args.judge), VIDEO_TITLES
    else:
        found = evaluate(args.model, args.protocol, args.data, args.out, args.count, args.seed, args.judge)
        titles = TITLES
    for name, measures in found.items():
        print(name)
        for measure, title in titles.items():
            if measure in measures:
                print("  {:60} {:.3f} ({:.3f} to {:.3f})".format(title, *measures[measure]))
    print(f"{args.out}/{REPORT_NAME} shows them")
