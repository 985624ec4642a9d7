"""The base mesh of every person: loading, subdivision, morphing, and data about its regions.

Lengths are in decimeters, in the frame of `make_head`: x to the person's left, y up, z forward.
"""

import functools
from dataclasses import dataclass

import numpy as np

from facedancer.synthetic.geometry import averaging, sparse_product, subdivision, unit
from facedancer.synthetic.make_head import HEAD_FILE, MASKS, PARTS

BODY, LEFT_EYE, RIGHT_EYE, TEETH, TONGUE, LASHES = range(len(PARTS))
LIPS, EYELIDS, EARS, INSIDE_MOUTH, FACE, NOSE = range(len(MASKS))

# The head rotates about this point in the neck.
PIVOT = np.array([0.0, 6.35, 0.25])


@dataclass(frozen=True, eq=False)
class Head:
    """The mesh and its morphs; build it with `load_head`.

    Attributes:
        vertices: (n, 3) float32, the neutral head at rest.
        triangles: (f, 3) int32, body, eyes, teeth and tongue.
        lash_triangles: (g, 3) int32, where eyelashes grow.
        landmarks: (68,) vertex numbers of the landmarks, in iBUG's order.
        face_weight: (n,) float32, how much a vertex belongs to the inner face, which an identity shapes.
        morphs: dict name -> (vertex numbers, offsets (k, 3) float32).
        fine_matrix: CSR triple, vertices -> vertices of the subdivided mesh.
        fine_triangles: (4f, 3) int32, with `fine_parts` (4f,) int32.
        fine_rest: (N, 3) float32, the subdivided mesh at rest, on which textures are painted.
        fine_masks: (N, 6) float32 in [0, 1].
        fine_average: CSR triple, mean over neighbors.
        fine_face_weight: (N,) float32.
        eyes: the vertices of each eye, a pair of arrays, left first.
        hand_vertices, hand_triangles: a hand, (h, 3) float32 and (k, 3) int32.
    """

    vertices: np.ndarray
    triangles: np.ndarray
    parts: np.ndarray
    masks: np.ndarray
    lash_triangles: np.ndarray
    landmarks: np.ndarray
    face_weight: np.ndarray
    morphs: dict
    fine_matrix: tuple
    fine_triangles: np.ndarray
    fine_parts: np.ndarray
    fine_rest: np.ndarray
    fine_masks: np.ndarray
    fine_average: tuple
    fine_face_weight: np.ndarray
    eyes: tuple
    hand_vertices: np.ndarray
    hand_triangles: np.ndarray

    def offsets(self, weights):
        """Returns the sum of morphs, (n, 3) float32, for a mapping name -> weight."""
        out = np.zeros_like(self.vertices)
        for name, weight in weights.items():
            indices, offsets = self.morphs[name]
            out[indices] += np.float32(weight) * offsets
        return out

    def subdivide(self, values):
        """Interpolates vertex values (n, k) to the subdivided mesh, (N, k) float32."""
        return sparse_product(*self.fine_matrix, np.ascontiguousarray(values, np.float32))

    def smooth(self, values):
        """Averages values (N, k) float32 over neighbors."""
        return sparse_product(*self.fine_average, values)


@functools.cache
def load_head():
    """Returns the `Head` of `head.npz`."""
    with np.load(HEAD_FILE) as file:
        data = {name: file[name] for name in file.files}
    vertices, parts = data["vertices"], data["parts"].astype(np.int32)
    triangles = data["triangles"].astype(np.int32)
    masks = data["masks"].astype(np.float32) / 255
    visible = parts != LASHES
    matrix, fine_triangles = subdivision(triangles[visible], len(vertices))
    fine_parts = np.tile(parts[visible], 4)
    starts = data["morph_starts"]
    offsets = data["morph_offsets"].astype(np.float32)
    morphs = {
        str(name): (data["morph_vertices"][a:b].astype(np.int64), offsets[a:b])
        for name, a, b in zip(data["morph_names"], starts[:-1], starts[1:], strict=True)
    }
    inner = np.zeros(len(vertices), bool)
    inner[triangles[parts != BODY]] = True
    face_weight = np.where(inner, 1.0, _face_weight(vertices)).astype(np.float32)
    fine_rest = sparse_product(*matrix, vertices)
    return Head(
        vertices=vertices,
        triangles=triangles[visible],
        parts=parts[visible],
        masks=masks,
        lash_triangles=triangles[~visible],
        landmarks=data["landmarks"].astype(np.int64),
        face_weight=face_weight,
        morphs=morphs,
        fine_matrix=matrix,
        fine_triangles=fine_triangles,
        fine_parts=fine_parts,
        fine_rest=fine_rest,
        fine_masks=np.clip(sparse_product(*matrix, masks), 0, 1),
        fine_average=averaging(fine_triangles, len(fine_rest)),
        fine_face_weight=sparse_product(*matrix, face_weight[:, None])[:, 0],
        eyes=tuple(np.unique(triangles[parts == part]) for part in (LEFT_EYE, RIGHT_EYE)),
        hand_vertices=data["hand_vertices"].astype(np.float32),
        hand_triangles=data["hand_triangles"].astype(np.int32),
    )


def _face_weight(rest):
    """Returns 1 on the inner face, falling to 0 toward the hairline, the ears, the jaw corners and below the chin."""
    x, y, z = rest.T

    def rise(low, high, value):
        t = np.clip((value - low) / (high - low), 0, 1)
        return t * t * (3 - 2 * t)

    # Lower down, the face begins further forward: below the chin, only the chin itself belongs to it.
    front = rise(0.20, 0.70, z) * rise(0.84, 0.62, np.abs(x))
    return front * rise(8.0, 7.72, y) * rise(6.02, 6.20, y + 0.25 * (z - 1.2))


def fit_sphere(points):
    """Returns center (3,) and radius of the least-squares sphere through (n, 3) points."""
    points = points.astype(np.float64)
    mean = points.mean(0)
    centered = points - mean
    unknown = np.linalg.lstsq(np.c_[2 * centered, np.ones(len(points))], (centered**2).sum(1), rcond=None)[0]
    return mean + unknown[:3], float(np.sqrt(unknown[3] + (unknown[:3] ** 2).sum()))


def eye_directions(head):
    """Returns each eye's vertices in the subdivided mesh, and their unit directions (k, 3) from its center at rest."""
    out = []
    for part, own in zip((LEFT_EYE, RIGHT_EYE), head.eyes, strict=True):
        fine = np.unique(head.fine_triangles[head.fine_parts == part])
        center, _ = fit_sphere(head.vertices[own])
        out.append((fine, unit(head.fine_rest[fine] - center).astype(np.float32)))
    return out
