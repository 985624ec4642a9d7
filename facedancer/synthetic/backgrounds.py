"""Backgrounds: a studio backdrop, a room, a street or a landscape, painted flat and out of focus."""

import cv2
import numpy as np

# Painted at this height for any picture size, then blurred like a lens.
PAINTED_HEIGHT = 192


def paint_background(kind, seed, brightness, height, width):
    """Returns (height, width, 3) float32 linear.

    Args:
        kind: a name of `scenes.BACKGROUNDS`.
        seed: of its contents.
        brightness: (3,) light that falls on people; the background gets about as much.
    """
    random = np.random.default_rng([seed, *kind.encode()])
    canvas_width = max(16, round(PAINTED_HEIGHT * width / height))
    canvas = np.zeros((PAINTED_HEIGHT, canvas_width, 3), np.float32)
    canvas = _KINDS[kind](canvas, random)
    light = np.asarray(brightness) * np.exp(random.normal(0, 0.22))
    blur = {"studio": 6.0}.get(kind, float(np.exp(random.uniform(np.log(1.2), np.log(5.0)))))
    canvas = cv2.GaussianBlur(canvas * light.astype(np.float32), (0, 0), blur)
    return np.clip(cv2.resize(canvas, (width, height), interpolation=cv2.INTER_CUBIC), 0.001, 4.0)


def _studio(canvas, random):
    y, x = _grid(canvas)
    glow = np.exp(-(((x - random.uniform(0.3, 0.7)) / 0.55) ** 2) - ((y - random.uniform(0.35, 0.75)) / 0.5) ** 2)
    canvas[:] = _color(random, 0.02, 0.5, 0.25) * (0.45 + 0.75 * glow[..., None])
    return canvas


def _room(canvas, random):
    width = canvas.shape[1]
    _, x = _grid(canvas)
    wall = _color(random, 0.15, 0.6, 0.12)
    side = random.choice([-1, 1])
    canvas[:] = wall * (0.75 + 0.4 * (0.5 + side * (x - 0.5)) + 0.12 * _clouds(canvas, random, 3))[..., None]
    if random.random() < 0.35:  # the corner of the room, with a darker second wall
        corner = int(random.uniform(0.1, 0.9) * width)
        part = canvas[:, :corner] if side > 0 else canvas[:, corner:]
        part *= random.uniform(0.55, 0.8)
    if random.random() < 0.5:
        _box(canvas, 0, random.uniform(0.8, 1.0), 1, 1.1, _color(random, 0.05, 0.3, 0.15))
    things = random.permutation(["window", "shelf", "pictures", "lamp", "door", "curtain", "plant", "sofa"])
    for thing in things[: random.integers(2, 5)]:
        _THINGS[thing](canvas, random)
    return canvas


def _window(canvas, random):
    left, top = random.uniform(-0.2, 0.75), random.uniform(-0.2, 0.15)
    width, height = random.uniform(0.3, 0.55), random.uniform(0.5, 0.75)
    _box(canvas, left, top, left + width, top + height, _color(random, 0.3, 0.7, 0.05))
    panes = random.integers(1, 4)
    outside = np.array([0.9, 1.0, 1.15]) * random.uniform(0.9, 2.2)
    for pane in range(panes):
        start = left + 0.015 + pane * width / panes
        _box(canvas, start, top + 0.02, start + width / panes - 0.025, top + height - 0.02, outside)
        green = np.array([0.25, 0.42, 0.18]) * random.uniform(0.5, 1.6)
        skyline = top + height * random.uniform(0.55, 0.8)
        _box(canvas, start, skyline, start + width / panes - 0.025, top + height - 0.02, green)


def _shelf(canvas, random):
    left, right = random.uniform(-0.3, 0.6), 0.0
    right = left + random.uniform(0.35, 0.7)
    wood = _color(random, 0.05, 0.3, 0.2) * [1.2, 1.0, 0.75]
    _box(canvas, left, -0.1, right, 1.1, wood * 0.5)
    rows = random.integers(3, 6)
    for row in range(rows):
        floor = (row + 1) / rows
        place = left + 0.02
        while place < right - 0.04:
            wide = random.uniform(0.012, 0.04)
            if random.random() < 0.82:
                top = floor - random.uniform(0.10, 0.8 / rows)
                _box(canvas, place, top, place + wide, floor, _color(random, 0.03, 0.5, 0.5))
            place += wide + 0.004
        _box(canvas, left, floor, right, floor + 0.018, wood)
    for edge in (left, right):
        _box(canvas, edge - 0.015, -0.1, edge + 0.015, 1.1, wood)


def _pictures(canvas, random):
    for _ in range(random.integers(1, 4)):
        left, top = random.uniform(-0.1, 0.85), random.uniform(0.0, 0.35)
        width, height = random.uniform(0.12, 0.28), random.uniform(0.14, 0.3)
        _box(canvas, left, top, left + width, top + height, _color(random, 0.02, 0.4, 0.2))
        _box(
            canvas, left + 0.015, top + 0.02, left + width - 0.015, top + height - 0.02, _color(random, 0.5, 0.8, 0.05)
        )
        _box(canvas, left + 0.04, top + 0.05, left + width - 0.04, top + height - 0.05, _color(random, 0.05, 0.6, 0.5))


def _lamp(canvas, random):
    x, y = random.uniform(0.0, 1.0), random.uniform(0.1, 0.5)
    at_y, at_x = _grid(canvas)
    glow = np.exp(-(((at_x - x) / 0.16) ** 2) - ((at_y - y) / 0.2) ** 2)
    warm = np.array([1.0, 0.72, 0.42])
    canvas += (glow[..., None] * warm * random.uniform(0.15, 0.5)).astype(np.float32)
    _box(canvas, x - 0.006, y, x + 0.006, 1.1, (0.05, 0.05, 0.05))
    _polygon(
        canvas, [(x - 0.05, y - 0.06), (x + 0.05, y - 0.06), (x + 0.08, y + 0.05), (x - 0.08, y + 0.05)], warm * 2.5
    )


def _door(canvas, random):
    left = random.uniform(-0.1, 0.8)
    width, top = random.uniform(0.28, 0.4), random.uniform(-0.2, 0.12)
    color = _color(random, 0.15, 0.7, 0.12)
    _box(canvas, left - 0.02, top - 0.025, left + width + 0.02, 1.1, color * 1.25)
    _box(canvas, left, top, left + width, 1.1, color)
    for panel in (0.08, 0.52):
        _box(canvas, left + 0.05, top + panel, left + width - 0.05, top + panel + 0.36, color * 0.82)


def _curtain(canvas, random):
    width = canvas.shape[1]
    start = int(random.uniform(0.0, 0.85) * width)
    end = min(start + int(random.uniform(0.15, 0.5) * width), width)
    x = np.arange(start, end) / width
    folds = 0.75 + 0.3 * np.sin(x * random.uniform(40, 90) + np.sin(x * 13))
    canvas[:, start:end] = _color(random, 0.1, 0.6, 0.25) * folds[None, :, None]


def _plant(canvas, random):
    x, y = random.uniform(-0.05, 1.05), random.uniform(0.5, 0.9)
    for _ in range(50):
        angle, length = random.uniform(-np.pi, 0), random.uniform(0.08, 0.34)
        tip = (x + 0.8 * length * np.cos(angle), y + length * np.sin(angle))
        wide = random.uniform(0.006, 0.02)
        green = np.array([0.06, 0.15, 0.035]) * np.exp(random.normal(0, 0.5))
        _polygon(canvas, [(x, y), (tip[0] - wide, tip[1] + wide), tip, (tip[0] + wide, tip[1] + wide)], green)
    _box(canvas, x - 0.06, y, x + 0.06, y + 0.25, _color(random, 0.1, 0.5, 0.3))


def _sofa(canvas, random):
    color = _color(random, 0.05, 0.4, 0.3)
    top = random.uniform(0.55, 0.75)
    _box(canvas, -0.1, top, random.uniform(0.6, 1.1), 1.1, color)
    for _ in range(random.integers(1, 4)):
        left = random.uniform(0, 0.8)
        _box(canvas, left, top - 0.08, left + 0.2, top + 0.14, _color(random, 0.05, 0.6, 0.4))


_THINGS = {
    "window": _window, "shelf": _shelf, "pictures": _pictures, "lamp": _lamp, "door": _door, "curtain": _curtain,
    "plant": _plant, "sofa": _sofa,
}  # fmt: skip


def _street(canvas, random):
    canvas[:] = _sky(canvas, random)
    horizon = random.uniform(0.5, 0.75)
    for far in range(3):
        place = random.uniform(-0.3, 0.0)
        haze = 0.25 * (2 - far)
        while place < 1.1:
            wide, top = random.uniform(0.12, 0.4), horizon - random.uniform(0.12, 0.3 + 0.25 * far)
            stone = _color(random, 0.06, 0.5, 0.2) * (1 - haze) + haze * 0.6
            _box(canvas, place, top, place + wide, horizon + 0.1, stone)
            across, down = max(2, int(wide / 0.05)), max(2, int((horizon - top) / 0.07))
            glass = np.array([0.5, 0.6, 0.7]) * random.uniform(0.15, 0.9)
            for i in range(across):
                for j in range(down):
                    left, high = place + (i + 0.25) * wide / across, top + (j + 0.25) * (horizon - top) / down
                    bright = glass * (4.0 if random.random() < 0.04 else random.uniform(0.6, 1.1))
                    _box(canvas, left, high, left + 0.5 * wide / across, high + 0.5 * (horizon - top) / down, bright)
            place += wide + random.uniform(0.0, 0.06) * (2 - far)
    _box(canvas, -0.1, horizon, 1.1, 1.1, _color(random, 0.12, 0.35, 0.06))
    for _ in range(random.integers(0, 9)):  # trees, people, cars
        x, tall = random.uniform(0, 1), random.uniform(0.05, 0.2)
        _box(canvas, x, horizon - 0.4 * tall, x + random.uniform(0.4, 1.2) * tall, horizon + 0.6 * tall,
             _color(random, 0.02, 0.6, 0.6))  # fmt: skip
    return canvas


def _landscape(canvas, random):
    width = canvas.shape[1]
    canvas[:] = _sky(canvas, random)
    y, _ = _grid(canvas)
    columns = np.linspace(0, 1, width)
    horizon = random.uniform(0.3, 0.7)
    near = np.array([0.10, 0.17, 0.04]) if random.random() < 0.75 else np.array([0.42, 0.35, 0.22])
    layers = random.integers(2, 5)
    for layer in range(layers):
        far = 1 - layer / max(layers - 1, 1)
        ridge = sum(
            np.sin(columns * frequency * random.uniform(0.7, 1.3) + random.uniform(0, 7)) / frequency**0.8
            for frequency in (3, 7, 15, 40)
        )
        line = horizon + 0.10 * layer + 0.12 * (0.4 + far) * ridge * random.uniform(0.4, 1.0)
        haze = np.array([0.45, 0.55, 0.68])
        color = (near * (1 - 0.75 * far) + haze * 0.75 * far) * np.exp(random.normal(0, 0.15))
        ground = y > line[None, :]
        texture = 1 + (0.45 - 0.3 * far) * _clouds(canvas, random, 6 + 10 * (1 - far))
        canvas[ground] = (color * texture[..., None])[ground]
    if random.random() < 0.3:  # a lake
        _box(canvas, -0.1, random.uniform(0.75, 0.9), 1.1, 1.1, np.array([0.25, 0.36, 0.48]) * random.uniform(0.6, 1.4))
    for _ in range(random.integers(0, 14)):
        x0, base, tall = random.uniform(-0.05, 1.05), random.uniform(horizon, 1.0), random.uniform(0.12, 0.55)
        dark = np.array([0.035, 0.065, 0.018]) * np.exp(random.normal(0, 0.4))
        _box(canvas, x0 - 0.012 * tall, base - tall * 0.5, x0 + 0.012 * tall, base, dark * [1.3, 0.9, 0.8])
        for _ in range(14):
            a, r = random.uniform(0, 2 * np.pi), 0.22 * tall * random.random() ** 0.5
            _disc(canvas, x0 + r * np.cos(a), base - 0.68 * tall + 1.3 * r * np.sin(a), 0.10 * tall,
                  dark * np.exp(random.normal(0.2, 0.35)))  # fmt: skip
    return canvas


def _sky(canvas, random):
    y, _ = _grid(canvas)
    mood = random.random()
    if mood < 0.55:
        high, low = np.array([0.28, 0.50, 0.95]), np.array([0.75, 0.88, 1.0])
    elif mood < 0.85:
        high, low = np.array([0.62, 0.66, 0.72]), np.array([0.85, 0.87, 0.88])
    else:
        high, low = np.array([0.35, 0.40, 0.62]), np.array([1.25, 0.72, 0.40])
    sky = high + (low - high) * np.clip(y * 1.6, 0, 1)[..., None]
    clouds = np.clip(_clouds(canvas, random, 4) * 1.6, 0, 1)[..., None] * random.uniform(0, 1)
    return (sky * (1 - clouds) + clouds * np.array([0.95, 0.95, 0.97])) * random.uniform(0.7, 1.5)


_KINDS = {"studio": _studio, "room": _room, "street": _street, "landscape": _landscape}


def _grid(canvas):
    """Returns the pixels' y (down) and x as fractions, (H, W) each."""
    height, width = canvas.shape[:2]
    return np.meshgrid((np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij")


def _clouds(canvas, random, cells):
    """Returns soft random patches (H, W), roughly in [-1, 1]."""
    height, width = canvas.shape[:2]
    total = np.zeros((height, width), np.float32)
    for octave in range(3):
        count = int(cells * 2**octave) + 2
        patch = random.uniform(-1, 1, (count, count)).astype(np.float32)
        total += 0.55**octave * cv2.resize(patch, (width, height), interpolation=cv2.INTER_CUBIC)
    return total * 0.7


def _color(random, low, high, vivid):
    """Returns a color with a random brightness between two reflectances."""
    color = np.exp(random.uniform(np.log(low), np.log(high))) * np.exp(random.normal(0, vivid, 3))
    return np.clip(color, 0.01, 1.2)


def _pixels(canvas, points):
    height, width = canvas.shape[:2]
    # Keeps the aspect ratio: x is in picture heights from the center.
    return np.array([[(x - 0.5) * height + width / 2, y * height] for x, y in points]).round().astype(np.int32)


def _box(canvas, left, top, right, bottom, color):
    _polygon(canvas, [(left, top), (right, top), (right, bottom), (left, bottom)], color)


def _polygon(canvas, points, color):
    cv2.fillPoly(canvas, [_pixels(canvas, points)], [float(c) for c in color])


def _disc(canvas, x, y, radius, color):
    center = tuple(int(c) for c in _pixels(canvas, [(x, y)])[0])
    cv2.circle(canvas, center, max(1, round(radius * canvas.shape[0])), [float(c) for c in color], -1)
