"""A parametric face: coefficients to shape, colors and landmarks, by a basis in `BFM_model_front.mat`.

The face is a mean plus weighted vectors of identity, expression and texture (Paysan et al., A 3D Face Model for Pose
and Illumination Invariant Face Recognition, AVSS 2009). It is rotated, translated, lit by spherical harmonics of three
bands (Ramamoorthi and Hanrahan, SIGGRAPH 2001) and projected by the camera of Deng et al., CVPR workshops 2019.
Everything is differentiable. The basis has its own license and is not included.
"""

import math

import numpy as np
from keras import ops

from facedancer.core.console import UserError
from facedancer.core.mat_file import read_mat

# Number of coefficients of each kind, in order.
PARTS = {"identity": 80, "expression": 64, "texture": 80, "angles": 3, "light": 27, "translation": 3}
_ENDS = np.cumsum(list(PARTS.values())).tolist()
COUNT = _ENDS[-1]
FOCAL, CENTER = 1015.0, 112.0  # focal length and center of the camera, in pixels of a 224-pixel image
DISTANCE = 10.0  # distance of the camera, in decimeters, the basis' unit
_AMBIENT = 0.8
_NAMES = ("meanshape", "idBase", "exBase", "meantex", "texBase", "tri", "point_buf", "keypoints")


def split_coefficients(coefficients):
    """Splits coefficients (n, 257) by kind: returns name -> (n, count)."""
    starts = (0, *_ENDS[:-1])
    return {name: coefficients[:, start:end] for name, start, end in zip(PARTS, starts, _ENDS, strict=True)}


class ParametricFace:
    """A basis of 3D faces, which maps coefficients (n, 257) to shape, colors and landmarks.

    Args:
        path: `BFM_model_front.mat`.

    Raises:
        UserError: if something is missing in the file or does not fit.
    """

    def __init__(self, path):
        basis = read_mat(path, _NAMES)
        self.vertex_count = basis["meanshape"].size // 3
        length = 3 * self.vertex_count
        wanted = {
            "meanshape": (1, length), "idBase": (length, PARTS["identity"]), "exBase": (length, PARTS["expression"]),
            "meantex": (1, length), "texBase": (length, PARTS["texture"]), "tri": (len(basis["tri"]), 3),
            "point_buf": (self.vertex_count, 8), "keypoints": (1, 68),
        }  # fmt: skip
        for name, shape in wanted.items():
            if basis[name].shape != shape:
                raise UserError(f"{path}: {name} has the shape {basis[name].shape}, expected {shape}")
        # Indices count from 1; a vertex with fewer than eight triangles has one beyond the last instead.
        limits = {"tri": self.vertex_count, "point_buf": len(basis["tri"]) + 1, "keypoints": self.vertex_count}
        for name, limit in limits.items():
            if basis[name].min() < 1 or basis[name].max() > limit:
                raise UserError(f"{path}: {name} has an index that is not from 1 to {limit}")
        mean = basis["meanshape"].reshape(-1, 3).astype(np.float64)
        self._mean_shape = np.float32(mean - mean.mean(axis=0)).reshape(1, -1)
        self._identity, self._expression = np.float32(basis["idBase"].T), np.float32(basis["exBase"].T)
        self._mean_texture, self._texture = np.float32(basis["meantex"]), np.float32(basis["texBase"].T)
        self._triangles = basis["tri"].astype(np.int32) - 1
        self._triangles_at = basis["point_buf"].astype(np.int32) - 1
        self._landmarks = basis["keypoints"].astype(np.int32).ravel() - 1

    def shape(self, coefficients):
        """Returns the vertices (n, vertices, 3) in decimeters, facing forward, with the mean face centered."""
        parts = split_coefficients(coefficients)
        moved = ops.matmul(parts["identity"], self._identity) + ops.matmul(parts["expression"], self._expression)
        return ops.reshape(moved + self._mean_shape, (-1, self.vertex_count, 3))

    def texture(self, coefficients):
        """Returns the colors (n, vertices, 3) in white light, RGB roughly in [0, 1]."""
        added = ops.matmul(split_coefficients(coefficients)["texture"], self._texture)
        return ops.reshape((added + self._mean_texture) / 255.0, (-1, self.vertex_count, 3))

    def rotation(self, coefficients):
        """Returns the rotation matrices (n, 3, 3), to multiply rows of vertices by."""
        x, y, z = (split_coefficients(coefficients)["angles"][:, axis] for axis in range(3))
        (sx, sy, sz), (cx, cy, cz) = ([function(angle) for angle in (x, y, z)] for function in (ops.sin, ops.cos))
        rows = [
            [cy * cz, cy * sz, -sy],
            [sx * sy * cz - cx * sz, sx * sy * sz + cx * cz, sx * cy],
            [cx * sy * cz + sx * sz, cx * sy * sz - sx * cz, cx * cy],
        ]
        return ops.stack([ops.stack(row, axis=-1) for row in rows], axis=1)

    def vertices(self, coefficients):
        """Returns the vertices (n, vertices, 3) in camera coordinates, decimeters: x right, y up, z away from it."""
        turned = ops.matmul(self.shape(coefficients), self.rotation(coefficients))
        turned = turned + split_coefficients(coefficients)["translation"][:, None]
        return ops.concatenate([turned[..., :2], DISTANCE - turned[..., 2:]], axis=-1)

    def landmarks(self, coefficients):
        """Returns 68 landmarks (n, 68, 2) in pixels of a 224-pixel image, x right and y up."""
        seen = ops.take(self.vertices(coefficients), self._landmarks, axis=1)
        return FOCAL * seen[..., :2] / seen[..., 2:] + CENTER

    def color(self, coefficients):
        """Returns the colors (n, vertices, 3) in the coefficients' light, RGB roughly in [0, 1]."""
        light = ops.reshape(split_coefficients(coefficients)["light"], (-1, 3, 9))
        light = light + np.float32([_AMBIENT] + 8 * [0.0])
        normals = ops.matmul(self._normals(self.shape(coefficients)), self.rotation(coefficients))
        return ops.matmul(_harmonics(normals), ops.transpose(light, (0, 2, 1))) * self.texture(coefficients)

    def _normals(self, shape):
        """Returns the unit normals of vertices (n, vertices, 3): normalized sums over their triangles' normals."""
        first, second, third = (ops.take(shape, self._triangles[:, corner], axis=1) for corner in range(3))
        of_triangles = ops.normalize(ops.cross(first - second, second - third), axis=-1, epsilon=1e-12)
        of_triangles = ops.pad(of_triangles, ((0, 0), (0, 1), (0, 0)))
        return ops.normalize(
            ops.sum(ops.take(of_triangles, self._triangles_at, axis=1), axis=2), axis=-1, epsilon=1e-12
        )


def _harmonics(normals):
    """Returns the nine spherical harmonics (…, 9) at unit normals (…, 3), convolved with the Lambertian cosine."""
    x, y, z = (normals[..., axis] for axis in range(3))
    band0 = math.sqrt(math.pi) / 2
    band1 = math.sqrt(math.pi)
    band2 = math.pi / math.sqrt(2) * 3 * math.sqrt(5 / (12 * math.pi))
    harmonics = [
        band0 * ops.ones_like(x), -band1 * y, band1 * z, -band1 * x, band2 * x * y, -band2 * y * z,
        band2 / math.sqrt(12) * (3 * z * z - 1), -band2 * x * z, band2 / 2 * (x * x - y * y),
    ]  # fmt: skip
    return ops.stack(harmonics, axis=-1)
