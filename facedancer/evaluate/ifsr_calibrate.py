"""Measures IFSR margins for an identity encoder, from the swaps of an existing model.

    facedancer ifsr_calibrate --protocol triplets --data 'shards/portraits_val_*.records' --output margins.json
    facedancer train --ifsr_margins margins.json …

IFSR keeps intermediate features of a swap near the target's, up to a margin for each tap: the mean distance there of an
earlier model's swaps (Rosberg et al., WACV 2023, section 3.3; they found theirs by hand).
"""

import argparse
import itertools
from pathlib import Path

import numpy as np

from facedancer.core.console import UserError, command, progress, say
from facedancer.core.devices import select_device
from facedancer.core.files import only_writer, write_json
from facedancer.core.inference import runner
from facedancer.core.weights import find_weights
from facedancer.evaluate.evaluate import PROTOCOLS
from facedancer.evaluate.swappers import Swapper, read_model_card

VERSION = 1
_BATCH = 32


def calibrate(model, protocol, data, out, count=500, seed=0, encoder=None):
    """Measures the mean distance of target and swap at every tap of an encoder, and writes these margins.

    Args:
        model: the export.
        protocol, data, count, seed: as for `cases.read_cases`.
        out: JSON file to write: `version`, `encoder`, `model`, `pairs` and `margins`, tap -> mean cosine distance.
        encoder: name or path of the encoder to measure; by default the one that the model was trained with.

    Returns:
        Tap -> margin.

    Raises:
        UserError: if there are no pairs, or the encoder has no taps.
    """
    from facedancer.arcface_model import IdentityEncoder
    from facedancer.core.images import to_signed
    from facedancer.evaluate.cases import read_cases

    path = find_weights(model)
    card = read_model_card(path)
    swapper, identity = Swapper(path, card), IdentityEncoder(encoder or card.identity_encoder)
    taps = tuple(identity.ifsr_margins)
    if not taps:
        raise UserError(f"{identity.name} has no taps for IFSR")
    run = runner(identity.build_model(card.image_size, card.shrink_factor))
    cases = read_cases(protocol, data, Path(out).parent, count, card.image_size, card.shrink_factor, seed)
    sums, number = np.zeros(len(taps)), 0
    with progress(total=count, desc="margins", unit="pair") as bar:
        while group := list(itertools.islice(cases, _BATCH)):
            targets = np.stack([case.target for case in group])
            features = [run(to_signed(faces)) for faces in (targets, swapper(group))]
            sums += [_cosine_distance(features[0][tap], features[1][tap]).sum() for tap in taps]
            number += len(group)
            bar.update(len(group))
    if not number:
        raise UserError(f"{data}: there are no pairs")
    margins = {tap: round(float(total / number), 5) for tap, total in zip(taps, sums, strict=True)}
    write_json(
        out, {"version": VERSION, "encoder": identity.name, "model": path.name, "pairs": number, "margins": margins}
    )
    return margins


def _cosine_distance(a, b):
    """(n, …), (n, …) -> (n,); the same as `train.losses.cosine_distance`, in NumPy."""
    a, b = (np.reshape(x, (len(x), -1)).astype(np.float64) for x in (a, b))
    return 1.0 - (a * b).sum(1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-12)


def build_parser():
    parser = argparse.ArgumentParser(prog="facedancer ifsr_calibrate", description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--model", default="lite", metavar="FILE", help="exported model to measure (default: lite, the included model)"
    )
    parser.add_argument("--protocol", required=True, choices=PROTOCOLS, help="kind of pairs in --data")
    parser.add_argument("--data", required=True, metavar="PATH", help="as for `facedancer evaluate`")
    parser.add_argument("--output", required=True, metavar="FILE", help="JSON file to write, for train --ifsr_margins")
    parser.add_argument(
        "--encoder", metavar="NAME", help="encoder to measure (default: the one the model was trained with)"
    )
    parser.add_argument(
        "--count", type=int, default=500, metavar="N", help="maximum number of pairs (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="random seed for drawing pairs (default: %(default)s)"
    )
    return parser


@command
def main(argv=None):
    args = build_parser().parse_args(argv)
    if args.count < 1:
        raise UserError(f"--count {args.count}: give at least 1")
    with only_writer(Path(args.output).parent):  # where `evaluate` writes the same list of pairs
        say(f"device: {select_device()}")
        margins = calibrate(args.model, args.protocol, args.data, args.output, args.count, args.seed, args.encoder)
    for tap, margin in margins.items():
        print(f"  {tap:24}{margin:.4f}")
    print(f"written to {args.output}")
