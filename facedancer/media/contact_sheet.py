"""The contact sheet: small pictures of every n-th frame of a video, to see at a glance what a swap did."""

from math import ceil, sqrt

import cv2
import numpy as np

from facedancer.core.console import UserError
from facedancer.core.marking import write_marked_image
from facedancer.media.probe import probe_video
from facedancer.media.read import read_frames

_PICTURES, _MOST = 24, 400  # on a sheet by itself, and at most
_SIDE, GAP, LINE = 320, 6, 22  # pixels: a picture's longer side, between pictures, height of a line of text
TITLE = "Synthetic media: faces were swapped"


def choose_every(frame_count, every=None):
    """Returns the n of "every n-th frame": as asked for, or so that 24 pictures are on the sheet.

    Raises:
        UserError: if that would be more than 400 pictures.
    """
    every = every or max(1, ceil(frame_count / _PICTURES))
    if ceil(frame_count / every) > _MOST:
        raise UserError(
            f"--contact_every {every} of {frame_count} frames makes more than {_MOST} pictures;"
            f" give at least {ceil(frame_count / _MOST)}"
        )
    return every


def write_contact_sheet(path, video_path, every=None):
    """Writes the contact sheet of a swapped video, marked as synthetic for machines and in words.

    Args:
        path: the picture, .jpg, .png or .webp.
        video_path: the video, or whatever `probe.probe_video` reads.
        every: every n-th frame is shown; None as of `choose_every`.
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
    """Puts equal (h, w, 3) uint8 RGB pictures in rows, each with a text below, on one (H, W, 3) sheet with a title."""
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
    """Writes a line of text on a sheet (H, W, 3) uint8, its lower left at (x, y)."""
    cv2.putText(sheet, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (225, 225, 225), 1, cv2.LINE_AA)


def _clock(seconds):
    return f"{int(seconds // 60)}:{seconds % 60:05.2f}"
