"""Eyebrows, eyelashes and beards: short strands that move with the skin they grow on."""

import numpy as np

from facedancer.synthetic.geometry import unit, vertex_normals
from facedancer.synthetic.hair import Strands, at_roots, sample_roots
from facedancer.synthetic.head import EARS, LIPS, fit_sphere, load_head

BROW_HEIGHT = 7.475
# Distance of a lid's rim from the eye's center, decimeters.
RIM_REACH = 0.16
# Beards: number of strands, and length in decimeters.
_BEARDS = {
    "stubble": (9000, 0.020),
    "short": (11000, 0.07),
    "full": (12000, 0.24),
    "goatee": (4500, 0.15),
    "moustache": (2800, 0.11),
}


def brow_cover(brow, x, y):
    """Returns the brow's coverage of the skin at (x, y) of the resting head, 0 to 1; arrays or numbers."""
    along = np.clip((np.abs(x) - brow.gap) / brow.length, 0, 1)
    middle = BROW_HEIGHT + brow.height + brow.arch * np.sin(2.6 * along) - 0.020 * along
    half = brow.thickness * np.clip(1.25 - along, 0.3, 1) * np.clip(0.55 + 4 * along, 0, 1)
    across = np.clip(1.35 - np.abs(y - middle) / half, 0, 1)
    ends = np.clip((np.abs(x) - brow.gap) / 0.04, 0, 1) * np.clip((brow.gap + brow.length - np.abs(x)) / 0.08, 0, 1)
    return across * ends


def beard_cover(beard, rest, masks):
    """Returns a beard's density at (n, 3) points of the resting head with (n, 6) masks: (n,) in [0, 1]."""
    x, y, z = rest.T
    side = np.abs(x)
    top = np.interp(side, [0, 0.2, 0.36, 0.5, 0.62, 0.78], [6.86, 6.80, 6.68, 6.72, 6.92, 7.25])
    cover = (
        np.clip((top - y) / 0.09, 0, 1)
        * np.clip((y - 6.30 + 0.28 * np.clip(z - 0.75, 0, 0.5)) / 0.12, 0, 1)
        * (z > 0.42)
    )
    cover = cover * (masks[:, LIPS] < 0.12) * (masks[:, EARS] < 0.2)
    # Bare below the corners of the lower lip, with a gap under the nose.
    cover = cover * (1 - 0.8 * np.exp(-(((side - 0.17) / 0.06) ** 2) - ((y - 6.48) / 0.05) ** 2))
    if beard in ("goatee", "moustache"):
        lip = (y > 6.60) & (side < 0.34)
        chin = (side < 0.26) | ((side < 0.34) & (y < 6.66) & (y > 6.3))
        cover = cover * (lip if beard == "moustache" else (lip | chin))
    return cover


def grow_brows(identity, neutral):
    """Returns the `Strands` of the eyebrows on a neutral head (n, 3)."""
    head, brow = load_head(), identity.brow
    random = np.random.default_rng([identity.number, *b"brows"])
    centers = head.vertices[head.triangles].mean(1)
    cover = brow_cover(brow, centers[:, 0], centers[:, 1]) + 0.05
    cover = cover * (centers[:, 2] > 0.9) * (np.abs(centers[:, 1] - BROW_HEIGHT) < 0.25)
    triangles, weights = sample_roots(cover, neutral, int(3600 * brow.density), random)
    rest = at_roots(head.vertices, triangles, weights)
    kept = brow_cover(brow, rest[:, 0], rest[:, 1]) > random.random(len(rest))
    triangles, weights, rest = triangles[kept], weights[kept], rest[kept]
    roots = at_roots(neutral, triangles, weights)
    outward = unit(at_roots(vertex_normals(neutral, head.triangles), triangles, weights))
    n = len(roots)
    along = np.clip((np.abs(rest[:, 0]) - brow.gap) / brow.length, 0, 1)
    # Hairs stand up at the inner end and lie flat toward the outer end.
    ways = np.column_stack([np.sign(rest[:, 0]) * (0.3 + along), 0.75 - 1.2 * along, np.zeros(n)])
    ways = unit(ways + 0.28 * outward + random.normal(0, 0.2, (n, 3)))
    lengths = random.uniform(0.045, 0.085, n)
    points = roots[:, None] + ways[:, None] * np.linspace(0, 1, 4)[:, None] * lengths[:, None, None]
    colors = np.array(brow.color) * np.exp(random.normal(0, 0.2, (n, 1)))
    return _strands(points, colors, outward, 0.005, triangles, weights)


def grow_lashes(identity, neutral, eye_centers):
    """Returns the `Strands` of the eyelashes on a neutral head (n, 3); they move with the lids' own vertices.

    Their `triangles` count those of `Head.lash_triangles`.
    """
    head = load_head()
    random = np.random.default_rng([identity.number, *b"lashes"])
    # Of the mesh strips that represent lashes, only the edge on the lid's rim is used.
    corners = head.vertices[head.lash_triangles]
    resting = np.array([fit_sphere(head.vertices[own])[0] for own in head.eyes])
    center = np.where(corners[..., :1] > 0, resting[0], resting[1])
    far = np.linalg.norm(corners - center, axis=-1)
    order = np.argsort(far, axis=1)
    on_rim = np.flatnonzero(np.sort(far, axis=1)[:, 1] < RIM_REACH)
    n = 260
    triangles = random.choice(on_rim, n)
    along = random.random(n)
    weights = np.zeros((n, 3), np.float32)
    weights[np.arange(n), order[triangles, 0]] = along
    weights[np.arange(n), order[triangles, 1]] = 1 - along
    roots = (neutral[head.lash_triangles[triangles]] * weights[:, :, None]).sum(1)
    rest = (corners[triangles] * weights[:, :, None]).sum(1)
    upper = (rest[:, 1] > 7.275)[:, None]
    center = np.where(rest[:, :1] > 0, eye_centers[0], eye_centers[1])
    outward = unit(roots - center)
    ways = unit(outward + np.where(upper, [0, 0.45, 0.1], [0, -0.5, 0.0]) + random.normal(0, 0.08, (n, 3)))
    lengths = identity.lashes * np.where(upper, 0.046, 0.014) * random.uniform(0.6, 1.1, (n, 1))
    t = np.linspace(0, 1, 4)[:, None]
    bend = np.where(upper, 0.35, -0.2)[:, None] * t**2 * [0, 1, 0]
    points = roots[:, None] + lengths[:, None] * (ways[:, None] * t + bend)
    dark = np.minimum(np.array(identity.brow.color) * 0.35, 0.02)
    return _strands(points, np.broadcast_to(dark, (n, 3)), outward, 0.005, triangles, weights)


def grow_beard(person, neutral):
    """Returns the `Strands` of a beard on a neutral head (n, 3), or None."""
    if person.beard == "none":
        return None
    head = load_head()
    random = np.random.default_rng([person.number, *b"beard"])
    count, length = _BEARDS[person.beard]
    centers, masks = head.vertices[head.triangles].mean(1), head.masks[head.triangles].mean(1)
    # Roots and lengths are drawn on the resting head, so that they depend only on the person.
    triangles, weights = sample_roots(beard_cover(person.beard, centers, masks), head.vertices, count, random)
    roots = at_roots(neutral, triangles, weights)
    outward = unit(at_roots(vertex_normals(neutral, head.triangles), triangles, weights))
    ways = unit(0.6 * outward + [0, -1, 0.05] + random.normal(0, 0.3, (count, 3)))
    lengths = length * random.uniform(0.5, 1.1, (count, 1))
    steps = 6
    points = np.empty((count, steps, 3))
    points[:, 0] = roots
    for k in range(1, steps):
        ways = unit(ways + random.normal([0, -0.3, -0.05], 0.12, (count, 3)))
        points[:, k] = points[:, k - 1] + ways * lengths / (steps - 1)
    shade = np.exp(random.normal(0, 0.22, (count, 1)))
    return _strands(points, np.array(person.hair.color) * 0.9 * shade, outward, 0.006, triangles, weights)


def _strands(points, colors, outward, thickness, triangles, weights):
    return Strands(
        points=np.ascontiguousarray(points, np.float32),
        colors=np.ascontiguousarray(colors, np.float32),
        outward=np.ascontiguousarray(outward, np.float32),
        thickness=thickness,
        triangles=triangles,
        weights=weights,
    )
