"""The records of `triplets`: faces drawn into portraits, and further cases that a swapper must learn.

Besides actual triplets, there are:

- a person's own face drawn into their picture, or nothing drawn at all, so that signs of drawing do not reveal that
  something must change;
- a picture of one person with someone else as the source, without truth: the real use of a swapper; outside its mask
  the picture must stay unchanged;
- morphs between two people as the truth: faces that the data lacks;
- the same occluder in front of target and truth, so that occluders are kept.

Pixels that show no face (`face_parts.occlusion`) are never drawn: a lock of hair on the drawn face that the truth lacks
would teach the swapper to remove locks.
"""

import functools
import zipfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from facedancer.core.alignment import estimate_similarity, landmark_template
from facedancer.core.console import UserError, progress, say
from facedancer.core.files import atomic_path
from facedancer.core.images import ImageError, encode_image, read_image
from facedancer.core.records import FaceRecord
from facedancer.dataset.dataset_sharding import identity_of
from facedancer.dataset.triplets import CANVAS_SIZE, DRAWN, FACE_SIZE, SHRINK_FACTOR
from facedancer.face_parts import dense_landmarks, drawing, occluders, occlusion

# Shares of the records; the rest are actual triplets.
OWN_FACE, NOTHING_DRAWN, NO_TRUTH = 0.10, 0.07, 0.18
MORPHED, COVERED = 0.5, 0.2

# Maximum turn of the head, and maximum mean distance of landmarks from the mean face's, in pixels.
MOST_TURN, MOST_DEVIATION = 0.55, 8.0
# A partner is one of this many with the most similar head turn.
NEIGHBORS = 400
_BATCH = 32

_TO_OCCLUSION = estimate_similarity(
    landmark_template(CANVAS_SIZE, SHRINK_FACTOR), landmark_template(occlusion.CROP_SIZE, occlusion.CROP_SHRINK)
)
_FROM_OCCLUSION = cv2.invertAffineTransform(_TO_OCCLUSION)


@dataclass(frozen=True)
class Portraits:
    """Aligned pictures with landmarks and visibility.

    Attributes:
        folder: their folder.
        names: n paths below it.
        points: (n, 468, 2) float32 landmarks in pixels of the 192-pixel picture.
        shown: (n, 128, 128) uint8, 0 to 255: the occlusion network's confidence that a pixel of its crop is face.
        triangles: (m, 3) of the landmarks' mean.
    """

    folder: Path
    names: list
    points: np.ndarray
    shown: np.ndarray
    triangles: np.ndarray

    def picture(self, index):
        """Returns (192, 192, 3) uint8."""
        return read_image(self.folder / self.names[index])


def make_record(portraits, members, random, morphs=True):
    """Makes one record.

    Args:
        portraits: `Portraits`.
        members: indices of the people who may appear in it.
        random: NumPy's generator.
        morphs: whether its person may be a morph of two.

    Returns:
        `FaceRecord` with `face`, `source`, `mask` and usually `truth`; its `identity` is that of the source, None for a
        morph; its `name` is the portrait's, followed by DRAWN and the other portrait's, if any.

    Raises:
        ImageError: if a portrait can no longer be read.
    """
    kind = random.random()
    index = int(random.choice(members))
    picture, points, shown = portraits.picture(index), portraits.points[index], portraits.shown[index]
    shown = _on_canvas(shown)
    identity = identity_of(portraits.names[index])
    name = portraits.names[index]
    partner = _partner(portraits, members, index, random)
    if kind < NO_TRUTH:
        target, truth, places = picture, None, points
        source, identity = portraits.picture(partner), identity_of(portraits.names[partner])
        name += DRAWN + portraits.names[partner]
    else:
        if morphs and random.random() < MORPHED:
            identity = None
            share = random.uniform(0.3, 0.6)
            second = _partner(portraits, members, index, random)
            picture, points = morph(
                picture, points, portraits.picture(second), portraits.points[second], portraits.triangles, share, random
            )
        source = truth = picture
        if kind < NO_TRUTH + NOTHING_DRAWN:
            target, places = picture, points
        else:
            if kind < NO_TRUTH + NOTHING_DRAWN + OWN_FACE:
                partner = index
                other, other_points = picture, np.float32(points + random.normal(0, 0.4, points.shape))
            else:
                other, other_points = portraits.picture(partner), portraits.points[partner]
            other_shown = _on_canvas(portraits.shown[partner])
            name += DRAWN + portraits.names[partner]
            target, places = make_target(
                picture, points, shown, other, other_points, other_shown, portraits.triangles, random
            )
    mask = _changing_part(points, places)
    if random.random() < COVERED:
        textures = [portraits.picture(int(random.choice(members))) for _ in range(2)]
        target, truth = _covered(target, truth, textures, random)

    cut = _jittered_cut(random, turn=3.0, scale=0.05, shift=1.5)
    if random.random() < 0.5:
        cut = _mirrored(cut)
    source_cut = _jittered_cut(random, turn=6.0, scale=0.06, shift=2.5)
    if random.random() < 0.5:
        source_cut = _mirrored(source_cut)
    source = cv2.warpAffine(source, source_cut, (FACE_SIZE, FACE_SIZE), flags=cv2.INTER_LINEAR)
    if random.random() < 0.15:
        source = cv2.GaussianBlur(source, (0, 0), random.uniform(0.4, 1.2))

    def encoded(image):
        return encode_image(cv2.warpAffine(image, cut, (FACE_SIZE, FACE_SIZE), flags=cv2.INTER_LINEAR), ".jpg")

    return FaceRecord(
        face=encoded(target),
        identity=identity,
        name=name,
        source=encode_image(source, ".jpg"),
        truth=None if truth is None else encoded(truth),
        mask=encode_image(cv2.warpAffine(mask, cut, (FACE_SIZE, FACE_SIZE), flags=cv2.INTER_NEAREST), ".png"),
    )


def make_target(picture, points, shown, other, other_points, other_shown, triangles, random):
    """Draws somebody else's face into a picture.

    Args:
        picture, other: (S, S, 3) uint8.
        points, other_points: (468, 2) landmarks.
        shown, other_shown: (S, S) float32, 1 where the face is visible.
        triangles: (n, 3), see `drawing.triangulate`.
        random: NumPy's generator.

    Returns:
        The target (S, S, 3) uint8, and its landmarks (468, 2).
    """
    drawn, mask = drawing.draw_onto(np.dstack([np.float32(other), other_shown * 255]), other_points, points, triangles)
    drawn, drawn_shown = drawn[..., :3], drawn[..., 3] / 255
    if mask.sum() < 500:
        return picture, points
    if random.random() < 0.85:
        drawn = drawing.match_colors(drawn, picture, mask)
    # Where nothing was drawn (eyes, mouth, outside the mesh), use the picture's own pixels, since masks are dilated.
    drawn = np.where(mask[..., None] > 0, drawn, np.float32(picture))
    if random.random() < 0.5:  # lighting: low frequencies of the difference
        sigma, inside = random.uniform(8, 20), np.float32(mask)
        low = cv2.GaussianBlur((np.float32(picture) - drawn) * inside[..., None], (0, 0), sigma)
        drawn += random.uniform(0.3, 1) * low / (cv2.GaussianBlur(inside, (0, 0), sigma)[..., None] + 1e-3)
    if random.random() < 0.2:
        drawn = cv2.GaussianBlur(drawn, (0, 0), random.uniform(0.3, 1.2))
    alpha = _soft(mask, random) * np.minimum(shown, np.where(mask > 0, drawn_shown, 1))[..., None]
    target = np.clip(np.float32(picture) * (1 - alpha) + drawn * alpha, 0, 255).astype(np.uint8)
    if random.random() >= 0.8:
        return target, points
    # The other person's proportions, with the lips placed by the picture's expression.
    unlike = drawing.turn_of(points) - drawing.turn_of(other_points)
    shift = (
        (drawing.bring_onto(other_points, points) - points) * random.uniform(0.2, 1.0) * np.exp(-((unlike / 0.15) ** 2))
    )
    lips = drawing.lips()
    shift[lips] = shift[lips].mean(0)
    moved = points + np.float32(np.clip(shift, -10, 10))
    return drawing.bend(target, points, moved), moved


def morph(picture, points, other, other_points, triangles, share, random):
    """Morphs two people, in the first one's picture.

    Args:
        share: of the other person, 0 to 1.
        picture, points, other, other_points, triangles, random: as for `make_target`.

    Returns:
        The picture (S, S, 3) uint8 and its landmarks (468, 2) float32.
    """
    between = np.float32(points * (1 - share) + drawing.bring_onto(other_points, points) * share)
    base = np.float32(drawing.bend(picture, points, between))
    mine, mask = drawing.draw_onto(np.float32(picture), points, between, triangles)
    theirs, _ = drawing.draw_onto(np.float32(other), other_points, between, triangles)
    if random.random() < 0.7:
        theirs = drawing.match_colors(theirs, mine, mask)
    inside = np.where(mask[..., None] > 0, mine * (1 - share) + theirs * share, base)
    alpha = _soft(mask, random)
    return np.clip(base * (1 - alpha) + inside * alpha, 0, 255).astype(np.uint8), between


def find_portraits(data_dir, names, path):
    """Finds the landmarks and visible parts of all portraits, and keeps the usable portraits."""
    canvas = landmark_template(CANVAS_SIZE, SHRINK_FACTOR)
    to_mesh = estimate_similarity(canvas, dense_landmarks.TEMPLATE)
    from_mesh = cv2.invertAffineTransform(to_mesh)
    points = np.empty((len(names), dense_landmarks.POINTS, 2), np.float32)
    shown = np.empty((len(names), occlusion.CROP_SIZE, occlusion.CROP_SIZE), np.uint8)
    for start in progress(range(0, len(names), _BATCH), desc="landmarks", unit="batch"):
        part = slice(start, start + _BATCH)
        pictures = []
        for name in names[part]:
            try:
                pictures.append(read_image(data_dir / name))
            except ImageError as error:
                raise UserError(f"{data_dir / name}: {error}; align the pictures again") from None
        crops = [cv2.warpAffine(picture, to_mesh, (dense_landmarks.CROP_SIZE,) * 2) for picture in pictures]
        found = dense_landmarks.find_points(np.stack(crops))
        points[part] = found @ from_mesh[:, :2].T + from_mesh[:, 2]
        crops = [cv2.warpAffine(picture, _TO_OCCLUSION, (occlusion.CROP_SIZE,) * 2) for picture in pictures]
        shown[part] = np.rint(occlusion.visible_face(np.stack(crops))[..., 0] * 255)
    turn = drawing.turn_of(points)
    mean = points[np.abs(turn) < 0.1].mean(0) if (np.abs(turn) < 0.1).any() else points.mean(0)
    deviation = np.array([np.linalg.norm(drawing.bring_onto(one, mean) - mean, axis=1).mean() for one in points])
    kept = np.flatnonzero((np.abs(turn) <= MOST_TURN) & (deviation <= MOST_DEVIATION))
    if len(kept) < 2:
        raise UserError(f"{data_dir}: of {len(names)} portraits {len(kept)} are turned to the camera; triplets need 2")
    say(f"{len(kept)} of {len(names)} portraits are taken, the others look aside or their landmarks are unsure")
    with atomic_path(path) as temporary:
        np.savez(
            temporary,
            names=np.array([names[index] for index in kept]),
            points=points[kept],
            shown=shown[kept],
            triangles=drawing.triangulate(mean),
        )


@functools.cache
def read_portraits(data_dir, known):
    """Returns the `Portraits` that `find_portraits` wrote to a file. Raises `UserError` if it is damaged."""
    try:
        with np.load(known) as found:
            names = found["names"].tolist()
            return Portraits(Path(data_dir), names, found["points"], found["shown"], found["triangles"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        raise UserError(f"{known} is damaged; remove it, it is made again") from None


def _partner(portraits, members, index, random):
    """Returns somebody else with a similar head turn."""
    turn = drawing.turn_of(portraits.points[members])
    unlike = np.abs(turn - drawing.turn_of(portraits.points[index]))
    mine = identity_of(portraits.names[index])
    near = [place for place in members[np.argsort(unlike, kind="stable")[:NEIGHBORS]] if place != index]
    others = [place for place in near if mine is None or identity_of(portraits.names[place]) != mine]
    return int(random.choice(others or near))


def _on_canvas(shown):
    """Maps (128, 128) uint8 from the occlusion network's crop to the canvas: (192, 192) float32, 1 outside the crop."""
    canvas = cv2.warpAffine(
        shown, _FROM_OCCLUSION, (CANVAS_SIZE, CANVAS_SIZE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    # Uncertain pixels count as face: nose shadows and dark eyes are often uncertain.
    return np.clip((np.float32(canvas) / 255 - 0.25) * 2, 0, 1)


def _soft(mask, random):
    """Returns a mask (S, S) with its edge moved and feathered, (S, S, 1) float32."""
    grow = int(random.integers(-4, 3))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * abs(grow) + 1,) * 2)
    mask = cv2.erode(mask, kernel) if grow < 0 else cv2.dilate(mask, kernel)
    return np.clip(cv2.GaussianBlur(np.float32(mask), (0, 0), random.uniform(1.5, 4.0)), 0, 1)[..., None]


def _changing_part(points, places):
    """Returns the dilated hull of both sets of landmarks, (S, S) uint8, 255 inside."""
    mask = np.zeros((CANVAS_SIZE, CANVAS_SIZE), np.uint8)
    hull = cv2.convexHull(np.rint(np.concatenate([points, places])).astype(np.int32))
    cv2.fillConvexPoly(mask, hull, 255)
    return cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (15, 15)))


def _covered(target, truth, textures, random):
    """Returns target and truth (if any) behind the same occluder."""
    colors, alpha = occluders.draw_occluder(textures, random)
    size = (CANVAS_SIZE, CANVAS_SIZE)
    colors = cv2.warpAffine(colors.astype(np.float32), _FROM_OCCLUSION, size, borderMode=cv2.BORDER_REPLICATE)
    alpha = cv2.warpAffine(alpha, _FROM_OCCLUSION, size, borderMode=cv2.BORDER_REPLICATE)
    images = [np.float32(image) / 255 for image in (target, truth) if image is not None]
    images = [
        np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
        for image in occluders.put_in_front(images, colors, alpha, random)
    ]
    return images[0], images[1] if truth is not None else None


def _jittered_cut(random, turn, scale, shift):
    """Returns canvas_to_face (2, 3) with a detector's errors: degrees, share and pixels are standard deviations."""
    center = (CANVAS_SIZE - 1) / 2
    matrix = cv2.getRotationMatrix2D((center, center), random.normal(0, turn), np.exp(random.normal(0, scale)))
    matrix[:, 2] += (FACE_SIZE - CANVAS_SIZE) / 2 + random.normal(0, shift, 2)
    return matrix


def _mirrored(canvas_to_face):
    return np.float64([[-1, 0, FACE_SIZE - 1], [0, 1, 0]])[:, :2] @ canvas_to_face + [[0, 0, FACE_SIZE - 1], [0, 0, 0]]
