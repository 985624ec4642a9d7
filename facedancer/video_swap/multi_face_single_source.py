"""Gives every face in a video the identity of one source picture. The sound is kept."""

import argparse
import sys
import time
from dataclasses import dataclass
from itertools import islice

from facedancer.core.console import command, progress
from facedancer.video_swap.common import (
    NOTHING_SWAPPED,
    NothingSwapped,
    add_flags,
    check_not_input,
    prepare,
    read_picture,
)
from facedancer.video_swap.compare import compare_view
from facedancer.video_swap.video_io import check_video_suffix, probe_video, read_frames, write_video


@dataclass
class Summary:
    """What was done to a video: frames written, faces swapped in them, frames without a face."""

    frames: int = 0
    faces: int = 0
    frames_without_face: int = 0


def build_parser():
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Exit status: 0 done, 2 something is wrong with the input, 3 no face was found and nothing was written.",
    )
    parser.add_argument("--vid_path", required=True, metavar="FILE", help="the video whose faces are swapped")
    add_flags(parser, output="./results/swapped_video.mp4")
    parser.add_argument(
        "--sample_rate",
        type=_positive,
        default=1,
        metavar="N",
        help="take every N-th frame; the speed stays (default: 1)",
    )
    parser.add_argument(
        "--length",
        type=_fraction,
        default=1.0,
        metavar="F",
        help="fraction of the video, from its beginning (default: 1)",
    )
    return parser


@command
def main(argv=None):
    args = build_parser().parse_args(argv)
    check_video_suffix(args.output)
    video = probe_video(args.vid_path, args.length)
    source = read_picture(args.swap_source)
    check_not_input(args.output, args.vid_path, args.swap_source)
    swapper, source_face = prepare(args, source)

    start = time.perf_counter()
    try:
        done = swap_video(swapper, source_face, video, args.output, args.sample_rate, args.compare)
    except NothingSwapped as error:
        print(f"nothing swapped: {error}", file=sys.stderr)
        return NOTHING_SWAPPED
    seconds = time.perf_counter() - start
    print(
        f"{args.output}: {done.frames} frames, {done.faces} faces swapped, {done.frames_without_face} frames without a"
        f" face, {seconds:.1f} s, {done.frames / seconds:.1f} frames/s"
    )
    return 0


def swap_video(swapper, source_face, video, output, sample_rate=1, compare=False):
    """Swaps every face of a video and writes the result.

    Args:
        swapper: `FaceSwapper`.
        source_face: the source's aligned face, (S, S, 3) uint8 RGB.
        video: from `probe_video`.
        output: the file to write.
        sample_rate: every n-th frame is taken.
        compare: write the compare view.

    Returns:
        A `Summary`.

    Raises:
        UserError: if reading or writing fails.
        NothingSwapped: if no frame has a face. Nothing is written then.
    """
    source_embedding = swapper.embed(source_face, is_aligned=True)
    size = (2 * video.width, video.height) if compare else None
    done = Summary()
    frames = read_frames(video, sample_rate)
    count = -(-video.frame_count // sample_rate)
    with write_video(output, video, size, sample_rate) as writer, progress(total=count, unit="frame") as bar:
        while batch := list(islice(frames, swapper.batch_size)):
            swapped = swapper.swap_frames([frame.image for frame in batch], source_embedding)
            for frame, result in zip(batch, swapped, strict=True):
                if compare:
                    writer.write(frame, compare_view(frame.image, result.image, source_face))
                else:
                    writer.write(frame, result.image, result.regions)
                done.frames += 1
                done.faces += len(result.regions)
                done.frames_without_face += not result.regions
            bar.update(len(batch))
        if not done.faces:
            raise NothingSwapped(f"no face was found in the {done.frames} frames of {video.path}")
    return done


def _positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text}")
    return value


def _fraction(text):
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"expected a fraction above 0 and at most 1, got {text}")
    return value
