"""Animates a swap from one source to another, in 21 steps of 0.3 s.

The first step shows the second source (by default each face's own identity), the last step the first source. In
between, identity embeddings are interpolated, direction and length separately. If the model takes coefficients of a
face's shape, these can be interpolated too, or alone.
"""

import argparse
import sys
from pathlib import Path

import av
import numpy as np

from facedancer.core.alignment import align_matrix, warp_to_aligned
from facedancer.core.console import UserError, command, progress
from facedancer.core.files import atomic_path
from facedancer.core.marking import marked_metadata, write_marked_picture
from facedancer.core.pictures import Frame, Picture
from facedancer.video_swap.common import (
    NOTHING_SWAPPED,
    PARTLY_SWAPPED,
    add_flags,
    check_not_input,
    find_faces,
    input_paths,
    prepare,
)
from facedancer.video_swap.sources import MIXES, load_source, mix_sources, read_picture, source_of
from facedancer.video_swap.swapper import PlacedFace

STEPS, STEP_MILLISECONDS = 21, 300
_ANIMATIONS, _VIDEOS = (".gif", ".webp", ".apng"), (".mp4", ".mov", ".mkv")
_RATE = 10  # frames per second of a video; a step lasts three frames


def build_parser():
    parser = argparse.ArgumentParser(
        prog="facedancer interpolate",
        description=__doc__,
        epilog="Exit status: 0 done, 2 invalid input, 3 no face was swapped and nothing was written, 4 some faces could"
        f" not be swapped. --output ends in one of {', '.join(_ANIMATIONS + _VIDEOS)}.",
    )
    parser.add_argument("--img_path", required=True, metavar="IMAGE", help="target image")
    parser.add_argument(
        "--swap_source2", nargs="+", metavar="FILE", help="second source, as --swap_source (default: each face's own)"
    )
    parser.add_argument(
        "--interpolation",
        choices=MIXES,
        default="identity",
        help="what to interpolate: the identity embedding, the 3D shape, or both, all (default: identity)",
    )
    add_flags(parser, output="./results/interpolation.gif")
    return parser


@command
def main(argv=None):
    args = build_parser().parse_args(argv)
    suffix = Path(args.output).suffix.lower()
    if suffix not in _ANIMATIONS + _VIDEOS:
        raise UserError(f"cannot write {args.output}: its name must end in one of {', '.join(_ANIMATIONS + _VIDEOS)}")
    for flag in ("--map", "--decoder", "--compare", "--anonymize"):
        if getattr(args, flag[2:]) not in (None, False):
            raise UserError(f"{flag} does not go with interpolate, which takes --swap_source")
    target = read_picture(args.img_path)
    check_not_input(args.output, args.img_path, *input_paths(args), *(args.swap_source2 or ()))
    if args.save_embedding:
        check_not_input(args.save_embedding, *(args.swap_source2 or ()))
    swapper, plan = prepare(args)
    if args.interpolation != "identity" and swapper.shapes is None:
        raise UserError(
            f"--interpolation {args.interpolation}: {args.facedancer_path} takes no coefficients of a face's shape;"
            " interpolate the identity"
        )
    (first,) = plan.sources
    second = load_source(swapper, args.swap_source2, not args.align_source) if args.swap_source2 else None
    images, faces, is_bad = [], 0, False
    tracks = find_faces(swapper, plan, target)
    chosen = [tracks[index].landmarks[0] for index in plan.sources_of(tracks)]
    starts = [second or _own_source(swapper, target, landmarks) for landmarks in chosen]
    for step in progress(range(STEPS) if chosen else (), unit="step"):
        placed = []
        for landmarks, start in zip(chosen, starts, strict=True):
            source = mix_sources(args.interpolation, step / (STEPS - 1), first, start)
            placed.append(PlacedFace(landmarks, source.given))
        (swapped,) = swapper.swap_placed([target], [placed])
        faces += len(swapped.regions)
        is_bad |= swapped.is_bad
        images.append(swapped.image)
    if not faces:
        print(f"nothing swapped: no face to swap was found in {args.img_path}", file=sys.stderr)
        return NOTHING_SWAPPED
    if suffix in _ANIMATIONS:
        write_marked_picture(args.output, Picture([Frame(image, duration=STEP_MILLISECONDS) for image in images]))
    else:
        _write_video(args.output, images)
    print(f"{args.output}: {STEPS} steps, {faces} faces swapped")
    if is_bad:
        print("left unchanged, some faces: the network's output for them is not finite", file=sys.stderr)
    return PARTLY_SWAPPED if is_bad else 0


def _own_source(swapper, target, landmarks):
    """Returns the `Source` of a face (5, 2) in the target."""
    matrix = align_matrix(landmarks, swapper.image_size, swapper.shrink_factor)
    return source_of(swapper, warp_to_aligned(target, matrix, swapper.image_size)[None])


def _write_video(path, images):
    """Writes images (H, W, 3) uint8 RGB as a marked H.264 video, padded to even sides for its chroma."""
    height, width = images[0].shape[:2]
    with atomic_path(path) as temporary, av.open(temporary, "w") as video:
        video.metadata.update(marked_metadata({}))
        stream = video.add_stream("libx264", rate=_RATE, options={"crf": "18", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
        for image in images:
            image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
            for _ in range(STEP_MILLISECONDS * _RATE // 1000):
                video.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        video.mux(stream.encode(None))
