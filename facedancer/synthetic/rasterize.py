"""Rasterizes meshes and hair: depth buffers, shadow maps, strands. The hot loops, in Numba.

Screen points are (x, y, depth), x and y in pixels with the picture's corner at (0, 0), depth increasing away from the
camera. A depth buffer starts at `FAR`.
"""

import math

import numpy as np

from facedancer.synthetic.compiled import compiled, compiled_part

FAR = np.float32(1e9)


@compiled_part
def _bounds(a, b, c, limit):
    """Returns the first and last pixel whose center may lie in a triangle's extent."""
    return max(0, math.ceil(min(a, b, c) - 0.5)), min(limit - 1, math.floor(max(a, b, c) - 0.5))


@compiled
def draw_mesh(points, triangles, depth, triangle_of_pixel, weights):
    """Draws a mesh of (n, 3) screen points: finds each pixel's nearest triangle, and its center's position in it.

    Args:
        depth: (H, W) float32, changed.
        triangle_of_pixel: (H, W) int32, changed.
        weights: (H, W, 2) float32, changed: barycentric weights of the triangle's second and third corner.
    """
    height, width = depth.shape
    for t in range(len(triangles)):
        a, b, c = triangles[t]
        ax, ay, az = points[a]
        bx, by, bz = points[b]
        cx, cy, cz = points[c]
        area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
        if area == 0:
            continue
        left, right = _bounds(ax, bx, cx, width)
        top, bottom = _bounds(ay, by, cy, height)
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                px, py = x + 0.5, y + 0.5
                u = ((px - ax) * (cy - ay) - (cx - ax) * (py - ay)) / area
                v = ((bx - ax) * (py - ay) - (px - ax) * (by - ay)) / area
                if u < 0 or v < 0 or u + v > 1:
                    continue
                z = az + u * (bz - az) + v * (cz - az)
                if z < depth[y, x]:
                    depth[y, x] = z
                    triangle_of_pixel[y, x] = t
                    weights[y, x, 0] = u
                    weights[y, x, 1] = v


@compiled
def draw_depth(points, triangles, depth):
    """Draws a mesh into a depth buffer only."""
    height, width = depth.shape
    for t in range(len(triangles)):
        a, b, c = triangles[t]
        ax, ay, az = points[a]
        bx, by, bz = points[b]
        cx, cy, cz = points[c]
        area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
        if area == 0:
            continue
        left, right = _bounds(ax, bx, cx, width)
        top, bottom = _bounds(ay, by, cy, height)
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                px, py = x + 0.5, y + 0.5
                u = ((px - ax) * (cy - ay) - (cx - ax) * (py - ay)) / area
                v = ((bx - ax) * (py - ay) - (px - ax) * (by - ay)) / area
                if u >= 0 and v >= 0 and u + v <= 1:
                    z = az + u * (bz - az) + v * (cz - az)
                    if z < depth[y, x]:
                        depth[y, x] = z


@compiled
def splat_strands(strands, step, to_light, shift, scale, depth, count):
    """Splats hair into a light's map: the nearest depth, and the number of strand points per texel.

    Args:
        strands: (n, k, 3) float32 in the world; every `step`-th point is used, with a different start for each strand.
        to_light, shift, scale: world -> map, as `_into_map`.
        depth, count: (H, W) float32, changed.
    """
    height, width = depth.shape
    for i in range(strands.shape[0]):
        for k in range(1 + i % step, strands.shape[1], step):
            x, y, z = _into_map(strands[i, k], to_light, shift, scale, width)
            column, row = math.floor(x), math.floor(y)
            if 0 <= column < width and 0 <= row < height:
                count[row, column] += 1.0
                if z < depth[row, column]:
                    depth[row, column] = z


@compiled_part
def _into_map(point, to_light, shift, scale, size):
    """Transforms world points to a light's map, (x, y, depth); rows of `to_light`: map right, map up, to the light."""
    dx, dy, dz = point[0] - shift[0], point[1] - shift[1], point[2] - shift[2]
    x = (to_light[0, 0] * dx + to_light[0, 1] * dy + to_light[0, 2] * dz) * scale + size * 0.5
    y = (to_light[1, 0] * dx + to_light[1, 1] * dy + to_light[1, 2] * dz) * scale + size * 0.5
    return x, y, -(to_light[2, 0] * dx + to_light[2, 1] * dy + to_light[2, 2] * dz)


@compiled
def points_into_map(points, to_light, shift, scale, size, out):
    """Fills `out` (n, 3) float32 with world points transformed to a light's map."""
    for i in range(len(points)):
        out[i, 0], out[i, 1], out[i, 2] = _into_map(points[i], to_light, shift, scale, size)


@compiled_part
def unshadowed(x, y, z, depth, bias, softness):
    """Returns the share of light that reaches a point of its map, 0 to 1: a soft depth comparison over 4 x 4 texels."""
    size = depth.shape[0]
    column, row = math.floor(x - 0.5), math.floor(y - 0.5)
    total, total_weight = 0.0, 0.0
    for dy in range(-1, 3):
        wy = max(0.0, 2.0 - abs(y - 0.5 - row - dy))
        for dx in range(-1, 3):
            weight = wy * max(0.0, 2.0 - abs(x - 0.5 - column - dx))
            texel = depth[min(max(row + dy, 0), size - 1), min(max(column + dx, 0), size - 1)]
            behind = (z - bias - texel) / softness
            total += weight * (1.0 - min(max(behind, 0.0), 1.0))
            total_weight += weight
    return total / total_weight


@compiled_part
def through_hair(x, y, z, depth, count, strength, reach):
    """Returns the share of light that passes the hair in front of a point, 0 to 1, bilinear over 2 x 2 texels.

    Opacity grows with the number of strands and with the point's depth behind the first of them (deep opacity maps,
    Yuksel and Keyser, 2008, with a single layer).
    """
    size = depth.shape[0]
    column, row = math.floor(x - 0.5), math.floor(y - 0.5)
    fx, fy = x - 0.5 - column, y - 0.5 - row
    total = 0.0
    for dy in range(2):
        for dx in range(2):
            i, j = min(max(row + dy, 0), size - 1), min(max(column + dx, 0), size - 1)
            behind = min(max((z - depth[i, j]) / reach, 0.0), 1.0)
            weight = (fx if dx else 1.0 - fx) * (fy if dy else 1.0 - fy)
            total += weight * math.exp(-strength * count[i, j] * behind)
    return total


@compiled
def draw_strands(points, colors, thickness, opacity, label, offset, depth, image, labels):
    """Draws strands of hair over the background.

    Args:
        points: (n, k, 3) float32 screen points.
        colors: (n, k, 3) float32 linear.
        thickness: of a strand in pixels; below 1 it covers pixels partly.
        opacity: of a strand, 0 to 1; opaque strands also enter the depth buffer.
        label: the pixels' new label; negative for none.
        offset: how much nearer strands are drawn than they are, so that fine hair does not sink into the skin.
        depth, image, labels: (H, W), (H, W, 3), (H, W), changed.
    """
    height, width = depth.shape
    last = points.shape[1] - 1
    across = max(1, int(thickness + 0.5))
    for i in range(points.shape[0]):
        for k in range(last):
            x0, y0, z0 = points[i, k]
            x1, y1, z1 = points[i, k + 1]
            if max(x0, x1) < 0 or max(y0, y1) < 0 or min(x0, x1) >= width or min(y0, y1) >= height:
                continue
            along_x = abs(x1 - x0) > abs(y1 - y0)
            steps = int(max(abs(x1 - x0), abs(y1 - y0))) + 1
            for s in range(steps):
                t = s / steps
                z = z0 + (z1 - z0) * t - offset
                # Strands thin out toward their tips.
                cover = opacity * min(1.0, thickness) * min(1.0, 2.5 * (1.0 - (k + t) / last) + 0.25)
                for w in range(across):
                    shift = w - (across - 1) * 0.5
                    x = math.floor(x0 + (x1 - x0) * t + (0.0 if along_x else shift))
                    y = math.floor(y0 + (y1 - y0) * t + (shift if along_x else 0.0))
                    if x < 0 or y < 0 or x >= width or y >= height or z >= depth[y, x]:
                        continue
                    if cover > 0.6:
                        depth[y, x] = z
                    if label >= 0 and cover > 0.3:
                        labels[y, x] = label
                    for c in range(3):
                        color = colors[i, k, c] + (colors[i, k + 1, c] - colors[i, k, c]) * t
                        image[y, x, c] += (color - image[y, x, c]) * cover
