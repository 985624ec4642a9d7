"""The sound and subtitle tracks of a video, which go into its result."""

import contextlib
import tempfile
from pathlib import Path

from facedancer.core.console import UserError
from facedancer.media.containers import errors_of, open_file, open_video
from facedancer.media.encoding import VIDEO_SUFFIXES
from facedancer.media.sequences import is_sequence


def check_tracks(path, video):
    """Raises `UserError` where a file of that name cannot hold the sound and subtitles of a video."""
    suffix = Path(path).suffix.lower()
    if suffix in (".gif", ".webp") or is_sequence(path) or not has_tracks(video):
        return
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        source, _ = stack.enter_context(open_video(video.path))
        stack.enter_context(errors_of(path))
        add_tracks(stack.enter_context(open_file(Path(folder, f"empty{suffix}"), "w")), source, video.path)


def has_tracks(video):
    return video.codec != "webp" and not is_sequence(video.path)


def add_tracks(container, source, path):
    """Adds copies of all sound and subtitle tracks; returns them by the index of their original."""
    copies = {}
    for stream in source.streams:
        if stream.type not in ("audio", "subtitle"):
            continue
        try:
            copy = copies[stream.index] = container.add_stream_from_template(stream, opaque=True)
        except ValueError:
            what = {"audio": "sound", "subtitle": "subtitles"}[stream.type]
            own = Path(path).suffix.lower()
            raise UserError(
                f"cannot keep the {what} of {path} ({stream.name or stream.codec_context.name}) in this kind of file;"
                f" let the output's name end in {own if own in VIDEO_SUFFIXES else '.mkv'}"
            ) from None
        copy.metadata.update(stream.metadata)
        copy.disposition = stream.disposition
    return copies
