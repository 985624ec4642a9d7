"""Training data of the occlusion network: rendered people with exact labels, and occluders pasted over them.

A rendered picture becomes a crop around the face, stored with its labels. Each training example is a new variation of
it: aligned with a detector's errors, behind many kinds of occluders, in other light, through other cameras.
"""

from dataclasses import replace

import cv2
import numpy as np

from facedancer.core.alignment import align_matrix, estimate_similarity, landmark_template, warp_to_aligned
from facedancer.face_parts.occluders import draw_occluder, put_in_front
from facedancer.face_parts.occlusion import CROP_SHRINK, CROP_SIZE
from facedancer.synthetic.truth import BACKGROUND, FACE_LABELS

# Stored crops have the network's resolution, and room for rotation and shifts.
KEPT_SIZE, KEPT_SHRINK = 168, 0.65
_PICTURE_SIZE = 240
_SCENES_A_PERSON = 4


def render_crop(number):
    """Renders the picture with the given number.

    Returns:
        `crop`, (168, 168, 4) uint8: RGB around the face, and its labels (`synthetic.truth.LABELS`).
    """
    from facedancer.synthetic.draws import draw_identity, draw_person
    from facedancer.synthetic.render import render
    from facedancer.synthetic.scenes import OCCLUDERS, draw_scene

    person = number // _SCENES_A_PERSON
    random = np.random.default_rng([number, *b"occlusion"])
    scene = draw_scene(number)
    # Occluders are rare in rendered pictures, but are what the network must learn.
    scene = replace(
        scene,
        glasses=int(random.integers(2**31)) if random.random() < 0.35 else None,
        occluder=str(random.choice(list(OCCLUDERS), p=list(OCCLUDERS.values()))) if random.random() < 0.5 else None,
    )
    face = render(draw_identity(person), draw_person(person), scene, size=_PICTURE_SIZE)
    matrix = align_matrix(face.landmarks, KEPT_SIZE, KEPT_SHRINK)
    image = warp_to_aligned(face.image, matrix, KEPT_SIZE, cv2.BORDER_REPLICATE)
    labels = cv2.warpAffine(
        face.labels, matrix, (KEPT_SIZE, KEPT_SIZE), flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE
    )
    return {"crop": np.dstack([image, labels])}


def is_face(labels):
    """Returns 1 for labels that belong to the face, else 0, as float32."""
    return np.isin(labels, FACE_LABELS).astype(np.float32)


def plain_example(crop):
    """Returns the exactly aligned network crop of a stored crop: (128, 128, 3) uint8, its labels (128, 128) uint8."""
    return _cut(crop, landmark_template(KEPT_SIZE, KEPT_SHRINK))


def random_example(crops, index, random):
    """Returns an example from a stored crop: (128, 128, 3) uint8, and (128, 128) float32, 1 where the face is visible.

    Args:
        crops: (n, 168, 168, 4) uint8, from `render_crop`; parts of others may be pasted over it.
        index: the crop to use.
        random: NumPy's generator.
    """
    image, labels = _random_cut(crops[index], random)
    shown = is_face(labels)
    image = image.astype(np.float32) / 255
    for _ in range(random.choice(3, p=[0.4, 0.4, 0.2])):
        image, shown = _cover(image, shown, crops, random)
    if random.random() < 0.5:
        image, shown = image[:, ::-1], shown[:, ::-1]
    return photograph(light(image, random), random), np.ascontiguousarray(shown)


def _random_cut(crop, random):
    """Crops by landmarks with a detector's errors."""
    template = landmark_template(KEPT_SIZE, KEPT_SHRINK)
    size = np.linalg.norm(template[1] - template[0])
    points = template + random.normal(0, 0.05, template.shape) * size
    turn, scale = random.normal(0, 0.09), np.exp(random.normal(0, 0.07))
    center = points.mean(0)
    rotation = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return _cut(crop, (points - center) @ rotation.T + center + random.normal(0, 0.05, 2) * size)


def _cut(crop, landmarks):
    matrix = estimate_similarity(landmarks, landmark_template(CROP_SIZE, CROP_SHRINK))
    size, border = (CROP_SIZE, CROP_SIZE), cv2.BORDER_REPLICATE
    image = cv2.warpAffine(crop[..., :3], matrix, size, flags=cv2.INTER_LINEAR, borderMode=border)
    return image, cv2.warpAffine(crop[..., 3], matrix, size, flags=cv2.INTER_NEAREST, borderMode=border)


# ------------------------------------------------------------------------------------------------- things in front


def _cover(image, shown, crops, random):
    """Puts an occluder in front of the face, and its shadow on it."""
    if random.random() < 0.2:
        colors, alpha = _somebody_else(crops, random)
    else:
        colors, alpha = draw_occluder(crops[..., :3], random)
    (image,) = put_in_front([image], colors, alpha, random)
    return image, shown * (alpha < 0.5)


def _somebody_else(crops, random):
    """Another person, standing in front and to one side."""
    image, labels = _random_cut(crops[random.integers(len(crops))], random)
    side = random.choice([-1, 1]) * random.uniform(0.3, 0.9) * CROP_SIZE
    shift = np.float32([[1, 0, side], [0, 1, random.normal(0, 0.25) * CROP_SIZE]])
    there = (labels != BACKGROUND).astype(np.float32)
    size = (CROP_SIZE, CROP_SIZE)
    return cv2.warpAffine(image.astype(np.float32) / 255, shift, size), cv2.warpAffine(there, shift, size)


# ------------------------------------------------------------------------------------------------- light and cameras


def light(image, random):
    """Changes lighting and colors of an (H, W, 3) float picture in [0, 1]."""
    size = image.shape[0]
    if random.random() < 0.7:
        field = random.normal(0, random.uniform(0.05, 0.45), (4, 4, 1)) + random.normal(0, 0.04, (4, 4, 3))
        field = cv2.resize(field.astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
        image = image * np.exp(field)
    if random.random() < 0.2:  # a shadow with an edge, which is not an occluder
        turn, y_x = random.uniform(0, 2 * np.pi), np.mgrid[:size, :size].astype(np.float32) / size - 0.5
        along = np.cos(turn) * y_x[1] + np.sin(turn) * y_x[0] + random.normal(0, 0.2)
        edge = 1 / (1 + np.exp(-along * np.exp(random.uniform(np.log(8), np.log(120)))))
        image = image * (1 - random.uniform(0.2, 0.65) * edge)[..., None]
    image = np.clip(image, 0, 1.5) ** np.exp(random.normal(0, 0.25)) * np.exp(random.normal(0, 0.22))
    image = image * np.exp(random.normal(0, 0.09, 3))
    gray = image @ np.array([0.3, 0.59, 0.11])
    saturation = 0.0 if random.random() < 0.06 else np.exp(random.normal(0, 0.3))
    image = gray[..., None] + saturation * (image - gray[..., None])
    return np.clip((image - 0.45) * np.exp(random.normal(0, 0.15)) + 0.45, 0, 1).astype(np.float32)


def photograph(image, random):
    """Degrades an (H, W, 3) float picture in [0, 1] as cameras and compression do; returns uint8."""
    size = image.shape[:2]
    if random.random() < 0.4:
        factor = np.exp(random.uniform(0, np.log(3.5)))
        small = (max(8, int(size[1] / factor)), max(8, int(size[0] / factor)))
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        kind = cv2.INTER_CUBIC if random.random() < 0.5 else cv2.INTER_LINEAR
        image = cv2.resize(image, size[::-1], interpolation=kind)
    if random.random() < 0.3:
        image = cv2.GaussianBlur(image, (0, 0), random.uniform(0.3, 1.6))
    elif random.random() < 0.1:
        length = int(random.integers(3, 9))
        kernel = np.zeros((length, length), np.float32)
        turn, middle = random.uniform(0, np.pi), (length - 1) / 2
        way = np.array([np.cos(turn), np.sin(turn)]) * middle
        ends = [tuple(round(value) for value in middle + sign * way) for sign in (-1, 1)]
        cv2.line(kernel, *ends, 1)
        image = cv2.filter2D(image, -1, kernel / kernel.sum())
    elif random.random() < 0.15:  # sharpened
        image = image + random.uniform(0.3, 1.2) * (image - cv2.GaussianBlur(image, (0, 0), 1.2))
    if random.random() < 0.6:
        image = image + random.standard_normal(image.shape, np.float32) * random.uniform(0, 0.06)
    image = (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
    if random.random() < 0.6:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(random.integers(20, 96))]
        image = cv2.imdecode(cv2.imencode(".jpg", np.ascontiguousarray(image), quality)[1], cv2.IMREAD_COLOR)
    return np.ascontiguousarray(image)
