"""The contact sheet: thumbnails of every n-th frame of a video, to see at a glance what a swap did."""

from math import ceil, sqrt

import cv2
import numpy as np

from facedancer.core.console import UserError
from facedancer.core.marking import write_marked_image
from facedancer.media.probe import probe_video
from facedancer.media.read import read_frames

_PICTURES, _MOST = 24, 400  # on a sheet by default, and at most
_SIDE, GAP, LINE = 320, 6, 22  # pixels: a picture's longer side, between pictures, height of a line of text
TITLE = "Synthetic media: faces were swapped"


def choose_every(frame_count, every=None):
    """Returns n for "every n-th frame": `every`, or the smallest n that gives at most 24 thumbnails.

    Raises:
        UserError: if that gives more than 400 thumbnails.
    """
    every = every or max(1, ceil(frame_count / _PICTURES))
    if ceil(frame_count / every) > _MOST:
        raise UserError(
            f"--contact_every {every} of {frame_count} frames gives more than {_MOST} thumbnails;"
            f" give at least {ceil(frame_count / _MOST)}"
        )
    return every


def write_contact_sheet(path, video_path, every=None):
    """Writes the contact sheet of a swapped video, marked as synthetic in its metadata and in its title.

    Args:
        path: the image to write, .jpg, .png or .webp.
        video_path: the video, as for `probe.probe_video`.
        every: show every n-th frame; None as for `choose_every`.

    Raises:
        UserError: if the video cannot be read, or there would be more than 400 thumbnails.
    """
    video = probe_video(video_path)
    every = choose_every(video.frame_count, every)
    pictures, times = [], []
    for frame in read_frames(video, every):
        scale = _SIDE / max(frame.image.shape[:2])
        size = [max(1, round(side * scale)) for side in frame.image.shape[1::-1]]
        pictures.append(cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA))
        times.append(float(frame.pts * video.time_base))
    texts = [f"{index * every + 1}  {_clock(time - times[0])}" for index, time in enumerate(times)]
    write_marked_image(path, contact_sheet(pictures, texts))


def contact_sheet(pictures, texts):
    """Returns a titled sheet, (H, W, 3) uint8 RGB, of pictures of equal size, (h, w, 3), each with a text below."""
    height, width = pictures[0].shape[:2]
    columns = ceil(sqrt(len(pictures) * height / width))
    rows = ceil(len(pictures) / columns)
    step_y, step_x = height + LINE + GAP, width + GAP
    sheet = np.full((LINE + GAP + rows * step_y, max(columns * step_x + GAP, _SIDE), 3), 24, np.uint8)
    write_text(sheet, TITLE, GAP, LINE - GAP)
    for index, (picture, text) in enumerate(zip(pictures, texts, strict=True)):
        y, x = LINE + GAP + index // columns * step_y, GAP + index % columns * step_x
        sheet[y : y + height, x : x + width] = picture
        write_text(sheet, text, x, y + height + LINE - GAP)
    return sheet


def write_text(sheet, text, x, y):
    """Draws a line of text on a sheet, (H, W, 3) uint8, in place; (x, y) is its lower left corner in pixels."""
    cv2.putText(sheet, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (225, 225, 225), 1, cv2.LINE_AA)


def _clock(seconds):
    return f"{int(seconds // 60)}:{seconds % 60:05.2f}"
