"""Rotates and mirrors between coded frames and upright ones, for images and for boxes.

A turn is `(transpose, flip_x, flip_y)`: three bools, applied in this order, that make a coded picture upright.
"""

UPRIGHT = (False, False, False)


def turn_of(matrix):
    """Returns the turn of a display matrix (nine integers, or None), rounded to a quarter turn."""
    if matrix is None:
        return UPRIGHT
    # It maps (x, y) as a row vector: a pixel goes to (a x + c y, b x + d y).
    a, b, _, c, d, *_ = matrix
    return (True, c < 0, b < 0) if abs(b) > abs(a) else (False, a < 0, d < 0)


def upright(plane, turn):
    """Returns a view of a coded image or plane, (H, W) or (H, W, C), turned upright."""
    transpose, flip_x, flip_y = turn
    if transpose:
        plane = plane.swapaxes(0, 1)
    return plane[:: -1 if flip_y else 1, :: -1 if flip_x else 1]


def coded_view(image, turn):
    """Returns a view of an upright image, (H, W) or (H, W, C), turned as it is coded; the inverse of `upright`."""
    transpose, flip_x, flip_y = turn
    image = image[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
    return image.swapaxes(0, 1) if transpose else image


def coded_box(box, size, turn):
    """Returns the coded box of a box `(x1, y1, x2, y2)` in an upright picture of `size` (width, height), in pixels."""
    transpose, flip_x, flip_y = turn
    x1, y1, x2, y2 = box
    width, height = size
    if flip_x:
        x1, x2 = width - x2, width - x1
    if flip_y:
        y1, y2 = height - y2, height - y1
    return (y1, x1, y2, x2) if transpose else (x1, y1, x2, y2)


def upright_box(box, size, turn):
    """The inverse of `coded_box`."""
    x1, y1, x2, y2 = box
    if turn[0]:
        x1, y1, x2, y2 = y1, x1, y2, x2
    return coded_box((x1, y1, x2, y2), size, (False, *turn[1:]))
