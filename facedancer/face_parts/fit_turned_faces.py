"""Fits the map that detects turned faces: `nice python -m facedancer.face_parts.fit_turned_faces --work runs/turned`.

Renders people into `--work` (resumable), rotates each picture, and fits by least squares, from the detector's box,
score and landmarks, whether a face is upright or turned by more than 45 degrees with wrong landmarks. Writes
`turned_faces.npy` next to this module, and prints results on held-out people.
"""

import argparse

import cv2
import numpy as np

from facedancer.core.alignment import transform_points
from facedancer.core.console import command
from facedancer.core.devices import select_device
from facedancer.core.files import atomic_path
from facedancer.face_parts import turned_faces
from facedancer.retinaface import FaceDetector
from facedancer.synthetic.workers import render_many

# Numbers of rendered people and scenes; far from those of data sets, videos and the other networks.
FIRST = 52_000_000_000
_SIZE = 256
_UPRIGHT, _TURNED = (-15, 0, 15), range(60, 301, 15)
# Mean landmark error in eye distances: up to the first they count as right, from the second as wrong.
_RIGHT, _WRONG = 0.15, 0.25
_MOST_YAW = 45
_RIDGE = 0.1


def render_person(number):
    """Returns `image` (256, 256, 3) uint8, `landmarks` (5, 2), pixels, and `yaw`, degrees."""
    from facedancer.synthetic.draws import draw_identity, draw_person
    from facedancer.synthetic.render import render
    from facedancer.synthetic.scenes import draw_scene

    face = render(draw_identity(number), draw_person(number), draw_scene(number), size=_SIZE)
    return {"image": face.image, "landmarks": face.landmarks, "yaw": np.float64(face.pose[0])}


def examples(people, detector):
    """Returns the features (n, d) of detected faces, and whether they are turned (n,), 1 or -1."""
    features, labels = [], []
    for angle in (*_UPRIGHT, *_TURNED):
        matrix = cv2.getRotationMatrix2D(((_SIZE - 1) / 2,) * 2, angle, 1.0)
        pictures = [cv2.warpAffine(i, matrix, (_SIZE, _SIZE), borderMode=cv2.BORDER_REPLICATE) for i in people["image"]]
        for faces, landmarks in zip(detector.detect(pictures), people["landmarks"], strict=True):
            truth = transform_points(matrix, landmarks)
            for face in faces[:1]:
                error = np.linalg.norm(face.landmarks - truth, axis=1).mean() / np.linalg.norm(truth[0] - truth[1])
                if error < _RIGHT if angle in _UPRIGHT else error > _WRONG:
                    features.append(turned_faces.box_features(face))
                    labels.append(-1.0 if angle in _UPRIGHT else 1.0)
    return np.stack(features), np.array(labels)


def fit(features, labels):
    """Returns the least-squares map (d,)."""
    return np.linalg.solve(features.T @ features + _RIDGE * np.eye(features.shape[1]), features.T @ labels)


@command
def main(argv=None):
    parser = argparse.ArgumentParser(description="Fits the map that detects turned faces.")
    parser.add_argument("--work", required=True, help="folder for the rendered people")
    parser.add_argument(
        "--people", type=int, default=200, help="rendered people, a third of them held out (default: %(default)s)"
    )
    parser.add_argument("--workers", type=int, default=2, help="rendering processes (default: %(default)s)")
    args = parser.parse_args(argv)
    people = render_many(render_person, args.work, FIRST, args.people, args.workers)
    print(f"device: {select_device()}")
    ahead = np.abs(people["yaw"]) <= _MOST_YAW
    is_held_out = np.arange(args.people) % 3 == 0
    detector = FaceDetector()
    fitted, held_out = (
        examples({name: values[ahead & chosen] for name, values in people.items()}, detector)
        for chosen in (~is_held_out, is_held_out)
    )
    weights = fit(*fitted)
    with atomic_path(turned_faces.WEIGHTS) as temporary, open(temporary, "wb") as file:
        np.save(file, weights.astype(np.float32))
    doubted = held_out[0] @ weights > turned_faces.DOUBT
    turned = held_out[1] > 0
    print(f"turned faces that are doubted  {doubted[turned].mean():.3f} of {turned.sum()}")
    print(f"upright faces that are doubted {doubted[~turned].mean():.3f} of {(~turned).sum()}")


if __name__ == "__main__":
    main()
