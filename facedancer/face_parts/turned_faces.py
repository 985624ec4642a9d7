"""Landmarks of faces that are tilted or upside down, in the face's own orientation.

RetinaFace finds such faces, but gives them an upright face's landmarks. Their boxes are wider, their scores are lower
and the landmarks lie elsewhere in the box; a linear map of these says which faces are doubtful, at almost no cost
(`fit_turned_faces`). For those, the face mesh (`dense_landmarks`) decides whether a crop shows an upright, whole face.
If it does not, or finds the face turned, the mesh tries the detector's box in eight orientations. The two views that it
is surest of are cropped again by the landmarks found until these stay in place; eyes, nose and mouth are taken from the
surer one. An image without a face may be rotated and given to the detector again. In a video, the mesh searches for a
turned face that the detector has lost at its previous position.

Upright faces, and those of which the mesh is not sure, keep the detector's landmarks.
"""

import functools
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from facedancer.core.alignment import (
    estimate_similarity,
    invert_affine,
    transform_points,
    warp_to_aligned,
)
from facedancer.face_parts.dense_landmarks import CROP_SIZE, LEFT_EYE, LIPS, RIGHT_EYE, TEMPLATE, find_faces
from facedancer.retinaface import DetectedFace

WEIGHTS = Path(__file__).with_name("turned_faces.npy")
# On held-out images of people who do not exist, 8 % of the upright faces and all turned ones lie above.
DOUBT = -0.5
# 99 % of turned rendered faces whose landmarks were right had a higher logit.
_SURE = 10.0
# Of views repeated until their landmarks stayed in place, right ones had a higher logit in one of the rounds.
_SURE_ENOUGH = 5.0
_HOPELESS = -2.5  # below this logit, no view was right
_ELSEWHERE = 60  # degrees between two views that point elsewhere
_ROUNDS, _STAYED = 4, 0.05  # maximum repetitions of a view; eye distances within which landmarks stay in place
# For 99 % of upright faces, detector and mesh differ by less, in eye distances of the template.
_AGREEMENT = 0.14
_STEP = 0.6  # likewise, maximum movement of a face between frames
_UPRIGHT = 20.0  # degrees of tilt up to which the detector's landmarks are good
_DIRECTIONS = range(0, 360, 45)
_BOX_SHARE = 1.5  # side of the crop divided by that of the box
_NOSE_TIP = 1
_MOST = 16  # maximum number of faces checked per image, the largest first
_EYE_DISTANCE = np.linalg.norm(TEMPLATE[1] - TEMPLATE[0])


def settle(image, faces, before=(), detect=None):
    """Returns the faces of an image, with the landmarks of turned ones in their own orientation.

    Args:
        image: (H, W, 3) uint8 RGB.
        faces: list of `retinaface.DetectedFace` in it.
        before: (n, 5, 2), landmarks of the previous frame's settled faces, carried to this frame, in pixels. A face
            that was upright there, and is upright by the detector, is not checked again.
        detect: `FaceDetector.detect`. If `faces` is empty, it is called on the image rotated by 180, 90 and 270
            degrees until it finds some; None skips that.

    Returns:
        The faces in order, turned ones with new landmarks, followed by turned faces of the previous frame that the
        detector did not find.

    Raises:
        UserError: if the face mesh is not installed.
    """
    if not faces and detect:
        faces = _detect_turned(image, detect)
    known = [_nearest(face.landmarks, before) for face in faces]
    doubtful = [i for i, face in enumerate(faces) if _is_doubtful(face, known[i])]
    doubtful = sorted(doubtful, key=lambda i: -faces[i].area)[:_MOST]
    starts = [faces[i].landmarks if known[i] is None or _is_upright(known[i]) else known[i] for i in doubtful]
    settled, searched = list(faces), []
    for index, start, points, certainty in zip(doubtful, starts, *_look(image, map(_crop_by, starts)), strict=True):
        if certainty < _SURE or _disagreement(points, start) > _AGREEMENT:
            searched.append((index, points, certainty))
        else:
            settled[index] = _turned(faces[index], points)
    for (index, *_), points in zip(searched, _search(image, faces, searched), strict=True):
        if points is not None:
            settled[index] = _turned(faces[index], points)
    return settled + _find_again(image, settled, before)


def _search(image, faces, searched):
    """Returns the landmarks (5, 2) of each face `(index, landmarks of its first view, logit)`, or None."""
    if not searched:
        return []
    crops = [_crop_of(faces[index].bounding_box, degrees) for index, *_ in searched for degrees in _DIRECTIONS]
    seen, sure = (np.split(part, len(searched)) for part in _look(image, crops))
    found = []
    for (_, first, certainty), there, logits in zip(searched, seen, sure, strict=True):
        found += _two_ways([first, *there], [certainty, *logits])
    settled = _settle_down(image, found)
    best = [max(pair, key=lambda view: view[1]) for pair in zip(settled[::2], settled[1::2], strict=True)]
    return [points if is_sure else None for points, _, is_sure in best]


def _two_ways(points, certainties):
    """Returns the two surest views `(landmarks, logit)` that point in different directions."""
    order = np.argsort(certainties)[::-1]
    turns = [_turn(there) for there in points]
    best = order[0]
    other = next((i for i in order if abs((turns[i] - turns[best] + 180) % 360 - 180) > _ELSEWHERE), best)
    return [(points[i], certainties[i]) for i in (best, other)]


def _settle_down(image, views):
    """Repeats views `(landmarks, logit)`; returns `(final landmarks, mean logit, whether it is a face)` for each."""
    points, logits = [there for there, _ in views], [[certainty] for _, certainty in views]
    moved = np.full(len(views), np.inf)
    for _ in range(_ROUNDS):
        going = [i for i, step in enumerate(moved) if step > _STAYED and logits[i][-1] > _HOPELESS]
        for i, there, certainty in zip(going, *_look(image, [_crop_by(points[i]) for i in going]), strict=True):
            moved[i], points[i] = _disagreement(there, points[i]), there
            logits[i].append(certainty)
    return [
        (there, np.mean(seen), max(seen) >= _SURE_ENOUGH and step <= _AGREEMENT)
        for there, seen, step in zip(points, logits, moved, strict=True)
    ]


def _find_again(image, faces, before):
    """Returns turned faces of the previous frame that were not found, if the mesh is sure of them."""
    found = [face.landmarks for face in faces]
    lost = [points for points in before if not _is_upright(points) and _nearest(points, found) is None][:_MOST]
    again = []
    for start, points, certainty in zip(lost, *_look(image, map(_crop_by, lost)), strict=True):
        if certainty >= _SURE and _disagreement(points, start) < _STEP and not _is_upright(points):
            again.append(DetectedFace(_box_of(points), points, float(1 / (1 + np.exp(-certainty)))))
    return again


def _box_of(landmarks):
    """Returns an approximate detector box for landmarks."""
    corners = transform_points(invert_affine(_crop_by(landmarks)), np.float32([[0, 0], [1, 1]]) * (CROP_SIZE - 1))
    middle, half = corners.mean(0), np.linalg.norm(corners[1] - corners[0]) / np.sqrt(8) / _BOX_SHARE
    return np.float32([*(middle - half), *(middle + half)])


def _is_doubtful(face, known):
    """Whether a face may be turned, by the detector's output and its landmarks `known` from the previous frame."""
    if not np.ptp(face.landmarks, axis=0).any():
        return False  # it cannot be cropped; alignment will refuse it
    if not _is_upright(face.landmarks):
        return True
    if known is not None:
        return not _is_upright(known)
    return float(box_features(face) @ _load_map()) > DOUBT


@functools.cache
def _load_map():
    return np.load(WEIGHTS, allow_pickle=False)


def box_features(face):
    """Returns features of a `DetectedFace` that depend on its tilt, (14,) float64: score, box shape, landmarks."""
    x1, y1, x2, y2 = map(float, face.bounding_box)
    width, height = max(x2 - x1, 1e-3), max(y2 - y1, 1e-3)
    shape = np.log(width / height)
    places = (face.landmarks - (x1, y1)) / (width, height)
    return np.array([1.0, np.log(1 - face.score + 1e-5), shape, *places.ravel(), shape**2])


def _detect_turned(image, detect):
    height, width = image.shape[:2]
    right, below = width - 1, height - 1
    back = {  # quarter turns of `np.rot90` -> matrix from the rotated image to the image
        2: [[-1, 0, right], [0, -1, below]],
        1: [[0, -1, right], [1, 0, 0]],
        3: [[0, 1, 0], [-1, 0, below]],
    }
    for turns, matrix in back.items():
        (faces,) = detect([np.ascontiguousarray(np.rot90(image, turns))])
        if faces:
            return [_moved(face, matrix) for face in faces]
    return []


def _moved(face, matrix):
    corners = transform_points(matrix, face.bounding_box.reshape(2, 2))
    box = np.float32([*corners.min(0), *corners.max(0)])
    return replace(face, bounding_box=box, landmarks=np.float32(transform_points(matrix, face.landmarks)))


def _turned(face, points):
    return face if _is_upright(points) else replace(face, landmarks=points)


def _look(image, crops):
    """Returns the mesh's landmarks (n, 5, 2) in the image and its logits (n,), for n matrices from image to crop."""
    crops = list(crops)
    if not crops:
        return np.zeros((0, 5, 2), np.float32), np.zeros(0)
    points, certainties = find_faces(np.stack([warp_to_aligned(image, crop, CROP_SIZE) for crop in crops]))
    eyes = [points[:, eye].mean(1) for eye in (LEFT_EYE, RIGHT_EYE)]
    five = np.stack([*eyes, points[:, _NOSE_TIP], points[:, LIPS[0]], points[:, LIPS[10]]], axis=1)
    found = [transform_points(invert_affine(crop), here) for crop, here in zip(crops, five, strict=True)]
    return np.float32(found), certainties


def _crop_by(landmarks):
    return estimate_similarity(landmarks, TEMPLATE)


def _crop_of(box, degrees):
    x1, y1, x2, y2 = map(float, box)
    center = (x1 + x2) / 2, (y1 + y2) / 2
    matrix = cv2.getRotationMatrix2D(center, degrees, CROP_SIZE / (_BOX_SHARE * max(x2 - x1, y2 - y1, 1e-3)))
    matrix[:, 2] += (CROP_SIZE - 1) / 2 - np.array(center)
    return matrix


def _disagreement(points, others):
    """Mean distance of landmarks as a share of the eye distance, derived from face size as it vanishes in profile."""
    crop = _crop_by(others)
    difference = transform_points(crop, points) - transform_points(crop, others)
    return np.linalg.norm(difference, axis=1).mean() / _EYE_DISTANCE


def _is_upright(landmarks):
    if landmarks is None:
        return False
    return abs(_turn(landmarks)) < _UPRIGHT


def _turn(landmarks):
    """Degrees by which a face is turned."""
    (a, _, _), (b, _, _) = _crop_by(landmarks)
    return np.degrees(np.arctan2(b, a))


def _nearest(landmarks, others):
    """Returns the landmarks of `others` whose center lies within the face, or None."""
    if not len(others):
        return None
    middle = landmarks.mean(0)
    distances = np.linalg.norm(np.mean(others, axis=1) - middle, axis=1)
    nearest = int(np.argmin(distances))
    return others[nearest] if distances[nearest] < 1.5 * np.linalg.norm(landmarks - middle, axis=1).max() else None
