"""Lights skin and hair: samples a scene's lamps and surroundings in a few dozen directions, each with shadow maps of
the head, of objects in front of it, and of its hair.

Hair is shadowed by hair and by the side of the head that it is on, not by the mesh, so that a different face under it
does not change it.
"""

import math
from typing import NamedTuple

import numpy as np

from facedancer.synthetic.compiled import compiled
from facedancer.synthetic.geometry import frame_of, unit
from facedancer.synthetic.rasterize import (
    FAR,
    draw_depth,
    points_into_map,
    splat_strands,
    through_hair,
    unshadowed,
)

MAP_SIZE = 128
# Extent of the maps: decimeters around the head's center.
MAP_SPAN = 6.4
MAP_CENTER = np.array([0.0, 7.1, 0.5])
SKIN_BIAS, SKIN_SOFTNESS = 0.05, 0.09
EVEN_DIRECTIONS, LAMP_DIRECTIONS = 20, 5
# Lobes sharper than this get their own directions.
SHARP_LOBE = 9.0
# Number of points per strand that are lit.
LIT_POINTS = 5


def light_directions(light):
    """Returns directions (k, 3) float64 and their contributions (k, 3), radiance times solid angle over pi.

    Args:
        light: `scenes.Light`.
    """
    i = np.arange(EVEN_DIRECTIONS) + 0.5
    polar, azimuth = np.arccos(1 - 2 * i / EVEN_DIRECTIONS), np.pi * (1 + 5**0.5) * i
    even = np.stack([np.cos(azimuth) * np.sin(polar), np.cos(polar), np.sin(azimuth) * np.sin(polar)], 1)
    radiance = light.below + (light.above - light.below) * (0.5 + 0.5 * even[:, 1:2])
    random = np.random.default_rng(light.seed)
    directions, weights = [even], [None]
    for lobe in light.lobes:
        direction, sharpness, color = lobe[:3], lobe[3], lobe[4:]
        if sharpness < SHARP_LOBE:
            radiance = radiance + np.exp(sharpness * (even @ direction - 1))[:, None] * color
            continue
        spread = random.normal(0, 1 / np.sqrt(sharpness), (LAMP_DIRECTIONS, 2))
        side, up, _ = frame_of(direction)
        directions.append(unit(direction + spread[:, :1] * side + spread[:, 1:] * up))
        weights.append(np.tile(color * 2 / sharpness / LAMP_DIRECTIONS, (LAMP_DIRECTIONS, 1)))
    weights[0] = radiance * 4 / EVEN_DIRECTIONS
    return np.concatenate(directions), np.concatenate(weights)


class _Lamp(NamedTuple):
    """Light from one direction, and the shadow maps for it.

    Attributes:
        to_light: (3, 3) float64, the map's right and up axes, and the direction to the light (`frame_of`).
        shift, scale: from the world into the maps.
        radiance: (3,) float64.
        depth, hair_depth: (M, M) float32, of solid surfaces and of hair.
        hair_count: (M, M) float32, number of strands.
    """

    to_light: np.ndarray
    shift: np.ndarray
    scale: float
    radiance: np.ndarray
    depth: np.ndarray
    hair_depth: np.ndarray
    hair_count: np.ndarray


def light_up(directions, radiances, vertices, normals, coarse_count, coarse_triangles, things, hair, hair_outward):
    """Computes the light that reaches each vertex and each point of the hair.

    Args:
        directions, radiances: from `light_directions`.
        vertices, normals: (N, 3) float32 of the posed head; the first `coarse_count` vertices belong to the
            (f, 3) `coarse_triangles`, which cast shadows.
        things: list of (vertices, triangles) that also cast shadows.
        hair: (n, k, 3) float32 points of strands in the world; n may be 0.
        hair_outward: (n, 3) float32.

    Returns:
        irradiance over pi (N, 3) float32; unshadowed share of the light (N,) float32; the light on hair
        (n, LIT_POINTS, 3) float32.
    """
    irradiance = np.zeros((len(vertices), 3), np.float32)
    reached, possible = np.zeros(len(vertices), np.float32), np.full(len(vertices), 1e-5, np.float32)
    hair_light = np.zeros((len(hair), LIT_POINTS, 3), np.float32)
    lit = lit_points(hair.shape[1])
    scale = MAP_SIZE / MAP_SPAN
    for direction, radiance in zip(directions, radiances, strict=True):
        to_light = frame_of(direction)
        depth = np.full((MAP_SIZE, MAP_SIZE), FAR)
        into_map = (to_light, MAP_CENTER, scale, MAP_SIZE)
        for points, triangles in [(vertices[:coarse_count], coarse_triangles), *things]:
            in_map = np.empty_like(points)
            points_into_map(points, *into_map, in_map)
            draw_depth(in_map, triangles, depth)
        hair_depth, hair_count = np.full((MAP_SIZE, MAP_SIZE), FAR), np.zeros((MAP_SIZE, MAP_SIZE), np.float32)
        if len(hair):
            splat_strands(hair, 2, to_light, MAP_CENTER, scale, hair_depth, hair_count)
        lamp = _Lamp(to_light, MAP_CENTER, scale, radiance, depth, hair_depth, hair_count)
        if len(hair):
            _light_hair(lamp, hair, lit, hair_outward, hair_light)
        _light_skin(lamp, vertices, normals, irradiance, reached, possible)
    return irradiance, reached / possible, hair_light


def lit_points(count):
    """Returns which of a strand's `count` points are lit; those between are interpolated."""
    return np.linspace(1, count - 1, LIT_POINTS).astype(np.int64)


@compiled
def _light_skin(lamp, vertices, normals, irradiance, reached, possible):
    to_light, shift, scale, radiance = lamp.to_light, lamp.shift, lamp.scale, lamp.radiance
    size = lamp.depth.shape[0]
    brightness = radiance[0] + radiance[1] + radiance[2]
    for i in range(len(vertices)):
        cosine = to_light[2, 0] * normals[i, 0] + to_light[2, 1] * normals[i, 1] + to_light[2, 2] * normals[i, 2]
        if cosine <= 0:
            continue
        dx, dy, dz = vertices[i, 0] - shift[0], vertices[i, 1] - shift[1], vertices[i, 2] - shift[2]
        x = (to_light[0, 0] * dx + to_light[0, 1] * dy + to_light[0, 2] * dz) * scale + size * 0.5
        y = (to_light[1, 0] * dx + to_light[1, 1] * dy + to_light[1, 2] * dz) * scale + size * 0.5
        z = -(to_light[2, 0] * dx + to_light[2, 1] * dy + to_light[2, 2] * dz)
        share = unshadowed(x, y, z, lamp.depth, SKIN_BIAS, SKIN_SOFTNESS)
        if share > 0:
            share *= through_hair(x, y, z - 0.02, lamp.hair_depth, lamp.hair_count, 0.22, 0.10)
        for c in range(3):
            irradiance[i, c] += share * cosine * radiance[c]
        reached[i] += share * cosine * brightness
        possible[i] += cosine * brightness


@compiled
def _light_hair(lamp, hair, lit, outward, light):
    to_light, shift, scale, radiance = lamp.to_light, lamp.shift, lamp.scale, lamp.radiance
    size = lamp.hair_depth.shape[0]
    for i in range(hair.shape[0]):
        # The head's own shadow, from the side that the strand is on.
        facing = to_light[2, 0] * outward[i, 0] + to_light[2, 1] * outward[i, 1] + to_light[2, 2] * outward[i, 2]
        side = min(max(0.5 + 0.65 * facing, 0.0), 1.0)
        if side == 0.0:
            continue
        for j in range(len(lit)):
            k = lit[j]
            dx, dy, dz = hair[i, k, 0] - shift[0], hair[i, k, 1] - shift[1], hair[i, k, 2] - shift[2]
            x = (to_light[0, 0] * dx + to_light[0, 1] * dy + to_light[0, 2] * dz) * scale + size * 0.5
            y = (to_light[1, 0] * dx + to_light[1, 1] * dy + to_light[1, 2] * dz) * scale + size * 0.5
            z = -(to_light[2, 0] * dx + to_light[2, 1] * dy + to_light[2, 2] * dz)
            tx, ty = hair[i, k, 0] - hair[i, k - 1, 0], hair[i, k, 1] - hair[i, k - 1, 1]
            tz = hair[i, k, 2] - hair[i, k - 1, 2]
            length = math.sqrt(tx * tx + ty * ty + tz * tz) + 1e-9
            along = (tx * to_light[2, 0] + ty * to_light[2, 1] + tz * to_light[2, 2]) / length
            diffuse = math.sqrt(max(0.0, 1.0 - along * along))
            share = through_hair(x, y, z, lamp.hair_depth, lamp.hair_count, 0.14, 0.45) * side * diffuse
            for c in range(3):
                light[i, j, c] += share * radiance[c]


@compiled
def shade_hair(hair, light, lit, outward, colors, lobes, eye, shine, out):
    """Shades the points of strands: diffuse scattering, and two highlights per lamp (Kajiya and Kay, 1989, with the
    shifted second highlight of Marschner et al., 2003).

    Args:
        hair: (n, k, 3) float32 in the world.
        light: (n, l, 3) float32 from `light_up`, at the points `lit` (l,).
        outward: (n, 3) float32.
        colors: (n, 3) float32.
        lobes: (m, 7) of the scene's light.
        eye: (3,) the camera's position.
        shine: strength of the highlights.
        out: (n, k, 3) float32, filled.
    """
    last = hair.shape[1] - 1
    spot = np.empty(3)
    for i in range(hair.shape[0]):
        j = 0
        for k in range(last + 1):
            while j < len(lit) - 2 and lit[j + 1] < k:
                j += 1
            t = min(max((k - lit[j]) / (lit[j + 1] - lit[j]), 0.0), 1.0) if lit[j + 1] > lit[j] else 0.0
            for c in range(3):
                spot[c] = light[i, j, c] + (light[i, j + 1, c] - light[i, j, c]) * t
            a, b = max(k - 1, 0), min(k + 1, last)
            tx, ty, tz = hair[i, b, 0] - hair[i, a, 0], hair[i, b, 1] - hair[i, a, 1], hair[i, b, 2] - hair[i, a, 2]
            length = math.sqrt(tx * tx + ty * ty + tz * tz) + 1e-9
            tx, ty, tz = tx / length, ty / length, tz / length
            vx, vy, vz = eye[0] - hair[i, k, 0], eye[1] - hair[i, k, 1], eye[2] - hair[i, k, 2]
            length = math.sqrt(vx * vx + vy * vy + vz * vz)
            vx, vy, vz = vx / length, vy / length, vz / length
            # Strands are lighter toward the tips, and darker where they are dense.
            grown = 0.62 + 0.45 * min(1.0, 1.6 * k / last)
            for c in range(3):
                out[i, k, c] = colors[i, c] * spot[c] * grown
            brightness = spot[0] + spot[1] + spot[2]
            for m in range(len(lobes)):
                lx, ly, lz = lobes[m, 0], lobes[m, 1], lobes[m, 2]
                hx, hy, hz = vx + lx, vy + ly, vz + lz
                length = math.sqrt(hx * hx + hy * hy + hz * hz) + 1e-9
                along = (tx * hx + ty * hy + tz * hz) / length
                white = math.exp(-(((along - 0.10) / 0.11) ** 2))
                tinted = math.exp(-(((along + 0.14) / 0.24) ** 2))
                facing = outward[i, 0] * lx + outward[i, 1] * ly + outward[i, 2] * lz
                faced = min(max(0.35 + facing, 0.0), 1.0) * 2 / lobes[m, 3]
                # At most the light that reaches the strand past the others.
                passed = min(1.0, brightness / (1e-3 + 1.2 * faced * (lobes[m, 4] + lobes[m, 5] + lobes[m, 6])))
                for c in range(3):
                    glint = 0.055 * white + 0.42 * tinted * math.sqrt(colors[i, c]) * 0.35
                    out[i, k, c] += shine * glint * lobes[m, 4 + c] * faced * passed
