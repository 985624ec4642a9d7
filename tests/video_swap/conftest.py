"""Fixtures of the tests of swapping."""

import pytest
from small_videos import SIZE, KnownFaces, MeanColor, paint_model

from facedancer.video_swap import FaceSwapper


@pytest.fixture(scope="session")
def painter():
    return paint_model()


@pytest.fixture
def make_swapper(painter):
    """Builds a `FaceSwapper` that finds faces at given places and paints them."""

    def make(*matrices, **options):
        return FaceSwapper(painter, KnownFaces(*matrices), MeanColor(), SIZE, **options)

    return make
