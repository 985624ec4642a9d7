"""Compares swap models with each other, and with baselines that need no training.

    facedancer evaluate --model runs/first/exports/facedancer_20000.h5 --protocol triplets \\
        --data 'shards/portraits_val_*.records' --output report
    facedancer evaluate --model a.h5 b.h5 --protocol pairs --data aligned --output report --count 500
    facedancer evaluate --model lite --protocol video --data videos/pairs.jsonl --output report

`report/metrics.json` has every number, `report/report.html` shows them with images, `report/pairs.jsonl` lists the
pairs that `--protocol pairs` drew. Run again to resume; docs/evaluation.md explains the numbers.
"""

import argparse
import functools
import importlib.util
import itertools
from pathlib import Path

import numpy as np

from facedancer.core.console import UserError, command, progress, say
from facedancer.core.devices import select_device
from facedancer.core.files import Journal, keep_settings, only_writer, write_json
from facedancer.core.images import tile_images
from facedancer.core.weights import find_weights
from facedancer.evaluate import report
from facedancer.evaluate.swappers import Swapper, read_model_card
from facedancer.evaluate.tables import (
    HISTOGRAMS,
    TITLES,
    VIDEO_TITLES,
    has_measure,
    measures_table,
    print_measures,
    read_estimator_errors,
)

PROTOCOLS = ("triplets", "synthetic", "pairs")
VIDEO = "video"
# Retrieval looks for a swap's source among the sources of this many pairs.
GALLERY = 100
SHOWN = 12
INSTALL = "evaluation needs SciPy and scikit-image: pip install 'facedancer[evaluate]'"
SETTINGS_NAME, METRICS_NAME, REPORT_NAME = "settings.json", "metrics.json", "report.html"


def evaluate(models, protocol, data, out, count=500, seed=0, judge="faceres", yardsticks=True, inception=False):
    """Measures swappers, and writes metrics and a report.

    Args:
        models: list of exports, or names such as "lite".
        protocol: one of `PROTOCOLS`.
        data: data of that protocol, see `cases.read_cases`.
        out: folder to write to.
        count: maximum number of pairs.
        seed: integer seed for drawing pairs and bootstrap samples.
        judge: identity encoder that judges; no model may have been trained with it.
        yardsticks: whether to measure the baselines of `yardsticks` too.
        inception: whether to compute FID and KID with InceptionV3's features too.

    Returns:
        Name of the swapper -> name of the metric -> (mean, low, high).

    Raises:
        UserError: if a file is missing or damaged, models need different crops, or one was trained with the judge.
    """
    from facedancer.arcface_model import IdentityEncoder
    from facedancer.evaluate.cases import read_cases
    from facedancer.evaluate.metrics import FaceFinder, FeatureDistance, interval, measure, summarize
    from facedancer.evaluate.realism import FEATURES, INCEPTION, MOBILENET, Realism, build_features
    from facedancer.evaluate.yardsticks import CopyPaste, LeaveTarget, TrueSwap
    from facedancer.retinaface import FaceDetector

    out = Path(out)
    models = [find_weights(path) for path in models]
    cards = [read_model_card(path, judge, names_people=protocol == "synthetic") for path in models]
    # All are measured at the size of the largest, as viewers would see them.
    size, shrink_factor = max(card.image_size for card in cards), cards[0].shrink_factor
    if any(card.shrink_factor != shrink_factor for card in cards):
        raise UserError("--model: the models take different crops of faces; evaluate them separately")
    swappers = [Swapper(path, card) for path, card in zip(models, cards, strict=True)]
    if yardsticks:
        swappers += [LeaveTarget(), CopyPaste(shrink_factor)]
        swappers += [TrueSwap()] if protocol != "pairs" else []
    networks = {name: build_features(name, size) for name in (MOBILENET, *([INCEPTION] if inception else []))}
    settings = {
        "protocol": protocol, "data": str(data), "count": count, "seed": seed, "judge": judge,
        "image_size": size,
        "realism": {name: FEATURES[name] for name in networks},
    }  # fmt: skip
    keep_settings(out / SETTINGS_NAME, settings, "give another --output")
    measure_group = functools.partial(
        measure,
        judge=IdentityEncoder(judge, shrink_factor=shrink_factor),
        shrink_factor=shrink_factor,
        is_detected=FaceFinder(FaceDetector()),
        feature_distance=FeatureDistance(size),
    )

    def cases():
        return read_cases(protocol, data, out, count, size, shrink_factor, seed)

    found, rows = {}, {}
    for swapper in swappers:
        realisms = {name: Realism(out / f"{swapper.key}-{name}", network) for name, network in networks.items()}
        some = rows[swapper.name] = _measure(swapper, cases, out, count, measure_group, realisms.values())
        found[swapper.name] = summarize(some, seed)
        for name, realism in realisms.items():
            suffix = "" if name == MOBILENET else f"_{name}"
            fid, kids = realism.summarize(-(-len(some) // GALLERY))
            found[swapper.name][f"fid{suffix}"] = (fid, fid, fid)
            if kids:
                found[swapper.name][f"kid{suffix}"] = interval([1000 * np.array(kids)], np.mean, seed)
    number = len(rows[swappers[0].name])
    write_json(out / METRICS_NAME, {**settings, "pairs": number, "swappers": found})
    _write_report(out, settings, number, found, rows, swappers, cases)
    return found


def _measure(swapper, cases, out, count, measure_group, realisms):
    """Returns the rows of a swapper; those that are in its journal are not measured again."""
    with (
        Journal(out / f"{swapper.key}.jsonl") as journal,
        progress(total=count, initial=len(journal.entries), desc=swapper.name, unit="pair") as bar,
    ):
        rows = journal.entries[: len(journal.entries) // GALLERY * GALLERY]
        waiting = itertools.islice(cases(), len(rows), None)
        while group := list(itertools.islice(waiting, GALLERY)):
            swaps = swapper(group)
            own = swapper([case.onto_itself() for case in group])
            rows_of_group = measure_group(group, swaps, own)
            for realism in realisms:
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
    words = {
        "triplets": "single portraits, where the portrait is the truth",
        "synthetic": "rendered people, with truth",
    }
    parts = [
        report.section(
            "What was measured",
            f"{number} pairs of {words.get(settings['protocol'], 'aligned faces')}. Identity is judged by"
            f" {settings['judge']}, which no swapper was trained with. Means with 95 % bootstrap intervals. FID and KID"
            f" use {', and '.join(settings['realism'].values())}: compare them only within this project. The last"
            " column is the error of the estimators themselves, on rendered people whose truth is known.",
        ),
        measures_table(found, TITLES, read_estimator_errors()),
    ]
    parts += [
        report.histogram(TITLES[name].rstrip(" ↓↑"), {key: [row[name] for row in some if name in row]
                         for key, some in rows.items() if any(name in row for row in some)})
        for name in HISTOGRAMS
        if has_measure(found, name)
    ]  # fmt: skip
    first = rows[swappers[0].name]
    margin = np.array([row["to_source"] - row["to_target"] for row in first])
    order = np.argsort(-margin, kind="stable")
    middle = (len(order) - SHOWN) // 2
    examples = {
        "Most similar to the source": order[:SHOWN],
        "Median": order[max(0, middle) : max(0, middle) + SHOWN],
        "Least similar": order[::-1][:SHOWN],
    }
    wanted = set(np.concatenate(list(examples.values())).tolist())
    kept = {index: case for index, case in enumerate(cases()) if index in wanted}
    for title, indices in examples.items():
        some = [kept[index] for index in indices]
        parts += [report.section(title, ""), picture_of(some, swappers)]
    report.write_report(out / REPORT_NAME, "Evaluation of swappers", parts)


def picture_of(cases, swappers):
    """Returns a part of a report: rows of targets, sources, the swaps of each swapper, and truths if known."""
    rows = {"target": [case.target for case in cases], "source": [case.source for case in cases]}
    rows |= {swapper.name: swapper(cases) for swapper in swappers}
    if cases[0].truth is not None:
        rows["truth"] = [case.truth for case in cases]
    return report.picture(tile_images([np.stack(faces) for faces in rows.values()]), ", ".join(rows))


def check_libraries():
    """Raises `UserError` if the libraries of the extra `evaluate` are not installed."""
    if importlib.util.find_spec("skimage") is None or importlib.util.find_spec("scipy") is None:
        raise UserError(INSTALL)


def build_parser():
    parser = argparse.ArgumentParser(
        prog="facedancer evaluate", description="Compares swap models side by side, with intervals and images."
    )
    parser.add_argument(
        "--model", required=True, nargs="+", metavar="FILE", help="exported models, or `lite`, the included model"
    )
    parser.add_argument("--protocol", required=True, choices=(*PROTOCOLS, VIDEO), help="kind of pairs in --data")
    parser.add_argument(
        "--data",
        required=True,
        metavar="PATH",
        help="triplet shards, a rendered data set, aligned faces, or a list of videos",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="output folder; run again to resume")
    parser.add_argument(
        "--count", type=int, default=500, metavar="N", help="maximum number of pairs (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="random seed for drawing pairs (default: %(default)s)"
    )
    parser.add_argument(
        "--inception",
        action="store_true",
        help="also compute FID and KID with InceptionV3, for which Keras fetches 88 MB",
    )
    parser.add_argument(
        "--judge",
        default="faceres",
        metavar="NAME",
        help="identity encoder that judges; no model should have been trained with it (default: %(default)s)",
    )
    return parser


@command
def main(argv=None):
    args = build_parser().parse_args(argv)
    if args.count < 1:
        raise UserError(f"--count {args.count}: give at least 1")
    check_libraries()
    with only_writer(args.output):
        say(f"device: {select_device()}")
        if args.protocol == VIDEO:
            from facedancer.evaluate.video import evaluate_video

            found, titles = evaluate_video(args.model, args.data, args.output, args.seed, args.judge), VIDEO_TITLES
        else:
            found = evaluate(
                args.model, args.protocol, args.data, args.output, args.count, args.seed, args.judge,
                inception=args.inception,
            )  # fmt: skip
            titles = TITLES
    print_measures(found, titles)
    print(f"{args.output}/{REPORT_NAME} shows them")
