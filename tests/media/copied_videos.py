"""Videos read and written with nothing changed, and what a file says of itself."""

import contextlib

import av

from facedancer.media.encoding import choose_encoding
from facedancer.media.job import SegmentedVideo
from facedancer.media.probe import probe_video
from facedancer.media.read import read_frames


@contextlib.contextmanager
def write_video(target, video, sample_rate=1, **choices):
    with SegmentedVideo(target, video, choose_encoding(target, video, **choices), sample_rate) as writer:
        yield writer
        writer.finish()


def copy(source, target, sample_rate=1, length=1.0, start=0.0, end=None, **choices):
    """Reads a video and writes it with nothing changed; returns its `Video`."""
    video = probe_video(source, length, start, end)
    with write_video(target, video, sample_rate, **choices) as writer:
        for frame in read_frames(video, sample_rate):
            writer.write(frame, frame.image, [])
    return video


def facts(path):
    with av.open(path) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        return {
            "size": (context.width, context.height),
            "rate": stream.average_rate,
            "duration": float(stream.duration * stream.time_base) if stream.duration else None,
            "format": context.pix_fmt,
            "codec": context.name,
            "colors": (context.colorspace, context.color_range, context.color_primaries, context.color_trc),
            "aspect": stream.sample_aspect_ratio,
            "languages": [track.language for track in container.streams.audio],
        }
