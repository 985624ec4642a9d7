"""The whole pipeline in one command: photographs by person -> a trained swapper -> a swapped video and picture.

    facedancer demo --data_dir photographs --run_dir runs/demo

Every stage is the command that a person would run by hand, and is printed as such. Run again, the demo goes on where it
was: what is there stays.
"""

import argparse
import shlex
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from facedancer import cli
from facedancer.core.console import UserError, command, progress, say
from facedancer.core.files import atomic_path, list_files
from facedancer.core.images import IMAGE_SUFFIXES, read_image

NAME = "demo"
IMAGE_SIZE = 128
FRAME_SIZE, FRAME_RATE, FRAMES_A_PICTURE = (640, 480), 25, 15
SOUND_RATE = 44_100


def build_parser():
    parser = argparse.ArgumentParser(prog="facedancer demo", description=__doc__.split("\n\n")[0])
    parser.add_argument("--data_dir", required=True, help="folder of photographs, a subfolder for each person")
    parser.add_argument("--run_dir", default="runs/demo", help="where everything goes (default %(default)s)")
    parser.add_argument("--vid_path", help="video to swap; by default one is made from the first person's photographs")
    parser.add_argument("--num_steps", type=int, default=300, help="training steps (default %(default)s)")
    return parser


@command
def main(argv=None):
    args = build_parser().parse_args(argv)
    if not args.data_dir:
        raise UserError("the demo needs photographs, a subfolder for each person: make demo DATA=folder")
    people = photographs_by_person(args.data_dir)
    run = Path(args.run_dir)
    aligned, shards, model = run / "aligned", run / "shards", run / "exports" / NAME / f"facedancer_{args.num_steps}.h5"

    stage("crop_align", data_dir=args.data_dir, target_dir=aligned, im_size=IMAGE_SIZE)
    stage("dataset_sharding", data_dir=aligned, target_dir=shards, data_name=NAME, validation_fraction=0.1)
    training = {
        "data_dir": shards / f"{NAME}_train_*-of-*.records",
        "log_name": NAME,
        "chkp_dir": run / "checkpoints",
        "export_dir": run / "exports",
    }
    done = max((int(path.stem) for path in run.glob(f"checkpoints/{NAME}/state/*.json")), default=None)
    if done is None or done < args.num_steps:
        stage(
            "train",
            preset="lite",
            **training,
            eval_dir=shards / f"{NAME}_val_*-of-*.records",
            num_steps=args.num_steps,
            eval_every=100,
            save_every=100,
            log_dir=run / "logs",
            result_dir=run / "results",
            **({"load": done} if done else {}),
        )
    if not model.is_file():
        stage("train", **training, load=args.num_steps, export=True)

    video = Path(args.vid_path) if args.vid_path else run / "video.mp4"
    if not args.vid_path and not video.is_file():
        write_slide_show(video, people[0])
    source, picture = people[-1][0], people[0][0]
    swap = {"facedancer_path": model, "swap_source": source}
    stage("swap_video", vid_path=video, output=run / "swapped_video.mp4", compare=True, **swap)
    stage("swap_image", img_path=picture, output=run / "swapped_image.png", compare=True, **swap)
    say(
        f"\nDone. {run / 'swapped_video.mp4'} and {run / 'swapped_image.png'} show target and swap side by side;\n"
        f"{run / 'results' / NAME} has swap grids of the training, tensorboard --logdir {run / 'logs'} its curves.\n"
        f"{args.num_steps} steps show that everything works; a convincing swap needs a hundred times as many."
    )


def photographs_by_person(folder):
    """Returns a list of sorted lists of picture files, one a subfolder. Raises `UserError` for fewer than 3."""
    people = {}
    for path in list_files(folder):
        if path.suffix.lower() in IMAGE_SUFFIXES and path.parent != Path(folder):
            people.setdefault(path.parent, []).append(path)
    if len(people) < 3:
        raise UserError(f"{folder} needs photographs of at least 3 people, a subfolder for each; it has {len(people)}")
    return list(people.values())


def stage(verb, **flags):
    """Prints and runs one command. Raises `UserError` if it fails, after its own message."""
    words = [verb, *(word for name, value in flags.items() for word in (f"--{name}", str(value)))]
    say(f"\n$ facedancer {shlex.join(words)}")
    if cli.main(words):
        raise UserError(f"the demo stopped at {verb}; put that right and run it again, it goes on from there")


def write_slide_show(path, photographs):
    """Writes a video of photographs, each slowly growing, with a tone: something to swap where there is no video."""
    width, height = FRAME_SIZE
    shown = photographs[:8]
    with atomic_path(path) as temporary, av.open(temporary, "w") as container:
        stream = container.add_stream("libx264", rate=FRAME_RATE, width=width, height=height, pix_fmt="yuv420p")
        sound = container.add_stream("aac", rate=SOUND_RATE, layout="mono")
        for photograph in progress(shown, desc="video", unit="picture"):
            image = read_image(photograph)
            for index in range(FRAMES_A_PICTURE):
                scale = (0.9 + 0.2 * index / FRAMES_A_PICTURE) * height / image.shape[0]
                shift = [(end - scale * side) / 2 for end, side in zip(FRAME_SIZE, image.shape[1::-1], strict=True)]
                matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
                frame = cv2.warpAffine(image, matrix, FRAME_SIZE, flags=cv2.INTER_LINEAR, borderValue=(64, 64, 64))
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode())
        seconds = Fraction(len(shown) * FRAMES_A_PICTURE, FRAME_RATE)
        tone = 0.1 * np.sin(2 * np.pi * 220 * np.arange(int(seconds * SOUND_RATE)) / SOUND_RATE)
        samples = av.AudioFrame.from_ndarray(tone.astype(np.float32)[None], "fltp", "mono")
        samples.sample_rate, samples.pts = SOUND_RATE, 0
        container.mux(sound.encode(samples))
        container.mux(sound.encode())
