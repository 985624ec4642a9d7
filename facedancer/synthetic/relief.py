"""Wrinkles: height maps of facial folds on the resting face seen from the front, and their depth.

There are five kinds of folds, each with a map that is built once. Age deepens all of them; an expression deepens the
ones that it folds.
"""

import functools

import numpy as np

KINDS = ("forehead", "frown", "crow's feet", "nasolabial", "under the eyes")
# Extent of the maps on the resting face, decimeters, and resolution.
LEFT, BOTTOM, WIDTH, HEIGHT = -0.9, 6.0, 1.8, 2.1
CELLS = 160  # a decimeter

_EXPRESSIONS = {
    "forehead": ("browInnerUp", "browOuterUpLeft", "browOuterUpRight"),
    "frown": ("browDownLeft", "browDownRight", "noseSneerLeft"),
    "crow's feet": ("eyeSquintLeft", "eyeSquintRight", "cheekSquintLeft", "cheekSquintRight"),
    "nasolabial": ("mouthSmileLeft", "mouthSmileRight", "mouthUpperUpLeft", "noseSneerRight"),
    "under the eyes": ("cheekSquintLeft", "cheekSquintRight", "eyeSquintLeft"),
}
_BY_AGE = {"forehead": 0.8, "frown": 0.7, "crow's feet": 0.8, "nasolabial": 0.8, "under the eyes": 0.8}
_ALWAYS = {"forehead": 0.0, "frown": 0.0, "crow's feet": 0.0, "nasolabial": 0.22, "under the eyes": 0.15}


def fold_depths(wrinkles, expression):
    """Returns the depth of each of `KINDS`, (5,) float64.

    Args:
        wrinkles: of the identity, 0 smooth to 1.
        expression: morph name -> weight.
    """
    depths = []
    for kind in KINDS:
        names = _EXPRESSIONS[kind]
        folded = sum(expression.get(name, 0.0) for name in names) / len(names)
        # Young skin also folds, old skin more.
        depths.append(_ALWAYS[kind] + _BY_AGE[kind] * wrinkles + folded * (0.35 + 0.9 * wrinkles))
    return np.minimum(depths, 1.6)


@functools.cache
def fold_slopes():
    """Returns the slopes in x and y of each kind's height map on the resting face, (5, H, W, 2) float32."""
    x = LEFT + (np.arange(int(WIDTH * CELLS)) + 0.5) / CELLS
    y = BOTTOM + (np.arange(int(HEIGHT * CELLS)) + 0.5) / CELLS
    x, y = np.meshgrid(x, y)
    side = np.abs(x)
    sway = 0.012 * np.sin(7 * x + 1.3) + 0.008 * np.sin(17 * x)
    maps = []

    lines = np.cos((y + sway - 0.03 * side) * 2 * np.pi / 0.085) ** 5
    area = _window(y, 7.58, 7.68, 7.84, 7.96) * _window(side, -1, -0.5, 0.34, 0.52)
    maps.append(-0.007 * np.abs(lines) * np.sign(lines) * area)

    between = np.exp(-(((side - 0.062 - 0.05 * (y - 7.42)) / 0.013) ** 2)) * _window(y, 7.30, 7.36, 7.48, 7.58)
    bridge = np.exp(-(((y - 7.31) / 0.014) ** 2)) * _window(side, -1, -0.5, 0.05, 0.10)
    maps.append(-0.011 * between - 0.006 * bridge)

    angle, distance = np.arctan2(y - 7.28, side - 0.40), np.hypot(y - 7.28, side - 0.40)
    rays = np.cos(angle * 7.5 + 0.8 * np.sin(9 * distance)) ** 4
    maps.append(-0.006 * rays * _window(distance, 0.07, 0.12, 0.17, 0.27) * _window(angle, -1.0, -0.6, 0.5, 0.9))

    # From the wing of the nose past the corner of the mouth, then down beside the chin.
    fold = np.interp(y, [6.35, 6.5, 6.62, 6.76, 6.88, 6.95], [0.27, 0.31, 0.335, 0.285, 0.20, 0.165])
    groove = np.exp(-(((side - fold) / 0.022) ** 2)) + 0.7 * np.exp(-(((side - fold + 0.03) / 0.06) ** 2))
    maps.append(-0.012 * groove * _window(y, 6.44, 6.62, 6.84, 6.94))

    bag = 7.155 - 0.30 * (side - 0.29) ** 2 * (side > 0.29) + 0.55 * (0.29 - side) ** 2 * (side < 0.29)
    creases = np.exp(-(((y - bag) / 0.014) ** 2)) + 0.6 * np.exp(-(((y - bag - 0.04) / 0.010) ** 2))
    maps.append(-0.007 * creases * _window(side, 0.13, 0.20, 0.38, 0.47))

    slopes = [np.stack(np.gradient(each, 1 / CELLS)[::-1], -1) for each in maps]
    return np.ascontiguousarray(slopes, np.float32)


def _window(value, start, full, until, end):
    """Returns 0 outside [start, end], 1 within [full, until], smooth between."""
    up, down = np.clip((value - start) / (full - start), 0, 1), np.clip((end - value) / (end - until), 0, 1)
    return up * up * (3 - 2 * up) * down * down * (3 - 2 * down)
