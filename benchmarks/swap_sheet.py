"""Draws the docs' pictures of swaps: targets, sources and each model's swaps of people who do not exist, in rows.

    python benchmarks/swap_sheet.py --data aligned_unreal --output docs/swaps.jpg
    python benchmarks/swap_sheet.py --model a.h5 b.h5 --data aligned_unreal --count 10 --output docs/families.jpg

`--data` is what `facedancer evaluate --protocol pairs` takes. The pairs are drawn by the seed, not chosen.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

from facedancer.core.card import read_card
from facedancer.core.images import tile_images
from facedancer.core.marking import SWAPPED, write_marked_image
from facedancer.core.weights import find_weights
from facedancer.evaluate.cases import read_cases
from facedancer.evaluate.swappers import Swapper


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--model", nargs="+", default=["lite"], help="exports of one image size, or lite, the included one (default)"
    )
    parser.add_argument("--data", required=True, help="aligned faces, a subfolder for each person, or a list of pairs")
    parser.add_argument("--output", required=True, help="picture to write")
    parser.add_argument("--count", type=int, default=24, help="pairs (default: %(default)s)")
    parser.add_argument("--columns", type=int, default=12, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    args = parser.parse_args()
    paths = [find_weights(model) for model in args.model]
    swappers = [Swapper(path, read_card(path)) for path in paths]
    size, shrink_factor = swappers[0].card.image_size, swappers[0].card.shrink_factor
    with tempfile.TemporaryDirectory() as folder:  # for the list of the pairs drawn
        cases = list(read_cases("pairs", args.data, Path(folder), args.count, size, shrink_factor, args.seed))
    targets, sources = (np.stack([getattr(case, side) for case in cases]) for side in ("target", "source"))
    lines = [targets, sources, *(swapper(cases) for swapper in swappers)]
    rows = [line[start : start + args.columns] for start in range(0, len(cases), args.columns) for line in lines]
    write_marked_image(Path(args.output), tile_images(rows), SWAPPED)


if __name__ == "__main__":
    main()
