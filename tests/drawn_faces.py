"""Drawn faces: pictures that are nobody's, on which the tests run every command from end to end.

A head is a height field over its own coordinates (u right, v down, both about -1 to 1), lit by one soft lamp, with
features painted on; turning it moves what lies nearer further. That is enough for the detector to find it.
"""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

_SKIN = np.array([[0.95, 0.78, 0.68], [0.88, 0.68, 0.54], [0.76, 0.55, 0.41], [0.56, 0.38, 0.28], [0.42, 0.28, 0.21]])
_HAIR = np.array([[0.08, 0.06, 0.05], [0.23, 0.14, 0.09], [0.42, 0.28, 0.16], [0.68, 0.52, 0.31], [0.5, 0.5, 0.5]])
_IRIS = np.array([[0.25, 0.15, 0.08], [0.35, 0.26, 0.12], [0.28, 0.42, 0.30], [0.30, 0.44, 0.60]])


def draw_face(seed, size=256, variation=0):
    """Draws a face.

    Args:
        seed: the person: proportions and colors.
        size: side of the picture in pixels.
        variation: which picture of the person: pose, expression, light, background. 0 looks ahead.

    Returns:
        (size, size, 3) uint8 RGB, the same for the same arguments.
    """
    person = np.random.default_rng([seed, 1])
    scene = np.random.default_rng([seed, variation, 2])
    moved = min(variation, 1)
    skin, hair, iris = (_between(person, colors) for colors in (_SKIN, _HAIR, _IRIS))
    width, jaw = person.uniform(0.70, 0.80), person.uniform(0.08, 0.30)
    eye_gap, eye_size, eye_height = person.uniform(0.31, 0.37), person.uniform(0.9, 1.15), person.uniform(-0.2, -0.12)
    brow_gap, brow_weight, brow_tilt = person.uniform(0.15, 0.2), person.uniform(0.8, 1.6), person.uniform(-0.1, 0.15)
    nose_length, nose_width = person.uniform(0.36, 0.46), person.uniform(0.85, 1.2)
    mouth_height, mouth_width, lips = person.uniform(0.52, 0.58), person.uniform(0.24, 0.31), person.uniform(0.8, 1.3)
    hairline, hair_length, parting = person.uniform(-0.8, -0.62), person.choice([0.0, 1.4]), person.uniform(-0.3, 0.3)
    lip_color = skin * [0.82, 0.52, 0.50]

    yaw, pitch, roll = (
        moved * scene.uniform(-0.22, 0.22),
        moved * scene.uniform(-0.1, 0.1),
        moved * scene.normal(0, 0.1),
    )
    smile, opened, lids = moved * scene.uniform(-0.02, 0.07), moved * scene.uniform(0, 0.07), scene.uniform(0.85, 1.1)
    light = np.array([scene.uniform(-0.6, 0.6), scene.uniform(-0.7, -0.2), 1.0])
    zoom, shift = scene.uniform(0.58, 0.68), moved * scene.uniform(-0.06, 0.06, 2)

    # Picture -> head, then what a point in front of the axis sees after turning.
    y, x = (np.mgrid[:size, :size] + 0.5) * (2.0 / size) - 1.0
    x, y = (x - shift[0]) / zoom, (y - shift[1] - 0.04) / zoom
    x, y = x * np.cos(roll) + y * np.sin(roll), y * np.cos(roll) - x * np.sin(roll)
    pixel = 2.0 / (size * zoom)

    def outline(u, v):
        narrow = width * (1.0 - jaw * np.clip(v, 0, 1) ** 2)
        return np.hypot(u / narrow, v)

    depth = np.sqrt(np.clip(1.0 - outline(x, y) ** 2, 0.0, 1.0))
    u, v = x + yaw * depth, y + pitch * depth
    inside = _cover(outline(x, y) - 1.0, pixel)

    nose_top, nose_tip = eye_height + 0.05, eye_height + nose_length
    along = np.clip((v - nose_top) / (nose_tip - nose_top), 0.0, 1.0)
    ridge = np.exp(-((u / (nose_width * (0.06 + 0.07 * along))) ** 2))
    height = 0.75 * depth + 0.16 * along * ridge * _smooth((nose_tip + 0.04 - v) / 0.06)
    for side in (-1, 1):
        height -= 0.05 * _bump(u - side * eye_gap, v - eye_height, 0.17, 0.1)
        height += 0.04 * _bump(u - side * eye_gap, v - eye_height + brow_gap, 0.2, 0.07)
        height += 0.03 * _bump(u - side * 0.4, v - 0.3, 0.2, 0.2)
    height += 0.03 * _bump(u, v - mouth_height, mouth_width, 0.1) + 0.04 * _bump(u, v - 0.85, 0.2, 0.12)
    down, right = np.gradient(height, pixel)
    normal = np.stack([-right, -down, np.ones_like(right)], -1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    lit = np.clip(normal @ (light / np.linalg.norm(light)), 0.0, 1.0)
    shade = (0.45 + 0.65 * lit + 0.12 * lit**24)[..., None]

    picture = _background(scene, x, y)
    if hair_length:
        picture = _paint(picture, hair * 0.75, _cover(np.hypot(x / (width + 0.2), (y - 0.1) / 1.25) - 1.0, pixel))
    shirt = _between(scene, np.array([[0.2, 0.25, 0.4], [0.7, 0.7, 0.72], [0.45, 0.2, 0.2]]))
    picture = _paint(picture, shirt, _cover(0.98 - y + 0.3 * np.cos(1.2 * x), 4 * pixel))
    neck = np.maximum(np.abs(x) - 0.42 * width / 0.75, y - 1.4 + 0.2 * (1 - np.abs(x)))
    picture = _paint(picture, skin * 0.62, _cover(np.where(y > 0.3, neck, 1.0), 3 * pixel))
    for side in (-1, 1):
        picture = _paint(
            picture,
            skin * 0.7,
            _cover(np.hypot((x - side * width + yaw * 0.1) / 0.1, (y - 0.02) / 0.22) - 1.0, 8 * pixel),
        )

    face = np.broadcast_to(skin, (size, size, 3))
    cheeks = sum(_bump(u - side * 0.42, v - 0.28, 0.2, 0.16) for side in (-1, 1))
    face = _paint(face, skin * [1.0, 0.8, 0.78], 0.5 * cheeks)
    for side in (-1, 1):
        face = _paint(face, skin * 0.68, 0.6 * _bump(u - side * eye_gap, v - eye_height, 0.18, 0.09))
        nostril = _bump(u - side * 0.07 * nose_width, v - nose_tip - 0.035, 0.035 * nose_width, 0.02)
        face = _paint(face, skin * 0.3, np.clip(1.2 * nostril, 0, 1))
        wing = _bump(u - side * 0.135 * nose_width, v - nose_tip + 0.01, 0.022, 0.06)
        face = _paint(face, skin * 0.6, 0.6 * wing)
    face = _paint(face, skin * 0.6, 0.4 * _bump(u, v - nose_tip - 0.05, 0.15 * nose_width, 0.025))
    face = _paint(face, skin * 0.75, 0.4 * _bump(u, v - mouth_height - 0.15, 0.16, 0.03))

    # Mouth: the line between the lips bends up at the corners when smiling; teeth and dark show when open.
    reach = u / (mouth_width * (1.0 + 2.0 * smile))
    bend = mouth_height - smile * (reach**2) * 1.2 + 0.012 * np.cos(2 * np.pi * reach) * (np.abs(reach) < 1)
    taper = np.sqrt(np.clip(1.0 - reach**2, 0.0, 1.0))
    gap = 0.5 * opened * taper
    upper, lower = bend - gap - 0.055 * lips * taper, bend + gap + 0.075 * lips * taper
    face = _paint(face, lip_color, _cover(np.maximum(upper - v, v - lower), 4 * pixel) * (taper > 0))
    inner = _cover(np.maximum(bend - gap - v, v - bend - gap) - 0.008 * taper, 2 * pixel) * (taper > 0)
    face = _paint(face, lip_color * 0.3, inner)
    teeth = _cover(np.maximum(bend - gap - v, v - bend + 0.2 * gap), 2 * pixel) * (np.abs(reach) < 0.8)
    face = _paint(face, np.array([0.9, 0.88, 0.84]), teeth * (opened > 0.02))
    face = face * shade

    for side in (-1, 1):
        du, dv = u - side * eye_gap - 0.25 * yaw * moved, v - eye_height
        across = (u - side * eye_gap) / (0.125 * eye_size)
        almond = np.clip(1.0 - across**2, 0.0, 1.0)
        top, bottom = -0.062 * eye_size * lids * almond**0.7, 0.04 * eye_size * almond
        opening = _cover(np.maximum(top - dv, dv - bottom), 2 * pixel) * (almond > 0)
        radius = np.hypot(du, dv + 0.008) / (0.052 * eye_size)
        ball = np.broadcast_to(np.array([0.90, 0.88, 0.86]), face.shape)
        ball = _paint(ball, iris, _cover(radius - 1.0, 10 * pixel))
        ball = _paint(ball, np.array([0.03, 0.03, 0.03]), _cover(radius - 0.45, 10 * pixel))
        ball = _paint(ball, np.ones(3), _bump(du - 0.015, dv + 0.025, 0.008, 0.008))
        ball = ball * np.clip(0.65 + 0.35 * (dv - top) / 0.04, 0.5, 1.0)[..., None]
        face = face * (1.0 - opening[..., None]) + ball * opening[..., None]
        lash = np.exp(-(((dv - top) / 0.014) ** 2)) * (np.abs(across) < 1.1)
        face = _paint(face, hair * 0.3, 0.9 * lash)
        crease = np.exp(-(((dv - 1.5 * top + 0.02) / 0.012) ** 2)) * np.clip(almond * 2, 0, 1)
        face = _paint(face, skin * 0.45, 0.4 * crease)
        out = side * (u - side * eye_gap) / 0.2
        brow = dv + brow_gap + brow_tilt * 0.1 * out + 0.05 * (1.0 - out**2)
        thick = 0.026 * brow_weight * np.clip(1.1 - 0.5 * out, 0.3, 1.5)
        hairs = np.exp(-((brow / thick) ** 2)) * _smooth((1.0 - np.abs(out)) / 0.3)
        face = _paint(face, hair * 0.6, 0.85 * hairs)

    picture = picture * (1.0 - inside[..., None]) + face * inside[..., None]
    top_hair = np.hypot(x / (width + 0.09), y + 0.15) - 1.0
    fringe = hairline + 0.9 * np.clip(np.abs(u - parting) - 0.25, 0, 1) ** 1.5
    cover = _cover(top_hair, 2 * pixel) * _cover(v - fringe, 10 * pixel)
    strands = 0.9 + 0.12 * np.sin(40 * x + 6 * np.sin(3 * y + seed)) - 0.25 * x**2 - 0.2 * x * np.sign(light[0])
    picture = _paint(picture, hair * strands[..., None], cover)

    grain = cv2.GaussianBlur(scene.normal(0, 1, (size, size, 1)).astype(np.float32), (0, 0), 0.7)[..., None]
    return np.rint(np.clip(picture + 0.012 * grain, 0.0, 1.0) * 255).astype(np.uint8)


def write_dataset(folder, identities, per_identity, size=256):
    """Writes `folder/person_<i>/<j>.png` and returns the paths, sorted."""
    paths = []
    for seed in range(identities):
        for variation in range(per_identity):
            path = Path(folder, f"person_{seed:02d}", f"{variation:02d}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw_face(seed, size, variation)).save(path)
            paths.append(path)
    return paths


def _between(generator, colors):
    """A color between two neighbors of a palette."""
    place = generator.uniform(0, len(colors) - 1)
    index = int(place)
    return colors[index] + (place - index) * (colors[index + 1] - colors[index])


def _smooth(value):
    value = np.clip(value, 0.0, 1.0)
    return value * value * (3.0 - 2.0 * value)


def _cover(distance, softness):
    """1 where a signed distance is negative, 0 where positive, soft between."""
    return _smooth(0.5 - distance / (2.0 * softness))


def _bump(u, v, width, height):
    return np.exp(-((u / width) ** 2) - (v / height) ** 2)


def _paint(picture, color, cover):
    cover = np.asarray(cover)[..., None]
    return picture * (1.0 - cover) + color * cover


def _background(generator, x, y):
    """A gradient with a few soft patches."""
    first, second = generator.uniform(0.15, 0.85, (2, 3))
    picture = first + (second - first) * _smooth(0.5 + 0.3 * x + 0.2 * y)[..., None]
    for _ in range(4):
        center = generator.uniform(-1.5, 1.5, 2)
        patch = _bump(x - center[0], y - center[1], *generator.uniform(0.2, 0.8, 2))
        picture = _paint(picture, generator.uniform(0.1, 0.9, 3), 0.5 * patch)
    return picture
