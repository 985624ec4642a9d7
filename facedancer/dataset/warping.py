"""Pairs of a warped face and the unwarped face, for training autoencoders of people; in NumPy, for every loader.

The warp is that of the "deepfakes" networks: 5×5 control points over the center of the picture, each moved at random,
define where the pixels between them come from; the wanted face uses the nearest similarity transform. Before that, the
picture is rotated, scaled, shifted and sometimes mirrored. Deliberate changes: everything is a single resampling; a
much larger picture is first reduced by area averaging, since bilinear sampling would alias; and both faces share one
pixel grid, whereas the original's wanted face is off by half a pixel.
"""

import numpy as np

POINTS = 5
# Standard deviation of a control point, as a share of the picture's side.
WARP = 5 / 256
# Maximum rotation in degrees, growth, and shift as a share of the side; probability of mirroring.
TURN, GROWTH, SHIFT, MIRRORED = 10.0, 0.05, 0.05, 0.4
_STILL = (0.0, 1.0, 0.0, 0.0, 1.0)


def draw_warps(size, seed, start, augment):
    """Draws the warps of `size` pairs from position `start` of a stream.

    Returns:
        (n, 5) float32: rotation in radians, scale, shift to the right and down as shares of the side, -1 to mirror;
        (n, 2, 5, 5) float32: shifts of the control points to the right and down, likewise.
    """
    if not augment:
        return np.tile(np.float32(_STILL), (size, 1)), np.zeros((size, 2, POINTS, POINTS), np.float32)
    rng = np.random.default_rng([seed, start, 2])
    low, high = zip((-TURN, TURN), (1 - GROWTH, 1 + GROWTH), (-SHIFT, SHIFT), (-SHIFT, SHIFT), strict=True)
    placement = rng.uniform(low, high, (size, 4))
    placement[:, 0] = np.radians(placement[:, 0])
    mirror = np.where(rng.random(size) < MIRRORED, -1.0, 1.0)
    return np.float32(np.column_stack([placement, mirror])), np.float32(rng.normal(0, WARP, (size, 2, POINTS, POINTS)))


def warp_pair(picture, placement, warp, coverage, size):
    """Returns a warped face and the unwarped face, both (size, size, 3) uint8.

    Args:
        picture: (H, H, 3) uint8.
        placement, warp: for one pair, see `draw_warps`.
        coverage: share of the picture's side that the faces show.
        size: the faces' side in pixels.
    """
    picture = _reduced(picture, coverage, size)
    side = picture.shape[0]
    across = (side - 1) / 2 + np.linspace(-0.5, 0.5, POINTS) * coverage * side
    columns = np.broadcast_to(across, (POINTS, POINTS)) + warp[0] * side
    rows = np.broadcast_to(across[:, None], (POINTS, POINTS)) + warp[1] * side
    faces = sample_pair(picture.astype(np.float32), columns, rows, size, placement)
    return tuple(np.rint(np.clip(face, 0, 255)).astype(np.uint8) for face in faces)


def sample_pair(picture, columns, rows, size, placement=_STILL, first=-0.5):
    """Samples the warped face and the unwarped face.

    Args:
        picture: (H, H, 3) float32.
        columns, rows: (5, 5) control points, in pixels of the placed picture.
        size: side of the faces in pixels.
        placement: see `draw_warps`.
        first: pixel of the unwarped face that holds its first control points; the original's 0 is off by half a pixel.

    Returns:
        Two (size, size, 3) float32.
    """
    angle, scale, right, down, mirror = (float(value) for value in placement)
    side = picture.shape[0]
    middle = (side - 1) / 2

    def sample(x, y):
        """Maps the placed picture's pixels to the original picture's."""
        x, y = x - middle - right * side, y - middle - down * side
        cosine, sine = np.cos(angle) / scale, np.sin(angle) / scale
        return _bilinear(picture, middle + mirror * (cosine * x + sine * y), middle + cosine * y - sine * x)

    places = (np.arange(size) + 0.5) * (POINTS - 1) / size
    between = np.maximum(0.0, 1.0 - np.abs(places[:, None] - np.arange(POINTS)))  # (size, 5), linear interpolation
    warped = sample(*(between @ points @ between.T for points in (columns, rows)))

    # With points as complex numbers, a similarity is a product and a sum.
    grid = first + np.arange(POINTS) * size / (POINTS - 1)
    grid, points = grid + 1j * grid[:, None], columns + 1j * rows
    centered = points - points.mean()
    turn = (np.conj(centered) * (grid - grid.mean())).sum() / (np.abs(centered) ** 2).sum()
    pixels = np.arange(size) + 1j * np.arange(size)[:, None]
    places = (pixels - grid.mean()) / turn + points.mean()
    return warped, sample(places.real, places.imag)


def _bilinear(picture, x, y):
    """Samples at positions (h, w), replicating the border."""
    height, width = picture.shape[:2]
    x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
    left, top = np.minimum(x.astype(int), width - 2), np.minimum(y.astype(int), height - 2)
    x, y = (np.float32(share)[..., None] for share in (x - left, y - top))
    above = picture[top, left] * (1 - x) + picture[top, left + 1] * x
    below = picture[top + 1, left] * (1 - x) + picture[top + 1, left + 1] * x
    return above * (1 - y) + below * y


def _reduced(picture, coverage, size):
    """Reduces a picture by an integer factor with area averaging, as far as the face's resolution allows."""
    factor = int(picture.shape[0] * coverage / size)
    if factor < 2 or picture.shape[0] % factor:
        return picture
    side = picture.shape[0] // factor
    return picture.reshape(side, factor, side, factor, -1).mean((1, 3), dtype=np.float32)
