"""Swaps the faces in an image, or in every image of a folder, with a source face.

Animations stay animated. An image keeps its colors and color profile, transparency, resolution and EXIF; warnings
name anything that the output format cannot hold.
"""

import argparse
import errno
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from facedancer.core.console import UserError, command, progress, say
from facedancer.core.files import list_files
from facedancer.core.images import ImageError, picture_size
from facedancer.core.marking import MARKED_SUFFIXES, check_image_suffix, write_marked_picture
from facedancer.core.pictures import load_picture, losses_of
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


def build_parser():
    parser = argparse.ArgumentParser(
        prog="facedancer swap_image",
        description=__doc__,
        epilog="Exit status: 0 done, 2 invalid input, 3 no face was swapped and nothing was"
        " written, 4 some faces could not be swapped, some files in a folder are unreadable or"
        " have no face, or some pages of a file were left out. If --img_path is a folder, --output is one too.",
    )
    parser.add_argument("--img_path", required=True, metavar="IMAGE", help="image to swap, or a folder of images")
    add_flags(parser, output="./results/swapped_image.png")
    return parser


@command
def main(argv=None):
    args = build_parser().parse_args(argv)
    if Path(args.img_path).is_dir():
        return _swap_folder(args)
    check_image_suffix(args.output)
    picture = _load(args.img_path, args.output)
    check_not_input(args.output, args.img_path, *input_paths(args))
    swapper, plan = prepare(args)
    count, troubles, is_whole = _swap(swapper, plan, args.img_path, picture, args.output, args.compare)
    for trouble in troubles:
        print(trouble, file=sys.stderr)
    if not count:
        return NOTHING_SWAPPED
    for loss in picture.losses:
        print(f"warning: {args.img_path}: {loss}", file=sys.stderr)
    frames = len(picture.frames)
    print(f"{args.output}: {f'{frames} frames, ' if frames > 1 else ''}{_faces(count)} swapped")
    return 0 if is_whole else PARTLY_SWAPPED


def _swap_folder(args):
    """Swaps every image in a folder and its subfolders, skipping unreadable ones; returns the exit status."""
    folder, output = Path(args.img_path), Path(args.output)
    if output.suffix.lower() in MARKED_SUFFIXES or output.is_file():
        raise UserError(f"--output {output} must be a folder, as {folder} is one")
    if output.exists() and output.samefile(folder):
        raise UserError(f"--output {output} would replace the inputs; give it another name")
    paths = list_files(folder)
    written = output.resolve()
    if written.is_relative_to(folder.resolve()):  # output of an earlier command is not input
        paths = [path for path in paths if not path.resolve().is_relative_to(written)]
    pictures = [path for path in paths if _is_picture(path)]
    if not pictures:
        raise UserError(f"there is no readable image in the folder {folder}")
    given = input_paths(args)
    results = _name_results(pictures, folder, output)
    for result in results.values():
        check_not_input(result, *given)
    swapper, plan = prepare(args)
    swapped = whole = faces = 0
    losses = defaultdict(list)  # what was lost -> paths; said once, since all photos of a phone lose the same
    for path in progress(pictures, unit="picture"):
        try:
            picture = _load(path, results[path])
            count, troubles, is_whole = _swap(swapper, plan, path, picture, results[path], args.compare)
        except UserError as error:
            say(f"error: {error}")
            continue
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:  # a full disk ends the command
                raise
            say(f"error: cannot write {results[path]}: {error.strerror}")
            continue
        for trouble in troubles:
            say(trouble)
        for loss in picture.losses if count else ():
            losses[loss].append(path)
        swapped += count > 0
        whole += is_whole
        faces += count
    for loss, (first, *others) in losses.items():
        say(f"warning: {first}{f' and {len(others)} more' if others else ''}: {loss}")
    print(f"{output}: {swapped} of {len(paths)} pictures, {_faces(faces)} swapped")
    return 0 if whole == len(paths) else PARTLY_SWAPPED if swapped else NOTHING_SWAPPED


def _is_picture(path):
    """Whether a file starts like an image; prints why if not."""
    try:
        picture_size(path)
    except ImageError as error:
        say(f"error: cannot read the picture {path}: {error}")
        return False
    return True


def _name_results(paths, folder, output):
    """Returns `{path of an image: path of its result}`, without duplicates.

    A result keeps its image's name, with .png appended if that format cannot be written.
    """
    results = {path: output / path.relative_to(folder) for path in paths}
    taken = {result for result in results.values() if result.suffix.lower() in MARKED_SUFFIXES}
    for path, result in results.items():
        if result not in taken:
            results[path] = result.with_name(f"{result.name}.png")
            while results[path] in taken:
                results[path] = result.with_name(f"{results[path].name}.png")
            taken.add(results[path])
    return results


def _load(path, output):
    """Reads a `Picture` whose result will be written to `output`; raises `UserError`."""
    try:
        picture = load_picture(path)
        return replace(picture, losses=(*picture.losses, *losses_of(picture, Path(output).suffix)))
    except ImageError as error:
        raise UserError(f"cannot read the picture {path}: {error}") from None


def _swap(swapper, plan, path, picture, output, compare):
    """Swaps a `Picture`, and writes it if a face was swapped.

    Returns:
        `(count, troubles, is_whole)`: number of swapped faces, warnings about anything not done, and whether all faces
        and images of the file were swapped.
    """
    frames, count, is_bad = [], 0, False
    for index, frame in enumerate(picture.frames):
        target = picture.srgb(index)
        swapped = swap_picture(swapper, plan, target)
        count += len(swapped.regions)
        is_bad |= swapped.is_bad
        if compare:
            view = compare_view(target, swapped.image, plan.sources[0].face)
            frames.append(replace(frame, colors=view, alpha=None))
        else:
            frames.append(picture.with_swapped(index, swapped.image, swapped.regions))
    troubles = []
    if is_bad:
        troubles.append(f"left unchanged, faces in {path}: the network's output for them is not finite")
    elif not count:
        troubles.append(f"nothing swapped: no face to swap was found in {path}")
    if count:
        troubles += [f"warning: {path}: {loss}" for loss in picture.missing]
        write_marked_picture(output, replace(picture, frames=frames, profile=None if compare else picture.profile))
    return count, troubles, bool(count) and not is_bad and not picture.missing


def _faces(count):
    return f"{count} {'face' if count == 1 else 'faces'}"
