"""What the occlusion network learns from: rendered people with exact labels, and what is pasted over them.

A rendered picture becomes a crop about the face, kept with its labels; from it come ever new examples, aligned as badly
as a detector does it, behind things of many kinds, in other light, through other cameras.
"""

from dataclasses import replace

import cv2
import numpy as np

from facedancer.core.alignment import align_matrix, estimate_similarity, landmark_template, warp_to_aligned
from facedancer.face_parts.occlusion import CROP_SHRINK, CROP_SIZE
from facedancer.synthetic.truth import BACKGROUND, FACE_LABELS

# Of the crops that are kept: as fine as the network's, and wide enough to be turned and shifted.
KEPT_SIZE, KEPT_SHRINK = 168, 0.65
_PICTURE_SIZE = 240
_SCENES_A_PERSON = 4


def render_crop(number):
    """Renders the picture of that number.

    Returns:
        (168, 168, 4) uint8: the crop about the face, RGB, and its labels (`synthetic.truth.LABELS`).
    """
    from facedancer.synthetic.draws import draw_identity, draw_person
    from facedancer.synthetic.render import render
    from facedancer.synthetic.scenes import OCCLUDERS, draw_scene

    person = number // _SCENES_A_PERSON
    random = np.random.default_rng([number, *b"occlusion"])
    scene = draw_scene(number)
    # Things in front of faces are rare in pictures; here they are what is to be learned.
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
    return np.dstack([image, labels])


def is_face(labels):
    """Returns which labels are of the face, as float32."""
    return np.isin(labels, FACE_LABELS).astype(np.float32)


def plain_example(crop):
    """Returns the network's crop of a kept one, aligned exactly: (128, 128, 3) uint8, its labels (128, 128) uint8."""
    return _cut(crop, landmark_template(KEPT_SIZE, KEPT_SHRINK))


def random_example(crops, index, random):
    """Returns an example made of a kept crop: (128, 128, 3) uint8, and (128, 128) float32, 1 where the face shows.

    Args:
        crops: (n, 168, 168, 4) uint8, from `render_crop`; parts of others may be pasted on.
        index: which of them.
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
    """A crop by landmarks that are as far off as a detector's."""
    template = landmark_template(KEPT_SIZE, KEPT_SHRINK)
    size = np.linalg.norm(template[1] - template[0])
    points = template + random.normal(0, 0.05, template.shape) * size
    turn, scale = random.normal(0, 0.09), np.exp(random.normal(0, 0.07))
    centre = points.mean(0)
    rotation = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return _cut(crop, (points - centre) @ rotation.T + centre + random.normal(0, 0.05, 2) * size)


def _cut(crop, landmarks):
    matrix = estimate_similarity(landmarks, landmark_template(CROP_SIZE, CROP_SHRINK))
    size, border = (CROP_SIZE, CROP_SIZE), cv2.BORDER_REPLICATE
    image = cv2.warpAffine(crop[..., :3], matrix, size, flags=cv2.INTER_LINEAR, borderMode=border)
    return image, cv2.warpAffine(crop[..., 3], matrix, size, flags=cv2.INTER_NEAREST, borderMode=border)


# ------------------------------------------------------------------------------------------------- things in front


def _cover(image, shown, crops, random):
    """Puts something in front of the face, and its shadow on it."""
    if random.random() < 0.2:
        colours, alpha = _somebody_else(crops, random)
    else:
        alpha = _SHAPES[random.integers(len(_SHAPES))](random)
        colours = _surface(crops, random)
        if random.random() < 0.5:  # rounded: darker towards its edges
            inside = cv2.GaussianBlur(alpha, (0, 0), random.uniform(1.5, 5))
            colours = colours * (random.uniform(0.3, 0.9) + (1 - random.uniform(0.3, 0.9)) * inside)[..., None]
    if random.random() < 0.6:
        shift = np.float32([[1, 0, random.normal(0, 4)], [0, 1, random.normal(3, 4)]])
        shadow = cv2.GaussianBlur(cv2.warpAffine(alpha, shift, alpha.shape), (0, 0), random.uniform(0.8, 6))
        image = image * (1 - random.uniform(0.2, 0.7) * shadow)[..., None]
    blurred = cv2.GaussianBlur(alpha, (0, 0), random.uniform(0.3, 0.9))[..., None]
    return image * (1 - blurred) + colours * blurred, shown * (alpha < 0.5)


def _somebody_else(crops, random):
    """Another person, who stands in front and to a side."""
    image, labels = _random_cut(crops[random.integers(len(crops))], random)
    side = random.choice([-1, 1]) * random.uniform(0.3, 0.9) * CROP_SIZE
    shift = np.float32([[1, 0, side], [0, 1, random.normal(0, 0.25) * CROP_SIZE]])
    there = (labels != BACKGROUND).astype(np.float32)
    size = (CROP_SIZE, CROP_SIZE)
    return cv2.warpAffine(image.astype(np.float32) / 255, shift, size), cv2.warpAffine(there, shift, size)


def _surface(crops, random):
    """Colours (128, 128, 3) of a thing: a part of some picture, enlarged or not, one colour, or stripes."""
    size = CROP_SIZE
    kind = random.random()
    if kind < 0.55:
        side = int(random.uniform(12, 120))
        x, y = random.integers(0, KEPT_SIZE - side, 2)
        part = crops[random.integers(len(crops)), y : y + side, x : x + side, :3]
        if random.random() < 0.5:
            part = np.concatenate([part, part[:, ::-1]], 1)
            part = np.concatenate([part, part[::-1]])
        colours = cv2.resize(part, (size, size), interpolation=cv2.INTER_LINEAR).astype(np.float32) / 255
        return np.clip(colours * random.uniform(0.7, 1.3) * np.exp(random.normal(0, 0.06, 3)), 0, 1).astype(np.float32)
    colours = np.ones((size, size, 1), np.float32) * random.random(3).astype(np.float32) ** 1.3
    y, x = np.mgrid[:size, :size].astype(np.float32) / size
    angle = random.uniform(0, 2 * np.pi)
    along = np.cos(angle) * x + np.sin(angle) * y
    if kind < 0.8:
        colours = colours * (1 + random.normal(0, 0.3) * along)[..., None]
    else:
        share = 0.5 + 0.5 * np.sin(along * random.uniform(10, 120) + random.uniform(0, 6))
        share = share if random.random() < 0.5 else np.float32(share > 0.5)
        colours = colours + share[..., None] * (random.random(3).astype(np.float32) - colours)
    noise = random.standard_normal((size, size, 1), np.float32) * random.uniform(0, 0.05)
    return np.clip(colours + noise, 0, 1).astype(np.float32)


_FINE = 4  # shapes are drawn at so many times the resolution


def _draw(function):
    canvas = np.zeros((CROP_SIZE * _FINE, CROP_SIZE * _FINE), np.uint8)
    function(canvas)
    return cv2.resize(canvas, (CROP_SIZE, CROP_SIZE), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def _blob(random):
    """A smooth closed curve, at times with corners."""
    corners = random.integers(3, 9)
    turn = np.sort(random.uniform(0, 2 * np.pi, corners))
    radius = random.uniform(0.06, 0.4) * random.uniform(0.5, 1.3, corners)
    centre = random.uniform(-0.05, 1.05, 2)
    points = centre + radius[:, None] * np.column_stack([np.cos(turn), np.sin(turn)])
    if random.random() < 0.6:
        points = _smooth_closed(points)
    return _draw(lambda canvas: cv2.fillPoly(canvas, [np.int32(points * len(canvas))], 255))


def _smooth_closed(points):
    for _ in range(3):  # Chaikin's corner cutting
        following = np.roll(points, -1, axis=0)
        points = np.stack([0.75 * points + 0.25 * following, 0.25 * points + 0.75 * following], 1).reshape(-1, 2)
    return points


def _hand(random):
    """A palm with bent fingers that comes from a border."""
    turn = random.uniform(0, 2 * np.pi)
    inwards = np.array([np.cos(turn), np.sin(turn)])
    across = np.array([-inwards[1], inwards[0]])
    palm = np.array([0.5, 0.5]) - inwards * random.uniform(0.15, 0.6) + across * random.normal(0, 0.2)
    width, spread = random.uniform(0.06, 0.11), random.uniform(0.6, 1.6)

    def draw(canvas):
        n = len(canvas)

        def stroke(points, thickness):
            cv2.polylines(canvas, [np.int32(np.array(points) * n)], False, 255, max(1, int(thickness * n)), cv2.LINE_AA)

        stroke([palm - inwards * 0.9, palm], width * 3.2)
        for finger in range(random.integers(1, 6)):
            side = (finger - 1.5) * width
            way = inwards + across * (finger - 1.5) * 0.15 * spread + across * random.normal(0, 0.1)
            bent = way + across * random.normal(0, 0.35)
            knuckle = palm + across * side + inwards * 0.02
            middle = knuckle + way * random.uniform(0.08, 0.2)
            stroke([palm, knuckle, middle, middle + bent * random.uniform(0.03, 0.18)], width * random.uniform(0.8, 1))

    return _draw(draw)


def _strands(random):
    """Locks of hair, from above or a side."""
    start = random.uniform([-0.1, -0.1], [1.1, 0.4])
    end = start + random.normal(0, 0.25, 2) + [0, random.uniform(0.2, 0.9)]
    bend = (start + end) / 2 + random.normal(0, 0.15, 2)
    count, loose = random.integers(3, 60), random.uniform(0.01, 0.07)
    t = np.linspace(0, 1, 12)[:, None]

    def draw(canvas):
        for _ in range(count):
            a, b, c = (point + random.normal(0, loose, 2) for point in (start, bend, end))
            line = (1 - t) ** 2 * a + 2 * t * (1 - t) * b + t**2 * c
            cv2.polylines(canvas, [np.int32(line * len(canvas))], False, 255, int(random.integers(2, 7)), cv2.LINE_AA)

    return _draw(draw)


def _bar(random):
    """Something straight: a microphone's stick, a pen, the edge of a wall, a bar of text."""
    start, turn = random.uniform(-0.1, 1.1, 2), random.uniform(0, np.pi)
    way = np.array([np.cos(turn), np.sin(turn)]) * random.uniform(0.2, 1.5)
    thickness = np.exp(random.uniform(np.log(0.02), np.log(0.4)))

    def draw(canvas):
        n = len(canvas)
        ends = [tuple(int(value) for value in point * n) for point in (start - way / 2, start + way)]
        cv2.line(canvas, *ends, 255, max(1, int(thickness * n)))

    return _draw(draw)


def _spectacles(random):
    """Frames of glasses about the eyes, now and then with dark lenses."""
    eyes = landmark_template(1.0, CROP_SHRINK)[:2] + random.normal(0, 0.012, (2, 2))
    wide, tall = random.uniform(0.09, 0.13), random.uniform(0.055, 0.11)
    corner, wire = random.uniform(2, 5), int(np.exp(random.uniform(np.log(3), np.log(16))))
    turn = np.linspace(0, 2 * np.pi, 40)
    c, s = np.cos(turn), np.sin(turn)
    rim = np.column_stack(
        [wide * np.sign(c) * np.abs(c) ** (2 / corner), tall * np.sign(s) * np.abs(s) ** (2 / corner)]
    )
    dark, upper_only = random.random() < 0.3, random.random() < 0.2

    def draw(canvas):
        n = len(canvas)
        for eye in eyes:
            points = np.int32((eye + rim + [0, 0.01]) * n)
            if dark:
                cv2.fillPoly(canvas, [points], 255)
            part = points[20:] if upper_only and not dark else points
            cv2.polylines(canvas, [part], not upper_only, 255, wire, cv2.LINE_AA)
        inner, outer = eyes[0, 0] + wide, eyes[1, 0] - wide
        y = eyes[:, 1].mean()
        cv2.line(canvas, (int(inner * n), int(y * n)), (int(outer * n), int(y * n)), 255, wire)
        for x, side in ((eyes[0, 0] - wide, -1), (eyes[1, 0] + wide, 1)):
            cv2.line(canvas, (int(x * n), int(y * n)), (int((x + side * 0.15) * n), int((y + 0.01) * n)), 255, wire)

    return _draw(draw)


_SHAPES = (_blob, _hand, _hand, _strands, _bar, _spectacles)


# ------------------------------------------------------------------------------------------------- light and cameras


def light(image, random):
    """Changes light and colours of an (H, W, 3) float picture in [0, 1]."""
    size = image.shape[0]
    if random.random() < 0.7:
        field = random.normal(0, random.uniform(0.05, 0.45), (4, 4, 1)) + random.normal(0, 0.04, (4, 4, 3))
        field = cv2.resize(field.astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
        image = image * np.exp(field)
    if random.random() < 0.2:  # a shadow with an edge, which is no thing
        turn, y_x = random.uniform(0, 2 * np.pi), np.mgrid[:size, :size].astype(np.float32) / size - 0.5
        along = np.cos(turn) * y_x[1] + np.sin(turn) * y_x[0] + random.normal(0, 0.2)
        edge = 1 / (1 + np.exp(-along * np.exp(random.uniform(np.log(8), np.log(120)))))
        image = image * (1 - random.uniform(0.2, 0.65) * edge)[..., None]
    image = np.clip(image, 0, 1.5) ** np.exp(random.normal(0, 0.25)) * np.exp(random.normal(0, 0.22))
    image = image * np.exp(random.normal(0, 0.09, 3))
    grey = image @ np.array([0.3, 0.59, 0.11])
    saturation = 0.0 if random.random() < 0.06 else np.exp(random.normal(0, 0.3))
    image = grey[..., None] + saturation * (image - grey[..., None])
    return np.clip((image - 0.45) * np.exp(random.normal(0, 0.15)) + 0.45, 0, 1).astype(np.float32)


def photograph(image, random):
    """Spoils an (H, W, 3) float picture in [0, 1] as cameras and compression do; returns uint8."""
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
