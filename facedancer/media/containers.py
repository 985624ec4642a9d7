"""The door to FFmpeg: files are opened here, and its errors become lines that a person can act on."""

import contextlib
from pathlib import Path

import av
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition

from facedancer.core.console import UserError
from facedancer.media.sequences import is_sequence


def _unnamed(kind, value):
    """A kind of side data that FFmpeg knows and PyAV does not, as EXIF: it would hide all others of a frame."""
    member = object.__new__(kind)
    member._name_, member._value_ = f"UNNAMED_{value}", value
    return member


SideDataType._missing_ = classmethod(_unnamed)


@contextlib.contextmanager
def open_video(path, rate=25):
    """Yields the container and its video stream; FFmpeg's errors in the block become `UserError`."""
    name, options = str(path), {}
    if is_sequence(path):
        options = {"format": "image2", "options": {"framerate": str(rate)}}
        name = str(Path(str(Path(path).parent).replace("%", "%%"), Path(path).name))  # FFmpeg takes all for the pattern
    try:
        with av.open(name, metadata_errors="replace", **options) as container:
            # The picture on a record's cover counts as a video stream too.
            streams = [
                stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic
            ]
            if not streams:
                raise UserError(f"{path} has no video stream")
            streams[0].thread_type = "AUTO"
            yield container, streams[0]
    except av.FFmpegError as error:
        raise UserError(f"cannot read the video {path}: {error.strerror}") from None


@contextlib.contextmanager
def errors_of(path):
    """Makes FFmpeg's errors in the block a `UserError` about `path`."""
    try:
        yield
    except av.FFmpegError as error:
        raise UserError(f"cannot write the video {path}: {error.strerror}") from None
