"""Opens files with FFmpeg, for reading and writing, and turns its errors into one-line messages.

Input is untrusted. A name is always a file's name, never a URL, and only demuxers that read that one file are allowed.
Playlists, scripts and manifests, which make FFmpeg open other files or connections, are refused.
"""

import contextlib
import errno
import os
import stat
from pathlib import Path

import av
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition

from facedancer.core.console import UserError
from facedancer.media.sequences import is_sequence

# Allowed demuxers, by FFmpeg's names. Each reads only the file that it is given.
_DEMUXERS = (
    "matroska,webm mov,mp4,m4a,3gp,3g2,mj2 avi mpegts mpeg flv live_flv kux asf asf_o ogg mxf gxf nut wtv dv rm ivf nsv"
    " lxf mtv pva ty dhav nuv gif apng avif yuv4mpegpipe h261 h263 h264 hevc vvc evc av1 obu m4v mpegvideo vc1 vc1test"
    " mjpeg mjpeg_2000 cavsvideo avs2 avs3 dirac dnxhd apv roq smk bink flic film_cpk ea idcin 4xm rpl amv cine xmv"
    " jpegxl_anim png_pipe jpeg_pipe jpegls_pipe j2k_pipe jpegxl_pipe bmp_pipe tiff_pipe webp_pipe gif_pipe"
)

_NO_PICTURES = Disposition.attached_pic | Disposition.timed_thumbnails  # cover art, chapter thumbnails

# A full disk, a full share of it, a file-size limit, a disk that takes no writing.
_OF_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}


def _unnamed(kind, value):
    """Names side data that FFmpeg knows and PyAV does not, such as EXIF, which else hides a frame's other side data."""
    member = object.__new__(kind)
    member._name_, member._value_ = f"UNNAMED_{value}", value
    return member


SideDataType._missing_ = classmethod(_unnamed)


@contextlib.contextmanager
def open_video(path, rate=25):
    """Opens a video for a `with` block; yields the container and the video stream that players show.

    Args:
        path: the file, or the pattern of an image sequence.
        rate: frames per second of an image sequence.

    Raises:
        UserError: if the file cannot be opened or has no video stream, and for FFmpeg's errors in the block.
    """
    try:
        with _open_input(path, rate) as container:
            stream = _shown(container.streams.video)
            if stream is None:
                raise UserError(f"{path} has no video stream")
            if stream.codec_context is None:
                raise UserError(f"cannot read the video {path}: FFmpeg does not know how its frames are coded")
            stream.thread_type = "AUTO"
            yield container, stream
    except av.FFmpegError as error:
        if error.errno in _OF_WRITING:  # of the file that the block writes
            raise
        raise UserError(f"cannot read the video {path}: {error.strerror}") from None


def read_packets(container, *streams):
    """Yields the packets of an open file, by default of all its streams.

    Ends before the packets by which PyAV marks the end of each stream: those fail with an `IndexError` if a stream has
    appeared midway, as in damaged and in joined broadcasts.
    """
    for packet in container.demux(*streams):
        if not packet.size and packet.pts is None and packet.dts is None and packet.pos in (None, -1):
            return
        yield packet


def open_file(path, mode="r", **options):
    """Opens a file of our own for reading or, with mode "w", writing; its name may hold any characters."""
    return av.open(_address(path), mode, **options)


def open_nowhere(path):
    """Opens a file for writing, of the kind that the suffix of `path` says; what is written is discarded."""
    return av.open(_Nowhere(f"nowhere{Path(path).suffix}"), "w")


class _Nowhere:
    """A file object that discards what is written to it."""

    def __init__(self, name):
        self.name, self._place, self._size = name, 0, 0

    def write(self, content):
        self._place += len(content)
        self._size = max(self._size, self._place)
        return len(content)

    def seek(self, offset, whence=os.SEEK_SET):
        self._place = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        return self._place

    def tell(self):
        return self._place


@contextlib.contextmanager
def errors_of(path):
    """Turns FFmpeg's errors in the block into a `UserError` about `path`, a full disk into an `OSError`."""
    try:
        yield
    except av.FFmpegError as error:
        if error.errno in _OF_WRITING:
            raise OSError(error.errno, os.strerror(error.errno), os.fspath(path)) from None
        raise UserError(f"cannot write the video {path}: {error.strerror}") from None


def _address(path):
    """Returns a path so that FFmpeg takes it for a file, even with a colon in it."""
    return f"file:{os.path.abspath(path)}"


def _open_input(path, rate):
    allowed, options = ",".join(_DEMUXERS.split()), {}
    if is_sequence(path):
        allowed = "image2"
        options = {"format": "image2", "options": {"framerate": str(rate)}}
        # FFmpeg takes the whole path for the pattern, so `%` in folders is doubled; its other patterns, `*`, are off.
        options["container_options"] = {"pattern_type": "sequence"}
        path = Path(os.path.abspath(Path(path).parent).replace("%", "%%"), Path(path).name)
    else:
        _check_is_file(path)
    options["container_options"] = {
        "format_whitelist": allowed,
        "protocol_whitelist": "file",
        **options.get("container_options", {}),
    }
    try:
        return av.open(_address(path), metadata_errors="replace", **options)
    except av.error.ArgumentError:
        raise UserError(f"cannot read the video {path}: not a video, or of a kind that is not supported") from None


def _check_is_file(path):
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:  # a null byte in the name is a ValueError
        raise UserError(f"cannot read the video {path}: {getattr(error, 'strerror', None) or error}") from None
    if not stat.S_ISREG(mode):
        raise UserError(f"cannot read the video {path}: it is not a file")


def _shown(streams):
    """Returns the video stream that players show: a default one if any, then the largest, then the first.

    The still image that stands for an animation, as in AVIF, is not chosen.
    """
    streams = [stream for stream in streams if not stream.disposition & _NO_PICTURES]

    def rank(stream):
        context = stream.codec_context
        area = context.width * context.height if context else -1
        return stream.frames != 1, bool(stream.disposition & Disposition.default), area

    return max(streams, key=rank, default=None)
