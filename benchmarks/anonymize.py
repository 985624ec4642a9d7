"""Measures whether people are still recognized after `--anonymize`.

    python benchmarks/anonymize.py --data photographs

Of each of `--count` people with several images, `photographs/person/*.jpg`, one image is known and another is
anonymized. A judge ranks the known images by their similarity to it, before and after. A person is recognized if their
own known image comes first; chance is 1 in `--count`. Who knows how this works may look for the least similar image
instead, since training moves identities away from the target's. One judge is FaceRes, which the swap model was not
trained with; the other is the model's own encoder.
"""

import argparse
import itertools
import sys
from pathlib import Path

import numpy as np

from facedancer.arcface_model import IdentityEncoder
from facedancer.core.console import UserError, command, progress, say
from facedancer.core.files import list_files
from facedancer.core.images import read_image
from facedancer.core.measures import unit_rows
from facedancer.video_swap.choosing import IDENTITY_THRESHOLD
from facedancer.video_swap.common import Plan, swap_picture
from facedancer.video_swap.strangers import Cast, load_strangers
from facedancer.video_swap.swapper import FaceSwapper


def aligned_faces(swapper, plan, person):
    """Returns the aligned faces, (S, S, 3) uint8 RGB, of one image, of another, and of the other one anonymized.

    None if one of the images has no face.
    """
    known, target = (read_image(path) for path in person[:2])
    try:
        swapped = swap_picture(swapper, plan, target).image
        return [swapper.align_source(image) for image in (known, target, swapped)]
    except UserError:
        return None


def recognized(known, seen):
    """Returns the share of people, rows of (n, dim) embeddings, whose own known embedding is the most similar."""
    ranks = unit_rows(seen) @ unit_rows(known).T
    return (ranks.argmax(1) == np.arange(len(known))).mean()


@command
def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="images, a folder per person")
    parser.add_argument("--count", type=int, default=200, help="number of people (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="draws the strangers (default: %(default)s)")
    args = parser.parse_args(argv)
    swapper = FaceSwapper.from_export("lite")
    strangers = load_strangers(swapper)
    plan = Plan(strangers, cast=Cast(strangers, IDENTITY_THRESHOLD, args.seed))
    people = (sorted(list_files(folder)) for folder in sorted(args.data.iterdir()) if folder.is_dir())
    found = (aligned_faces(swapper, plan, person) for person in people if len(person) > 1)
    faces = list(itertools.islice(filter(None, progress(found, total=args.count, unit="person")), args.count))
    if len(faces) < args.count:
        raise UserError(
            f"{args.data} has {len(faces)} people with two images of a face, fewer than --count {args.count}"
        )
    for name, judge in (
        ("FaceRes", IdentityEncoder("faceres", shrink_factor=swapper.shrink_factor)),
        ("the model's own encoder", swapper.encoder),
    ):
        known, before, after = (judge(np.stack(images)) for images in zip(*faces, strict=True))
        say(
            f"{name}: {recognized(known, before):.1%} recognized among {args.count}, {recognized(known, after):.1%}"
            f" once anonymized, {recognized(known, -after):.1%} as the least similar (chance {1 / args.count:.1%})"
        )


if __name__ == "__main__":
    sys.exit(main())
