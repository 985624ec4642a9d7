"""What the commands that swap have in common: their flags, and what comes before the work."""

import os

from facedancer.core.console import UserError, add_boolean
from facedancer.core.devices import add_device_flag, select_device
from facedancer.core.images import ImageError, read_image
from facedancer.video_swap.swapper import FaceSwapper

# Exit statuses: no face was found to swap; some of many inputs were swapped.
NOTHING_SWAPPED, PARTLY_SWAPPED = 3, 4


class NothingSwapped(Exception):
    """There was no face to swap, so nothing is written. Its text says where none was found."""


def add_flags(parser, output):
    """Adds the flags that all commands share; `output` is the default of `--output`."""
    parser.add_argument("--facedancer_path", required=True, metavar="FILE", help="the exported swapper, .h5 or .keras")
    parser.add_argument("--swap_source", required=True, metavar="PICTURE", help="whose face is put in")
    parser.add_argument("--output", default=output, metavar="FILE", help="what is written (default: %(default)s)")
    parser.add_argument(
        "--retina_path", metavar="FILE", help="weights of the face detector (default: the embedded one)"
    )
    parser.add_argument(
        "--arcface_path",
        metavar="FILE",
        help="weights of the identity encoder (default: what the swapper's card names)",
    )
    add_boolean(
        parser,
        "--align_source",
        True,
        "find and align the face in the source; False: it is an aligned face already (default: True)",
    )
    add_boolean(
        parser, "--compare", False, "target and result side by side, the source at the bottom left (default: False)"
    )
    add_device_flag(parser)


def read_picture(path):
    """Reads a picture as (H, W, 3) uint8 RGB. Raises `UserError`."""
    try:
        return read_image(path)
    except ImageError as error:
        raise UserError(f"cannot read the picture {path}: {error}") from None


def check_not_input(output, *inputs):
    """Raises `UserError` where the output would replace one of the inputs."""
    for path in inputs:
        if os.path.exists(output) and os.path.samefile(output, path):
            raise UserError(f"--output {output} would replace an input; give it another name")


def prepare(args, source):
    """Says which device is used, and loads the networks.

    Args:
        args: of the flags of `add_flags`.
        source: (H, W, 3) uint8 RGB.

    Returns:
        The `FaceSwapper` and the source's aligned face.
    """
    print(f"device: {select_device(args.device_id)}", flush=True)
    swapper = FaceSwapper.from_export(args.facedancer_path, args.retina_path, args.arcface_path)
    try:
        return swapper, swapper.align_source(source, is_aligned=not args.align_source)
    except UserError as error:
        raise UserError(f"{args.swap_source}: {error}") from None
