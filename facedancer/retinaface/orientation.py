"""Heads that lie, hang or stand upside down: the landmarks of their own orientation.

RetinaFace finds most of these faces, but gives them the landmarks of an upright face, or of one turned halfway, with
scores near 1. The face mesh was trained on upright faces: on a crop that its landmarks place wrongly, its output for
the presence of a face is low, and that costs little to ask. So every face is judged; what stands and is present stays
as it was found. Others are looked at again in a small copy of their surroundings, turned upright: first by the roll of
their own landmarks, then, where no face is present still, by a quarter, a half and three quarters of a turn more.
"""

from dataclasses import dataclass, replace

import numpy as np

from facedancer.core.alignment import estimate_similarity, invert_affine, roll_of, transform_points, warp_to_aligned
from facedancer.retinaface.anchors import suppress

# Logit of the presence from which on landmarks are believed. Of 152 photographs of upright faces none had less than 17,
# reduced to 24 pixels none less than 10; of 59 rendered faces with landmarks turned by more than 60 degrees all but one
# had less than 9.
PRESENT = 9.0
UNSURE = 0.3  # score from which on a face that is not found yet is looked at again
MOST_ROLL = 20.0  # degrees; the landmarks of faces that roll more are worse
_SIDE = 192  # of a turned copy in pixels
_SURROUNDINGS = 2.4  # side of a turned copy by that of the face's box
_BATCH = 16


@dataclass(frozen=True, eq=False)
class _Judged:
    """A face of the picture `owner`; `roll` in degrees, as it was when the network saw it."""

    owner: int
    face: object
    roll: float
    presence: float = 0.0

    @property
    def is_present(self):
        return self.presence >= PRESENT

    @property
    def is_settled(self):
        return self.is_present and abs(self.roll) <= MOST_ROLL


def settle_orientations(images, faces, find, score_threshold):
    """Gives faces that roll the landmarks of their own orientation.

    Args:
        images: list of (H, W, 3) uint8 RGB.
        faces: for each picture a list of `DetectedFace`, scored `min(UNSURE, score_threshold)` and more.
        find: function of a list of pictures that returns such lists.
        score_threshold: faces that stay score higher than this.

    Returns:
        For each picture a list of `DetectedFace`, by falling score. A face that is present in no orientation stays as
        it was found.
    """
    found = [_Judged(owner, face, roll_of(face.landmarks)) for owner, here in enumerate(faces) for face in here]
    found = _judge(images, found)
    for turns in ((0,), (90, 180, 270)):
        unsettled = [i for i, one in enumerate(found) if not (one.is_settled if turns == (0,) else one.is_present)]
        tries = [(i, roll_of(found[i].face.landmarks) + turn) for i in unsettled for turn in turns]
        seen = _look_again(images, [(found[i], roll) for i, roll in tries], find)
        for (i, _), one in zip(tries, seen, strict=True):
            if one and one.is_settled and (one.presence > found[i].presence or not found[i].is_settled):
                found[i] = one
    kept = [[] for _ in images]
    for one in found:
        if one.face.score > score_threshold:
            kept[one.owner].append(one)
    return [_without_doubles(here) for here in kept]


def _judge(images, found):
    """Returns them with their presence."""
    from facedancer.face_parts.dense_landmarks import CROP_SIZE, TEMPLATE, find_presence

    judged = []
    for start in range(0, len(found), _BATCH):
        part = found[start : start + _BATCH]
        crops = [
            warp_to_aligned(images[one.owner], estimate_similarity(one.face.landmarks, TEMPLATE), CROP_SIZE)
            for one in part
        ]
        judged += [
            replace(one, presence=float(presence))
            for one, presence in zip(part, find_presence(np.stack(crops)), strict=True)
        ]
    return judged


def _look_again(images, tries, find):
    """Looks for faces in turned copies of their surroundings, and once more where they still roll there.

    Args:
        images: list of pictures.
        tries: list of `(_Judged, roll)`, by which the copy is turned back.
        find: of `settle_orientations`.

    Returns:
        For each try a `_Judged`, or None where no face was found.
    """
    found = _find_turned(images, tries, find)
    again = [i for i, one in enumerate(found) if one and abs(one.roll) > MOST_ROLL]
    second = _find_turned(images, [(found[i], roll_of(found[i].face.landmarks)) for i in again], find)
    for i, one in zip(again, second, strict=True):
        found[i] = one or found[i]
    there = [i for i, one in enumerate(found) if one]
    for i, one in zip(there, _judge(images, [found[i] for i in there]), strict=True):
        found[i] = one
    return found


def _find_turned(images, tries, find):
    found = []
    for start in range(0, len(tries), _BATCH):
        part = tries[start : start + _BATCH]
        places = [_place(one.face.bounding_box, roll) for one, roll in part]
        copies = [
            warp_to_aligned(images[one.owner], place, _SIDE) for (one, _), place in zip(part, places, strict=True)
        ]
        for (one, _), place, faces in zip(part, places, find(copies), strict=True):
            faces = [face for face in faces if np.abs(face.landmarks.mean(0) - (_SIDE - 1) / 2).max() < _SIDE / 4]
            if not faces:
                found.append(None)
                continue
            face = max(faces, key=lambda face: face.score)
            found.append(_Judged(one.owner, _put_back(face, place), roll_of(face.landmarks)))
    return found


def _place(box, roll):
    """Returns the similarity (2, 3) from a picture to the copy that shows a box turned back by some degrees."""
    scale = _SIDE / (_SURROUNDINGS * max(box[2] - box[0], box[3] - box[1], 1.0))
    angle = np.radians(roll)
    turn = scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    centre = (box[:2] + box[2:]).astype(np.float64) / 2
    return np.column_stack([turn, (_SIDE - 1) / 2 - turn @ centre])


def _put_back(face, place):
    """Returns a face of a copy as one of the picture; its box is that of the ellipse in the copy's box."""
    back = invert_affine(place)
    x1, y1, x2, y2 = face.bounding_box
    centre = transform_points(back, [(x1 + x2) / 2, (y1 + y2) / 2])
    half = np.sqrt((back[:, :2] ** 2) @ [(x2 - x1) ** 2, (y2 - y1) ** 2]) / 2
    return replace(
        face,
        bounding_box=np.concatenate([centre - half, centre + half]).astype(np.float32),
        landmarks=transform_points(back, face.landmarks).astype(np.float32),
    )


def _without_doubles(found):
    """Of faces in one place the most present stays; by falling score."""
    if len(found) < 2:
        return [one.face for one in found]
    boxes = np.array([one.face.bounding_box for one in found])
    kept = suppress(boxes, np.array([one.presence for one in found]))
    return sorted((found[i].face for i in kept), key=lambda face: -face.score)
