"""Every picture that people get says that it is synthetic."""

from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from facedancer.core.console import UserError
from facedancer.core.images import read_image
from facedancer.core.marking import RENDERED, SWAPPED, marked_metadata, write_marked_image


@pytest.mark.parametrize("mark", [SWAPPED, RENDERED], ids=["swapped", "rendered"])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jpeg", ".webp", ".PNG"])
def test_pictures_carry_the_digital_source_type(tmp_path, suffix, mark):
    path = tmp_path / f"picture{suffix}"
    image = np.full((24, 32, 3), (200, 90, 40), np.uint8)
    write_marked_image(path, image, mark)
    with Image.open(path) as picture:
        xmp = ElementTree.fromstring(picture.info["xmp"])
    (description,) = xmp.iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description")
    assert description.get("{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType") == mark.source_type
    assert "".join(description.itertext()).strip() == mark.note
    assert np.abs(read_image(path).astype(int) - image).max() <= 3


def test_kinds_that_hold_no_mark_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"\.png, \.jpg"):
        write_marked_image(tmp_path / "picture.bmp", np.zeros((4, 4, 3), np.uint8))
    assert not list(tmp_path.iterdir())


def test_a_comment_is_kept_and_the_mark_set_once():
    metadata = marked_metadata({"title": "Holiday", "comment": "by the sea"})
    assert metadata == {"title": "Holiday", "comment": f"{SWAPPED.note}\nby the sea"}
    assert marked_metadata(metadata) == metadata
    assert marked_metadata({}) == {"comment": SWAPPED.note}
    rendered = marked_metadata({"comment": "by the sea\r\nand\u2028far\n"}, RENDERED)
    assert marked_metadata(rendered) == {"comment": f"{SWAPPED.note}\nby the sea\r\nand\u2028far\n"}
