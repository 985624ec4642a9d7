"""Swaps the faces in a video with a source face.

Audio, subtitles, time stamps, bit depth, colors and rotation are kept. A killed command resumes when run again.
"""

import argparse
import math
import sys
import time
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path

from facedancer.core.console import UserError, command, progress
from facedancer.core.files import Journal
from facedancer.core.marking import check_image_suffix
from facedancer.media.contact_sheet import choose_every, write_contact_sheet
from facedancer.media.encoding import CODECS, check_video_suffix, choose_encoding
from facedancer.media.job import SegmentedVideo, work_key
from facedancer.media.probe import probe_video
from facedancer.media.read import read_frames
from facedancer.media.sequences import files_of
from facedancer.retinaface import DEFAULT_SIDE
from facedancer.video_swap.camera import open_camera, swap_camera
from facedancer.video_swap.common import (
    NOTHING_SWAPPED,
    PARTLY_SWAPPED,
    NothingSwapped,
    add_flags,
    check_not_input,
    input_paths,
    network_files,
    place_faces,
    prepare,
)
from facedancer.video_swap.compare import compare_view
from facedancer.video_swap.pipeline import run_ahead
from facedancer.video_swap.tracking import KeptFrames, SeenFrame, Watcher, build_tracks

_LOOK_AT = 8  # frames detected at once; a resumed run has the same batches


@dataclass
class Summary:
    """What was done to a video.

    Attributes:
        frames: number of frames written.
        faces: number of faces swapped.
        frames_without_face: number of frames without a swapped face.
        bad_frames: numbers, from 1, of frames left unchanged because they were damaged or could not be swapped.
        lost_frames: for each frame that could not be decoded, the number of the one shown in its place.
    """

    frames: int = 0
    faces: int = 0
    frames_without_face: int = 0
    bad_frames: list = field(default_factory=list)
    lost_frames: list = field(default_factory=list)

    def add(self, faces, is_bad, lost):
        """Counts one frame."""
        self.frames += 1
        self.faces += faces
        self.frames_without_face += not faces
        if is_bad:
            self.bad_frames.append(self.frames)
        self.lost_frames += [self.frames] * lost


def build_parser():
    parser = argparse.ArgumentParser(
        prog="facedancer swap_video",
        description=__doc__,
        epilog="Exit status: 0 done, 2 invalid input, 3 no face was swapped and nothing was"
        " written, 4 some frames or a track are missing, or some frames were left unchanged.",
    )
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument(
        "--vid_path",
        metavar="FILE",
        help="video to swap, or the pattern of an image sequence, such as frame_%%05d.png",
    )
    target.add_argument("--camera", type=int, metavar="N", help="camera to swap live in a window, numbered from 0")
    add_flags(parser, output="./results/swapped_video.mp4", det_size=DEFAULT_SIDE)
    parser.add_argument(
        "--sample_rate",
        type=_positive,
        default=1,
        metavar="N",
        help="use every N-th frame; playback speed stays the same (default: 1)",
    )
    parser.add_argument(
        "--length",
        type=_fraction,
        default=1.0,
        metavar="X",
        help="fraction of the video to swap, from its start (default: 1)",
    )
    parser.add_argument(
        "--detect_every",
        type=_positive,
        default=1,
        metavar="N",
        help="detect faces in every N-th frame and after cuts, and track them in between (default: 1)",
    )
    parser.add_argument(
        "--start", type=_seconds, default=0.0, metavar="TIME", help="start time, such as 75.5 or 1:15.5 (default: 0)"
    )
    parser.add_argument("--end", type=_seconds, metavar="TIME", help="end time (default: the end of the video)")
    parser.add_argument(
        "--rate",
        type=_rate,
        default=Fraction(25),
        metavar="N",
        help="frames per second of an image sequence (default: 25)",
    )
    parser.add_argument("--codec", choices=sorted(CODECS), help="output codec (default: the input's, else h264)")
    parser.add_argument(
        "--quality",
        type=_quality,
        metavar="N",
        help="quantizer of the codec, 0 to 63; lower is better (default: 18 for h264)",
    )
    parser.add_argument("--contact_sheet", metavar="IMAGE", help="also write thumbnails of some frames to one image")
    parser.add_argument(
        "--contact_every",
        type=_positive,
        metavar="N",
        help="put every N-th frame on the contact sheet (default: at most 24 frames in all)",
    )
    parser.add_argument(
        "--pixel_format", metavar="NAME", help="output pixel format, such as yuv420p10le (default: the input's)"
    )
    return parser


@command
def main(argv=None):
    args = build_parser().parse_args(argv)
    if args.camera is not None:
        return _swap_camera(args)
    check_video_suffix(args.output)
    video = probe_video(args.vid_path, args.length, args.start, args.end, args.rate)
    size = (2 * video.width, video.height) if args.compare else None
    encoding = choose_encoding(args.output, video, size, args.codec, args.quality, args.pixel_format)
    paths = input_paths(args)
    check_not_input(args.output, args.vid_path, *paths)
    if args.contact_sheet:
        check_image_suffix(args.contact_sheet)
        check_not_input(args.contact_sheet, args.vid_path, *paths)
        if Path(args.contact_sheet).resolve() == Path(args.output).resolve():
            raise UserError(f"--contact_sheet {args.contact_sheet} would replace the output; give it another name")
        choose_every(-(-video.frame_count // args.sample_rate), args.contact_every)
    for text in video.damage:
        print(f"{args.vid_path}: {text}")
    if video.joins.starts:
        print(f"{args.vid_path}: {video.joins}")
    if video.is_interlaced:
        print(f"{args.vid_path}: its interlaced frames are deinterlaced (bwdif); the output is progressive")
    swapper, plan = prepare(args)

    start = time.perf_counter()
    key = work_key(_settings(args), *files_of(args.vid_path), *paths, *network_files(args))
    try:
        with SegmentedVideo(args.output, video, encoding, args.sample_rate, key) as writer:
            for note in (*encoding.notes, *writer.tracks.notes):
                print(note, flush=True)
            if writer.frames_done:
                print(f"resuming after {writer.frames_done} frames", flush=True)
            done = swap_video(swapper, plan, writer, args.compare, args.detect_every)
    except NothingSwapped as error:
        print(f"nothing swapped: {error}", file=sys.stderr)
        return NOTHING_SWAPPED
    seconds = time.perf_counter() - start
    print(
        f"{args.output}: {done.frames} frames, {done.faces} faces swapped, {done.frames_without_face} frames without a"
        f" face, {seconds:.1f} s, {done.frames / seconds:.1f} frames/s"
    )
    if done.bad_frames:
        print(f"damaged frames left unchanged ({len(done.bad_frames)}): {_named(done.bad_frames)}")
    if done.lost_frames:
        print(f"frames not decodable ({len(done.lost_frames)}), shown in their place: {_named(done.lost_frames)}")
    if args.contact_sheet:
        write_contact_sheet(args.contact_sheet, args.output, args.contact_every)
        print(args.contact_sheet)
    is_partly = done.bad_frames or done.lost_frames or video.damage or encoding.is_missing or writer.tracks.is_missing
    return PARTLY_SWAPPED if is_partly else 0


def _settings(args):
    """Returns the flags that affect the frames."""
    others = ("contact_sheet", "contact_every", "save_embedding")
    return {name: value for name, value in vars(args).items() if name not in others}


def _swap_camera(args):
    if args.anonymize is not None:
        raise UserError("--anonymize does not go with --camera: a face must be known in all its frames")
    input_paths(args)
    with open_camera(args.camera) as (pictures, show):
        swapper, plan = prepare(args)
        start = time.perf_counter()
        count = swap_camera(swapper, plan, pictures, show, args.compare)
    print(f"{count} frames, {count / (time.perf_counter() - start):.1f} frames/s")
    return 0


def _named(numbers):
    return ", ".join(str(number) for number in numbers[:20]) + (", …" if len(numbers) > 20 else "")


def swap_video(swapper, plan, writer, compare=False, detect_every=1):
    """Swaps faces of a video and writes the result.

    A first pass detects and tracks all faces, so that the swap knows who is who, where each face goes and when it
    disappears.

    Args:
        swapper: `FaceSwapper`.
        plan: `Plan`, which faces get which source.
        writer: `SegmentedVideo`, which holds the video; it is finished on success.
        compare: whether to write the compare view.
        detect_every: detect faces in every k-th frame.

    Returns:
        A `Summary`.

    Raises:
        UserError: if reading or writing fails.
        NothingSwapped: if no frame has a face to swap, or none of them could be swapped. Nothing is written then.
    """
    video, sample_rate = writer.video, writer.sample_rate
    height, width = swapper.detector.working_size(video.height, video.width)
    embed = (lambda frame, points: swapper.embed_placed(frame.image, points)) if plan.needs_identities else None
    scale = (video.width / width, video.height / height)
    watcher = Watcher(swapper.detector, detect_every, embed, scale, swapper.settle)
    seen = look_through(video, sample_rate, watcher, (width, height), writer.seen_path)
    tracks = build_tracks(seen, [frame.pts * video.time_base for frame in seen])
    placed = place_faces(plan, tracks, len(seen))
    if not any(placed):
        writer.discard()
        raise NothingSwapped(f"no face to swap was found in the {len(seen)} frames of {video.path}")

    done = Summary()
    for note in writer.notes:
        done.add(*note)
    # Decoding, swapping with blending, and encoding run at the same time.
    with (
        closing(run_ahead(read_frames(video, sample_rate, skip=done.frames), size=2 * swapper.batch_size)) as frames,
        closing(run_ahead(swap_batches(swapper, frames, placed[done.frames :], whole=compare), size=2)) as swapped,
        progress(total=len(seen), initial=done.frames, unit="frame") as bar,
    ):
        for batch in swapped:
            for frame, part, result in batch:
                note = [len(result.regions), int(frame.is_damaged or result.is_bad), frame.lost]
                if compare:
                    view = compare_view(frame.image, result.image, plan.sources[0].face)
                    writer.write(frame, view, note=note)
                else:
                    writer.write(frame, result.image, result.regions, part, note)
                done.add(*note)
            bar.update(len(batch))
    if not done.faces:
        writer.discard()
        raise NothingSwapped(f"none of the faces in the {done.frames} frames of {video.path} could be swapped")
    writer.finish()
    return done


def swap_batches(swapper, frames, placed, whole):
    """Yields lists of `(Frame, part, SwappedFrame)`; only the part that swapping changes is converted and swapped.

    Args:
        swapper: `FaceSwapper`.
        frames: iterator of `Frame`.
        placed: a list of `PlacedFace` for each frame.
        whole: whether the part must be the whole frame.
    """
    placed = iter(placed)
    while batch := list(islice(frames, swapper.batch_size)):
        faces = [[] if frame.is_damaged else here for frame, here in zip(batch, placed, strict=False)]
        parts = []
        for frame, here in zip(batch, faces, strict=True):
            size = (frame.video.width, frame.video.height)
            parts.append((frame.image, (0, 0, *size)) if whole else frame.part(swapper.reach(here, size)))
        shifted = [[face.moved(-x, -y) for face in here] for here, (_, (x, y, *_)) in zip(faces, parts, strict=True)]
        swapped = swapper.swap_placed([image for image, _ in parts], shifted)
        swapped = [result.moved(x, y) for result, (_, (x, y, *_)) in zip(swapped, parts, strict=True)]
        yield list(zip(batch, parts, swapped, strict=True))


def look_through(video, sample_rate, watcher, size, journal_path):
    """Runs the first pass over a video: detects faces in every frame, and keeps the results in a journal.

    A resumed run reads the journal and continues after it.

    Args:
        video, sample_rate: as for `read_frames`.
        watcher: `Watcher`.
        size: `(width, height)` in pixels to which frames are scaled for detection.
        journal_path: path of the journal.

    Returns:
        List of `SeenFrame`, one per frame.

    Raises:
        UserError: if the video cannot be read, or the journal is not that of a first pass.
    """
    with Journal(journal_path, kind=KeptFrames) as journal:
        seen = [SeenFrame.from_json(kept) for entry in journal.entries for kept in entry.frames]
        journal.entries.clear()
        if any(after.pts <= before.pts for before, after in pairwise(seen)):
            raise UserError(f"{journal_path}: its times go backward; remove the file to start over")
        if len(seen) % _LOOK_AT:  # an incomplete batch is the last one: the pass is finished
            return seen
        frames = read_frames(video, sample_rate, skip=max(0, len(seen) - 1))
        if seen:
            watcher.go_on_after(next(frames).reduced(*size), seen[-1])
        with (
            closing(run_ahead(((frame.reduced(*size), frame) for frame in frames), size=2 * _LOOK_AT)) as looked_at,
            progress(total=-(-video.frame_count // sample_rate), initial=len(seen), unit="frame analyzed") as bar,
        ):
            while batch := list(islice(looked_at, _LOOK_AT)):
                found = watcher.detect([image for image, _ in batch], len(seen), [frame for _, frame in batch])
                for known, (_, frame) in zip(found, batch, strict=True):
                    known.pts = frame.pts
                journal.append({"frames": [frame.to_json() for frame in found]})
                # Rounded, as a resumed run will read them.
                seen += [SeenFrame.from_json(frame.to_json()) for frame in found]
                bar.update(len(batch))
    return seen


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


def _seconds(text):
    try:
        *larger, seconds = (float(part) for part in text.split(":"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected seconds or h:m:s, got {text}") from None
    value = seconds + sum(part * 60 ** (place + 1) for place, part in enumerate(reversed(larger)))
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a time of at least 0, got {text}")
    return value


def _quality(text):
    value = int(text)
    if not 0 <= value <= 63:
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 to 63, got {text}")
    return value


def _rate(text):
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        value = 0
    if value <= 0:
        raise argparse.ArgumentTypeError(f"expected frames per second, such as 25 or 30000/1001, got {text}")
    return value
