"""From draws to meshes: the neutral head of an identity on a person, its expression and its pose."""

import functools
from dataclasses import dataclass

import numpy as np

from facedancer.synthetic.compiled import compiled
from facedancer.synthetic.geometry import rotation, vertex_normals
from facedancer.synthetic.head import PIVOT, eye_directions, fit_sphere, load_head

# Heads are scaled to the resting head's size, so that nobody is a giant; below this height is the body.
HEAD_BOTTOM = 6.1
# Gap between the eyelids' rims and the eyeball.
EYE_SCALE = 0.995


def neutral_vertices(identity, person):
    """Returns the (n, 3) float32 neutral head: the identity's inner face on the person's head.

    Both are aligned to the resting head's position and size before blending, each by the part that it shapes.
    """
    head = load_head()
    face = _in_place(tuple(identity.shape.items()), True)
    rest = _in_place(tuple(person.shape.items()), False)
    weight = head.face_weight[:, None]
    return (weight * face + (1 - weight) * rest).astype(np.float32)


@functools.lru_cache(maxsize=8)
def person_vertices(shape):
    """Returns the (n, 3) float32 head that hair grows on: the person's, with a neutral inner face.

    Args:
        shape: the items of a `Person.shape`.
    """
    head = load_head()
    weight = head.face_weight[:, None]
    return (weight * head.vertices + (1 - weight) * _in_place(shape, False)).astype(np.float32)


@functools.lru_cache(maxsize=64)
def _in_place(shape, is_face):
    """Returns the resting head with morphs, scaled and shifted back to the resting head's size and position."""
    head = load_head()
    rest = head.vertices
    points = rest + head.offsets(dict(shape))
    # Plain weights would overweight the finely meshed eyes and lips; their square root works well enough.
    share = head.face_weight**2 if is_face else (rest[:, 1] > HEAD_BOTTOM) * (1 - head.face_weight)
    share = (share / share.sum())[:, None].astype(np.float64)
    mean, rest_mean = (share * points).sum(0), (share * rest).sum(0)
    centered, rest_centered = points - mean, rest - rest_mean
    scale = np.sqrt((share * rest_centered**2).sum() / (share * centered**2).sum())
    return (centered * scale + rest_mean).astype(np.float32)


@dataclass(frozen=True)
class PosedHead:
    """A head in the world, ready to be lit and drawn.

    Attributes:
        neutral: (n, 3) float32, without expression and pose.
        expressed: (n, 3) float32, with expression, without pose.
        vertices: (N, 3) float32, the subdivided mesh in the world.
        normals: (N, 3) float32.
        rotation: (3, 3) of the head; it turns about `PIVOT`.
        eye_centers: (2, 3) in the world, left first; `eye_radii` (2,).
        gaze: (3, 3) rotation of the eyeballs within the head.
    """

    neutral: np.ndarray
    expressed: np.ndarray
    vertices: np.ndarray
    normals: np.ndarray
    rotation: np.ndarray
    eye_centers: np.ndarray
    eye_radii: np.ndarray
    gaze: np.ndarray

    @property
    def shift(self):
        """The shift from head to world: `points @ rotation.T + shift`."""
        return PIVOT - self.rotation @ PIVOT


def pose_head(identity, person, expression, pose, gaze):
    """Returns the `PosedHead`.

    Args:
        expression: mapping of morph names to weights in [0, 1].
        pose: yaw, pitch, roll in degrees, as `geometry.rotation`.
        gaze: yaw and pitch of the eyes within the head, degrees.
    """
    head = load_head()
    neutral = neutral_vertices(identity, person)
    expressed = neutral + head.offsets(expression)
    fine = head.subdivide(expressed)
    turn = rotation(gaze[0], gaze[1], 0)
    centers, radii, eyes = [], [], []
    for own, (numbers, directions) in zip(head.eyes, _eye_directions(), strict=True):
        center, radius = fit_sphere(neutral[own])
        turned = directions @ turn.T.astype(np.float32)
        # The cornea bulges slightly.
        bulge = 1.0 + 0.025 * np.clip((directions[:, 2] - 0.87) / 0.1, 0, 1)[:, None]
        fine[numbers] = center + turned * (radius * EYE_SCALE) * bulge
        centers.append(center)
        radii.append(radius)
        eyes.append((numbers, turned))
    vertices = np.empty_like(fine)
    bend_neck(fine, _follow(), neck_rotations(pose), PIVOT, vertices)
    normals = vertex_normals(vertices, head.fine_triangles)
    own = rotation(*pose)
    for numbers, turned in eyes:
        normals[numbers] = turned @ own.T.astype(np.float32)
    return PosedHead(
        neutral=neutral,
        expressed=expressed.astype(np.float32),
        vertices=vertices,
        normals=normals,
        rotation=own,
        eye_centers=(np.array(centers) - PIVOT) @ own.T + PIVOT,
        eye_radii=np.array(radii),
        gaze=turn,
    )


@functools.cache
def _eye_directions():
    return eye_directions(load_head())


@functools.cache
def _follow():
    return follow_head(load_head().fine_rest)


def follow_head(points):
    """Returns how far (n, 3) points of the resting head follow its rotation: (n,) float32, 0 shoulders, 1 head."""
    height = np.clip((points[:, 1] + 0.25 * np.clip(0.6 - points[:, 2], 0, 1) - 5.55) / 0.95, 0, 1)
    return (height * height * (3 - 2 * height)).astype(np.float32)


def neck_rotations(pose):
    """Returns the (9, 3, 3) rotations from the shoulders' to the head's, for `bend_neck`."""
    return np.stack([rotation(*(angle * share for angle in pose)) for share in np.linspace(0, 1, 9)])


@compiled
def bend_neck(points, follow, rotations, pivot, out):
    """Rotates each point about the pivot by its share of the head's rotation."""
    last = len(rotations) - 1
    for i in range(len(points)):
        place = follow[i] * last
        k = min(int(place), last - 1)
        t = place - k
        x, y, z = points[i, 0] - pivot[0], points[i, 1] - pivot[1], points[i, 2] - pivot[2]
        for j in range(3):
            a, b = rotations[k, j], rotations[k + 1, j]
            low = a[0] * x + a[1] * y + a[2] * z
            high = b[0] * x + b[1] * y + b[2] * z
            out[i, j] = low + t * (high - low) + pivot[j]
