"""Gives every face in a picture, or in every picture of a folder, the identity of a source picture."""

import argparse
import sys
from pathlib import Path

from facedancer.core.console import UserError, command, progress, say
from facedancer.core.files import list_files
from facedancer.core.images import IMAGE_SUFFIXES
from facedancer.core.marking import MARKED_SUFFIXES, check_image_suffix, write_marked_image
from facedancer.video_swap.common import (
    NOTHING_SWAPPED,
    PARTLY_SWAPPED,
    add_flags,
    check_not_input,
    input_paths,
    prepare,
    swap_picture,
)
from facedancer.video_swap.compare import compare_view
from facedancer.video_swap.sources import read_picture


def build_parser():
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Exit status: 0 done, 2 something is wrong with the input, 3 no face was swapped and nothing was"
        " written, 4 some faces could not be swapped, or some pictures of a folder not be read or have no face. Of a"
        " folder, --output is a folder too.",
    )
    parser.add_argument(
        "--img_path", required=True, metavar="PICTURE", help="the picture whose faces are swapped, or a folder"
    )
    add_flags(parser, output="./results/swapped_image.png")
    return parser


@command
def main(argv=None):
    args = build_parser().parse_args(argv)
    if Path(args.img_path).is_dir():
        return _swap_folder(args)
    check_image_suffix(args.output)
    target = read_picture(args.img_path)
    check_not_input(args.output, args.img_path, *input_paths(args))
    swapper, plan = prepare(args)
    count, trouble = _swap_picture(swapper, plan, args.img_path, target, args.output, args.compare)
    if trouble:
        print(trouble, file=sys.stderr)
    if not count:
        return NOTHING_SWAPPED
    print(f"{args.output}: {count} {'face' if count == 1 else 'faces'} swapped")
    return PARTLY_SWAPPED if trouble else 0


def _swap_folder(args):
    """Swaps every picture below a folder; the others go on where one cannot be read. Returns the exit status."""
    folder, output = Path(args.img_path), Path(args.output)
    if output.suffix.lower() in MARKED_SUFFIXES or output.is_file():
        raise UserError(f"--output {output} is to be a folder, as {folder} is one")
    if output.exists() and output.samefile(folder):
        raise UserError(f"--output {output} would replace the inputs; give it another name")
    paths = [path for path in list_files(folder) if path.suffix.lower() in IMAGE_SUFFIXES]
    written = output.resolve()
    if written.is_relative_to(folder.resolve()):  # what an earlier command left there is no input
        paths = [path for path in paths if not path.resolve().is_relative_to(written)]
    if not paths:
        raise UserError(f"there is no picture in the folder {folder}")
    input_paths(args)
    swapper, plan = prepare(args)
    swapped = whole = faces = 0
    for path in progress(paths, unit="picture"):
        written = output / path.relative_to(folder)
        if written.suffix.lower() not in MARKED_SUFFIXES:
            written = written.with_name(f"{written.name}.png")
        try:
            count, trouble = _swap_picture(swapper, plan, path, read_picture(path), written, args.compare)
        except UserError as error:
            say(f"error: {error}")
            continue
        if trouble:
            say(trouble)
        swapped += count > 0
        whole += not trouble
        faces += count
    print(f"{output}: {swapped} of {len(paths)} pictures, {faces} {'face' if faces == 1 else 'faces'} swapped")
    return 0 if whole == len(paths) else PARTLY_SWAPPED if swapped else NOTHING_SWAPPED


def _swap_picture(swapper, plan, path, target, output, compare):
    """Swaps one picture and writes it where a face was swapped; returns how many were, and what went wrong or ""."""
    swapped = swap_picture(swapper, plan, target)
    if swapped.regions:
        image = compare_view(target, swapped.image, plan.sources[0].face) if compare else swapped.image
        write_marked_image(output, image)
    trouble = ""
    if swapped.is_bad:
        trouble = f"left as they are, faces in {path}: the network gave no finite numbers for them"
    elif not swapped.regions:
        trouble = f"nothing swapped: no face was found in {path}"
    return len(swapped.regions), trouble
