"""Shades every pixel of the mesh: skin with details and folds, lips, eyes, teeth, the inside of the mouth, cloth.

Skin is a diffuse surface, lit by irradiance that was diffused over the mesh, most in red (subsurface scattering), under
a specular layer (Schlick's Fresnel term over Gaussian lobes).
"""

import math
from typing import NamedTuple

import numpy as np

from facedancer.synthetic import truth
from facedancer.synthetic.compiled import compiled, compiled_part
from facedancer.synthetic.noise import fractal_noise, noise, smoothstep
from facedancer.synthetic.relief import BOTTOM, CELLS, LEFT

# Label and part numbers as constants for the kernels.
_SKIN, _BROWS, _EYES, _LIPS, _TEETH, _MOUTH = 1, 2, 3, 4, 5, 6
_NOSE, _EARS, _NECK, _CLOTH = truth.NOSE, truth.EARS, truth.NECK, truth.CLOTH
IRIS_ANGLE = 0.44
# Minimum share of the outside light inside an open mouth.
TEETH_LIGHT, TONGUE_LIGHT = 0.65, 0.25
# The noises of skin: cells per decimeter, and a shift.
_BROAD, _MIDDLE, _FINE, _SPOTS, _MOLES, _BLOTCHES, _LINES, _GRAIN_X, _GRAIN_Y = range(9)
_NOISES = np.array([[3.0, 0], [11, 0], [34, 0], [26, 7], [15, 31], [7, 3], [55, 0], [60, 0], [60, 9]], np.float64)


class Look(NamedTuple):
    """A person's appearance in a scene, for the kernel, in few arrays, since Numba compiles many slowly.

    Attributes:
        colors: (8, 3), rows `COLORS`.
        strengths: (13,), `STRENGTHS`; see `draws.Identity`, `draws.Person` and `scenes.Scene`.
        texture: (2, 3) shifts of the skin noise, the identity's and the person's.
        brow: (6,) height, arch, thickness, gap, length, density.
        folds, slopes: see `relief`.
        rotation: (3, 3) of the head.
        eye_centers: (2, 3) at rest.
        lid_planes: (2, 4) normal and height of the upper lids' rims in the world.
        lobes: (m, 7) lamps.
        around: (3,) approximate light on a face.
        camera: (3,) in the world.
    """

    colors: np.ndarray
    strengths: np.ndarray
    texture: np.ndarray
    brow: np.ndarray
    folds: np.ndarray
    slopes: np.ndarray
    rotation: np.ndarray
    eye_centers: np.ndarray
    lid_planes: np.ndarray
    lobes: np.ndarray
    around: np.ndarray
    camera: np.ndarray


COLORS = ("skin", "complexion", "lip_tint", "iris", "brow", "hair", "cloth", "cloth_second")
_SKIN_COLOR, _COMPLEXION, _LIP_TINT, _IRIS, _BROW, _HAIR, _CLOTH_FIRST, _CLOTH_SECOND = range(len(COLORS))
STRENGTHS = (
    "freckles", "moles", "redness", "mottling", "shadows", "eyeliner", "oiliness", "wrinkles", "pupil", "cut",
    "pattern", "scalp_cover", "beard_cover",
)  # fmt: skip
(
    _FRECKLES, _MOLE, _REDNESS, _MOTTLING, _SHADOWS, _EYELINER, _OILINESS, _WRINKLES, _PUPIL, _CUT, _PATTERN,
    _SCALP_COVER, _BEARD_COVER,
) = range(len(STRENGTHS))  # fmt: skip

# Columns of vertex data: position at rest (for textures) and in the world, normal, irradiance over pi, share of light
# that is not shadowed, weights of inner face, scalp hair and beard, and the masks of `head`.
VERTEX_COLUMNS = (("rest", 3), ("world", 3), ("normal", 3), ("light", 3), ("reached", 1), ("face", 1), ("scalp", 1),
                  ("beard", 1), ("masks", 6))  # fmt: skip
_REST, _WORLD, _NORMAL, _LIGHT, _REACHED, _FACE, _SCALP, _BEARD, _MASKS, _END = 0, 3, 6, 9, 12, 13, 14, 15, 16, 22


def vertex_table(**values):
    """Concatenates (N, k) arrays, named as in `VERTEX_COLUMNS`, to (N, 22) float32."""
    columns = [np.asarray(values[name]).reshape(len(values["rest"]), width) for name, width in VERTEX_COLUMNS]
    return np.ascontiguousarray(np.concatenate(columns, axis=1), np.float32)


@compiled_part
def _brow_cover(brow, x, y):
    """Like `facial_hair.brow_cover`, for numbers; brow is (height, arch, thickness, gap, length)."""
    side = abs(x)
    along = min(max((side - brow[3]) / brow[4], 0.0), 1.0)
    middle = 7.475 + brow[0] + brow[1] * math.sin(2.6 * along) - 0.020 * along
    half = brow[2] * min(max(1.25 - along, 0.3), 1.0) * min(max(0.55 + 4 * along, 0.0), 1.0)
    across = min(max(1.35 - abs(y - middle) / half, 0.0), 1.0)
    inner = min(max((side - brow[3]) / 0.04, 0.0), 1.0)
    return across * inner * min(max((brow[3] + brow[4] - side) / 0.08, 0.0), 1.0)


@compiled_part
def _bump(folds, slopes, x, y, strength):
    """Returns the slope (2,) of the skin's folds at a point of the resting face, bilinear."""
    column, row = (x - LEFT) * CELLS - 0.5, (y - BOTTOM) * CELLS - 0.5
    height, width = slopes.shape[1], slopes.shape[2]
    if column < 0 or row < 0 or column >= width - 1 or row >= height - 1:
        return 0.0, 0.0
    j, i = int(column), int(row)
    fx, fy = column - j, row - i
    sx, sy = 0.0, 0.0
    for k in range(len(folds)):
        depth = folds[k] * strength
        if depth < 0.02:
            continue
        for c in range(2):
            slope = (
                slopes[k, i, j, c] * (1 - fx) * (1 - fy) + slopes[k, i, j + 1, c] * fx * (1 - fy)
                + slopes[k, i + 1, j, c] * (1 - fx) * fy + slopes[k, i + 1, j + 1, c] * fx * fy
            )  # fmt: skip
            if c == 0:
                sx += depth * slope
            else:
                sy += depth * slope
    return sx, sy


@compiled_part
def _patch(x, width, y, height):
    """Returns a soft patch around (0, 0), 1 at its center."""
    return math.exp(-((x / width) ** 2) - (y / height) ** 2)


@compiled_part
def _darken(color, amount, red, green, blue):
    color[0] *= max(1 - amount * red, 0.05)
    color[1] *= max(1 - amount * green, 0.05)
    color[2] *= max(1 - amount * blue, 0.05)


@compiled_part
def _paint_skin(look, here, noises, color, bump):
    """Fills in the skin's `color` and `bump` (slopes in x, y, z, then roughness, shine); returns the label."""
    x, y, z = here[_REST:_WORLD]
    masks, face, scalp, beard = here[_MASKS:_END], here[_FACE], here[_SCALP], here[_BEARD]
    side = abs(x)
    lips, ears, inside = masks[0], masks[2], masks[3]
    # Details are the identity's inside the face, the person's outside; both fade toward the border.
    is_face, detail = face >= 0.5, abs(2 * face - 1)
    texture = look.texture[0] if is_face else look.texture[1]
    mottling = detail * (look.strengths[_MOTTLING] if is_face else 0.8)
    redness = look.strengths[_REDNESS] if is_face else 0.6
    moles = detail * (look.strengths[_MOLE] if is_face else 0.2)
    wrinkles = look.strengths[_WRINKLES] * detail if is_face else 0.0
    ox, oy, oz = x + texture[0], y + texture[1], z + texture[2]
    for k in range(len(_NOISES)):
        scale = _NOISES[k, 0]
        flat = 0.22 * scale if k == _LINES else scale
        noises[k] = noise(ox * scale + _NOISES[k, 1], oy * flat, oz * flat)
    middle, fine = noises[_MIDDLE], noises[_FINE]
    bright = 1 + mottling * (0.035 * noises[_BROAD] + 0.045 * middle + 0.035 * fine)
    for c in range(3):
        color[c] = look.colors[_SKIN_COLOR, c] * bright * (1 + face * (look.colors[_COMPLEXION, c] - 1))
    # Blood: cheeks, the tip of the nose, ears, chin.
    blood = 0.8 * _patch(side - 0.42, 0.17, y - 6.93, 0.17) + 0.6 * ears + 0.3 * _patch(x, 0.15, y - 6.33, 0.08)
    if z > 1.4:
        blood += 0.7 * _patch(x, 0.13, y - 6.93, 0.10)
    _darken(
        color,
        min((redness + (0.6 - redness) * (1 - face)) * blood * (1 + 0.5 * detail * middle), 1.5),
        0.0,
        0.19,
        0.16,
    )
    # Around the eyes, skin is thin and dark, and sometimes has makeup.
    lid = _patch(side - 0.31, 0.15, y - 7.36, 0.05)
    dark = look.strengths[_SHADOWS] * (0.17 * _patch(side - 0.27, 0.14, y - 7.15, 0.055) + 0.15 * lid)
    _darken(color, dark + 0.5 * look.strengths[_EYELINER] * masks[1] * lid, 1.0, 1.1, 1.05)
    freckles = smoothstep(0.35, 0.6, noises[_SPOTS]) * look.strengths[_FRECKLES] * face * 0.7
    _darken(color, freckles * math.exp(-(((y - 7.0) / 0.25) ** 2)), 0.35, 0.5, 0.58)
    spots = smoothstep(0.88, 0.94, noises[_MOLES]) * (0.3 * detail + 0.6 * moles)
    spots += smoothstep(0.45, 0.75, noises[_BLOTCHES]) * 0.25 * max(0.0, wrinkles - 0.45)
    _darken(color, min(spots, 0.9), 0.68, 0.78, 0.8)
    # Hair darkens the skin between it.
    cover = scalp * look.strengths[_SCALP_COVER]
    shade = beard * look.strengths[_BEARD_COVER] * (1 - min(1.0, 3 * lips)) * (0.75 + 0.25 * detail * fine)
    brow = _brow_cover(look.brow, x, y) if z > 0.85 else 0.0
    for c in range(3):
        color[c] += (look.colors[_HAIR, c] - color[c]) * cover
        color[c] += (0.5 * look.colors[_HAIR, c] - color[c]) * min(shade, 0.9)
        color[c] += (look.colors[_BROW, c] - color[c]) * min(1.0, brow) * 0.45 * look.brow[5]
    # Bare scalp is ordinary skin; lips are thinner skin.
    bump[3], bump[4] = (
        0.42 + 0.05 * detail * middle,
        look.strengths[_OILINESS] * (1 + 0.5 * math.exp(-((x / 0.25) ** 2)) * face),
    )
    rim = smoothstep(0.25, 0.75, lips)
    if rim > 0:
        lines = 1 + 0.09 * noises[_LINES]
        for c in range(3):
            lip = 0.93 * look.colors[_SKIN_COLOR, c] * look.colors[_LIP_TINT, c] * lines + 0.01
            color[c] += (lip - color[c]) * rim
        bump[3] -= 0.11 * rim
        bump[4] += 0.3 * rim
    slope_x, slope_y = _bump(look.folds, look.slopes, x, y, face)
    grain = detail * 0.035 + 0.05 * wrinkles
    bump[0] = -slope_x + grain * noises[_GRAIN_X]
    bump[1] = -slope_y + grain * noises[_GRAIN_Y]
    bump[2] = 0.0
    if inside > 0.5:
        color[0], color[1], color[2] = 0.34, 0.085, 0.08
        bump[3] = 0.3
        return _MOUTH
    if lips > 0.5:
        return _LIPS
    if brow > 0.45:
        return _BROWS
    if ears > 0.4:
        return _EARS
    if y < 6.32 - 0.30 * max(0.0, 1.0 - z) + 0.6 * max(0.0, 0.62 - z) * (1.0 if y < 6.9 else 0.0) and face < 0.15:
        return _NECK
    if masks[5] > 0.5 and y > 6.77 and side < 0.21 and z > 1.1:
        return _NOSE
    return _SKIN


@compiled_part
def _collar(cut, x, y, z):
    """Returns whether a point of the resting body is under clothes."""
    edge = 5.72 - 0.10 * max(0.0, z - 0.2)
    if cut == 1:  # v
        edge = 5.75 - 0.75 * max(0.0, z - 0.25) * max(0.0, 1.0 - abs(x) / 0.45)
    elif cut == 2:  # shirt: stands up around the neck, open in front
        edge = 5.93 - 0.85 * max(0.0, z - 0.35) * max(0.0, 1.0 - abs(x) / 0.30)
    return edge - y


@compiled_part
def _paint_cloth(colors, pattern, rest, under, color, bump):
    x, y, z = rest
    weave = 1 + 0.10 * noise(x * 90, y * 30, z * 90) + 0.10 * noise(x * 5, y * 5, z * 5)
    mix = 0.0
    if pattern == 1:
        mix = smoothstep(-0.15, 0.15, math.sin(y * 28))
    elif pattern == 2:
        mix = 0.5 * smoothstep(-0.2, 0.2, math.sin(y * 24)) + 0.5 * smoothstep(-0.2, 0.2, math.sin(x * 24))
    seam = 1.0 - 0.3 * math.exp(-(((under - 0.07) / 0.012) ** 2)) if y > 5.4 and abs(x) < 0.95 else 1.0
    for c in range(3):
        color[c] = (colors[_CLOTH_FIRST, c] * (1 - mix) + colors[_CLOTH_SECOND, c] * mix) * weave * seam
    bump[0] = 0.25 * fractal_noise(x * 4, y * 3, z * 4, 2)
    bump[1] = 0.25 * fractal_noise(x * 4 + 9, y * 3, z * 4, 2)
    bump[2] = 0.0
    bump[3], bump[4] = 0.7, 0.35


@compiled_part
def _paint_eye(iris, pupil, texture, rest, center, color):
    """Computes the eyeball's color at a point of it at rest, looking along z."""
    dx, dy, dz = rest[0] - center[0], rest[1] - center[1], rest[2] - center[2]
    angle, way = math.atan2(math.hypot(dx, dy), dz), math.atan2(dy, dx)
    vein = 0.12 * max(0.0, noise(way * 6 + texture[0], angle * 7, 3.0)) * smoothstep(0.5, 1.0, angle)
    color[0], color[1], color[2] = 0.72, 0.67 * (1 - vein), 0.63 * (1 - vein)
    inside = 1 - smoothstep(IRIS_ANGLE - 0.035, IRIS_ANGLE + 0.035, angle)
    if inside > 0:
        c, s = math.cos(way), math.sin(way)
        fibers = 1 + 0.35 * noise(c * 9 + texture[1], s * 9, angle * 4) + 0.2 * noise(c * 22, s * 22, 5.0)
        limbus = 1 - 0.7 * smoothstep(IRIS_ANGLE - 0.14, IRIS_ANGLE, angle)
        hole = smoothstep(pupil - 0.03, pupil + 0.03, angle)
        center_glow = 1.25 if angle < 0.28 else 1.0
        for k in range(3):
            color[k] += (iris[k] * fibers * limbus * hole * (center_glow if k < 2 else 1.0) - color[k]) * inside


@compiled
def shade(vertices, triangles, parts, look, triangle_of_pixel, weights, image, labels):
    """Shades the pixels that show the mesh.

    Args:
        vertices: (N, 22) from `vertex_table`.
        triangles, parts: (f, 3) and (f,) int32.
        look: `Look`.
        triangle_of_pixel, weights: from `rasterize.draw_mesh`, -1 outside the mesh.
        image: (H, W, 3) float32 linear, changed.
        labels: (H, W) uint8, changed.
    """
    here = np.empty(_END)
    rest, light = here[_REST:_WORLD], here[_LIGHT:_REACHED]
    color, bump, noises, shine = np.empty(3), np.zeros(5), np.empty(len(_NOISES)), np.empty(3)
    for row in range(triangle_of_pixel.shape[0]):
        for column in range(triangle_of_pixel.shape[1]):
            t = triangle_of_pixel[row, column]
            if t < 0:
                continue
            a, b, c = triangles[t]
            wb, wc = weights[row, column]
            for k in range(_END):
                here[k] = (1.0 - wb - wc) * vertices[a, k] + wb * vertices[b, k] + wc * vertices[c, k]
            part, shadow = parts[t], 1.0
            bump[:] = 0.0
            if part == 0:
                under = _collar(look.strengths[_CUT], rest[0], rest[1], rest[2])
                wide = rest[1] < 6.1 and rest[0] * rest[0] + (rest[2] - 0.15) ** 2 > 1.0
                if under > 0 or wide:
                    depth = 0.5 if wide else under
                    _paint_cloth(look.colors, look.strengths[_PATTERN], rest, depth, color, bump)
                    label = _CLOTH
                else:
                    label = _paint_skin(look, here, noises, color, bump)
                    if label == _MOUTH:
                        # Deeper in the mouth there is less light.
                        shadow = 0.12 + 0.5 * smoothstep(0.9, 1.3, rest[2])
                    if under > -0.03:
                        shadow = 0.75
            elif part <= 2:
                center = look.eye_centers[part - 1]
                _paint_eye(look.colors[_IRIS], look.strengths[_PUPIL], look.texture[0], rest, center, color)
                bump[3], bump[4] = 0.10, 1.5
                label = _EYES
                # The upper lid and its lashes shade the eyeball below.
                plane = look.lid_planes[part - 1]
                below = plane[3]
                for k in range(3):
                    below -= plane[k] * here[_WORLD + k]
                shadow = 0.45 + 0.55 * smoothstep(-0.01, 0.06, below)
            elif part == 3:
                color[0], color[1], color[2] = 0.60, 0.55, 0.47
                bump[3], bump[4] = 0.18, 0.7
                # Dark gaps between the teeth; the row recedes into the mouth.
                side = abs(rest[0])
                gap = abs(((side / 0.062) % 1.0) - 0.5) if side > 0.03 else 0.0
                shadow = (0.9 - 0.35 * smoothstep(0.42, 0.5, gap)) * (1.0 - 0.75 * smoothstep(0.08, 0.26, side))
                # More light enters between the lips from all sides than the shadow maps show.
                for k in range(3):
                    light[k] = max(light[k], TEETH_LIGHT * look.around[k])
                label = _TEETH
            else:
                color[0], color[1], color[2] = 0.42, 0.15, 0.14
                bump[3], bump[4] = 0.35, 0.8
                for k in range(3):
                    light[k] = max(light[k], TONGUE_LIGHT * look.around[k])
                shadow = 0.55
                label = _MOUTH
            _light_pixel(look.lobes, look.camera, look.rotation, here, shadow, color, bump, shine, image[row, column])
            labels[row, column] = label


@compiled_part
def _light_pixel(lobes, camera, rotation, here, shadow, color, bump, shine, out):
    """Computes the light that a lit point reflects to the camera."""
    world, normal, light = here[_WORLD:_NORMAL], here[_NORMAL:_LIGHT], here[_LIGHT:_REACHED]
    smooth_x, smooth_y, smooth_z = normal
    # Bumps are slopes on the resting head, so rotate them with the head.
    for k in range(3):
        normal[k] += rotation[k, 0] * bump[0] + rotation[k, 1] * bump[1]
    length = math.sqrt(normal[0] ** 2 + normal[1] ** 2 + normal[2] ** 2) + 1e-9
    nx, ny, nz = normal[0] / length, normal[1] / length, normal[2] / length
    vx, vy, vz = camera[0] - world[0], camera[1] - world[1], camera[2] - world[2]
    length = math.sqrt(vx * vx + vy * vy + vz * vz)
    vx, vy, vz = vx / length, vy / length, vz / length
    facing = max(1e-3, nx * vx + ny * vy + nz * vz)
    rough = max(bump[3], 0.05)
    fresnel = 0.03 + 0.97 * (1 - facing) ** 5 * (1 - rough) * 0.6
    # The specular lobe and the lamp's lobe combine to one with their summed width.
    mirror = 0.5 / (rough**4 + 1e-4)
    rx, ry, rz = 2 * facing * nx - vx, 2 * facing * ny - vy, 2 * facing * nz - vz
    # How much folds and grain turn the surface toward or away from the lamps, relative to the smooth surface.
    key, flat, total = 0.0, 0.0, 1e-6
    shine[:] = 0.0
    for j in range(len(lobes)):
        lobe = lobes[j]
        sharp = lobe[3] * mirror / (lobe[3] + mirror)
        strength = math.exp(sharp * (rx * lobe[0] + ry * lobe[1] + rz * lobe[2] - 1)) * sharp / lobe[3]
        for k in range(3):
            shine[k] += strength * lobe[4 + k]
        power = (lobe[4] + lobe[5] + lobe[6]) / lobe[3]
        key += power * max(0.0, 0.3 + nx * lobe[0] + ny * lobe[1] + nz * lobe[2])
        flat += power * max(0.0, 0.3 + smooth_x * lobe[0] + smooth_y * lobe[1] + smooth_z * lobe[2])
        total += power
    relief = min(max((key + 0.35 * total) / (flat + 0.35 * total), 0.45), 1.5)
    lit = smoothstep(0.1, 0.9, here[_REACHED])
    for k in range(3):
        out[k] = (color[k] * light[k] * relief + fresnel * bump[4] * shine[k] * lit) * shadow
