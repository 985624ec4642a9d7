"""Occluders of a face: glasses, a hand, a phone, a cup, a microphone, loose strands of hair.

They are placed on the resting head and turn with it, independently of the face below: another identity does not move
them.
"""

from dataclasses import dataclass

import numpy as np

from facedancer.synthetic.draws import SKIN_TONES
from facedancer.synthetic.geometry import rotation, unit
from facedancer.synthetic.head import load_head
from facedancer.synthetic.truth import GLASSES, OCCLUDER


@dataclass(frozen=True, eq=False)
class Thing:
    """A mesh on the resting head.

    Attributes:
        vertices: (n, 3) float32; `triangles` (f, 3) int32.
        color: (3,) linear, or (n, 3).
        shine: strength of its highlights.
        label: one of `truth.LABELS`.
        clear: transparency, the share of the background that shows through.
    """

    vertices: np.ndarray
    triangles: np.ndarray
    color: np.ndarray
    shine: float
    label: int
    clear: float = 0.0


def build_things(scene):
    """Returns the `Thing`s of a scene, glasses first."""
    things = []
    if scene.glasses is not None:
        things += _glasses(np.random.default_rng([scene.glasses, *b"glasses"]))
    builders = {"microphone": _microphone, "hand": _hand, "phone": _phone, "cup": _cup}
    if scene.occluder in builders:
        things += builders[scene.occluder](np.random.default_rng([scene.occluder_seed, *scene.occluder.encode()]))
    return things


def loose_strands(scene):
    """Returns strands (n, k, 3) float32 that hang across the face, or None."""
    if scene.occluder != "strands":
        return None
    random = np.random.default_rng([scene.occluder_seed, *b"strands"])
    locks = []
    for _ in range(random.integers(1, 4)):
        side = random.choice([-1, 1])
        x, lean = side * random.uniform(0.0, 0.40), side * random.uniform(0.0, 0.45)
        tall = random.uniform(0.8, 1.7)
        n, k = int(random.integers(10, 35)), 16
        t = np.linspace(0, 1, k)
        # From the front of the scalp over the forehead; a lock is widest halfway and converges at its end.
        y = 8.42 - tall * t * random.uniform(0.8, 1.0, (n, 1))
        above = np.clip((y - 7.6) / 0.95, 0, 0.95)
        z = 1.58 * np.sqrt(1 - above**2) + 0.03 + 0.10 * t * (1 - t) + random.normal(0, 0.015, (n, 1))
        spread = random.normal(0, 0.055, (n, 1)) * (0.4 + 2.0 * t * (1 - 0.85 * t))
        sway = 0.04 * np.sin(5 * t + random.uniform(0, 6) + random.normal(0, 0.3, (n, 1))) + lean * t**1.4
        locks.append(np.stack([x + sway + spread, y, z], -1))
    return np.concatenate(locks).astype(np.float32)


def _tube(path, radius, sides=8):
    """A tube around a path of (n, 3) points."""
    path = np.asarray(path, float)
    along = unit(np.gradient(path, axis=0))
    across = unit(np.cross(along, [0.13, 0.2, 0.97]))
    other = np.cross(along, across)
    turn = 2 * np.pi * np.arange(sides) / sides
    ring = across[:, None] * np.cos(turn)[:, None] + other[:, None] * np.sin(turn)[:, None]
    return (path[:, None] + ring * radius).reshape(-1, 3), _grid_triangles(len(path), sides)


def _grid_triangles(rows, columns):
    """Triangles of rows of points that wrap around."""
    i, j = np.meshgrid(np.arange(rows - 1), np.arange(columns), indexing="ij")
    a, b = i * columns + j, i * columns + (j + 1) % columns
    c, d = a + columns, b + columns
    return np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([b, d, c], -1).reshape(-1, 3)])


def _ellipsoid(center, radii, power=2.0, rows=14, columns=24):
    """An ellipsoid, or for powers above 2 a box with rounded edges."""
    polar, azimuth = np.meshgrid(np.linspace(0, np.pi, rows), 2 * np.pi * np.arange(columns) / columns, indexing="ij")
    points = np.stack([np.sin(polar) * np.cos(azimuth), np.cos(polar), np.sin(polar) * np.sin(azimuth)], -1)
    points = np.sign(points) * np.abs(points) ** (2 / power)
    return (center + points * radii).reshape(-1, 3), _grid_triangles(rows, columns)


def _thing(mesh, color, shine, label, clear=0.0):
    vertices, triangles = mesh
    return Thing(
        np.ascontiguousarray(vertices, np.float32),
        np.ascontiguousarray(triangles, np.int32),
        np.asarray(color, np.float64),
        shine,
        label,
        clear,
    )


def _glasses(random):
    color = [np.full(3, 0.02), np.array([0.10, 0.05, 0.02]), np.array([0.35, 0.27, 0.14]), np.full(3, 0.30)]
    color = color[random.integers(len(color))] * np.exp(random.normal(0, 0.2, 3))
    wide, tall, corner = random.uniform(0.23, 0.28), random.uniform(0.17, 0.23), random.uniform(2.0, 4.5)
    wire = random.uniform(0.008, 0.018)
    dark = random.random() < 0.15
    turn = np.linspace(0, 2 * np.pi, 33)
    parts = []
    for side in (-1, 1):
        c, s = np.cos(turn), np.sin(turn)
        x = side * 0.325 + wide * np.sign(c) * np.abs(c) ** (2 / corner)
        y = 7.235 + tall * np.sign(s) * np.abs(s) ** (2 / corner)
        # Frames wrap slightly around the face.
        z = 1.585 - 0.30 * (np.abs(x) - 0.1) ** 2 - 0.06 * (y - 7.235)
        rim = np.stack([x, y, z], 1)
        parts.append(_thing(_tube(rim, wire), color, 0.8, GLASSES))
        fan = np.concatenate([rim, [[side * 0.325, 7.235, 1.570]]])
        triangles = [[i, i + 1, 33] for i in range(32)]
        lens = np.array([0.015, 0.013, 0.012]) if dark else np.array([0.008, 0.009, 0.008])
        parts.append(_thing((fan, np.array(triangles)), lens, 0.5, GLASSES, clear=0.12 if dark else 0.96))
        hinge = [side * (0.325 + wide), 7.30, z[0]]
        bow = [hinge, [side * 0.74, 7.32, 0.95], [side * 0.80, 7.33, 0.35], [side * 0.78, 7.22, 0.02]]
        bow = np.stack([np.interp(np.linspace(0, 3, 16), range(4), axis) for axis in np.array(bow).T], 1)
        parts.append(_thing(_tube(bow, wire), color, 0.8, GLASSES))
    t = np.linspace(-1, 1, 9)
    inner = 0.325 - wide
    bridge = np.stack([t * inner, 7.30 + 0.03 * (1 - t**2), 1.58 + 0.06 * (1 - t**2)], 1)
    parts.append(_thing(_tube(bridge, wire), color, 0.8, GLASSES))
    return parts


def _microphone(random):
    side, reach = random.choice([-1, 1]), random.uniform(0.22, 0.42)
    head = np.array([side * random.uniform(0.05, 0.4), random.uniform(6.25, 6.6), 1.55 + reach])
    way = unit(np.array([side * random.uniform(0.1, 0.7), -1.0, random.uniform(0.0, 0.6)]))
    color = np.full(3, random.uniform(0.015, 0.05))
    if random.random() < 0.4:
        color = color * 0.5 + np.abs(random.normal(0, 0.12, 3))
    ball = _ellipsoid(head, random.uniform(0.20, 0.32) * np.ones(3))
    stick = _tube(head + way * np.linspace(0.1, 2.6, 12)[:, None], random.uniform(0.09, 0.13), sides=12)
    return [_thing(ball, color, 0.15, OCCLUDER), _thing(stick, np.full(3, 0.03), 0.6, OCCLUDER)]


def _hand(random):
    head = load_head()
    points = head.hand_vertices.astype(np.float64)
    wrist, palm = np.array([4.31, 2.45, 1.76]), np.array([4.58, 1.95, 2.25])
    fingers = unit(np.array([4.75, 1.30, 2.95]) - wrist)
    points = points - palm
    # The fingers point up and the palm faces the face; then rotated at random.
    back = unit(np.cross(fingers, [0.25, 0.6, -0.75]))
    across = np.cross(fingers, back)
    side = random.choice([-1, 1])
    points = np.stack([points @ across, points @ fingers, points @ back], 1) * [side, 1, 1]
    turn = rotation(random.uniform(-25, 25), random.uniform(-10, 20), side * random.uniform(0, 60))
    at = np.array([side * random.uniform(0.45, 0.9), random.uniform(6.2, 6.8), random.uniform(1.50, 1.75)])
    triangles = head.hand_triangles if side < 0 else head.hand_triangles[:, ::-1]
    low = random.random() * (len(SKIN_TONES) - 1.01)
    skin = SKIN_TONES[int(low)] + (low % 1) * (SKIN_TONES[int(low) + 1] - SKIN_TONES[int(low)])
    return [_thing((points @ turn.T * 0.95 + at, triangles), skin * [1.0, 0.92, 0.9], 0.25, OCCLUDER)]


def _phone(random):
    side = random.choice([-1, 1])
    center = np.array([side * random.uniform(0.35, 0.75), random.uniform(6.6, 7.1), random.uniform(1.55, 1.8)])
    points, triangles = _ellipsoid(np.zeros(3), [0.36, 0.75, 0.04], power=9, rows=24, columns=32)
    turn = rotation(side * random.uniform(10, 50), random.uniform(-15, 15), side * random.uniform(-35, 10))
    color = np.exp(random.uniform(np.log(0.01), np.log(0.6))) * np.exp(random.normal(0, 0.15, 3))
    return [_thing((points @ turn.T + center, triangles), color, 0.9, OCCLUDER)]


def _cup(random):
    center = np.array([random.uniform(-0.2, 0.2), random.uniform(6.2, 6.5), 1.95])
    t = np.linspace(0, 1, 12)
    turn = 2 * np.pi * np.arange(28) / 28
    radius = 0.30 + 0.10 * t + 0.02 * (t > 0.9)
    ring = np.stack([np.cos(turn), np.zeros(28), np.sin(turn)], 1)
    wall = ring[None] * radius[:, None, None] + (np.array([0, 0.95, 0]) * (t[:, None] - 0.75))[:, None]
    tip = rotation(0, random.uniform(0, 25), random.uniform(-8, 8))
    color = np.exp(random.uniform(np.log(0.08), np.log(0.75))) * np.exp(random.normal(0, 0.25, 3))
    return [_thing((wall.reshape(-1, 3) @ tip.T + center, _grid_triangles(12, 28)), color, 0.6, OCCLUDER)]
