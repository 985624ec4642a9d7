"""Smooth value noise for Numba kernels, identical on every machine, without tables."""

import math

from facedancer.synthetic.compiled import compiled_part


@compiled_part
def _corner(x, y, z):
    """Returns a number in [0, 1) for a lattice corner."""
    h = (x * 374761393 + y * 668265263 + z * 2147483647) & 0xFFFFFFFF
    h = ((h ^ (h >> 13)) * 1274126177) & 0xFFFFFFFF
    return ((h ^ (h >> 16)) & 0xFFFF) / 65536.0


@compiled_part
def smoothstep(low, high, x):
    """Returns 0 below `low`, 1 above `high`, smooth between; `low` may exceed `high`."""
    t = min(max((x - low) / (high - low), 0.0), 1.0)
    return t * t * (3.0 - 2.0 * t)


@compiled_part
def noise(x, y, z):
    """Returns smooth noise in [-1, 1] with features about one unit wide."""
    ix, iy, iz = math.floor(x), math.floor(y), math.floor(z)
    fx, fy, fz = x - ix, y - iy, z - iz
    fx, fy, fz = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy), fz * fz * (3 - 2 * fz)
    total = 0.0
    for k in range(8):
        dx, dy, dz = k & 1, (k >> 1) & 1, k >> 2
        weight = (fx if dx else 1 - fx) * (fy if dy else 1 - fy) * (fz if dz else 1 - fz)
        total += weight * _corner(int(ix) + dx, int(iy) + dy, int(iz) + dz)
    return total * 2.0 - 1.0


@compiled_part
def fractal_noise(x, y, z, octaves):
    """Returns the sum of `octaves` of noise, each with half the amplitude and width, roughly in [-1, 1]."""
    total, weight = 0.0, 0.5
    for _ in range(octaves):
        total += weight * noise(x, y, z)
        x, y, z, weight = 2.03 * x + 17.1, 2.03 * y + 5.7, 2.03 * z + 11.3, weight * 0.5
    return total
