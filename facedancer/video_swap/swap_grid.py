"""Swaps every face of a folder's images with every other, and writes the results as one labeled grid.

Rows are targets and columns are sources; the first row and column show the images themselves. With a model that has one
decoder per person, the columns are its decoders. Finished rows are kept until the grid is written, in a folder beside
it.
"""

import argparse
import sys
from collections import Counter

import cv2
import numpy as np

from facedancer.core.console import UserError, command, progress, say
from facedancer.core.files import list_files
from facedancer.core.images import read_image, write_image
from facedancer.core.marking import check_image_suffix, write_marked_image
from facedancer.media.contact_sheet import GAP, LINE, TITLE, write_text
from facedancer.video_swap.common import (
    NOTHING_SWAPPED,
    PARTLY_SWAPPED,
    Plan,
    add_swapper_flags,
    check_not_input,
    find_faces,
    load_swapper,
    network_files,
    paste_options,
    swap_picture,
)
from facedancer.video_swap.job import KeptWork, work_key
from facedancer.video_swap.sources import Source, load_source, read_picture

_SIDE = 256  # pixels of a cell; smaller if the grid would exceed `_LARGEST`
_LARGEST = 8192
_MOST = 64  # images in a grid


def build_parser():
    parser = argparse.ArgumentParser(
        prog="facedancer swap_grid",
        description=__doc__,
        epilog="Exit status: 0 done, 2 invalid input, 3 no face was found and nothing was written, 4 some images are"
        " unreadable or have no face, or some faces could not be swapped.",
    )
    parser.add_argument("--img_dir", required=True, metavar="DIR", help=f"folder of images, at most {_MOST}")
    add_swapper_flags(parser, output="./results/swap_grid.png")
    return parser


@command
def main(argv=None):
    args = build_parser().parse_args(argv)
    check_image_suffix(args.output)
    paste_options(args)  # refuses an unknown mask before anything is read
    paths = list_files(args.img_dir)
    check_not_input(args.output, *paths)
    if len(paths) > _MOST:
        raise UserError(f"{args.img_dir} holds {len(paths)} files; a grid has at most {_MOST}")
    swapper = load_swapper(args)
    columns, labels = _read(swapper, paths, args.img_dir)
    targets = list(labels)
    if not targets:
        print(f"nothing swapped: no face was found in {args.img_dir}", file=sys.stderr)
        return NOTHING_SWAPPED
    side = min(_SIDE, _LARGEST // (max(len(columns), len(targets)) + 1))
    rows, faces, bad = [], 0, []
    with KeptWork(args.output, work_key(vars(args), *paths, *network_files(args))) as work:
        if work.entries:
            print(f"going on after {len(work.entries)} rows that were done before", flush=True)
        for number, path in enumerate(progress(targets, unit="row")):
            kept = work.folder / f"{number}.png"
            if number < len(work.entries):
                entry = work.entries[number]
            else:
                cells, entry = _swap_row(swapper, path, columns, side)
                write_image(kept, np.concatenate(cells, axis=1))
                work.append(entry)
            faces += entry["faces"]
            bad += entry["bad"]
            cells = np.split(read_image(kept), len(columns), axis=1)
            rows.append((labels[path], fit_into(read_picture(path), side), cells))
        headers = [(name, None if source.face is None else fit_into(source.face, side)) for name, source in columns]
        write_marked_image(args.output, draw_grid(headers, rows, side))
        work.discard()
    for what in bad:
        say(f"left unchanged, {what}: the face could not be swapped")
    print(f"{args.output}: {len(rows)} targets by {len(headers)} sources, {faces} faces swapped")
    return PARTLY_SWAPPED if bad or len(targets) < len(paths) else 0


def _swap_row(swapper, path, columns, side):
    """Returns the pictures of a row (side, side, 3), and its entry in the journal."""
    target, cells, faces, bad = read_picture(path), [], 0, []
    tracks = find_faces(swapper, Plan([]), target)
    for name, source in columns:
        swapped = swap_picture(swapper, Plan([source]), target, tracks)
        faces += len(swapped.regions)
        if swapped.is_bad or not swapped.regions:
            bad.append(f"{name} in {path}")
        cells.append(fit_into(swapped.image, side))
    return cells, {"faces": faces, "bad": bad}


def _labels(paths, folder):
    """Returns `{path: label}`: a file's name without suffix, or its path in the folder where files share that name."""
    files = Counter(path.stem for path in paths)
    return {path: path.stem if files[path.stem] == 1 else path.relative_to(folder).as_posix() for path in paths}


def _read(swapper, paths, folder):
    """Returns the `(label, Source)` list of the sources, and `{path: label}` of the targets; names faceless files."""
    sources, targets = [], []
    for path in progress(paths, unit="picture"):
        try:
            found = load_source(swapper, [path]) if not swapper.decoders else swapper.align_source(read_picture(path))
        except UserError as error:
            say(f"error: {error}" if str(path) in str(error) else f"error: {path}: {error}")
            continue
        targets.append(path)
        sources.append(found)
    labels = _labels(targets, folder)
    if swapper.decoders:
        return [(name, Source(None, None, number)) for number, name in enumerate(swapper.decoders)], labels
    return list(zip(labels.values(), sources, strict=True)), labels


def fit_into(picture, side):
    """Returns a black (side, side, 3) uint8 image with a picture, (H, W, 3) uint8, scaled to fit its middle."""
    scale = side / max(picture.shape[:2])
    width, height = (max(1, round(length * scale)) for length in picture.shape[1::-1])
    cell = np.zeros((side, side, 3), np.uint8)
    y, x = (side - height) // 2, (side - width) // 2
    resized = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    cell[y : y + height, x : x + width] = resized
    return cell


def draw_grid(headers, rows, side):
    """Draws the grid.

    Args:
        headers: `(label, picture)` of each column; a picture is (side, side, 3) uint8 RGB, or None.
        rows: `(label, picture, cells)` of each row; cells are pictures.
        side: side of a picture in pixels.

    Returns:
        (H, W, 3) uint8 RGB, with a title that says that the swaps are synthetic.
    """
    step_y, step_x, top = side + LINE + GAP, side + GAP, LINE + GAP
    sheet = np.full((top + (len(rows) + 1) * step_y, max((len(headers) + 1) * step_x + GAP, 320), 3), 24, np.uint8)
    write_text(sheet, TITLE, GAP, LINE - GAP)
    write_text(sheet, "rows: targets", GAP, top + LINE)
    write_text(sheet, "columns: sources", GAP, top + 2 * LINE)
    cells = [(0, column + 1, label, picture) for column, (label, picture) in enumerate(headers)]
    for row, (label, picture, swapped) in enumerate(rows, 1):
        cells.append((row, 0, label, picture))
        cells += [(row, column, "", cell) for column, cell in enumerate(swapped, 1)]
    for row, column, label, picture in cells:
        y, x = top + row * step_y, GAP + column * step_x
        if picture is not None:
            sheet[y : y + side, x : x + side] = picture
        write_text(sheet[:, : x + side], label, x, y + side + LINE - GAP)
    return sheet
