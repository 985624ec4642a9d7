"""The page holds what it shows, and nothing in it is code of others."""

import base64
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import tensorflow as tf

from facedancer.core.images import decode_image
from facedancer.evaluate import report
from facedancer.evaluate.tables import measures_table


def test_a_page_holds_its_pictures(tmp_path):
    image = np.full((20, 30, 3), (200, 40, 90), np.uint8)
    path = tmp_path / "deep" / "report.html"
    report.write_report(path, "A <title>", [report.section("Head", "1 < 2"), report.picture(image, "gray & red")])
    page = path.read_text(encoding="utf-8")
    assert "<title>A &lt;title&gt;</title>" in page and "1 &lt; 2" in page and "gray &amp; red" in page
    (data,) = re.findall(r"data:image/jpeg;base64,([\w+/=]+)", page)
    shown = decode_image(base64.b64decode(data))
    assert shown.shape == (20, 30, 3) and np.abs(shown.astype(int) - image).max() < 6
    assert "http" not in page  # nothing is fetched from elsewhere


def test_links_are_relative_to_the_page(tmp_path):
    link = report.link(tmp_path / "videos" / "a b.mp4", tmp_path / "runs" / "report.html", "the video")
    assert 'href="../videos/a b.mp4"' in link


def test_tables_escape(tmp_path):
    assert report.table([("a", "b"), ("<1>", 2)]) == (
        "<table><tr><th>a</th><th>b</th></tr><tr><td>&lt;1&gt;</td><td>2</td></tr></table>"
    )


def test_scalars_are_read_and_drawn(tmp_path):
    writer = tf.summary.create_file_writer(str(tmp_path))
    for step in (10, 20, 30):
        with writer.as_default(step):
            tf.summary.scalar("losses/identity", 90 - step)
            tf.summary.scalar("validation/reconstruction", float("nan"))  # there were no such pairs
            tf.summary.image("swaps", np.zeros((1, 4, 4, 3), np.uint8))
    writer.close()
    scalars = report.read_scalars(tmp_path)
    assert scalars == {"losses/identity": [(10, 80.0), (20, 70.0), (30, 60.0)]}
    plot = re.search(r"<svg.*?</svg>", report.curves(scalars))[0]
    points = ElementTree.fromstring(plot).find("polyline").get("points").split()
    heights = [float(point.split(",")[1]) for point in points]
    assert len(points) == 3 and heights == sorted(heights)  # falling values go down the page


def test_a_constant_is_drawn_as_well():
    assert "nan" not in report.curves({"rate": [(1, 0.5), (2, 0.5)]})


def test_a_table_has_a_column_of_errors_only_where_they_are_known():
    found, titles = {"ours": {"jitter": (0.9, 0.8, 1.0)}}, {"jitter": "jitter ↓", "pose": "pose ↓"}
    table = measures_table(found, titles)
    assert "jitter" in table and "off by" not in table and "pose" not in table
    assert "off by" in measures_table(found, titles, {"jitter": "0.1"})
