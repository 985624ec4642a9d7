"""Writes videos in closed segments, and puts them together with every sound and subtitle track of the input.

A segment is a Matroska file of pictures alone that begins with a key frame, so that work done is work kept; it knows
the order of its frames and not their times. When all are there, their packets are copied into the file that a person
gets, each with its own time stamp, between the untouched packets of the other tracks.

By default codec, depth, chroma and orientation are the input's. GIF, WebP and sequences of pictures are written from
segments without loss.
"""

import contextlib
import math
import tempfile
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from facedancer.core.console import UserError
from facedancer.core.files import atomic_path, make_folder
from facedancer.core.marking import MARKED_SUFFIXES, marked_metadata, write_marked_image
from facedancer.video_swap.colours import Colours, add_change, from_rgb, padded_size, to_planes
from facedancer.video_swap.video_io import UPRIGHT, coded_box, coded_view, is_sequence, numbered, open_video

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".gif", ".webp")


@dataclass(frozen=True)
class _Codec:
    """An encoder: FFmpeg's name, its options, the one that sets the quality (if any) and its default, files for it."""

    encoder: str
    options: dict
    quality: tuple[str, int] | None
    suffixes: tuple[str, ...]


# H.264's `mbtree` reads memory that x264 never wrote (the same frames encode to other bits with MALLOC_PERTURB_ set
# otherwise), and work that goes on after a kill shall give the very frames of an unbroken run. Without it, at 720p, 18
# is as faithful as 16 was, for a fifth more bytes.
CODECS = {
    "h264": _Codec(
        "libx264", {"preset": "veryfast", "x264-params": "mbtree=0"}, ("crf", 18), (".mp4", ".mov", ".m4v", ".mkv")
    ),
    "hevc": _Codec("libx265", {"preset": "veryfast"}, ("crf", 17), (".mp4", ".mov", ".m4v", ".mkv")),
    "av1": _Codec("libsvtav1", {"preset": "9"}, ("crf", 24), (".mp4", ".mkv", ".webm")),
    "vp9": _Codec("libvpx-vp9", {"deadline": "good", "cpu-used": "5", "row-mt": "1", "b": "0"}, ("crf", 20),
                  (".mp4", ".mkv", ".webm")),
    "prores": _Codec("prores_ks", {}, ("qscale", 6), (".mov", ".mkv")),
    "ffv1": _Codec("ffv1", {"slices": "4"}, None, (".mkv",)),
}  # fmt: skip


@dataclass(frozen=True)
class Encoding:
    """How pictures are encoded.

    Attributes:
        encoder: FFmpeg's name of it.
        pixel_format: of the encoded pictures.
        options: of the encoder, texts.
        size: `(width, height)` of the encoded pictures, sides even where the format needs it.
        turn: of the pictures as coded (see `Video`).
        display_matrix: that goes with it, None where pictures are upright.
        sample_aspect_ratio: of a coded pixel, None where it is not said.
        colours: `Colours`.
    """

    encoder: str
    pixel_format: str
    options: dict
    size: tuple[int, int]
    turn: tuple[bool, bool, bool]
    display_matrix: tuple[int, ...] | None
    sample_aspect_ratio: Fraction | None
    colours: Colours = field(repr=False)

    @property
    def is_rgb(self):
        """Whether pictures are coded as RGB, as those of GIF, WebP and sequences are on their way."""
        return av.VideoFormat(self.pixel_format).is_rgb


def check_video_suffix(path):
    """Raises `UserError` for the name of a video file that we do not write."""
    suffix = Path(path).suffix.lower()
    known = MARKED_SUFFIXES if is_sequence(path) else VIDEO_SUFFIXES
    if suffix not in known:
        raise UserError(f"cannot write {path}: its name must end in one of {', '.join(known)}")


def choose_encoding(path, video, size=None, codec=None, quality=None, pixel_format=None):
    """Returns the `Encoding` for a file that is to be written.

    Args:
        path: the file to write; its suffix decides what it can hold.
        video: `Video` that the pictures come from; what is not chosen is kept from it.
        size: `(width, height)` of upright pictures that are new throughout, None where they are the video's.
        codec: key of `CODECS`; None keeps the video's where the file holds it, and is H.264 elsewhere (VP9 in WebM).
        quality: the encoder's quantiser, smaller is better; None is our default.
        pixel_format: FFmpeg's name; None keeps depth and chroma as far as the codec has them.

    Raises:
        UserError: if the file cannot hold the codec, or the codec the pixel format.
    """
    check_video_suffix(path)
    suffix = Path(path).suffix.lower()
    is_new = size is not None
    turn = UPRIGHT if is_new else video.turn
    width, height = size or (video.width, video.height)
    aspect = video.sample_aspect_ratio
    if is_new and video.turn[0] and aspect:
        aspect = 1 / aspect
    if turn[0]:
        width, height = height, width

    if suffix in (".gif", ".webp") or is_sequence(path):
        if codec or pixel_format or quality is not None:
            raise UserError(f"--codec, --quality and --pixel_format say nothing about {suffix[1:]} files")
        return Encoding("ffv1", "bgr0", {}, size or (video.width, video.height), UPRIGHT, None, aspect, video.colours)
    if codec is None:
        held = suffix in CODECS[video.codec].suffixes if video.codec in CODECS else False
        codec = video.codec if held else "vp9" if suffix == ".webm" else "h264"
    elif suffix not in CODECS[codec].suffixes:
        raise UserError(f"{suffix} files do not hold {codec}; {', '.join(CODECS[codec].suffixes)} files do")
    kind = CODECS[codec]
    formats = [item.name for item in av.codec.Codec(kind.encoder, "w").video_formats if _is_written(item.name)]
    if pixel_format is None:
        pixel_format = _nearest_format(video.pixel_format, formats)
    elif pixel_format not in formats:
        raise UserError(f"{codec} has no pixel format {pixel_format}; it has {', '.join(formats)}")
    options = dict(kind.options)
    if kind.quality:
        name, default = kind.quality
        options[name] = str(default if quality is None else quality)
    elif quality is not None:
        raise UserError(f"{codec} loses nothing: --quality does not go with it")
    if kind.encoder == "libx265":
        words = {"log-level": "none", **video.mastering}
        words |= {"hdr10": 1, "repeat-headers": 1} if video.mastering else {}
        options["x265-params"] = ":".join(f"{word}={value}" for word, value in words.items())
    coded = padded_size(width, height, pixel_format)
    matrix = None if is_new else video.display_matrix
    return Encoding(kind.encoder, pixel_format, options, coded, turn, matrix, aspect, video.colours)


def check_tracks(path, video):
    """Raises `UserError` where a file of that name cannot hold the sound and subtitles of a video."""
    suffix = Path(path).suffix.lower()
    if suffix in (".gif", ".webp") or is_sequence(path) or not _has_tracks(video):
        return
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        source, _ = stack.enter_context(open_video(video.path))
        stack.enter_context(errors_of(path))
        _add_tracks(stack.enter_context(av.open(Path(folder, f"empty{suffix}"), "w")), source, video.path)


@contextlib.contextmanager
def errors_of(path):
    """Makes FFmpeg's errors in the block a `UserError` about `path`."""
    try:
        yield
    except av.FFmpegError as error:
        raise UserError(f"cannot write the video {path}: {error.strerror}") from None


class SegmentWriter:
    """Encodes some frames to a file of their own, which is there, whole, after `finish`.

    Use it within `errors_of`.
    """

    def __init__(self, path, encoding, rate):
        self.encoding = encoding
        self.count = 0
        self._path, self._partial = Path(path), Path(path).with_name(f".partial-{Path(path).name}")
        self._container = av.open(self._partial, "w")
        stream = self._container.add_stream(encoding.encoder, rate=rate, options=encoding.options)
        stream.width, stream.height = encoding.size
        stream.pix_fmt = encoding.pixel_format
        stream.codec_context.time_base = 1 / rate
        if encoding.sample_aspect_ratio:
            stream.codec_context.sample_aspect_ratio = encoding.sample_aspect_ratio
        if not encoding.is_rgb:
            for name, value in encoding.colours.tags.items():
                setattr(stream.codec_context, name, value)
        self._stream = stream

    def write(self, frame, image, regions=None, part=None):
        """Encodes one picture.

        Args:
            frame: the `Frame` that it was made from.
            image: (H, W, 3) uint8 RGB, upright; where `part` is given, that part alone.
            regions: list of `(x1, y1, x2, y2)` in the frame outside of which nothing has changed; None if all is new.
            part: what `frame.part` returned, where only that has changed.
        """
        encoding = self.encoding
        size = (frame.video.width, frame.video.height)
        if part and encoding.is_rgb:
            whole = frame.image.copy()
            x1, y1, x2, y2 = part[1]
            whole[y1:y2, x1:x2] = image
            image = whole
        if regions is None or encoding.is_rgb:
            picture = from_rgb(coded_view(image, encoding.turn), encoding.colours, encoding.pixel_format)
        else:
            before, box = part or (frame.image, (0, 0, *size))
            corner = coded_box(box, size, encoding.turn)[:2]
            picture = to_planes(frame.decoded, encoding.colours, encoding.pixel_format)
            before, after = (coded_view(view, encoding.turn) for view in (before, image))
            for region in _disjoint(coded_box(region, size, encoding.turn) for region in regions):
                add_change(picture, encoding.colours, before, after, region, corner)
        picture.pts, picture.time_base = self.count, self._stream.codec_context.time_base
        self._container.mux(self._stream.encode(picture))
        self.count += 1

    def finish(self):
        """Writes what the encoder still holds, and the file's end."""
        self._container.mux(self._stream.encode(None))
        self._container.close()
        self._partial.replace(self._path)

    def abandon(self):
        """Leaves the segment off and removes what there is of it."""
        with contextlib.suppress(av.FFmpegError):
            self._container.close()
        self._partial.unlink(missing_ok=True)


def assemble(path, video, encoding, segments, sample_rate=1):
    """Puts segments together as the file that a person gets, with all other tracks of the video.

    Args:
        path: the file to write.
        video: `Video` that the pictures come from.
        encoding: the `Encoding` of all segments.
        segments: list of `(path, pts, end)`: times of the segment's frames in the video's `time_base`, ascending, and
            when the last one ends.
        sample_rate: as for `read_frames`.

    Raises:
        UserError: if the file cannot be written, or cannot hold one of the tracks.
    """
    suffix = Path(path).suffix.lower()
    if is_sequence(path):
        make_folder(Path(path).parent)
        for index, (image, _, _) in enumerate(_read_segments(segments)):
            write_marked_image(numbered(path, index + 1), image)
    elif suffix == ".gif":
        with _writing(path, segments) as temporary:
            _write_gif(temporary, video, encoding, segments)
    elif suffix == ".webp":
        with _writing(path, segments) as temporary:
            _write_webp(temporary, video, encoding, segments)
    else:
        with _writing(path, segments) as temporary, contextlib.ExitStack() as stack:
            _Assembly(stack, temporary, video, encoding).copy(segments, video.rate / sample_rate)


class _Assembly:
    """Copies the packets of segments and of the input's sound and subtitles, in the order of time."""

    def __init__(self, stack, path, video, encoding):
        self.video, self._encoding, self._stack = video, encoding, stack
        options = {} if path.suffix.lower() in (".mkv", ".webm") else {"movflags": "+faststart"}
        self._container = stack.enter_context(av.open(path, "w", container_options=options))
        self._container.metadata.update(marked_metadata(video.metadata))
        self._others, self._next_other = iter(()), None

    def copy(self, segments, rate):
        pictures = None
        for packet, pts, dts, duration in _retimed(segments):
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
        is_opaque = self._encoding.encoder == "libsvtav1"  # its decoder has another name
        stream = self._container.add_stream_from_template(template, opaque=is_opaque)
        stream.time_base = self.video.time_base
        if not is_opaque:
            stream.codec_context.framerate = rate
        if self._encoding.encoder == "libx265" and self._container.format.name in ("mp4", "mov", "ipod"):
            stream.codec_context.codec_tag = "hvc1"  # what Apple's players ask for
        if self._encoding.display_matrix:
            stream.set_display_matrix(list(self._encoding.display_matrix))
        return stream

    def _read_others(self):
        """Yields `(time, packet)` of every sound and subtitle track, in the file's order, ready to be written."""
        if not _has_tracks(self.video):
            return
        source, _ = self._stack.enter_context(open_video(self.video.path))
        copies = _add_tracks(self._container, source, self.video.path)
        streams = [source.streams[index] for index in copies]
        for packet in source.demux(*streams) if streams else ():
            if packet.pts is None:  # the end of a stream
                continue
            shift = round(self.video.start / packet.time_base)
            packet.pts -= shift
            if packet.dts is not None:
                packet.dts -= shift
            packet.stream = copies[packet.stream_index]
            time = packet.pts * packet.time_base
            # Of a video that is cut, a packet that reaches across the beginning would shift its track.
            if (time >= 0 or not self._is_cut_before) and self.video.reaches(time):
                yield time, packet

    @property
    def _is_cut_before(self):
        return self.video.start > 0

    def _copy_others(self, until):
        while self._next_other and self._next_other[0] <= until:
            self._container.mux(self._next_other[1])
            self._next_other = next(self._others, None)


@contextlib.contextmanager
def _writing(path, segments):
    """Yields a temporary path beside the segments, removed with them after a kill; `path` when the block ends well."""
    with atomic_path(path, segments[0][0].parent) as temporary, errors_of(path):
        yield temporary


def _has_tracks(video):
    return video.codec != "webp" and not is_sequence(video.path)


def _add_tracks(container, source, path):
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


def _retimed(segments):
    """Yields `(packet, pts, dts, duration)` of all segments, in the order of decoding.

    Encoders hold frames back to code some out of order, each segment anew. The decoding times are those of the shown
    frames in order, put off by as many frames as any segment holds back.
    """
    times = [pts for _, every, _ in segments for pts in every]
    ends = [*times[1:], segments[-1][2]]
    ranks = []
    for path, every, _ in segments:
        ranks.append(_ranks(path))
        if len(ranks[-1]) != len(every):
            raise UserError(f"{path} holds {len(ranks[-1])} frames, its journal says {len(every)}; remove its folder")
    delay = max(place - rank for order in ranks for place, rank in enumerate(order))
    lead = max(delay, times[min(delay, len(times) - 1)] - times[0])
    first = 0
    for (path, _, _), order in zip(segments, ranks, strict=True):
        with av.open(path) as container:
            packets = (packet for packet in container.demux(video=0) if packet.pts is not None)
            for n, (packet, rank) in enumerate(zip(packets, order, strict=True), start=first):
                dts = times[n - delay] if n >= delay else times[n] - lead
                yield packet, times[first + rank], dts, ends[first + rank] - times[first + rank]
        first += len(order)


def _ranks(path):
    """The place in the order of showing of each packet of a segment."""
    with av.open(path) as container:
        pts = [packet.pts for packet in container.demux(video=0) if packet.pts is not None]
    place = {time: rank for rank, time in enumerate(sorted(pts))}
    return [place[time] for time in pts]


def _disjoint(boxes):
    """Joins boxes that overlap, as they will when they begin and end at even pixels, so that nothing is added twice."""
    apart = []
    for x1, y1, x2, y2 in boxes:
        box = (x1 // 2 * 2, y1 // 2 * 2, x2 + x2 % 2, y2 + y2 % 2)
        while near := [other for other in apart if _overlap(box, other)]:
            apart = [other for other in apart if other not in near]
            corners = np.array([box, *near])
            box = (*(int(n) for n in corners[:, :2].min(0)), *(int(n) for n in corners[:, 2:].max(0)))
        apart.append(box)
    return apart


def _overlap(box, other):
    return box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]


def _read_segments(segments):
    """Yields `(image, pts, duration)` of segments without loss."""
    for path, pts, end in segments:
        with av.open(path) as container:
            for frame, time, until in zip(container.decode(video=0), pts, [*pts[1:], end], strict=True):
                yield frame.to_ndarray(format="rgb24"), time, until - time


def _write_gif(path, video, encoding, segments):
    """Writes a GIF of one palette, taken from frames all over the video."""
    palette_image = _common_palette(segments)
    colours = np.array(palette_image.getpalette(), np.uint8).reshape(-1, 3)
    palette = np.zeros((256, 4), np.uint8)
    palette[:, 0] = 255
    palette[: len(colours), 1:] = colours
    unit = Fraction(1, 100)
    with av.open(path, "w", options={"loop": "0"}) as container:
        stream = container.add_stream("gif", rate=video.rate)
        stream.width, stream.height = encoding.size
        stream.pix_fmt = "pal8"
        stream.codec_context.time_base = unit
        last = -1
        for image, pts, duration in _read_segments(segments):
            indices = np.asarray(Image.fromarray(image).quantize(palette=palette_image, dither=Image.Dither.NONE))
            frame = av.VideoFrame.from_ndarray((indices, palette), "pal8")
            last = max(last + 1, round(pts * video.time_base / unit))
            frame.pts, frame.time_base = last, unit
            frame.duration = max(1, round((pts + duration) * video.time_base / unit) - last)
            for packet in stream.encode(frame):
                packet.duration = frame.duration
                container.mux(packet)
        container.mux(stream.encode(None))


def _common_palette(segments):
    """Returns a picture whose palette is the best 255 colours of about 64 frames, each seen at some pixels."""
    count = sum(len(pts) for _, pts, _ in segments)
    step = max(1, count // 64)
    seen = [image[::3, ::3] for index, (image, _, _) in enumerate(_read_segments(segments)) if index % step == 0]
    return Image.fromarray(np.concatenate(seen)).quantize(255, Image.Quantize.MEDIANCUT)


def _write_webp(path, video, encoding, segments):
    with av.open(path, "w", format="webp", options={"loop": "0"}) as container:
        stream = container.add_stream("libwebp_anim", rate=video.rate, options={"quality": "90"})
        stream.width, stream.height = encoding.size
        stream.pix_fmt = "bgra"
        stream.codec_context.time_base = Fraction(1, 1000)
        for image, pts, _ in _read_segments(segments):
            frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(format="bgra")
            frame.pts, frame.time_base = round(pts * video.time_base * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _nearest_format(pixel_format, formats):
    """The format of a list that is nearest to one: first by depth, then by chroma, never less where there is more."""
    wanted = _kind_of(pixel_format)

    def distance(name):
        depth, across, down, _ = _kind_of(name)
        short = depth < wanted[0], across > wanted[1], down > wanted[2]
        return *short, abs(depth - wanted[0]), abs(across - wanted[1]), abs(down - wanted[2])

    planar = [name for name in formats if _kind_of(name)[3]]
    return min(planar, key=distance)


def _is_written(name):
    """Whether `colours.add_change` knows the format: planes of one component each, chroma of at least half the size."""
    kind = av.VideoFormat(name, 16, 16)
    parts = kind.components
    has_planes = len({part.plane for part in parts}) == len(parts)
    return kind.is_rgb or (has_planes and all(min(part.width, part.height) >= 8 for part in parts))


def _kind_of(name):
    """`(bits, horizontal and vertical step of the chroma, whether we write it)` of a pixel format."""
    kind = av.VideoFormat(name, 16, 16)
    parts = kind.components
    is_grey = len(parts) < 3
    across, down = (1, 1) if is_grey or kind.is_rgb else (16 // parts[1].width, 16 // parts[1].height)
    # Grey is coded with chroma of its own, which every player knows.
    if is_grey and not kind.has_palette:
        across = down = 2
    is_ours = kind.is_planar and not kind.is_rgb and len(parts) == 3 and name.startswith("yuv") and "yuvj" not in name
    return parts[0].bits, across, down, is_ours
