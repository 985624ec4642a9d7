"""Gives every face in a picture the identity of a source picture."""

import argparse
import sys

from facedancer.core.console import command
from facedancer.video_swap.common import (
    NOTHING_SWAPPED,
    add_flags,
    check_not_input,
    prepare,
    read_picture,
)
from facedancer.video_swap.compare import compare_view
from facedancer.video_swap.marking import check_image_suffix, write_marked_image


def build_parser():
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Exit status: 0 done, 2 something is wrong with the input, 3 no face was found and nothing was written.",
    )
    parser.add_argument("--img_path", required=True, metavar="PICTURE", help="the picture whose faces are swapped")
    add_flags(parser, output="./results/swapped_image.png")
    return parser


@command
def main(argv=None):
    args = build_parser().parse_args(argv)
    check_image_suffix(args.output)
    target, source = read_picture(args.img_path), read_picture(args.swap_source)
    check_not_input(args.output, args.img_path, args.swap_source)
    swapper, source_face = prepare(args, source)

    source_embedding = swapper.embed(source_face, is_aligned=True)
    (swapped,) = swapper.swap_frames([target], source_embedding)
    if not swapped.regions:
        print(f"nothing swapped: no face was found in {args.img_path}", file=sys.stderr)
        return NOTHING_SWAPPED
    image = compare_view(target, swapped.image, source_face) if args.compare else swapped.image
    write_marked_image(args.output, image)
    count = len(swapped.regions)
    print(f"{args.output}: {count} {'face' if count == 1 else 'faces'} swapped")
    return 0
