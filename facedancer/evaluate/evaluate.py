"""Measures swappers against each other, and against what takes no training.

    facedancer evaluate --model runs/first/exports/facedancer_20000.h5 --protocol triplets \\
        --data 'shards/portraits_val_*.records' --out report
    facedancer evaluate --model a.h5 b.h5 --protocol pairs --data aligned --out report --count 500

`report/metrics.json` has every number, `report/report.html` shows them with pictures, `report/pairs.jsonl` names the
pairs that `--protocol pairs` drew. A stopped run goes on; docs/evaluation.md says what the numbers mean.
"""

import argparse
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
# The sources of so many pairs are the gallery in which a swap's source is sought.
GALLERY = 100
SHOWN = 12
SWAPPER_BATCH = 32
SETTINGS_NAME, METRICS_NAME, REPORT_NAME = "settings.json", "metrics.json", "report.html"
# What is shown of the measures, and which way is better.
TITLES = {
    "error_ratio": "error against the truth, share of the target's ↓",
    "error": "error against the truth, share of the range ↓",
    "psnr": "PSNR to the truth, dB ↑",
    "rank_1": f"source found first among {GALLERY} ↑",
    "rank_5": "source among the first five ↑",
    "nearer_to_source": "nearer to the source than to the target ↑",
    "to_source": "cosine to the source ↑",
    "to_target": "cosine to the target ↓",
    "pose": "pose to the target's, degrees ↓",
    "expression": "expression to the target's, deviations ↓",
    "expression_kept": "expression nearer to the target's ↑",
    "landmarks": "landmarks to the target's, share of the eye distance",
    "self": "swapped with oneself, share of the range ↓",
}
SHARES = ("rank_1", "rank_5", "nearer_to_source", "expression_kept")


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
    from facedancer.evaluate.metrics import summarise
    from facedancer.evaluate.yardsticks import CopyPaste, LeaveTarget

    out = Path(out)
    models = [find_weights(path) for path in models]
    cards = [read_model_card(path, judge) for path in models]
    size, shrink_factor = cards[0].image_size, cards[0].shrink_factor
    if any((card.image_size, card.shrink_factor) != (size, shrink_factor) for card in cards):
        raise UserError("--model: the models take faces of different sizes or crops; evaluate them one by one")
    swappers = [Swapper(path, card) for path, card in zip(models, cards, strict=True)]
    if yardsticks:
        swappers += [LeaveTarget(), CopyPaste(shrink_factor)]
    settings = {"protocol": protocol, "data": str(data), "count": count, "seed": seed, "judge": judge}
    keep_settings(out / SETTINGS_NAME, settings, "give another --out")
    encoder = IdentityEncoder(judge, shrink_factor=shrink_factor)

    def cases():
        return read_cases(protocol, data, out, count, size, shrink_factor, seed)

    found, rows = {}, {}
    for swapper in swappers:
        rows[swapper.name] = _measure(swapper, cases, out, count, encoder, shrink_factor)
        found[swapper.name] = summarise(rows[swapper.name], seed)
    number = len(rows[swappers[0].name])
    write_json(out / METRICS_NAME, {**settings, "pairs": number, "swappers": found})
    _write_report(out, settings, number, found, rows, swappers, cases)
    return found


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

    def __call__(self, targets, sources):
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


def _measure(swapper, cases, out, count, judge, shrink_factor):
    """Returns the rows of a swapper, from its journal those that are there."""
    from facedancer.evaluate.metrics import measure

    with (
        Journal(out / f"{swapper.key}.jsonl") as journal,
        progress(total=count, initial=len(journal.entries), desc=swapper.name, unit="pair") as bar,
    ):
        rows = journal.entries[: len(journal.entries) // GALLERY * GALLERY]
        waiting = itertools.islice(cases(), len(rows), None)
        while group := list(itertools.islice(waiting, GALLERY)):
            targets, sources = (np.stack([getattr(case, side) for case in group]) for side in ("target", "source"))
            swaps, own = swapper(targets, sources), swapper(targets, targets)
            for case, row in zip(group, measure(group, swaps, own, judge, shrink_factor), strict=True):
                rows.append({"name": case.name, **row})
                if len(rows) > len(journal.entries):
                    journal.append(rows[-1])
                bar.update()
    if not rows:
        raise UserError("there are no pairs to measure")
    return [{name: value for name, value in row.items() if name != "name"} for row in rows]


def _write_report(out, settings, number, found, rows, swappers, cases):
    words = {"triplets": "single portraits, whose picture is the truth", "synthetic": "rendered people, with truth"}
    parts = [
        report.section(
            "What was measured",
            f"{number} pairs of {words.get(settings['protocol'], 'aligned faces')}; identity by {settings['judge']},"
            " which none of the swappers was trained with. Means with their 95 % bootstrap intervals.",
        ),
        report.table(
            [["", *found], *([title, *_cells(found, name)] for name, title in TITLES.items() if _has(found, name))]
        ),
    ]
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
        lines = [targets, sources, *(swapper(targets, sources) for swapper in swappers)]
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
        elif name in SHARES:
            yield "{:.1f} % ({:.1f} to {:.1f})".format(*(100 * value for value in measures[name]))
        else:
            yield "{:.3f} ({:.3f} to {:.3f})".format(*measures[name])


def build_parser():
    parser = argparse.ArgumentParser(
        prog="facedancer evaluate", description="Measures swappers, side by side, with intervals and pictures."
    )
    parser.add_argument("--model", required=True, nargs="+", metavar="FILE", help="exports, or `lite`, the shipped one")
    parser.add_argument("--protocol", required=True, choices=PROTOCOLS, help="what kind of pairs --data has")
    parser.add_argument(
        "--data", required=True, help="shards of triplets, a rendered world, or aligned faces of people"
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
    found = evaluate(args.model, args.protocol, args.data, args.out, args.count, args.seed, args.judge)
    for name, measures in found.items():
        print(name)
        for measure, title in TITLES.items():
            if measure in measures:
                print("  {:52} {:.3f} ({:.3f} to {:.3f})".format(title, *measures[measure]))
    print(f"{args.out}/{REPORT_NAME} shows them")
