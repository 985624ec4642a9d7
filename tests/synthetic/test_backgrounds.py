"""Backgrounds: whatever is drawn, a picture comes of it."""

import numpy as np
import pytest

from facedancer.synthetic.backgrounds import paint_background
from facedancer.synthetic.scenes import BACKGROUNDS


@pytest.mark.parametrize("kind", BACKGROUNDS)
@pytest.mark.parametrize(("height", "width"), [(32, 32), (24, 64), (64, 24)])
def test_every_background_can_be_painted(kind, height, width):
    painted = [paint_background(kind, seed, np.ones(3), height, width) for seed in range(40)]
    for picture in painted:
        assert picture.shape == (height, width, 3)
        assert picture.dtype == np.float32
        assert 0 < picture.min() <= picture.max() <= 4
    assert len({picture.tobytes() for picture in painted}) == 40


def test_background_follows_the_light():
    dim, bright = (paint_background("room", 3, np.full(3, level), 16, 16) for level in (0.2, 0.4))
    assert np.allclose(bright[dim > 0.01], 2 * dim[dim > 0.01], rtol=0.2)
