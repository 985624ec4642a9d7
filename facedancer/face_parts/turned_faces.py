"""Faces that lie or stand on their head: landmarks in their own orientation.

RetinaFace finds such faces, but gives them the landmarks of an upright one. Their boxes are wider, its score is lower
and the landmarks lie elsewhere in the box: one linear map of those says which faces are in doubt, at no cost
(`fit_turned_faces`). Of these the face mesh (`dense_landmarks`) says whether a crop shows a face that is upright and
whole. Where it does not, or sees the face turned, the detector's box is looked at in eight directions. The two views
that the mesh is surest of are cut out again by the landmarks found, until they stay where they are; eyes, nose and
mouth are taken from the surer one. A picture in which no face is found may be turned, and looked at by the detector
again. A turned face of a video that the detector loses is looked for by the mesh where it was.

Upright faces keep the detector's landmarks, and so do those of which the mesh is not sure.
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
# Of people who do not exist, to which the map was not fitted, 8 % of the upright faces and all turned ones are above.
DOUBT = -0.5
# Of turned rendered people whose landmarks were right, 99 % had a higher logit.
_SURE = 10.0
# Of views that were looked at again until their landmarks stayed, right ones had a higher logit in one of the rounds.
_SURE_ENOUGH = 5.0
_HOPELESS = -2.5  # below this, none of them was right
_ELSEWHERE = 60  # degrees from which a view points elsewhere
_ROUNDS, _STAYED = 4, 0.05  # how often a view is cut out again; eye distances up to which landmarks did not move
# Upright faces: 99 % of detector and mesh lie nearer to each other, in eye distances of the template.
_AGREEMENT = 0.14
_STEP = 0.6  # likewise, how far a face may have moved since the frame before
_UPRIGHT = 20.0  # degrees, up to which the detector's landmarks are good
_DIRECTIONS = range(0, 360, 45)
_BOX_SHARE = 1.5  # side of the crop by that of the box
_NOSE_TIP = 1
_MOST = 16  # faces of a picture that are looked at, the largest
_EYE_DISTANCE = np.linalg.norm(TEMPLATE[1] - TEMPLATE[0])


def settle(image, faces, before=(), detect=None):
    """Gives turned faces of a picture landmarks in their own orientation.

    Args:
        image: (H, W, 3) uint8 RGB.
        faces: list of `retinaface.DetectedFace` in it.
        before: (n, 5, 2), landmarks of settled faces in the frame before, carried on to this one. A face that was there
            and upright, and is so by the detector, is not looked at again.
        detect: `FaceDetector.detect`, which is asked for the picture turned by 180, 90 and 270 degrees where `faces` is
            empty, until it finds some; None where that would take too long.

    Returns:
        The faces, in order, those that are turned with other landmarks; behind them turned ones of the frame before
        that the detector did not find.

    Raises:
        UserError: if the face mesh was not fetched.
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
    """Returns the landmarks of each of the faces (index, landmarks of the first look, logit), or None."""
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
    """Returns the view (landmarks, logit) that the mesh is surest of, and of those that point elsewhere the surest."""
    order = np.argsort(certainties)[::-1]
    turns = [_turn(there) for there in points]
    best = order[0]
    other = next((i for i in order if abs((turns[i] - turns[best] + 180) % 360 - 180) > _ELSEWHERE), best)
    return [(points[i], certainties[i]) for i in (best, other)]


def _settle_down(image, views):
    """Looks at views (landmarks, logit) again; returns where their landmarks stay, the mean logit, and if it is one."""
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
    """Returns faces at turned landmarks of the frame before where none was found and the mesh is sure of one."""
    found = [face.landmarks for face in faces]
    lost = [points for points in before if not _is_upright(points) and _nearest(points, found) is None][:_MOST]
    again = []
    for start, points, certainty in zip(lost, *_look(image, map(_crop_by, lost)), strict=True):
        if certainty >= _SURE and _disagreement(points, start) < _STEP and not _is_upright(points):
            again.append(DetectedFace(_box_of(points), points, float(1 / (1 + np.exp(-certainty)))))
    return again


def _box_of(landmarks):
    """A box as the detector's, about, by landmarks."""
    corners = transform_points(invert_affine(_crop_by(landmarks)), np.float32([[0, 0], [1, 1]]) * (CROP_SIZE - 1))
    middle, half = corners.mean(0), np.linalg.norm(corners[1] - corners[0]) / np.sqrt(8) / _BOX_SHARE
    return np.float32([*(middle - half), *(middle + half)])


def _is_doubtful(face, known):
    """Whether a face may be turned: by what the detector says, or by its landmarks `known` from the frame before."""
    if not np.ptp(face.landmarks, axis=0).any():
        return False  # it gives no crop, and is refused where it is to be aligned
    if not _is_upright(face.landmarks):
        return True
    if known is not None:
        return not _is_upright(known)
    return float(box_features(face) @ _load_map()) > DOUBT


@functools.cache
def _load_map():
    return np.load(WEIGHTS, allow_pickle=False)


def box_features(face):
    """Returns what a detected face says of how it is turned, (14,): score, shape of its box, landmarks in it."""
    x1, y1, x2, y2 = map(float, face.bounding_box)
    width, height = max(x2 - x1, 1e-3), max(y2 - y1, 1e-3)
    shape = np.log(width / height)
    places = (face.landmarks - (x1, y1)) / (width, height)
    return np.array([1.0, np.log(1 - face.score + 1e-5), shape, *places.ravel(), shape**2])


def _detect_turned(image, detect):
    height, width = image.shape[:2]
    right, below = width - 1, height - 1
    back = {  # of `np.rot90`: turns -> matrix from the turned picture to the picture
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
    """Returns the landmarks (n, 5, 2) that the mesh finds by matrices to its crops, in the image, and its logits."""
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
    centre = (x1 + x2) / 2, (y1 + y2) / 2
    matrix = cv2.getRotationMatrix2D(centre, degrees, CROP_SIZE / (_BOX_SHARE * max(x2 - x1, y2 - y1, 1e-3)))
    matrix[:, 2] += (CROP_SIZE - 1) / 2 - np.array(centre)
    return matrix


def _disagreement(points, others):
    """Mean distance of landmarks by the face's eye distance, which is taken from its size, as in profile it is none."""
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
    """The one of others whose middle lies within the face, or None."""
    if not len(others):
        return None
    middle = landmarks.mean(0)
    distances = np.linalg.norm(np.mean(others, axis=1) - middle, axis=1)
    nearest = int(np.argmin(distances))
    return others[nearest] if distances[nearest] < 1.5 * np.linalg.norm(landmarks - middle, axis=1).max() else None
