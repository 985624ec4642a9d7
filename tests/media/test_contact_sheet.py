"""The contact sheet shows every n-th frame in order, and says what it is."""

import numpy as np
import pytest
from PIL import Image
from small_videos import write_clip

from facedancer.core.console import UserError
from facedancer.core.images import read_image
from facedancer.media.contact_sheet import choose_every, contact_sheet, write_contact_sheet


def test_pictures_in_rows_with_their_texts():
    pictures = [np.full((90, 160, 3), (0, 10 * k, 200), np.uint8) for k in range(7)]
    sheet = contact_sheet(pictures, [f"{k}" for k in range(7)])
    # Each picture is there once, whole, row by row from the left.
    places = []
    for k in range(1, 7):
        rows, columns = np.nonzero((sheet == (0, 10 * k, 200)).all(-1))
        assert len(rows) == 90 * 160
        places.append((rows.min(), columns.min()))
    assert places == sorted(places) and len(set(places)) == 6
    assert (sheet[:28] > 150).any()  # the title


def test_every_third_frame_of_a_video(tmp_path):
    frames = np.stack([np.full((64, 96, 3), 20 * k, np.uint8) for k in range(10)])
    write_clip(tmp_path / "video.mp4", frames, sound=0)
    write_contact_sheet(tmp_path / "sheet.png", tmp_path / "video.mp4", every=3)
    sheet = read_image(tmp_path / "sheet.png").astype(int)
    for k in range(10):
        shown = (np.abs(sheet - 20 * k).max(-1) <= 3).sum() > 0.5 * 320 * 213
        assert shown == (k in (0, 3, 6, 9)), k
    with Image.open(tmp_path / "sheet.png") as picture:
        assert "compositeWithTrainedAlgorithmicMedia" in picture.info["XML:com.adobe.xmp"]


def test_how_many():
    assert choose_every(10) == 1
    assert choose_every(2400) == 100
    assert choose_every(2400, 7) == 7
    with pytest.raises(UserError, match="give at least 25"):
        choose_every(10_000, 2)
