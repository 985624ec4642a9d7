"""Fits the maps of expression and gaze: `nice python -m facedancer.face_parts.fit_expression --work runs/expression`.

Renders people into `--work` (resumable), finds their landmarks and irises, fits the maps by least squares, and measures
them on held-out people. Writes `expression.npz`, and `expression.json` with the errors of pose, expression, gaze and
landmarks, next to this module.
"""

import argparse
import itertools
from pathlib import Path

import numpy as np

from facedancer.core.alignment import align_matrix, transform_points, warp_to_aligned
from facedancer.core.console import command
from facedancer.core.devices import select_device
from facedancer.core.files import atomic_path, write_json
from facedancer.face_parts import expression, pose
from facedancer.face_parts.dense_landmarks import LEFT_EYE, LIPS, RIGHT_EYE
from facedancer.synthetic.workers import render_many

# Numbers of rendered people and scenes; far from those of data sets, videos and the occlusion network.
HELD_OUT_FIRST, FITTED_FIRST = 44_000_000_000, 48_000_000_000
FACE_SIZE = 128
_PICTURE_SIZE = 176
# Corners of lips and eyes, among the 468 landmarks and among iBUG's 68.
_CORNERS = (LIPS[0], LIPS[10], LEFT_EYE[0], LEFT_EYE[8], RIGHT_EYE[0], RIGHT_EYE[8])
_CORNERS_68 = (48, 54, 36, 39, 45, 42)
# Strength of the ridge, as a share of the features' variance; chosen on held-out people.
_RIDGE_EXPRESSION, _RIDGE_GAZE = 1e-8, 1e-4


def render_face(number):
    """Renders the person of that number in the scene of that number.

    Returns:
        A dictionary: `face` (128, 128, 3) uint8, aligned exactly, and `corners` (6, 2), corners of lips and eyes in it.
    """
    from facedancer.synthetic.draws import draw_identity, draw_person
    from facedancer.synthetic.render import render
    from facedancer.synthetic.scenes import draw_scene

    found = render(draw_identity(number), draw_person(number), draw_scene(number), size=_PICTURE_SIZE)
    matrix = align_matrix(found.landmarks, FACE_SIZE)
    face = warp_to_aligned(found.image, matrix, FACE_SIZE)
    return {"face": face, "corners": transform_points(matrix, found.landmarks_68[list(_CORNERS_68)])}


def render_swap(number):
    """Like `render_face`, with the identity of the next number: the true swap onto this person, aligned alike."""
    from facedancer.synthetic.draws import draw_identity, draw_person
    from facedancer.synthetic.render import render
    from facedancer.synthetic.scenes import draw_scene

    found = render(draw_identity(number + 1), draw_person(number), draw_scene(number), size=_PICTURE_SIZE)
    return {"face": warp_to_aligned(found.image, align_matrix(found.landmarks, FACE_SIZE), FACE_SIZE)}


def drawn(first, count, units):
    """Returns the parameters of scenes `first` to `first + count - 1`.

    Returns:
        Weights (n, k) of the face units, gazes (n, 2) and poses (n, 3) in degrees.
    """
    from facedancer.synthetic.scenes import draw_scene

    scenes = [draw_scene(number) for number in range(first, first + count)]
    weights = np.array([[scene.expression.get(unit, 0.0) for unit in units] for scene in scenes])
    return weights, np.array([scene.gaze for scene in scenes]), np.array([scene.pose for scene in scenes])


def known_units():
    """Returns the sorted names of the face units that are drawn."""
    from facedancer.synthetic.scenes import draw_scene

    scenes = (draw_scene(FITTED_FIRST + number) for number in range(500))
    return sorted(set(itertools.chain.from_iterable(scene.expression for scene in scenes)))


def fit(faces, first):
    """Fits the maps to rendered faces.

    Args:
        faces: (n, 128, 128, 3) uint8 RGB, of the numbers from `first` on.

    Returns:
        The arrays of `expression.load_maps`, by name, without `whiten`.
    """
    units = known_units()
    weights, gaze, _ = drawn(first, len(faces), units)
    points = pose.find_landmarks(faces)
    turned = pose.turn_back(points)[0].reshape(len(faces), -1)
    to_units, points_mean, units_mean = ridge(turned, weights, _RIDGE_EXPRESSION)
    to_gaze, gaze_mean, gaze_offset = ridge(expression.gaze_features(faces, points), gaze, _RIDGE_GAZE)
    return {
        "units": np.array(units), "points_mean": points_mean, "to_units": to_units, "units_mean": units_mean,
        "gaze_mean": gaze_mean, "to_gaze": to_gaze, "gaze_offset": gaze_offset,
    }  # fmt: skip


def ridge(features, wanted, strength):
    """Returns the map (d, k) of least squares from features (n, d) to wanted (n, k), and the means of both."""
    mean, middle = features.mean(0), wanted.mean(0)
    x, y = features - mean, wanted - middle
    # By singular values, as many of the landmarks' coordinates depend on each other.
    u, values, vt = np.linalg.svd(x, full_matrices=False)
    held = values / (values**2 + strength * (values**2).sum())
    return (vt.T * held) @ (u.T @ y), mean, middle


def measure(maps, held_out, swaps, first):
    """Measures the errors of the estimators.

    Args:
        maps: from `fit`; `whiten` is added to it.
        held_out: `face` (n, 128, 128, 3) uint8 and `corners` (n, 6, 2) in pixels, of the numbers from `first` on.
        swaps: (m, 128, 128, 3) uint8, from `render_swap`, of the first m of them.

    Returns:
        A dictionary of mean errors: `pose`, degrees of yaw and pitch, without the common offset; `gaze`, degrees;
        `landmarks`, at the corners of lips and eyes, as a share of the distance between the inner eye corners;
        `expression`, see `expression_distance`. Also `expression_kept`, the share of true swaps nearer to their
        target's expression than to their source's, and `units`, name -> correlation of estimated and drawn weights.
    """
    faces, units = held_out["face"], maps["units"].tolist()
    weights, gaze, angles = drawn(first, len(faces), units)
    points = pose.find_landmarks(faces)
    found = _units_of(maps, points)
    values, vectors = np.linalg.eigh(np.cov((found - weights).T))
    kept = values > 1e-3 * values.max()  # lids of left and right are drawn as one
    maps["whiten"] = vectors[:, kept] / np.sqrt(values[kept])
    apart = np.sqrt(np.mean(((found - weights) @ maps["whiten"]) ** 2, axis=1))
    inner = np.linalg.norm(points[:, LEFT_EYE[8], :2] - points[:, RIGHT_EYE[8], :2], axis=1)
    corners = np.linalg.norm(points[:, list(_CORNERS), :2] - held_out["corners"], axis=-1).mean(1)
    turned = pose.yaw_pitch_roll(pose.estimate_pose(points))[:, :2] - angles[:, :2]
    looked = (expression.gaze_features(faces, points) - maps["gaze_mean"]) @ maps["to_gaze"] + maps["gaze_offset"]
    of_swaps = _units_of(maps, pose.find_landmarks(swaps))
    distances = [np.square((of_swaps - found[shift : len(swaps) + shift]) @ maps["whiten"]).mean(1) for shift in (0, 1)]
    return {
        "pose": float(np.linalg.norm(turned - turned.mean(0), axis=1).mean()),
        "gaze": float(expression.angle_between_gazes(looked, gaze).mean()),
        "landmarks": float((corners / inner).mean()),
        "expression": float(apart.mean()),
        "expression_kept": float((distances[0] < distances[1]).mean()),
        "units": {
            unit: round(float(np.corrcoef(found[:, index], weights[:, index])[0, 1]), 3)
            for index, unit in enumerate(units)
        },
    }


def _units_of(maps, points):
    turned = pose.turn_back(points)[0].reshape(len(points), -1)
    return (turned - maps["points_mean"]) @ maps["to_units"] + maps["units_mean"]


@command
def main(argv=None):
    parser = argparse.ArgumentParser(description="Fits the estimators of expression and gaze to rendered people.")
    parser.add_argument("--work", required=True, help="folder for the rendered faces")
    parser.add_argument(
        "--pictures", type=int, default=2500, help="number of rendered faces to fit to (default: %(default)s)"
    )
    parser.add_argument(
        "--held_out", type=int, default=500, help="number of rendered faces to measure on (default: %(default)s)"
    )
    parser.add_argument("--swaps", type=int, default=200, help="number of true swaps to measure (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="rendering processes (default: %(default)s)")
    args = parser.parse_args(argv)
    held_out = render_many(render_face, args.work, HELD_OUT_FIRST, args.held_out, args.workers)
    swaps = render_many(render_swap, Path(args.work, "swaps"), HELD_OUT_FIRST, args.swaps, args.workers)["face"]
    faces = render_many(render_face, args.work, FITTED_FIRST, args.pictures, args.workers)["face"]
    print(f"device: {select_device()}")
    maps = fit(faces, FITTED_FIRST)
    found = measure(maps, held_out, swaps, HELD_OUT_FIRST)
    with atomic_path(expression.WEIGHTS) as temporary, open(temporary, "wb") as file:
        np.savez(file, **{name: array.astype(np.float32) if array.dtype == np.float64 else array
                          for name, array in maps.items()})  # fmt: skip
    report = {"fitted": {"pictures": len(faces)}, "held_out": {"pictures": len(held_out["face"]), **found}}
    write_json(expression.WEIGHTS.with_suffix(".json"), report)
    for name, value in found.items():
        if name != "units":
            print(f"{name:16}{value:.3f}")


if __name__ == "__main__":
    main()
