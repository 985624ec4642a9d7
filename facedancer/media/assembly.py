"""Assembles segments into the output file.

Their packets are copied, each with its time stamp, and interleaved with the untouched packets of the other tracks. GIF,
WebP and image sequences are written from lossless segments.
"""

import contextlib
import math
from fractions import Fraction
from pathlib import Path

from facedancer.core.files import atomic_path, make_folder
from facedancer.core.marking import marked_metadata, write_marked_image
from facedancer.media.animations import write_gif, write_webp
from facedancer.media.containers import errors_of, open_file, open_video
from facedancer.media.encoding import has_alpha
from facedancer.media.matroska import ROOM, set_pixel_aspect
from facedancer.media.segments import read_segments, retimed
from facedancer.media.sequences import is_sequence, numbered
from facedancer.media.tracks import TrackCopier, mux_track, names_camera


def assemble(path, video, encoding, segments, sample_rate, tracks):
    """Assembles segments into the output file, with the other tracks of the video.

    Args:
        path: the file to write.
        video: `Video` that the frames come from.
        encoding: the `Encoding` of all segments.
        segments: list of `(path, pts, end)`: a segment's file, the times of its frames, ascending, and the end of its
            last frame; times in the video's `time_base`.
        sample_rate: as for `read_frames`.
        tracks: `TrackPlan` of the video's other tracks.

    Raises:
        UserError: if the file cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if is_sequence(path):
        make_folder(Path(path).parent)
        for index, (image, _, _) in enumerate(read_segments(segments)):
            write_marked_image(numbered(path, index + 1), image)
    elif suffix == ".gif":
        with _writing(path, segments) as temporary:
            write_gif(temporary, video, encoding, segments)
    elif suffix == ".webp":
        with _writing(path, segments) as temporary:
            write_webp(temporary, video, encoding, segments)
    else:
        with _writing(path, segments) as temporary, contextlib.ExitStack() as stack:
            assembly = _Assembly(stack, temporary, video, encoding, tracks)
            assembly.copy(segments, video.rate / sample_rate)
            if assembly.says_aspect:
                set_pixel_aspect(temporary, encoding.size, encoding.sample_aspect_ratio)


class _Assembly:
    """Copies the packets of segments and of the input's other tracks, in order of time.

    Attributes:
        says_aspect: whether the pixel aspect ratio must be written into the finished file.
    """

    def __init__(self, stack, path, video, encoding, tracks):
        self.video, self._encoding, self._stack, self._tracks = video, encoding, stack, tracks
        is_matroska, aspect = path.suffix.lower() in (".mkv", ".webm"), encoding.sample_aspect_ratio
        options = {}
        if not is_matroska:
            keeps_camera = names_camera(video) and not tracks.has_cover
            options["movflags"] = "+faststart" + ("+use_metadata_tags" if keeps_camera else "")
        self.says_aspect = is_matroska and aspect not in (None, 0, 1)
        self._container = stack.enter_context(open_file(path, "w", container_options=options))
        self._container.metadata.update(marked_metadata(video.metadata))
        self._container.set_chapters([_as_ffmpeg(number, chapter) for number, chapter in enumerate(video.chapters, 1)])
        self._others, self._next_other = iter(()), None

    def copy(self, segments, rate):
        pictures = None
        for packet, pts, dts, duration in retimed(segments):
            if pictures is None:
                pictures = self._add_pictures(packet.stream, rate)
                self._others = self._read_others()
                self._next_other = next(self._others, None)
            packet.stream = pictures
            packet.pts, packet.dts, packet.duration = pts, dts, duration
            packet.time_base = self.video.time_base
            self._copy_others(until=pts * self.video.time_base)
            self._container.mux(packet)
        self._copy_others(until=math.inf)
        self._container.close()

    def _add_pictures(self, template, rate):
        is_opaque = self._encoding.encoder == "libsvtav1"  # its decoder has a different name
        stream = self._container.add_stream_from_template(template, opaque=is_opaque)
        stream.time_base = self.video.time_base
        if not is_opaque:
            stream.codec_context.framerate = rate
        if self._encoding.encoder == "libx265" and self._container.format.name in ("mp4", "mov", "ipod"):
            stream.codec_context.codec_tag = "hvc1"  # which Apple's players require
        if self._encoding.sample_aspect_ratio:  # segments of VP9, AV1, ProRes and FFV1 do not state it
            stream.codec_context.sample_aspect_ratio = self._encoding.sample_aspect_ratio
        if self._encoding.encoder == "libvpx-vp9" and has_alpha(self._encoding.pixel_format):
            stream.metadata["alpha_mode"] = "1"  # FFmpeg reads only the opaque pictures of a segment
        if self.video.language:
            stream.metadata["language"] = self.video.language
        if self.says_aspect:
            stream.metadata["title"] = ROOM
        if self._encoding.display_matrix:
            stream.set_display_matrix(list(self._encoding.display_matrix))
        return stream

    def _read_others(self):
        """Yields `(time, packet)` of the other tracks, in the file's order, ready to be written; time in seconds."""
        if self._tracks.copied or self._tracks.encoded:
            source, _ = self._stack.enter_context(open_video(self.video.path))
            yield from TrackCopier(self._container, source, self.video, self._tracks).packets()

    def _copy_others(self, until):
        while self._next_other and self._next_other[0] <= until:
            mux_track(self._container, self._next_other[1])
            self._next_other = next(self._others, None)


def _as_ffmpeg(number, chapter):
    unit = Fraction(1, 1_000_000)
    start, end = round(chapter.start / unit), round(chapter.end / unit)
    return {"id": number, "start": start, "end": end, "time_base": unit, "metadata": chapter.metadata}


@contextlib.contextmanager
def _writing(path, segments):
    """Yields a temporary path in the segments' folder; it becomes `path` if the block succeeds."""
    with atomic_path(path, segments[0][0].parent) as temporary, errors_of(path):
        yield temporary
