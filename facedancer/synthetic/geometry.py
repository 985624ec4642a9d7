"""Vectors, rotations, and operations on whole meshes: subdivision, smoothing, normals.

Sparse matrices are CSR triples (starts, columns, weights). Their products run in Numba rather than BLAS, so that
results are the same for any number of threads.
"""

import math

import numpy as np

from facedancer.synthetic.compiled import compiled


def unit(vectors):
    """Scales (..., 3) vectors to length 1."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def rotation(yaw, pitch, roll):
    """Returns the (3, 3) rotation of a head, angles in degrees.

    Positive yaw turns the face toward the image's right, positive pitch up, positive roll counter-clockwise in the
    image. Roll is applied last.
    """
    yaw, pitch, roll = np.radians([yaw, -pitch, roll])
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    nod = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    tilt = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    return tilt @ nod @ turn


def frame_of(direction):
    """Returns a (3, 3) rotation whose last row is the unit vector `direction`."""
    side = unit(np.cross([0.0, 1.0, 0.01], direction))
    return np.stack([side, np.cross(direction, side), direction])


@compiled
def transform(points, matrix, shift, out):
    """out = points @ matrix.T + shift, for (n, 3) points."""
    for i in range(points.shape[0]):
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        for j in range(3):
            out[i, j] = matrix[j, 0] * x + matrix[j, 1] * y + matrix[j, 2] * z + shift[j]


def moved(points, matrix, shift):
    """Returns (..., 3) float32 points @ matrix.T + shift."""
    flat = np.ascontiguousarray(points, np.float32).reshape(-1, 3)
    out = np.empty_like(flat)
    transform(flat, np.ascontiguousarray(matrix, np.float64), np.ascontiguousarray(shift, np.float64), out)
    return out.reshape(points.shape)


def sparse_product(starts, columns, weights, values):
    """Returns the product of a CSR matrix (m, n) with (n, k) float32 values, (m, k) float32."""
    out = np.empty((len(starts) - 1, values.shape[1]), np.float32)
    _multiply(starts, columns, weights, values, out)
    return out


# Kernels fill arrays passed to them: compiling an array allocation takes Numba half a second.
@compiled
def _multiply(starts, columns, weights, values, out):
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            total = 0.0
            for k in range(starts[i], starts[i + 1]):
                total += weights[k] * values[columns[k], j]
            out[i, j] = total


def vertex_normals(vertices, triangles):
    """Returns area-weighted unit normals (n, 3) float32 of a mesh with float32 vertices."""
    normals = np.zeros_like(vertices)
    _add_up_normals(vertices, triangles, normals)
    return normals


@compiled
def _add_up_normals(vertices, triangles, normals):
    for t in range(len(triangles)):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ux, uy, uz = vertices[b, 0] - vertices[a, 0], vertices[b, 1] - vertices[a, 1], vertices[b, 2] - vertices[a, 2]
        wx, wy, wz = vertices[c, 0] - vertices[a, 0], vertices[c, 1] - vertices[a, 1], vertices[c, 2] - vertices[a, 2]
        nx, ny, nz = uy * wz - uz * wy, uz * wx - ux * wz, ux * wy - uy * wx
        for k in range(3):
            i = triangles[t, k]
            normals[i, 0] += nx
            normals[i, 1] += ny
            normals[i, 2] += nz
    for i in range(len(normals)):
        length = math.sqrt(normals[i, 0] ** 2 + normals[i, 1] ** 2 + normals[i, 2] ** 2) + 1e-12
        for j in range(3):
            normals[i, j] /= length


def to_csr(rows, columns, weights, row_count):
    """Returns the CSR triple of a matrix, given its entries in row order."""
    order = np.lexsort((columns, rows))
    starts = np.searchsorted(rows[order], np.arange(row_count + 1))
    return starts.astype(np.int64), columns[order].astype(np.int64), weights[order].astype(np.float32)


def subdivision(triangles, count):
    """Loop subdivision (Loop, 1987, with Warren's weights) as a matrix that can be applied to any morph of a mesh.

    Args:
        triangles: (f, 3) vertex numbers.
        count: number n of vertices.

    Returns:
        CSR triple of the (n + edges, n) matrix, where the first n rows move the old vertices; and (4f, 3) int32
        triangles, grouped by kind of child, f each.
    """
    sides = np.sort(np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), axis=1)
    opposite = np.concatenate([triangles[:, 2], triangles[:, 0], triangles[:, 1]])
    edges, edge_of_side, shared = np.unique(sides, axis=0, return_inverse=True, return_counts=True)
    edge_of_side = edge_of_side.ravel()
    inner = shared == 2
    new = count + np.arange(len(edges))
    entries = [(new, edges[:, j], np.where(inner, 3 / 8, 1 / 2)) for j in (0, 1)]
    of_inner = inner[edge_of_side]
    entries.append((count + edge_of_side[of_inner], opposite[of_inner], np.full(of_inner.sum(), 1 / 8)))

    degree = np.bincount(edges.ravel(), minlength=count)
    border = np.zeros(count, bool)
    border[edges[~inner].ravel()] = True
    beta = np.where(degree == 3, 3 / 16, 3 / (8 * np.maximum(degree, 1)))
    beta[border] = 0
    for a, b in ((0, 1), (1, 0)):
        smooth = ~border[edges[:, a]]
        entries.append((edges[smooth, a], edges[smooth, b], beta[edges[smooth, a]]))
        entries.append((edges[~inner][:, a], edges[~inner][:, b], np.full((~inner).sum(), 1 / 8)))
    border_degree = np.bincount(edges[~inner].ravel(), minlength=count)
    entries.append((np.arange(count), np.arange(count), np.where(border, 1 - border_degree / 8, 1 - degree * beta)))

    matrix = to_csr(*(np.concatenate(part) for part in zip(*entries, strict=True)), count + len(edges))
    ab, bc, ca = (count + part for part in np.split(edge_of_side, 3))
    a, b, c = triangles.T
    children = [np.stack(corners, 1) for corners in ((a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca))]
    return matrix, np.concatenate(children).astype(np.int32)


def averaging(triangles, count):
    """Returns the CSR triple of the (n, n) matrix that replaces each vertex by the mean of itself and its neighbors."""
    sides = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    pairs = np.unique(np.concatenate([sides, sides[:, ::-1], np.repeat(np.arange(count), 2).reshape(-1, 2)]), axis=0)
    number = np.bincount(pairs[:, 0], minlength=count)
    return to_csr(pairs[:, 0], pairs[:, 1], 1.0 / number[pairs[:, 0]], count)
