"""Recovers frame times that a file has rounded to its time unit."""

import math
from fractions import Fraction


def unrounded(time, unit, rate):
    """Returns a time in seconds as it was before the file rounded it to `unit`.

    Matroska counts milliseconds: at 29.97 frames per second, frames lie at 33, 67 and 100 ms, which loses the rate.

    Args:
        time: `Fraction`, seconds.
        unit: `Fraction`, the file's time unit in seconds.
        rate: `Fraction`, frames per second.
    """
    on_grid = round(time * rate) / rate
    return on_grid if abs(on_grid - time) <= unit / 2 else time


def common_unit(unit, rate):
    """Returns the largest unit, in seconds, of which time stamps and frame intervals are multiples.

    If that is below a microsecond, returns the file's own `unit`.
    """
    common = math.lcm(unit.denominator, rate.numerator)
    return Fraction(1, common if common <= 1_000_000 else unit.denominator)
