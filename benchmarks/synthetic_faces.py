"""Measures what synthetic faces promise: `python benchmarks/synthetic_faces.py`.

Renders `--identities` x 4 pictures and a true swap for each identity, then asks our own detector and identity
encoder (both frozen, neither has seen a rendered face): how many faces are found and how far the landmarks are off, how
well identities separate (equal error rate over all pairs), and whether a true swap is nearer to its source than to its
target. Also how long a picture takes, in processor time.
"""

import argparse
import functools
import json
import time

import numpy as np

from facedancer.core.alignment import align_matrix, warp_to_aligned
from facedancer.core.console import progress
from facedancer.synthetic.render import render
from facedancer.synthetic.synthesize import draws_of, portrait_draws
from facedancer.synthetic.workers import Workers

PICTURES = 4
BATCH = 16
ALIGNED_SIZE = 160


def render_one(size, seed, identities, place):
    """Renders a picture, and for the first of an identity also a swap: the source's portrait, and the true result."""
    started = time.process_time()
    index, picture = place
    draws = draws_of(seed, index, picture)
    face = render(*draws, size=size)
    seconds = time.process_time() - started
    if picture:
        return face, None, seconds
    source = portrait_draws(seed, (index + 1) % identities)
    return face, (render(*source, size=size), render(source[0], draws[1], draws[2], size=size)), seconds


def equal_error_rate(same, different):
    """The rate at which as many pairs of one identity are rejected as pairs of two are accepted."""
    thresholds = np.linspace(-1, 1, 4001)
    rejected = np.searchsorted(np.sort(same), thresholds) / len(same)
    accepted = 1 - np.searchsorted(np.sort(different), thresholds) / len(different)
    at = np.abs(rejected - accepted).argmin()
    return float(rejected[at] + accepted[at]) / 2


def measure_detector(faces):
    """Share of faces within 45 degrees of yaw that are found, and the landmarks' errors by the eye distance (n, 5)."""
    from facedancer.retinaface import FaceDetector

    detector = FaceDetector()
    found, errors = [], []
    faces = [face for face in faces if abs(face.pose[0]) <= 45]
    for start in progress(range(0, len(faces), BATCH), desc="detect", unit="batch"):
        batch = faces[start : start + BATCH]
        for face, detected in zip(batch, detector.detect([face.image for face in batch]), strict=True):
            eyes = np.linalg.norm(face.landmarks[0] - face.landmarks[1])
            each = [np.linalg.norm(one.landmarks - face.landmarks, axis=1) / eyes for one in detected]
            best = min(each, key=np.mean, default=np.full(5, np.inf))
            found.append(best.mean() < 1)
            if found[-1]:
                errors.append(best)
    return len(faces), float(np.mean(found)), np.array(errors)


def embed(encoder, faces):
    """Unit identity embeddings (n, dim) of faces, aligned by their true landmarks."""
    aligned = [warp_to_aligned(face.image, align_matrix(face.landmarks, ALIGNED_SIZE), ALIGNED_SIZE) for face in faces]
    parts = [encoder(np.stack(aligned[start : start + BATCH])) for start in range(0, len(aligned), BATCH)]
    embeddings = np.concatenate(parts)
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--identities", type=int, default=200)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--seed", type=int, default=5)
    args = parser.parse_args()

    places = [(i, k) for i in range(args.identities) for k in range(PICTURES)]
    work = functools.partial(render_one, args.size, args.seed, args.identities)
    with Workers() as pool:
        done = list(progress(pool.in_order(work, places), total=len(places), desc="render", unit="picture"))
    faces = [face for face, _, _ in done]
    sources, swapped = zip(*(swap for _, swap, _ in done if swap is not None), strict=True)

    count, found, errors = measure_detector(faces)

    from facedancer.arcface_model import IdentityEncoder

    encoder = IdentityEncoder()
    embeddings = embed(encoder, faces)
    numbers = np.array([face.identity_number for face in faces])
    similarity, pairs = embeddings @ embeddings.T, np.triu_indices(len(faces), 1)
    is_same = (numbers[:, None] == numbers)[pairs]
    same, different = similarity[pairs][is_same], similarity[pairs][~is_same]

    of_swaps, index = embed(encoder, swapped), np.arange(args.identities)
    to_source = (of_swaps * embed(encoder, sources)).sum(1)
    to_other_picture = (of_swaps * embeddings[(index + 1) % args.identities * PICTURES + 1]).sum(1)
    to_target = (of_swaps * embeddings[index * PICTURES]).sum(1)
    result = {
        "pictures": len(faces),
        "size": args.size,
        "processor_seconds_a_picture": round(float(np.median([seconds for _, _, seconds in done])), 3),
        "detector": {
            "pictures": count,
            "found": round(found, 4),
            "median_error": round(float(np.median(errors)), 4),
            "median_error_by_landmark": np.round(np.median(errors, axis=0), 4).tolist(),
        },
        "identity": {
            "encoder": encoder.name,
            "equal_error_rate": round(equal_error_rate(same, different), 4),
            "mean_similarity_same": round(float(same.mean()), 3),
            "mean_similarity_different": round(float(different.mean()), 3),
        },
        "true_swap": {
            "pairs": len(swapped),
            "nearer_to_source": round(float((to_source > to_target).mean()), 4),
            "nearer_to_source_in_any_picture": round(float((to_other_picture > to_target).mean()), 4),
            "mean_similarity_to_source": round(float(to_source.mean()), 3),
            "mean_similarity_to_target": round(float(to_target.mean()), 3),
        },
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
