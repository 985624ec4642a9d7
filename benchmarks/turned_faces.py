"""Measures landmarks of turned people: `python benchmarks/turned_faces.py`.

Renders people who look within 45 degrees of the camera, turns each picture by 0, 15, … 345 degrees, and prints for each
angle the share of people whose landmarks lie, on average, within 0.15 of the eye distance of the truth: of all people,
those that are not found included, by the detector alone and with `turned_faces`; and the
processor time that a picture takes by both.
"""

import argparse
import functools
import json
import time
from itertools import count, islice

import cv2
import numpy as np

from facedancer.core.alignment import transform_points
from facedancer.core.console import progress
from facedancer.face_parts.turned_faces import settle
from facedancer.retinaface import FaceDetector
from facedancer.synthetic.render import render
from facedancer.synthetic.synthesize import draws_of
from facedancer.synthetic.workers import Workers

ANGLES = range(0, 360, 15)
WITHIN = 0.15


def render_one(size, seed, index):
    face = render(*draws_of(seed, index, 0), size=size)
    return face.image, face.landmarks


def looks_ahead(seed, index):
    _, _, scene = draws_of(seed, index, 0)
    return abs(scene.pose[0]) <= 45


def error_of(faces, truth):
    """Mean distance of the best face's landmarks by the eye distance; infinite where there is none."""
    eyes = np.linalg.norm(truth[0] - truth[1])
    return min((np.linalg.norm(face.landmarks - truth, axis=1).mean() / eyes for face in faces), default=np.inf)


def render_people(description, people):
    """Renders as many people who look ahead as the command's flags say, by default `people`.

    Returns:
        A list of `(image, landmarks)`: (S, S, 3) uint8 RGB, and (5, 2) in its pixels.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--people", type=int, default=people)
    parser.add_argument("--size", type=int, default=384)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    chosen = list(islice((index for index in count() if looks_ahead(args.seed, index)), args.people))
    with Workers() as pool:
        work = functools.partial(render_one, args.size, args.seed)
        return list(progress(pool.in_order(work, chosen), total=len(chosen), desc="render", unit="picture"))


def main():
    people = render_people(__doc__.split("\n")[0], 100)
    detector, middle = FaceDetector(), ((len(people[0][0]) - 1) / 2,) * 2
    rows = []
    for angle in progress(ANGLES, desc="turn", unit="angle"):
        matrix = cv2.getRotationMatrix2D(middle, angle, 1.0)
        pictures = [
            cv2.warpAffine(image, matrix, image.shape[1::-1], borderMode=cv2.BORDER_REPLICATE) for image, _ in people
        ]
        truths = [transform_points(matrix, landmarks) for _, landmarks in people]
        started = time.process_time()
        found = detector.detect(pictures)
        between = time.process_time()
        settled = [
            settle(picture, faces, detect=detector.detect) for picture, faces in zip(pictures, found, strict=True)
        ]
        seconds = between - started, time.process_time() - between
        errors = [[error_of(*pair) for pair in zip(faces, truths, strict=True)] for faces in (found, settled)]
        alone, with_turned = np.array(errors)
        rows.append({
            "angle": angle,
            "found": [round(float(np.mean([bool(faces) for faces in some])), 3) for some in (found, settled)],
            "detector": round(float((alone < WITHIN).mean()), 3),
            "settled": round(float((with_turned < WITHIN).mean()), 3),
            "median_error": round(float(np.median(with_turned)), 3),
            "milliseconds": [round(1000 * part / len(people), 1) for part in seconds],
        })  # fmt: skip
        print(json.dumps(rows[-1]), flush=True)


if __name__ == "__main__":
    main()
