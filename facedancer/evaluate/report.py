"""A report: one self-contained HTML page that can be opened from anywhere."""

import base64
import html
import os
from pathlib import Path

import numpy as np

from facedancer.core.files import write_atomic
from facedancer.core.images import encode_image

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; color: #222; }}
img, video {{ max-width: 100%; border-radius: 4px; }}
table {{ border-collapse: collapse; }}
td, th {{ padding: .2rem .8rem; text-align: left; border-bottom: 1px solid #ddd; }}
td:nth-child(n+2) {{ text-align: right; font-variant-numeric: tabular-nums; }}
.curves {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1rem; }}
figure {{ margin: 0; }} figcaption {{ color: #555; font-size: .9rem; }}
</style></head><body>
<h1>{title}</h1>
{body}
</body></html>
"""


def write_report(path, title, parts):
    """Writes a page.

    Args:
        path: the `.html` file.
        title: its heading.
        parts: list of HTML texts, from the functions here.
    """
    write_atomic(path, _PAGE.format(title=html.escape(title), body="\n".join(parts)))


def section(heading, text):
    """Returns a heading and a paragraph."""
    return f"<h2>{html.escape(heading)}</h2>\n<p>{html.escape(text)}</p>"


def picture(image, caption=""):
    """Returns an embedded figure of (H, W, 3) uint8 RGB."""
    data = base64.b64encode(encode_image(image, ".jpg", quality=88)).decode()
    text = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return f'<figure><img alt="{html.escape(caption)}" src="data:image/jpeg;base64,{data}">{text}</figure>'


def link(path, page, text):
    """Returns a link to a file, relative to the page's folder."""
    place = Path(os.path.relpath(path, Path(page).parent)).as_posix()
    return f'<p><a href="{html.escape(place)}">{html.escape(text)}</a></p>'


def table(rows):
    """Returns rows of texts as a table, with the first row as its header."""
    cells = ["".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in row) for tag, row in _tagged(rows)]
    return "<table>" + "".join(f"<tr>{row}</tr>" for row in cells) + "</table>"


def histogram(title, values, bins=30):
    """Returns histograms as small plots, one per swapper, on a common scale.

    Args:
        title: the measure.
        values: name of the swapper -> list of floats.
    """
    ends = np.percentile(np.concatenate([np.asarray(some, np.float64) for some in values.values()]), [0.5, 99.5])
    ends[1] = max(ends[1], ends[0] + 1e-6)
    plots = []
    for name, some in values.items():
        shares = np.histogram(np.clip(some, *ends), bins, ends)[0] / max(len(some), 1)
        bars = "".join(
            f'<rect x="{10 + 220 * index / bins:.1f}" y="{90 - 80 * share / max(shares.max(), 1e-12):.1f}"'
            f' width="{200 / bins:.1f}" height="{80 * share / max(shares.max(), 1e-12):.1f}" fill="#2463a8"/>'
            for index, share in enumerate(shares)
        )
        labels = f'<text x="10" y="106" font-size="10">{ends[0]:.3g}</text>' + (
            f'<text x="230" y="106" font-size="10" text-anchor="end">{ends[1]:.3g}</text>'
        )
        plot = f'<svg viewBox="0 0 240 110" width="100%">{bars}{labels}</svg>'
        plots.append(f"<figure>{plot}<figcaption>{html.escape(name)}</figcaption></figure>")
    return f'<h3>{html.escape(title)}</h3><div class="curves">{"".join(plots)}</div>'


def curves(scalars):
    """Returns small plots, one per scalar.

    Args:
        scalars: name -> list of (step, value), from `read_scalars`.
    """
    plots = "".join(f"<figure>{_plot(points)}<figcaption>{html.escape(name)}</figcaption></figure>"
                    for name, points in scalars.items())  # fmt: skip
    return f'<div class="curves">{plots}</div>'


def read_scalars(folder):
    """Reads the scalars of all TensorBoard event files in a folder: name -> list of (step, value), by step."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.util import tensor_util

    scalars = {}
    for path in sorted(Path(folder).glob("events.*")):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "scalars":
                    number = float(tensor_util.make_ndarray(value.tensor))
                    if np.isfinite(number):  # a measure without pairs is NaN
                        scalars.setdefault(value.tag, []).append((event.step, number))
    return {name: sorted(points) for name, points in sorted(scalars.items())}


def _tagged(rows):
    return [("th" if index == 0 else "td", row) for index, row in enumerate(rows)]


def _plot(points):
    """Returns a line plot as SVG, with both axes labeled at the ends."""
    points = np.array(points, np.float64)
    (left, low), (right, high) = points.min(0), points.max(0)
    x = 40 + 190 * (points[:, 0] - left) / max(right - left, 1e-12)
    y = 90 - 80 * (points[:, 1] - low) / max(high - low, 1e-12)
    line = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    labels = [(38, 14, "end", f"{high:.3g}"), (38, 92, "end", f"{low:.3g}"),
              (40, 106, "start", f"{left:.0f}"), (230, 106, "end", f"step {right:.0f}")]  # fmt: skip
    texts = "".join(
        f'<text x="{a}" y="{b}" text-anchor="{end}" font-size="10">{text}</text>' for a, b, end, text in labels
    )
    return (
        f'<svg viewBox="0 0 240 110" width="100%"><polyline points="{line}" fill="none" stroke="#2463a8"'
        f' stroke-width="1.5"/>{texts}</svg>'
    )
