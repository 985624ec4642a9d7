"""Writes a video of people who do not exist, who turn their heads, talk, blink and look about in a moving light.

facedancer synthesize_video --output talk.mp4 --people 2 --seconds 6 --source 41

talk.mp4            with a sound track of voices of ours
talk_truth.jsonl    a line for each frame: its time and what is known of every face, from the left to the right
talk_swapped.mp4    with --source: the true result of swapping that identity onto everybody
talk_source.png     with --source: a portrait of it, the picture to swap from
"""

import argparse
import contextlib
import dataclasses
import functools
import json
from fractions import Fraction
from pathlib import Path

import numpy as np

from facedancer.core.console import UserError, command, progress
from facedancer.core.files import atomic_path, write_atomic
from facedancer.core.marking import RENDERED, marked_metadata, write_marked_image
from facedancer.synthetic.workers import Workers

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv")


@dataclasses.dataclass(frozen=True)
class VideoSettings:
    """What is filmed: `people`, for `seconds` at `rate` frames a second, `width` x `height` pixels, drawn by `seed`."""

    people: int = 1
    seconds: float = 6.0
    rate: int = 25
    height: int = 360
    width: int = 640
    seed: int = 0

    def __post_init__(self):
        if not 1 <= self.people <= 8:
            raise UserError(f"--people {self.people}: give 1 to 8")
        if not 0.1 <= self.seconds <= 3600:
            raise UserError(f"--seconds {self.seconds}: give 0.1 to 3600")
        if not 1 <= self.rate <= 120:
            raise UserError(f"--rate {self.rate}: give 1 to 120 frames a second")
        if (
            min(self.height, self.width) < 32
            or max(self.height, self.width) > 4096
            or self.height % 2
            or self.width % 2
        ):
            raise UserError(f"--size {self.width} {self.height}: give even numbers from 32 to 4096")

    @property
    def frame_count(self):
        return max(1, round(self.seconds * self.rate))


def render_frame(settings, source, index):
    """Renders one frame.

    Args:
        settings: `VideoSettings`.
        source: number of the identity that everybody gets, or None.
        index: of the frame.

    Returns:
        list of `truth.SyntheticFace`, from the left to the right.
    """
    from facedancer.synthetic.draws import draw_identity, draw_person
    from facedancer.synthetic.performance import draw_performances
    from facedancer.synthetic.render import render_people

    performances = draw_performances(settings.seed, settings.people, settings.seconds, settings.width / settings.height)
    people = []
    for place, performance in enumerate(performances):
        number = cast_number(settings.seed, place)
        scene = dataclasses.replace(performance.at(index / settings.rate), number=index)
        people.append((draw_identity(number if source is None else source), draw_person(number), scene))
    return render_people(people, settings.height, settings.width)


def cast_number(seed, place):
    """The number of the identity and person at a place of a video of that seed."""
    return 7_000_000_000 + 100 * seed + place


def write_film(path, settings, source, pool, name):
    """Films into a file with sound; returns the frames' records, one list of faces a frame.

    Args:
        path: the file.
        settings: `VideoSettings`.
        source: number of the identity that everybody gets, or None.
        pool: `Workers`.
        name: of the video, for the progress bar.

    Raises:
        UserError: if the file cannot be written.
    """
    import av

    records = []
    with atomic_path(path) as temporary, av.open(temporary, "w") as film:
        film.metadata.update(marked_metadata({}, RENDERED))
        pictures = film.add_stream("libx264", rate=settings.rate, options={"crf": "16", "preset": "medium"})
        pictures.width, pictures.height, pictures.pix_fmt = settings.width, settings.height, "yuv420p"
        sound = film.add_stream("aac", rate=_voices(settings)[1], layout="mono")
        frames = pool.in_order(functools.partial(_film_frame, settings, source), range(settings.frame_count))
        for image, record in progress(frames, total=settings.frame_count, desc=name, unit="frame"):
            film.mux(pictures.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
            records.append(record)
        film.mux(pictures.encode())
        voices, rate = _voices(settings)
        samples = av.AudioFrame.from_ndarray(voices[None], "fltp", "mono")
        samples.sample_rate, samples.pts, samples.time_base = rate, 0, Fraction(1, rate)
        film.mux(sound.encode(samples))
        film.mux(sound.encode())
    return records


def _film_frame(settings, source, index):
    faces = render_frame(settings, source, index)
    return faces[0].image, [face.record() for face in faces]


def _voices(settings):
    """The voices of all people together (n,) float32, and their rate in Hz."""
    from facedancer.synthetic.performance import SOUND_RATE, draw_performances

    performances = draw_performances(settings.seed, settings.people, settings.seconds, settings.width / settings.height)
    seconds = settings.frame_count / settings.rate
    voices = [performance.voice(seconds, settings.seed + i) for i, performance in enumerate(performances)]
    return np.mean(voices, axis=0, dtype=np.float32), SOUND_RATE


def synthesize_video(out, settings, source=None, workers=None):
    """Writes a video, what is known of it, and with `source` the true swap (see the module's docstring).

    Args:
        out: the video file to write.
        settings: `VideoSettings`.
        source: number of an identity to swap onto everybody, or None.
        workers: processes, by default as many as there are processors.

    Returns:
        list of the paths written.

    Raises:
        UserError: if `out` cannot be a video of ours.
    """
    from facedancer.synthetic.draws import draw_identity, draw_person
    from facedancer.synthetic.render import render
    from facedancer.synthetic.scenes import portrait_scene

    out = Path(out)
    if out.suffix.lower() not in VIDEO_SUFFIXES:
        raise UserError(f"cannot write {out}: its name must end in one of {', '.join(VIDEO_SUFFIXES)}")
    truth = out.with_name(f"{out.stem}_truth.jsonl")
    swapped = out.with_name(f"{out.stem}_swapped{out.suffix}")
    picture = out.with_name(f"{out.stem}_source.png")
    written = [out, truth] if source is None else [out, truth, swapped, picture]
    with Workers(workers) as pool, contextlib.ExitStack() as files:
        # They appear together, at the end: a video never lies beside the truth of an earlier one.
        temporary = {path: files.enter_context(atomic_path(path)) for path in written}
        records = write_film(temporary[out], settings, None, pool, out.name)
        lines = [json.dumps({"time": i / settings.rate, "faces": faces}) for i, faces in enumerate(records)]
        write_atomic(temporary[truth], "\n".join(lines) + "\n")
        if source is not None:
            write_film(temporary[swapped], settings, source, pool, swapped.name)
            portrait = render(draw_identity(source), draw_person(source), portrait_scene(source), size=512)
            write_marked_image(temporary[picture], portrait.image, RENDERED)
    return written


def build_parser():
    parser = argparse.ArgumentParser(
        prog="facedancer synthesize_video",
        description="Renders a video of people who do not exist, with sound, and the true result of swapping them.",
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="video to write, .mp4, .mov or .mkv")
    parser.add_argument("--people", type=int, default=1, metavar="N", help="number of people (default: 1)")
    parser.add_argument("--seconds", type=float, default=6.0, metavar="T", help="length in seconds (default: 6)")
    parser.add_argument("--rate", type=int, default=25, metavar="N", help="frames per second (default: 25)")
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        default=(640, 360),
        metavar=("W", "H"),
        help="frame size in pixels (default: 640 360)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="random seed (default: 0)")
    parser.add_argument("--source", type=int, metavar="ID", help="also write the true swap to this identity")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one per CPU core)")
    return parser


@command
def main(argv=None):
    args = build_parser().parse_args(argv)
    for flag, value, least in (("--workers", args.workers, 1), ("--source", args.source, 0), ("--seed", args.seed, 0)):
        if value is not None and value < least:
            raise UserError(f"{flag} {value}: give at least {least}")
    settings = VideoSettings(args.people, args.seconds, args.rate, args.size[1], args.size[0], args.seed)
    for path in synthesize_video(args.output, settings, args.source, args.workers):
        print(path)
