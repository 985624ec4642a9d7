"""Swaps a camera's image live in a window. Each frame is handled on its own, since future frames are unknown."""

import contextlib

import cv2

from facedancer.core.console import UserError
from facedancer.video_swap.common import swap_picture
from facedancer.video_swap.compare import compare_view

_TITLE = "Synthetic media: faces are swapped (q ends)"
_ENDS = (ord("q"), 27)  # keys: q, Escape


@contextlib.contextmanager
def open_camera(number):
    """Yields a generator of the camera's pictures, (H, W, 3) uint8 RGB, and a function that shows one.

    The function returns whether the user wants to continue.

    Raises:
        UserError: if there is no such camera, or OpenCV was built without windows.
    """
    capture = cv2.VideoCapture(number)
    try:
        if not capture.isOpened():
            raise UserError(f"--camera {number}: OpenCV finds no such camera")
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # otherwise the display would lag further and further behind
        try:
            cv2.namedWindow(_TITLE, cv2.WINDOW_NORMAL)
        except cv2.error:
            raise UserError(
                f"--camera {number}: this OpenCV has no windows; install opencv-python in place of"
                " opencv-python-headless, on a machine with a screen"
            ) from None
        yield _pictures(capture, number), _show
        cv2.destroyWindow(_TITLE)
    finally:
        capture.release()


def _pictures(capture, number):
    while True:
        is_read, image = capture.read()
        if not is_read:
            raise UserError(f"--camera {number} gives no more pictures; was it unplugged?")
        yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _show(image):
    cv2.imshow(_TITLE, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return cv2.waitKey(1) & 0xFF not in _ENDS and cv2.getWindowProperty(_TITLE, cv2.WND_PROP_VISIBLE) >= 1


def swap_camera(swapper, plan, pictures, show, compare=False):
    """Swaps the faces of pictures and shows them until the user quits.

    Args:
        swapper: `FaceSwapper`.
        plan: `Plan`, which faces get which source.
        pictures, show: from `open_camera`.
        compare: show the compare view.

    Returns:
        The number of pictures shown.
    """
    count = 0
    for image in pictures:
        swapped = swap_picture(swapper, plan, image)
        if swapped.is_bad:  # never show a picture whose face should have been swapped
            continue
        count += 1
        if not show(compare_view(image, swapped.image, plan.sources[0].face) if compare else swapped.image):
            break
    return count
