"""Three rendered people who cross and leave the frame, each with a source: how often each gets their own.

    python benchmarks/people_who_cross.py --facedancer_path exports/facedancer/facedancer_30.h5 --output crossing

Writes the video, portraits of the people and of their sources, and the swapped video, and prints for each person in
what share of the frames where they are visible the face that was swapped there got their source. Visible means: half of
the 68 landmarks at least are in the frame and not hidden, and the head is turned by less than 50 degrees.
"""

import argparse
import dataclasses
import functools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from facedancer.core.console import progress
from facedancer.core.files import write_json
from facedancer.core.images import write_image
from facedancer.synthetic.draws import draw_identity, draw_person
from facedancer.synthetic.performance import draw_performances
from facedancer.synthetic.render import render, render_people
from facedancer.synthetic.scenes import portrait_scene
from facedancer.synthetic.workers import Workers

PEOPLE = (9_100_000_001, 9_100_000_002, 9_100_000_003)
SOURCES = (9_100_000_011, 9_100_000_012, 9_100_000_013)
WIDTH, HEIGHT, RATE = 640, 360, 15


def build_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--facedancer_path", required=True, help="the exported swapper")
    parser.add_argument("--output", required=True, type=Path, help="folder to write to")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, help="processes that render")
    return parser


def film_frame(seed, seconds, index):
    """Renders one frame; returns its picture and, for each person, five landmarks and whether they are visible."""
    t = index / RATE
    performances = draw_performances(seed, len(PEOPLE), seconds, WIDTH / HEIGHT)
    half_width = performances[0].scene.camera.half_height * WIDTH / HEIGHT
    part = t / seconds
    # One walks through the picture in front of the others; one to and fro behind; one leaves and comes back.
    places = (
        ((2 * part - 1) * (half_width + 1.5), -0.3, 2.2),
        (half_width * 0.75 * np.cos(2 * np.pi * part), 0.4, -2.2),
        (half_width * (0.1 - 1.5 * np.sin(np.pi * part) ** 4), 0.0, 0.0),
    )
    people = []
    for number, performance, place in zip(PEOPLE, performances, places, strict=True):
        scene = dataclasses.replace(performance.at(t), number=index, place=tuple(float(value) for value in place))
        people.append((draw_identity(number), draw_person(number), scene))
    faces = render_people(people, HEIGHT, WIDTH)
    truth = []
    for face in faces:
        inside = ((face.landmarks_68 >= 0) & (face.landmarks_68 < [WIDTH, HEIGHT])).all(1)
        visible = np.mean(face.visible_68 & inside) >= 0.5 and abs(face.pose[0]) < 50
        truth.append((face.landmarks.tolist(), bool(visible)))
    return faces[0].image, truth


def film(out, seconds, seed, workers):
    """Writes the video and the portraits; returns what is known of every frame."""
    import av

    truth = []
    with Workers(workers) as pool, av.open(str(out / "people.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"crf": "14"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        count = round(seconds * RATE)
        frames = pool.in_order(functools.partial(film_frame, seed, seconds), range(count))
        for image, known in progress(frames, total=count, unit="frame"):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
            truth.append(known)
        container.mux(stream.encode())
    for name, numbers in (("person", PEOPLE), ("source", SOURCES)):
        for index, number in enumerate(numbers):
            face = render(draw_identity(number), draw_person(number), portrait_scene(number), size=384)
            write_image(out / f"{name}{index}.png", face.image)
    return truth


def swap(out, facedancer_path):
    """Swaps the video by the command's own parts; returns the faces placed in every frame, and the sources."""
    from facedancer.video_swap import multi_face_single_source as command
    from facedancer.video_swap.common import prepare

    pairs = [f"{out}/person{index}.png={out}/source{index}.png" for index in range(len(PEOPLE))]
    flags = ["--facedancer_path", facedancer_path, "--vid_path", str(out / "people.mp4"), "--map", *pairs]
    args = command.build_parser().parse_args([*flags, "--output", str(out / "swapped.mp4")])
    swapper, plan = prepare(args)
    placed, reach = [], swapper.reach

    def watch(faces, size):
        placed.append(faces)
        return reach(faces, size)

    swapper.reach = watch  # called once for every frame
    video = command.probe_video(args.vid_path)
    encoding = command.choose_encoding(args.output, video)
    with command.SegmentedVideo(args.output, video, encoding) as writer:
        command.swap_video(swapper, plan, writer)
    return placed, plan.sources


def main():
    args = build_parser().parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    truth = film(args.output, args.seconds, args.seed, args.workers)
    placed, sources = swap(args.output, args.facedancer_path)
    counts = np.zeros((len(PEOPLE), 3), int)  # visible, their own source, another's
    lost = []
    for index, (known, faces) in enumerate(zip(truth, placed, strict=True)):
        for person, (landmarks, visible) in enumerate(known):
            if not visible:
                continue
            landmarks = np.array(landmarks)
            reach = 0.5 * np.linalg.norm(landmarks[1] - landmarks[0])
            near = [face for face in faces if np.linalg.norm(face.landmarks - landmarks, axis=1).mean() < reach]
            own = [face for face in near if face.source_embedding is sources[person].embedding]
            counts[person] += 1, bool(own), len(own) < len(near)
            if not own or len(own) < len(near):
                lost.append((index, person))
    for person, (visible, own, others) in enumerate(counts):
        print(
            f"person {person}: visible in {visible} of {len(truth)} frames, own source in {own}"
            f" ({own / visible:.1%}), another's in {others}"
        )
    print(f"frames and people without their own: {lost}")
    write_json(args.output / "result.json", {"counts": counts.tolist(), "lost": lost})


if __name__ == "__main__":
    main()
