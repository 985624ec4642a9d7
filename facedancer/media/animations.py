"""Writes GIF and animated WebP from lossless segments."""

from fractions import Fraction

import av
import numpy as np
from PIL import Image

from facedancer.media.containers import open_file
from facedancer.media.segments import read_segments

_TRANSPARENT = 255  # the last entry of GIF's palette; the others hold colors


def write_gif(path, video, encoding, segments):
    """Writes a GIF with one palette, taken from frames across the video, and a transparent entry if frames are RGBA."""
    palette_image = _common_palette(segments)
    colors = np.array(palette_image.getpalette(), np.uint8).reshape(-1, 3)
    palette = np.zeros((256, 4), np.uint8)
    palette[:, 0] = 255
    palette[: len(colors), 1:] = colors
    if encoding.pixel_format == "bgra":
        palette[_TRANSPARENT] = 0
    unit = Fraction(1, 100)
    # GIF counts repetitions after the first play; without a count it plays once.
    with open_file(path, "w", options={"loop": str(video.loops - 1 or -1 if video.loops else 0)}) as container:
        stream = container.add_stream("gif", rate=video.rate)
        stream.width, stream.height = encoding.size
        stream.pix_fmt = "pal8"
        stream.codec_context.time_base = unit
        last = -1
        for image, pts, duration in read_segments(segments):
            shown = Image.fromarray(image[..., :3])
            indices = np.array(shown.quantize(palette=palette_image, dither=Image.Dither.NONE))
            if image.shape[2] == 4:
                indices[image[..., 3] < 128] = _TRANSPARENT
            frame = av.VideoFrame.from_ndarray((indices, palette), "pal8")
            last = max(last + 1, round(pts * video.time_base / unit))
            frame.pts, frame.time_base = last, unit
            frame.duration = max(1, round((pts + duration) * video.time_base / unit) - last)
            for packet in stream.encode(frame):
                packet.duration = frame.duration
                container.mux(packet)
        container.mux(stream.encode(None))


def _common_palette(segments):
    """Returns a palette image with the best 255 colors of about 64 frames, each subsampled."""
    count = sum(len(pts) for _, pts, _ in segments)
    step = max(1, count // 64)
    seen = [image[::3, ::3, :3] for index, (image, _, _) in enumerate(read_segments(segments)) if index % step == 0]
    return Image.fromarray(np.concatenate(seen)).quantize(255, Image.Quantize.MEDIANCUT)


def write_webp(path, video, encoding, segments):
    with open_file(path, "w", format="webp", options={"loop": str(video.loops)}) as container:
        stream = container.add_stream("libwebp_anim", rate=video.rate, options={"quality": "90"})
        stream.width, stream.height = encoding.size
        stream.pix_fmt = "bgra"
        stream.codec_context.time_base = Fraction(1, 1000)
        for image, pts, _ in read_segments(segments):
            frame = av.VideoFrame.from_ndarray(image, "rgba" if image.shape[2] == 4 else "rgb24").reformat(
                format="bgra"
            )
            frame.pts, frame.time_base = round(pts * video.time_base * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
