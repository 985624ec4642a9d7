"""Light that reaches skin and hair: the lamps and surroundings of a scene as a few dozen directions, each with a shadow
map of the head, of what is in front of it, and of its hair.

Hair is shaded by hair and by the side of the head it is on, not by the mesh, so that another face under it does not
change it.
"""

import math

import numba
import numpy as np

from facedancer.synthetic.geometry import frame_of, unit
from facedancer.synthetic.rasterise import (
    FAR,
    draw_depth,
    points_into_map,
    splat_strands,
    through_hair,
    unshadowed,
)

MAP_SIZE = 128
# What the maps show: decimetres about the head's middle.
MAP_SPAN = 6.4
MAP_CENTRE = np.array([0.0, 7.1, 0.5])
SKIN_BIAS, SKIN_SOFTNESS = 0.05, 0.09
EVEN_DIRECTIONS, LAMP_DIRECTIONS = 20, 5
# Lobes sharper than this get directions of their own.
SHARP_LOBE = 9.0


def light_directions(light, seed):
    """Returns directions (k, 3) float64 and what each adds, (k, 3) radiance times solid angle by pi.

    Args:
        light: `scenes.Light`.
        seed: of where on a lamp the directions lie.
    """
    i = np.arange(EVEN_DIRECTIONS) + 0.5
    polar, azimuth = np.arccos(1 - 2 * i / EVEN_DIRECTIONS), np.pi * (1 + 5**0.5) * i
    even = np.stack([np.cos(azimuth) * np.sin(polar), np.cos(polar), np.sin(azimuth) * np.sin(polar)], 1)
    radiance = light.below + (light.above - light.below) * (0.5 + 0.5 * even[:, 1:2])
    random = np.random.default_rng(seed)
    directions, weights = [even], [None]
    for lobe in light.lobes:
        direction, sharpness, colour = lobe[:3], lobe[3], lobe[4:]
        if sharpness < SHARP_LOBE:
            radiance = radiance + np.exp(sharpness * (even @ direction - 1))[:, None] * colour
            continue
        spread = random.normal(0, 1 / np.sqrt(sharpness), (LAMP_DIRECTIONS, 2))
        side, up, _ = frame_of(direction)
        directions.append(unit(direction + spread[:, :1] * side + spread[:, 1:] * up))
        weights.append(np.tile(colour * 2 / sharpness / LAMP_DIRECTIONS, (LAMP_DIRECTIONS, 1)))
    weights[0] = radiance * 4 / EVEN_DIRECTIONS
    return np.concatenate(directions), np.concatenate(weights)


def light_up(directions, radiances, vertices, normals, coarse_count, coarse_triangles, things, hair, hair_outward):
    """Returns how much light reaches every vertex and every point of the hair.

    Args:
        directions, radiances: from `light_directions`.
        vertices, normals: (N, 3) float32 of the posed head, of which the first `coarse_count` belong to the
            (f, 3) `coarse_triangles` that cast the shadows.
        things: list of (vertices, triangles) that cast shadows too.
        hair: (n, k, 3) float32 points of strands in the world, n 0 for none.
        hair_outward: (n, 3) float32.

    Returns:
        irradiance by pi (N, 3) float32; share of the light that is not shadowed (N,) float32; for the hair
        (n, LIT_POINTS, 3) float32.
    """
    irradiance = np.zeros((len(vertices), 3), np.float32)
    reached, possible = np.zeros(len(vertices), np.float32), np.full(len(vertices), 1e-5, np.float32)
    hair_light = np.zeros((len(hair), LIT_POINTS, 3), np.float32)
    lit = np.linspace(1, hair.shape[1] - 1, LIT_POINTS).astype(np.int64)
    scale = MAP_SIZE / MAP_SPAN
    for direction, radiance in zip(directions, radiances, strict=True):
        to_light = frame_of(direction)
        depth = np.full((MAP_SIZE, MAP_SIZE), FAR)
        into_map = (to_light, MAP_CENTRE, scale, MAP_SIZE)
        for points, triangles in [(vertices[:coarse_count], coarse_triangles), *things]:
            draw_depth(points_into_map(points, *into_map), triangles, depth)
        hair_depth, hair_count = np.full((MAP_SIZE, MAP_SIZE), FAR), np.zeros((MAP_SIZE, MAP_SIZE), np.float32)
        if len(hair):
            splat_strands(hair, 2, to_light, MAP_CENTRE, scale, hair_depth, hair_count)
            _light_hair(
                hair, lit, hair_outward, to_light, MAP_CENTRE, scale, radiance, hair_depth, hair_count, hair_light
            )
        _light_skin(
            vertices, normals, to_light, MAP_CENTRE, scale, radiance, depth, hair_depth, hair_count, irradiance,
            reached, possible,
        )  # fmt: skip
    return irradiance, reached / possible, hair_light


LIT_POINTS = 5


@numba.njit(cache=True)
def _light_skin(
    vertices, normals, to_light, shift, scale, radiance, depth, hair_depth, hair_count, irradiance, reached, possible
):
    size = depth.shape[0]
    brightness = radiance[0] + radiance[1] + radiance[2]
    for i in range(len(vertices)):
        cosine = (
            to_light[2, 0] * normals[i, 0] + to_light[2, 1] * normals[i, 1] + to_light[2, 2] * normals[i, 2]
        )
        if cosine <= 0:
            continue
        dx, dy, dz = vertices[i, 0] - shift[0], vertices[i, 1] - shift[1], vertices[i, 2] - shift[2]
        x = (to_light[0, 0] * dx + to_light[0, 1] * dy + to_light[0, 2] * dz) * scale + size * 0.5
        y = (to_light[1, 0] * dx + to_light[1, 1] * dy + to_light[1, 2] * dz) * scale + size * 0.5
        z = -(to_light[2, 0] * dx + to_light[2, 1] * dy + to_light[2, 2] * dz)
        share = unshadowed(x, y, z, depth, SKIN_BIAS, SKIN_SOFTNESS)
        if share > 0:
            share *= through_hair(x, y, z - 0.02, hair_depth, hair_count, 0.22, 0.10)
        for c in range(3):
            irradiance[i, c] += share * cosine * radiance[c]
        reached[i] += share * cosine * brightness
        possible[i] += cosine * brightness


@numba.njit(cache=True)
def _light_hair(hair, lit, outward, to_light, shift, scale, radiance, hair_depth, hair_count, light):
    size = hair_depth.shape[0]
    for i in range(hair.shape[0]):
        # The head's own shadow, by the side that the strand is on.
        facing = (
            to_light[2, 0] * outward[i, 0] + to_light[2, 1] * outward[i, 1] + to_light[2, 2] * outward[i, 2]
        )
        side = min(max(0.5 + 0.65 * facing, 0.0), 1.0)
        if side == 0.0:
            continue
        for j in range(len(lit)):
            k = lit[j]
            dx, dy, dz = hair[i, k, 0] - shift[0], hair[i, k, 1] - shift[1], hair[i, k, 2] - shift[2]
            x = (to_light[0, 0] * dx + to_light[0, 1] * dy + to_light[0, 2] * dz) * scale + size * 0.5
            y = (to_light[1, 0] * dx + to_light[1, 1] * dy + to_light[1, 2] * dz) * scale + size * 0.5
            z = -(to_light[2, 0] * dx + to_light[2, 1] * dy + to_light[2, 2] * dz)
            tx, ty, tz = (hair[i, k, c] - hair[i, k - 1, c] for c in range(3))
            length = math.sqrt(tx * tx + ty * ty + tz * tz) + 1e-9
            along = (tx * to_light[2, 0] + ty * to_light[2, 1] + tz * to_light[2, 2]) / length
            diffuse = math.sqrt(max(0.0, 1.0 - along * along))
            share = through_hair(x, y, z, hair_depth, hair_count, 0.14, 0.45) * side * diffuse
            for c in range(3):
                light[i, j, c] += share * radiance[c]
