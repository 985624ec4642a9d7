"""HDR10's static metadata: the mastering display and the content light level."""

from fractions import Fraction

import numpy as np
from av.sidedata.sidedata import Type as SideDataType


def mastering_of(decoded):
    """Returns the HDR10 static metadata (SMPTE ST 2086, CTA-861.3) of an `av.VideoFrame` as options of x265."""
    found = {}
    display = decoded.side_data.get(SideDataType.MASTERING_DISPLAY_METADATA)
    if display is not None:
        *values, has_primaries, has_luminance = np.frombuffer(display, np.int32)[:22].tolist()
        if has_primaries and has_luminance:
            ratios = [Fraction(*pair) for pair in zip(values[::2], values[1::2], strict=True)]
            red, green, blue, white = (tuple(round(n * 50_000) for n in ratios[i : i + 2]) for i in (0, 2, 4, 6))
            low, high = (round(n * 10_000) for n in ratios[8:])
            primaries = "".join(
                f"{name}({x},{y})"
                for name, (x, y) in zip(("G", "B", "R", "WP"), (green, blue, red, white), strict=True)
            )
            found["master-display"] = f"{primaries}L({high},{low})"
    light = decoded.side_data.get(SideDataType.CONTENT_LIGHT_LEVEL)
    if light is not None:
        found["max-cll"] = ",".join(str(n) for n in np.frombuffer(light, np.uint32)[:2])
    return found
