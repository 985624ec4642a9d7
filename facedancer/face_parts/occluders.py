"""Draws occluders of a face: hands, locks of hair, bars, glasses, blobs, textured from other pictures.

They are placed on the occlusion network's crop (`occlusion.CROP_SIZE`, `CROP_SHRINK`).
"""

import cv2
import numpy as np

from facedancer.core.alignment import landmark_template
from facedancer.face_parts.occlusion import CROP_SHRINK, CROP_SIZE


def draw_occluder(textures, random):
    """Draws an occluder.

    Args:
        textures: list of (S, S, 3) uint8 pictures with sides over 120 pixels, to take its texture from.
        random: NumPy's generator.

    Returns:
        Its colors (128, 128, 3) float32 in [0, 1], and (128, 128) float32, the covered share of each pixel.
    """
    alpha = _SHAPES[random.integers(len(_SHAPES))](random)
    colors = _surface(textures, random)
    if random.random() < 0.5:  # rounded: darker toward its edges
        inside = cv2.GaussianBlur(alpha, (0, 0), random.uniform(1.5, 5))
        colors = colors * (random.uniform(0.3, 0.9) + (1 - random.uniform(0.3, 0.9)) * inside)[..., None]
    return colors, alpha


def put_in_front(images, colors, alpha, random):
    """Puts an occluder and its shadow in front of each picture, in the same place.

    Args:
        images: list of (S, S, 3) float pictures in [0, 1].
        colors, alpha: (S, S, 3) and (S, S), as `draw_occluder` returns them.
        random: NumPy's generator.

    Returns:
        A list of (S, S, 3) float pictures in [0, 1].
    """
    if random.random() < 0.6:
        shift = np.float32([[1, 0, random.normal(0, 4)], [0, 1, random.normal(3, 4)]])
        shadow = cv2.GaussianBlur(cv2.warpAffine(alpha, shift, alpha.shape), (0, 0), random.uniform(0.8, 6))
        shade = (1 - random.uniform(0.2, 0.7) * shadow)[..., None]
        images = [image * shade for image in images]
    blurred = cv2.GaussianBlur(alpha, (0, 0), random.uniform(0.3, 0.9))[..., None]
    return [image * (1 - blurred) + colors * blurred for image in images]


def _surface(textures, random):
    """Returns an occluder's colors (128, 128, 3): part of a picture, enlarged or not, a plain color, or stripes."""
    size = CROP_SIZE
    kind = random.random()
    if kind < 0.55:
        side = int(random.uniform(12, 120))
        texture = textures[random.integers(len(textures))]
        x, y = random.integers(0, len(texture) - side, 2)
        part = texture[y : y + side, x : x + side]
        if random.random() < 0.5:
            part = np.concatenate([part, part[:, ::-1]], 1)
            part = np.concatenate([part, part[::-1]])
        colors = cv2.resize(part, (size, size), interpolation=cv2.INTER_LINEAR).astype(np.float32) / 255
        return np.clip(colors * random.uniform(0.7, 1.3) * np.exp(random.normal(0, 0.06, 3)), 0, 1).astype(np.float32)
    colors = np.ones((size, size, 1), np.float32) * random.random(3).astype(np.float32) ** 1.3
    y, x = np.mgrid[:size, :size].astype(np.float32) / size
    angle = random.uniform(0, 2 * np.pi)
    along = np.cos(angle) * x + np.sin(angle) * y
    if kind < 0.8:
        colors = colors * (1 + random.normal(0, 0.3) * along)[..., None]
    else:
        share = 0.5 + 0.5 * np.sin(along * random.uniform(10, 120) + random.uniform(0, 6))
        share = share if random.random() < 0.5 else np.float32(share > 0.5)
        colors = colors + share[..., None] * (random.random(3).astype(np.float32) - colors)
    noise = random.standard_normal((size, size, 1), np.float32) * random.uniform(0, 0.05)
    return np.clip(colors + noise, 0, 1).astype(np.float32)


_FINE = 4  # shapes are drawn at this multiple of the resolution


def _draw(function):
    canvas = np.zeros((CROP_SIZE * _FINE, CROP_SIZE * _FINE), np.uint8)
    function(canvas)
    return cv2.resize(canvas, (CROP_SIZE, CROP_SIZE), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def _blob(random):
    """A smooth closed curve, sometimes with corners."""
    corners = random.integers(3, 9)
    turn = np.sort(random.uniform(0, 2 * np.pi, corners))
    radius = random.uniform(0.06, 0.4) * random.uniform(0.5, 1.3, corners)
    center = random.uniform(-0.05, 1.05, 2)
    points = center + radius[:, None] * np.column_stack([np.cos(turn), np.sin(turn)])
    if random.random() < 0.6:
        points = _smooth_closed(points)
    return _draw(lambda canvas: cv2.fillPoly(canvas, [np.int32(points * len(canvas))], 255))


def _smooth_closed(points):
    for _ in range(3):  # Chaikin's corner cutting
        following = np.roll(points, -1, axis=0)
        points = np.stack([0.75 * points + 0.25 * following, 0.25 * points + 0.75 * following], 1).reshape(-1, 2)
    return points


def _hand(random):
    """A palm with bent fingers, entering from a border."""
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
    """Something straight: a microphone, a pen, the edge of a wall, a bar of text."""
    start, turn = random.uniform(-0.1, 1.1, 2), random.uniform(0, np.pi)
    way = np.array([np.cos(turn), np.sin(turn)]) * random.uniform(0.2, 1.5)
    thickness = np.exp(random.uniform(np.log(0.02), np.log(0.4)))

    def draw(canvas):
        n = len(canvas)
        ends = [tuple(int(value) for value in point * n) for point in (start - way / 2, start + way)]
        cv2.line(canvas, *ends, 255, max(1, int(thickness * n)))

    return _draw(draw)


def _spectacles(random):
    """Glasses frames around the eyes, sometimes with dark lenses."""
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
