"""The side-by-side view works at every size."""

import numpy as np
import pytest

from facedancer.video_swap.compare import compare_view


@pytest.mark.parametrize("height, width", [(1, 1), (3, 2), (48, 64), (720, 1280), (300, 90)])
@pytest.mark.parametrize("source_size", [16, 256])
def test_target_swapped_and_source_are_seen(height, width, source_size):
    target = np.full((height, width, 3), 10, np.uint8)
    swapped = np.full((height, width, 3), 20, np.uint8)
    view = compare_view(target, swapped, np.full((source_size, source_size, 3), 250, np.uint8))
    assert view.shape == (height, 2 * width, 3) and view.dtype == np.uint8
    side = max(1, min(height, width) // 4)
    assert (view[-side:, :side] == 250).all()
    assert (view[: height - side, :width] == 10).all() and (view[:, side:width] == 10).all()
    assert (view[:, width:] == 20).all()
    assert (target == 10).all()
