"""Measures faces of people who lie down and turn over in a video: `python benchmarks/heads_that_lie_down.py`.

Renders people who look within 45 degrees of the camera; each picture is turned by up to 180 degrees and back, as fast
as given, as a video of 25 frames a second. Prints the share of frames in which the track's landmarks lie, on average,
within 0.15 of the eye distance of the truth, and of those in which no face is tracked.
"""

import json
from fractions import Fraction

import cv2
import numpy as np
from turned_faces import WITHIN, render_people

from facedancer.core.alignment import transform_points
from facedancer.core.console import progress
from facedancer.face_parts.turned_faces import settle
from facedancer.retinaface import FaceDetector
from facedancer.video_swap.tracking import Watcher, build_tracks

RATE, STILL = 25, 15  # frames a second; frames in which the head lies still, at both ends


def angles_of(degrees_a_second):
    way = np.arange(0, 180, degrees_a_second / RATE)
    return np.concatenate([np.zeros(STILL), way, np.full(STILL, 180), way[::-1], np.zeros(STILL)])


def errors_of(detector, image, landmarks, angles):
    """Returns, for each frame, the error of the nearest track's landmarks by the eye distance; infinite without one."""
    middle = ((len(image) - 1) / 2,) * 2
    matrices = [cv2.getRotationMatrix2D(middle, angle, 1.0) for angle in angles]
    watcher, seen = Watcher(detector, settle=settle), []
    for number, matrix in enumerate(matrices):
        frame = cv2.warpAffine(image, matrix, image.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)
        seen += watcher.detect([frame], number)
    tracks = build_tracks(seen, [Fraction(number, RATE) for number in range(len(seen))])
    errors = np.full(len(seen), np.inf)
    for track in tracks:
        for number in range(track.start, track.end):
            truth = transform_points(matrices[number], landmarks)
            apart = np.linalg.norm(track.landmarks[number - track.start] - truth, axis=1).mean()
            errors[number] = min(errors[number], apart / np.linalg.norm(truth[0] - truth[1]))
    return errors


def main():
    people, detector = render_people(__doc__.split("\n")[0], 20), FaceDetector()
    for speed in (90, 360):
        angles = angles_of(speed)
        errors = np.stack([
            errors_of(detector, *person, angles) for person in progress(people, desc="watch", unit="video")
        ])  # fmt: skip
        lying = (angles > 60) & (angles <= 180)
        print(json.dumps({
            "degrees_a_second": speed,
            "right": round(float((errors < WITHIN).mean()), 3),
            "right_while_lying": round(float((errors[:, lying] < WITHIN).mean()), 3),
            "none_while_lying": round(float(np.isinf(errors[:, lying]).mean()), 3),
        }), flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
