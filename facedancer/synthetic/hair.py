"""Grows a head of hair: thousands of strands in locks that are combed, fall, and stay off the head and out of the face.

A strand starts at a root on the scalp, follows the direction in which its style is combed, bends under gravity, lies on
the head where it touches it, and joins its neighbors in a lock. `hair_styles` defines the styles.
"""

import functools
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from facedancer.synthetic.compiled import compiled
from facedancer.synthetic.geometry import unit, vertex_normals
from facedancer.synthetic.hair_styles import STYLES, comb_directions, root_lengths, scalp_density
from facedancer.synthetic.head import BODY, load_head
from facedancer.synthetic.noise import noise
from facedancer.synthetic.shape import person_vertices
from facedancer.synthetic.skull import CENTER, build_skull, reach_at, shoulder_at

# The neck, a cylinder that hair cannot enter.
NECK_Z, NECK_RADIUS = 0.05, 0.54


@dataclass(frozen=True, eq=False)
class Strands:
    """Strands of one kind of hair on the neutral head.

    Attributes:
        points: (n, k, 3) float32, from root to tip.
        colors: (n, 3) float32, linear.
        outward: (n, 3) float32, the surface normal at the root.
        thickness: decimeters.
        triangles: (n,) triangle of the coarse mesh that holds the root.
        weights: (n, 3) float32 barycentric weights of the root.
    """

    points: np.ndarray
    colors: np.ndarray
    outward: np.ndarray
    thickness: float
    triangles: np.ndarray
    weights: np.ndarray


class _Roots(NamedTuple):
    """How each of n strands starts.

    Attributes:
        places, start, comb: (n, 3) float64: the root, and the directions of its first step and of its comb.
        lengths: (n,) float64, decimeters.
        layers: (n,) float64, how far off the head it lies.
        sides: (n,) float32, -1 or 1 by the side of the parting.
    """

    places: np.ndarray
    start: np.ndarray
    comb: np.ndarray
    lengths: np.ndarray
    layers: np.ndarray
    sides: np.ndarray


class _Fall(NamedTuple):
    """How strands fall: values of `hair_styles.Style`, and the noise that they wander by.

    Attributes:
        tie: (3,) float64, anything if not `is_tied`.
        texture: (3,) float64, offset into the noise.
    """

    gravity: float
    hold: float
    wander: float
    curtain: float
    tie: np.ndarray
    is_tied: bool
    bun: float
    texture: np.ndarray


class _Obstacles(NamedTuple):
    """What strands stay outside of: the head about its `center` (3,), and the shoulders; see `skull`."""

    center: np.ndarray
    reach: np.ndarray
    shoulders: np.ndarray


def sample_roots(density, vertices, count, random):
    """Draws roots on the body, with `density` per area.

    Args:
        density: (f,) of the coarse triangles.
        vertices: (n, 3) of the head.
        count: number of roots.

    Returns:
        triangles (count,), barycentric weights (count, 3) float32.
    """
    head = load_head()
    corners = vertices[head.triangles]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    chance = area * density * (head.parts == BODY)
    triangles = random.choice(len(chance), count, p=chance / chance.sum())
    u = random.random((count, 2))
    u = np.where(u.sum(1, keepdims=True) > 1, 1 - u, u)
    return triangles, np.column_stack([1 - u.sum(1), u]).astype(np.float32)


def at_roots(values, triangles, weights):
    """Interpolates values (n, k) of the coarse vertices at roots -> (count, k)."""
    return (values[load_head().triangles[triangles]] * weights[:, :, None]).sum(1)


@functools.lru_cache(maxsize=8)
def _grown(hair, shape):
    """Returns a person's strands, given the draws, or None."""
    head, style = load_head(), STYLES[hair.style]
    random = np.random.default_rng(hair.seed)
    vertices = person_vertices(shape)
    normals = vertex_normals(vertices, head.triangles)
    density = scalp_density(hair, head.vertices[head.triangles].mean(1), head.masks[head.triangles].mean(1))
    count = int(style.count * hair.density)
    if count == 0 or density.sum() == 0:
        return None
    triangles, weights = sample_roots(density, vertices, count, random)
    rest = at_roots(head.vertices, triangles, weights)
    kept = scalp_density(hair, rest, at_roots(head.masks, triangles, weights)) > random.random(count) ** 2
    triangles, weights, rest = triangles[kept], weights[kept], rest[kept]
    roots, outward = at_roots(vertices, triangles, weights), unit(at_roots(normals, triangles, weights))
    n = len(roots)

    locks = random.choice(n, max(1, n // style.strands_a_lock), replace=False)
    # A lock never crosses the parting.
    sides = np.sign(rest[:, 0] - hair.parting + 1e-6)
    apart = (roots + np.outer(sides, [10, 0, 0])).astype(np.float32)
    lock_of = np.empty(n, np.int64)
    _find_nearest(apart, apart[locks], lock_of)
    lock_random = random.normal(0, 1, (len(locks), 4))[lock_of]
    comb = comb_directions(hair, rest, outward).astype(np.float64)
    start = unit(
        comb + style.lift * hair.volume * outward + style.unruly * lock_random[:, :3]
        + 0.5 * style.unruly * random.normal(0, 1, (n, 3))
    )  # fmt: skip
    lengths = root_lengths(hair, rest) * random.uniform(0.82, 1.08, n) * np.exp(0.10 * lock_random[:, 3])
    layers = style.layer * hair.volume * random.uniform(0.15, 1.0, n) ** 0.7
    points = np.empty((n, style.points, 3), np.float32)
    skull = build_skull(vertices)
    tie = np.array(style.tie if style.tie else (0.0, 0.0, 0.0))
    fall = _Fall(
        style.gravity, style.hold, style.wander * hair.curl, style.curtain, tie, style.tie is not None, style.bun,
        random.uniform(0, 100, 3),
    )  # fmt: skip
    strands = _Roots(roots.astype(np.float64), start, comb, lengths, layers, sides)
    _grow(strands, fall, _Obstacles(CENTER, skull.reach, skull.shoulders), points)
    points += style.clump * _lock_pull(style.points) * (points[locks][lock_of] - points)
    if style.curl:
        _curl(points, style.curl * hair.curl, style.turns, lock_random[:, 0] * 3, random.normal(0, 0.5, n))
    shade = np.exp(0.13 * random.normal(0, 1, (n, 1)) + 0.12 * lock_random[:, :1])
    return Strands(
        points=points,
        colors=(np.array(hair.color) * shade).astype(np.float32),
        outward=outward.astype(np.float32),
        thickness=style.thickness,
        triangles=triangles,
        weights=weights,
    )


def grow_hair(person):
    """Returns the `Strands` of a person's hair on `shape.person_vertices`, or None if bald."""
    return _grown(person.hair, tuple(person.shape.items()))


def _lock_pull(points):
    """Returns how far each point of a strand is pulled to its lock's central strand, from root to tip: (points, 1)."""
    return (np.linspace(0, 1, points, dtype=np.float32) ** 1.1)[:, None]


@compiled
def _find_nearest(points, centers, out):
    """Fills `out` (n,) with the nearest of (m, 3) centers for each of (n, 3) points."""
    for i in range(len(points)):
        best = 1e30
        for j in range(len(centers)):
            dx, dy, dz = points[i, 0] - centers[j, 0], points[i, 1] - centers[j, 1], points[i, 2] - centers[j, 2]
            distance = dx * dx + dy * dy + dz * dz
            if distance < best:
                best, out[i] = distance, j


@compiled
def _grow(roots, fall, obstacles, points):
    """Grows every strand from its root, into `points` (n, k, 3) float32."""
    places, start, comb, lengths, layers, sides = roots
    gravity, hold, wander, curtain, tie, is_tied, bun, texture = fall
    center, reach, shoulders = obstacles
    last = points.shape[1] - 1
    sway = np.empty(3)
    for i in range(len(places)):
        x, y, z = places[i]
        dx, dy, dz = start[i]
        points[i, 0, 0], points[i, 0, 1], points[i, 0, 2] = x, y, z
        step = lengths[i] / last
        tied = is_tied
        for k in range(1, last + 1):
            t = k / last
            if tied:
                # Toward the tie, along the head; beyond it the strand hangs, or winds into a bun.
                gx, gy, gz = tie[0] - x, tie[1] - y, tie[2] - z
                far = math.sqrt(gx * gx + gy * gy + gz * gz) + 1e-9
                if far < 0.16 + 0.8 * bun:
                    tied = False
                    dx, dy, dz = 0.35 * dx, 0.35 * dy, -0.7 + 0.35 * dz
                dx, dy, dz = dx + 0.9 * gx / far, dy + 0.9 * gy / far, dz + 0.9 * gz / far
            elif bun > 0:
                # Along a circle around the bun's center, each strand in its own plane.
                qx, qy, qz = x - tie[0], y - tie[1], z - tie[2]
                radius = math.sqrt(qx * qx + qy * qy + qz * qz) + 1e-9
                wanted = bun * (0.8 + 2.0 * layers[i])
                qx, qy, qz = qx / radius * wanted, qy / radius * wanted, qz / radius * wanted
                x, y, z = tie[0] + qx, tie[1] + qy, tie[2] + qz
                ax, ay, az = comb[i, 1] + 0.4 * start[i, 0], -comb[i, 0] + 0.3 * start[i, 1], 1.2
                dx, dy, dz = ay * qz - az * qy, az * qx - ax * qz, ax * qy - ay * qx
            else:
                pull = 0.0 if is_tied else 0.4 * math.exp(-1.8 * t * lengths[i])
                weight = gravity * (0.25 + t)
                dx, dy, dz = dx + pull * comb[i, 0], dy + pull * comb[i, 1] - weight, dz + pull * comb[i, 2]
            if wander > 0 and (tied or bun == 0):
                for j in range(3):
                    sx, sy, sz = x * 2.2 + texture[0], y * 1.6 + texture[1], z * 2.2 + texture[2]
                    sway[j] = wander * noise(sx + 31.7 * j, sy, sz)
                dx, dy, dz = dx + sway[0], dy + 0.5 * sway[1], dz + sway[2]
            length = math.sqrt(dx * dx + dy * dy + dz * dz) + 1e-9
            dx, dy, dz = dx / length, dy / length, dz / length
            x, y, z = x + step * dx, y + step * dy, z + step * dz
            # Off the head; with `hold` also down onto it.
            qx, qy, qz = x - center[0], y - center[1], z - center[2]
            radius = math.sqrt(qx * qx + qy * qy + qz * qz) + 1e-9
            lowest = reach_at(reach, qx, qy, qz) + 0.012 + layers[i] * min(1.0, k / 4.0)
            if qy > -0.85 and (tied or bun == 0):
                wanted = radius
                if radius < lowest:
                    wanted = lowest
                elif hold > 0 and (tied or not is_tied) and qy > -0.5:
                    wanted = radius + hold * (lowest - radius)
                if wanted != radius:
                    x, y, z = (
                        center[0] + qx * wanted / radius,
                        center[1] + qy * wanted / radius,
                        center[2] + qz * wanted / radius,
                    )
                    inward = (dx * qx + dy * qy + dz * qz) / radius
                    if inward < 0 or hold > 0:
                        dx, dy, dz = dx - inward * qx / radius, dy - inward * qy / radius, dz - inward * qz / radius
            elif y < 6.6 and bun == 0:
                # Around the neck, a cylinder.
                radius = math.sqrt(x * x + (z - NECK_Z) ** 2) + 1e-9
                lowest = NECK_RADIUS + 0.7 * layers[i]
                if radius < lowest:
                    x, z = x * lowest / radius, NECK_Z + (z - NECK_Z) * lowest / radius
            floor = shoulder_at(shoulders, x, z) + 0.03 + 0.4 * layers[i]
            if y < floor and y < 6.0:
                y = floor
                dy = max(dy, 0.0)
                dz += 0.15 if z > 0.1 else -0.25
            if curtain > 0 and z > 0.45 and 5.9 < y < 7.85:
                # Beside the face, not in it: the width of the cheeks by height.
                limit = curtain * (0.78 - 0.16 * abs(y - 7.2) ** 1.5) + 0.5 * layers[i]
                if sides[i] * x < limit:
                    x += 0.55 * (sides[i] * limit - x)
                    dx = 0.5 * dx + 0.12 * sides[i]
            points[i, k, 0], points[i, k, 1], points[i, k, 2] = x, y, z


@compiled
def _curl(points, radius, turns, phases, own_phases):
    """Curls strands: circles across their direction, `turns` radians per decimeter of length."""
    last = points.shape[1] - 1
    for i in range(len(points)):
        angle = phases[i] + own_phases[i]
        px, py, pz = points[i, 0]
        for k in range(1, last + 1):
            x, y, z = points[i, k]
            dx, dy, dz = x - px, y - py, z - pz
            length = math.sqrt(dx * dx + dy * dy + dz * dz) + 1e-9
            angle += turns * length
            # Two directions perpendicular to the strand.
            ax, az = dz / length, -dx / length
            across = math.sqrt(ax * ax + az * az) + 1e-6
            ax, az = ax / across, az / across
            bx, by, bz = dy * az / length, (dz * ax - dx * az) / length, -dy * ax / length
            size = radius * min(1.0, 2.5 * k / last)
            c, s = size * math.cos(angle), size * math.sin(angle)
            points[i, k, 0] += c * ax + s * bx
            points[i, k, 1] += s * by
            points[i, k, 2] += c * az + s * bz
            px, py, pz = x, y, z
