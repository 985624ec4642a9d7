"""Times of frames, as they were before a file rounded them to its unit."""

import math
from fractions import Fraction


def unrounded(time, unit, rate):
    """A time, in seconds, as it was before the file rounded it to its coarse `unit`.

    Matroska counts milliseconds: 29.97 frames a second lie at 33, 67, 100 ms, and the rate is lost if it stays so.
    """
    on_grid = round(time * rate) / rate
    return on_grid if abs(on_grid - time) <= unit / 2 else time


def common_unit(unit, rate):
    """The largest time that both the file's time stamps and the frames' distance are multiples of, if not too small."""
    common = math.lcm(unit.denominator, rate.numerator)
    return Fraction(1, common if common <= 1_000_000 else unit.denominator)
