"""Fits the data of `arcface_model.head_shape`: a basis of the head's landmarks, and the map to its coefficients.

    python -m facedancer.face_parts.fit_head_shape --work DIR

The basis is computed from people and expressions as they are drawn. The map is fitted by least squares to rendered
people, each in a scene of their own, and measured on held-out ones.
"""

import argparse
from pathlib import Path

import numpy as np

from facedancer.core.console import command
from facedancer.core.devices import select_device
from facedancer.core.files import atomic_path, write_json
from facedancer.face_parts import pose
from facedancer.face_parts.fit_expression import FITTED_FIRST, HELD_OUT_FIRST, render_face, ridge
from facedancer.synthetic.draws import draw_identity, draw_person
from facedancer.synthetic.head import load_head
from facedancer.synthetic.scenes import draw_scene
from facedancer.synthetic.shape import neutral_vertices
from facedancer.synthetic.workers import render_many

# `head_shape` reads it.
WEIGHTS = Path(__file__).resolve().parents[1] / "arcface_model" / "head_shape.npz"
IDENTITY, EXPRESSION = 24, 16
_RIDGE = 1e-7


def drawn_landmarks(first, count):
    """Returns drawn landmarks, 68 flattened points in decimeters, of people and scenes `first` to `first + count - 1`.

    Returns:
        Neutral faces (n, 204), relative to their centroids, and what expressions add to them (n, 204); float64.
    """
    head = load_head()
    neutral, added = [], []
    for number in range(first, first + count):
        points = neutral_vertices(draw_identity(number), draw_person(number))[head.landmarks]
        neutral.append((points - points.mean(0)).ravel())
        added.append(head.offsets(draw_scene(number).expression)[head.landmarks].ravel())
    return np.array(neutral, np.float64), np.array(added, np.float64)


def principal(values, count):
    """Returns the first principal components (count, d) of values (n, d), each scaled to its standard deviation."""
    _, deviations, vectors = np.linalg.svd(values - values.mean(0), full_matrices=False)
    return vectors[:count] * (deviations[:count, None] / len(values) ** 0.5)


def fit(faces, first):
    """Fits basis and map to rendered faces (n, 128, 128, 3) uint8, numbered from `first` on.

    Returns:
        The arrays of `head_shape.load_basis`, by name.
    """
    neutral, added = drawn_landmarks(first, len(faces))
    # Expressions' average displacement belongs to the mean of rotated-back landmarks.
    basis = {
        "mean": neutral.mean(0) + added.mean(0),
        "identity": principal(neutral, IDENTITY),
        "expression": principal(added, EXPRESSION),
    }
    turned = pose.turn_back(pose.find_landmarks(faces))[0].reshape(len(faces), -1)
    to, points_mean, middle = ridge(turned, coefficients_of(basis, neutral, added), _RIDGE)
    return {**basis, "points_mean": points_mean, "to_coefficients": to, "coefficients_mean": middle}


def coefficients_of(basis, neutral, added):
    """Returns the coefficients (n, 40) of drawn landmarks, as `drawn_landmarks` returns them, in the basis."""
    found = [
        (values - values.mean(0)) @ vectors.T / (vectors**2).sum(1)
        for values, vectors in ((neutral, basis["identity"]), (added, basis["expression"]))
    ]
    return np.concatenate(found, axis=1)


def measure(basis, faces, first):
    """Measures the map on held-out faces, as for `fit`.

    Returns:
        A dictionary: the share of the coefficients' variance that the map explains, as means over identity and over
        expression, and for the first eight of each; and the mean error of landmarks in decimeters, by the map and by
        the mean face.
    """
    neutral, added = drawn_landmarks(first, len(faces))
    wanted = coefficients_of(basis, neutral, added)
    turned = pose.turn_back(pose.find_landmarks(faces))[0].reshape(len(faces), -1)
    found = (turned - basis["points_mean"]) @ basis["to_coefficients"] + basis["coefficients_mean"]
    share = 1 - ((found - wanted) ** 2).mean(0) / wanted.var(0)
    vectors = np.concatenate([basis["identity"], basis["expression"]])
    off = np.linalg.norm((found @ vectors + basis["mean"] - neutral - added).reshape(len(faces), 68, 3), axis=-1)
    spread = np.linalg.norm((basis["mean"] - neutral - added).reshape(len(faces), 68, 3), axis=-1)
    return {
        "identity": round(float(share[:IDENTITY].mean()), 3),
        "identity_first": np.round(share[:8], 3).tolist(),
        "expression": round(float(share[IDENTITY:].mean()), 3),
        "expression_first": np.round(share[IDENTITY : IDENTITY + 8], 3).tolist(),
        "landmarks": round(float(off.mean()), 4),
        "landmarks_of_the_mean": round(float(spread.mean()), 4),
    }


@command
def main(argv=None):
    parser = argparse.ArgumentParser(description="Fits the basis and map of head_shape to rendered people.")
    parser.add_argument("--work", required=True, help="folder for the rendered faces, shared with fit_expression")
    parser.add_argument("--pictures", type=int, default=2500, help="rendered faces to fit to (default: %(default)s)")
    parser.add_argument("--held_out", type=int, default=500, help="held-out faces to measure on (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="rendering processes (default: %(default)s)")
    args = parser.parse_args(argv)
    held_out = render_many(render_face, args.work, HELD_OUT_FIRST, args.held_out, args.workers)["face"]
    faces = render_many(render_face, args.work, FITTED_FIRST, args.pictures, args.workers)["face"]
    print(f"device: {select_device()}")
    basis = fit(faces, FITTED_FIRST)
    found = measure(basis, held_out, HELD_OUT_FIRST)
    with atomic_path(WEIGHTS) as temporary, open(temporary, "wb") as file:
        np.savez(file, **{name: array.astype(np.float32) for name, array in basis.items()})
    report = {"fitted": {"pictures": len(faces)}, "held_out": {"pictures": len(held_out), **found}}
    write_json(WEIGHTS.with_suffix(".json"), report)
    for name, value in found.items():
        print(f"{name:24}{value}")


if __name__ == "__main__":
    main()
