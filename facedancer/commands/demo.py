"""The whole pipeline in one command: images of people -> a trained model -> swapped videos, images and a report.

    facedancer demo                                    # renders people who do not exist first
    facedancer demo --data_dir photographs

Each stage runs the command that you would run by hand, and prints it. Run again, the demo resumes and keeps what is
already there. A model trained for minutes is shown next to the included one.
"""

import argparse
import shlex
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from facedancer import cli
from facedancer.core.console import PARTLY_DONE, UserError, command, progress, say
from facedancer.core.files import atomic_path, list_files, only_writer
from facedancer.core.images import IMAGE_SUFFIXES, read_image, tile_images
from facedancer.core.weights import find_weights
from facedancer.dataset.crop_align import MANIFEST_NAME, read_manifest
from facedancer.dataset.triplets import CANVAS_SIZE, SHRINK_FACTOR
from facedancer.evaluate import report
from facedancer.evaluate.cases import read_cases
from facedancer.evaluate.evaluate import REPORT_NAME, check_libraries, evaluate, picture_of
from facedancer.evaluate.swappers import Swapper, read_model_card
from facedancer.evaluate.tables import TITLES, measures_table, read_estimator_errors

NAME = "demo"
SHIPPED = "lite"
PEOPLE, PICTURES_EACH, WORLD_SIZE = 24, 12, 256
TRIPLETS, VALIDATION_TRIPLETS = 2048, 64
SHOWN_PAIRS, MEASURED_PAIRS = 8, 24
FRAME_SIZE, FRAME_RATE, FRAMES_A_PICTURE = (640, 480), 25, 15
SOUND_RATE = 44_100


def build_parser():
    parser = argparse.ArgumentParser(prog="facedancer demo", description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--data_dir",
        metavar="DIR",
        help="folder of photographs, one subfolder per person (default: people are rendered)",
    )
    parser.add_argument("--run_dir", default="runs/demo", metavar="DIR", help="output folder (default: %(default)s)")
    parser.add_argument("--vid_path", metavar="FILE", help="video to swap (default: one is rendered)")
    parser.add_argument(
        "--num_steps", type=int, default=500, metavar="N", help="number of training steps (default: %(default)s)"
    )
    parser.add_argument(
        "--num_people", type=int, default=PEOPLE, metavar="N", help="number of people to render (default: %(default)s)"
    )
    return parser


@command
def main(argv=None):
    args = build_parser().parse_args(argv)
    check_libraries()
    with only_writer(args.run_dir):
        run_stages(args)


def run_stages(args):
    """Runs all stages, with the run's folder locked."""
    run = Path(args.run_dir)
    world = None if args.data_dir else run / "world"
    if world:
        size = {"identities": args.num_people, "per_identity": PICTURES_EACH, "size": WORLD_SIZE}
        stage("synthesize", output=world, **size, swaps=1)
    data_dir = Path(args.data_dir) if args.data_dir else world / "pictures"
    people = photographs_by_person(data_dir)

    stage(
        "crop_align",
        data_dir=data_dir,
        target_dir=run / "aligned",
        im_size=CANVAS_SIZE,
        shrink_factor=round(SHRINK_FACTOR, 4),
    )
    shards = run / "shards"
    numbers = {"count": TRIPLETS, "validation_count": VALIDATION_TRIPLETS}
    stage("triplets", data_dir=run / "aligned", target_dir=shards, data_name=NAME, validation_fraction=0.2, **numbers)
    model = train_and_export(run, shards, args.num_steps)

    target, source = (most_frontal(pictures, data_dir, run / "aligned") for pictures in (people[0], people[-1]))
    video = run / "video.mp4"
    if args.vid_path:
        video = Path(args.vid_path)
    elif world:
        stage("synthesize_video", output=video)
    elif not video.is_file():
        write_slide_show(video, people[0])
    for swapper, ending in ((SHIPPED, ""), (model, "_by_the_demo")):
        swap = {"facedancer_path": swapper, "swap_source": source, "compare": True}
        stage("swap_video", vid_path=video, output=run / f"swapped_video{ending}.mp4", **swap)
        stage("swap_image", img_path=target, output=run / f"swapped_image{ending}.png", **swap)

    page = run / "report.html"
    write_demo_report(page, run, people, world, model, args.num_steps)
    say(
        f"\nDone. {page} shows everything. Next to it are target and swap side by side: swapped_video.mp4 and\n"
        f"swapped_image.png by the included model, those ending in _by_the_demo by the one trained here for\n"
        f"{args.num_steps} steps. tensorboard --logdir {run / 'logs'} shows the training."
    )


def photographs_by_person(folder):
    """Returns a list of sorted lists of image files, one per subfolder; raises `UserError` for fewer than 3."""
    people = {}
    for path in list_files(folder):
        if path.suffix.lower() in IMAGE_SUFFIXES and path.parent != Path(folder):
            people.setdefault(path.parent, []).append(path)
    if len(people) < 3:
        raise UserError(f"{folder} needs photographs of at least 3 people, one subfolder each; it has {len(people)}")
    return list(people.values())


def most_frontal(pictures, data_dir, aligned):
    """Returns the image of a person whose nose lies nearest to the middle between the eyes."""
    turned = {}
    for entry in read_manifest(aligned / MANIFEST_NAME):
        for face in entry.faces:
            (left, _), (right, _), (nose, _), *_ = face.aligned_landmarks
            turned[data_dir / entry.file] = abs(nose - (left + right) / 2)
    return min(pictures, key=lambda picture: turned.get(picture, np.inf))


def stage(verb, **flags):
    """Prints and runs one command; if it fails, raises `UserError` after the command's own message."""
    words = [verb, *(word for name, value in flags.items() for word in (f"--{name}", str(value)))]
    say(f"\n$ facedancer {shlex.join(words)}")
    if cli.main(words) not in (0, PARTLY_DONE):
        raise UserError(f"the demo stopped at {verb}; fix the problem and run it again to resume")


def train_and_export(run, shards, num_steps):
    """Trains preset `lite` up to a step, resuming if it was stopped, and exports it; returns the path of the `.h5`."""
    places = {"log_name": NAME, "chkp_dir": run / "checkpoints", "export_dir": run / "exports"}
    training = {"data_dir": shards / f"{NAME}_train_*-of-*.records", **places}
    done = max((int(path.stem) for path in run.glob(f"checkpoints/{NAME}/state/*.json")), default=None)
    if done is None or done < num_steps:
        stage(
            "train",
            preset="lite",
            **training,
            eval_dir=shards / f"{NAME}_val_*-of-*.records",
            num_steps=num_steps,
            eval_every=100,
            save_every=100,
            log_dir=run / "logs",
            result_dir=run / "results",
        )
    model = run / "exports" / NAME / f"facedancer_{num_steps}.h5"
    if not model.is_file():
        stage("train", **training, load=num_steps, export=True)
    return model


def write_slide_show(path, photographs):
    """Writes a video of slowly zooming photographs with a tone, to swap if there is no other video."""
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


def write_demo_report(page, run, people, world, model, num_steps):
    """Writes a page that shows what the demo did, stage by stage."""
    faces = photographs_by_person(run / "aligned")
    (grid,) = (run / "results" / NAME).glob(f"validation_{num_steps:08d}.png")
    parts = [
        report.section(
            "What this is",
            f"The whole pipeline of training a face swapper, run once from end to end with {num_steps} training steps."
            " It shows that each stage works, but is too short to transfer an identity. The included model was trained"
            " in the same way, for hours and on other people, and is shown for comparison.",
        ),
        report.section("Images", f"{len(people)} people" + (", rendered: none of them exists." if world else ".")),
        report.picture(contact_sheet([person[0] for person in people])),
        report.section(
            "Aligned faces",
            "Found by RetinaFace and aligned to ArcFace's template, with a margin that triplets use.",
        ),
        report.picture(contact_sheet([person[1 % len(person)] for person in faces])),
        report.section(
            "Training",
            "A target is a portrait with another person's face drawn in; the truth is the portrait. The curves show"
            " the weighted losses, and metrics on held-out people.",
        ),
        report.curves(report.read_scalars(run / "logs" / NAME)),
        report.picture(read_image(grid), "target, source, swap and truth of held-out people"),
    ]
    for title, name in (
        ("Video, by the included model", "swapped_video.mp4"),
        (f"Video, by the model trained for {num_steps} steps", "swapped_video_by_the_demo.mp4"),
    ):
        parts += [
            report.section(title, "Six frames, target and swap side by side."),
            report.picture(film_strip(run / name)),
            report.link(run / name, page, name),
        ]
    if world:
        parts += truth_parts(page, world, model)
    report.write_report(page, "FaceDancer demo", parts)


def truth_parts(page, world, model):
    """Returns the part of the report that compares swaps with their exact truth, by `facedancer evaluate`."""
    out = page.parent / "evaluation"
    found = evaluate([SHIPPED, model], "synthetic", world, out, count=MEASURED_PAIRS)
    swappers = [Swapper(path, read_model_card(path)) for path in (find_weights(SHIPPED), model)]
    size, shrink_factor = swappers[0].card.image_size, swappers[0].card.shrink_factor
    shown = list(read_cases("synthetic", world, out, SHOWN_PAIRS, size, shrink_factor, 0))
    return [
        report.section(
            "Swap and truth",
            "For rendered people, the true result of a swap can be rendered: the source's identity with everything else"
            f" from the target. Means over at most {MEASURED_PAIRS} pairs, with 95 % intervals.",
        ),
        picture_of(shown, swappers),
        measures_table(found, TITLES, read_estimator_errors()),
        report.link(out / REPORT_NAME, page, "the full evaluation"),
    ]


def contact_sheet(paths, columns=8):
    """Returns one image, (H, W, 3) uint8 RGB, with at most 3 rows of images."""
    images = [shrink(read_image(path)) for path in paths[: 3 * columns]]
    while len(images) % columns:
        images.append(np.full_like(images[0], 255))
    return tile_images([images[start : start + columns] for start in range(0, len(images), columns)])


def shrink(image, side=128):
    """Crops an image, (H, W, 3) uint8, to its central square and scales that to `side` pixels."""
    height, width = image.shape[:2]
    size = min(height, width)
    top, left = (height - size) // 2, (width - size) // 2
    return cv2.resize(image[top : top + size, left : left + size], (side, side), interpolation=cv2.INTER_AREA)


def film_strip(path, count=6):
    """Returns frames of a video, evenly spread, in two columns."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        wanted = set(np.linspace(0, stream.frames - 1, count).astype(int).tolist())
        scale = min(1.0, 480 / stream.width)
        shown = [
            cv2.resize(frame.to_ndarray(format="rgb24"), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            for index, frame in enumerate(container.decode(stream))
            if index in wanted
        ]
    return tile_images([shown[start : start + 2] for start in range(0, len(shown) - 1, 2)])
