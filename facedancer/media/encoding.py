"""Chooses how frames are encoded; by default with the input's codec, bit depth, chroma subsampling and rotation."""

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av

from facedancer.core.console import UserError
from facedancer.core.marking import MARKED_SUFFIXES
from facedancer.media.colors import Colors, padded_size
from facedancer.media.orientation import UPRIGHT
from facedancer.media.sequences import is_sequence

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".gif", ".webp")


@dataclass(frozen=True)
class _Codec:
    """An encoder: FFmpeg's name, its options, the quality option (if any) and its default, the files that hold it."""

    encoder: str
    options: dict
    quality: tuple[str, int] | None
    suffixes: tuple[str, ...]


# H.264's `mbtree` reads memory that x264 never wrote (with MALLOC_PERTURB_ set, the same frames encode to different
# bits), but a resumed run must give the same frames as an uninterrupted one. Without it, at 720p, 18 is as faithful as
# 16 was with it, for a fifth more bytes.
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
# If the input's own codec would lose transparency, depth or chroma, the first of these that does not is used.
_STAND_INS = ("hevc", "av1", "h264", "vp9", "ffv1", "prores")
# Alpha formats that decode to what was encoded: VP9's alpha is a separate picture, in 4:2:0, that only Matroska holds;
# few decoders support HEVC's.
_WITH_ALPHA = {"libvpx-vp9": ("yuva420p",), "libx265": ()}
_ALPHA_APART, _ALPHA_IN_FRAMES = (".mkv", ".webm"), (".webp", ".png", ".apng", ".gif")


@dataclass(frozen=True)
class Encoding:
    """How frames are encoded.

    Attributes:
        encoder: FFmpeg's name of the encoder.
        pixel_format: FFmpeg's name of the encoded frames' format.
        options: options of the encoder, name -> text.
        size: `(width, height)` of the encoded frames in pixels, even if the format needs it.
        turn: `(transpose, flip_x, flip_y)` that makes a coded frame upright (see `Video`).
        display_matrix: nine integers that state the turn; None if frames are coded upright.
        sample_aspect_ratio: width of a coded pixel divided by its height; None if not stated.
        colors: `Colors`.
        notes: one line for each unrequested difference from the input.
        is_missing: whether the input's transparency is lost.
    """

    encoder: str
    pixel_format: str
    options: dict
    size: tuple[int, int]
    turn: tuple[bool, bool, bool]
    display_matrix: tuple[int, ...] | None
    sample_aspect_ratio: Fraction | None
    colors: Colors = field(repr=False)
    notes: tuple[str, ...] = field(default=(), repr=False)
    is_missing: bool = False

    @property
    def is_rgb(self):
        """Whether frames are coded as RGB, as the intermediate segments of GIF, WebP and image sequences are."""
        return av.VideoFormat(self.pixel_format).is_rgb


def check_video_suffix(path):
    """Raises `UserError` if a file's suffix is of no kind of video that we write."""
    suffix = Path(path).suffix.lower()
    known = MARKED_SUFFIXES if is_sequence(path) else VIDEO_SUFFIXES
    if suffix not in known:
        raise UserError(f"cannot write {path}: its name must end in one of {', '.join(known)}")


def choose_encoding(path, video, size=None, codec=None, quality=None, pixel_format=None):
    """Returns the `Encoding` of a file to write.

    Args:
        path: the file; its suffix decides what it can hold.
        video: `Video` that the frames come from; settings that are None are kept from it.
        size: `(width, height)` in pixels of upright frames that are new throughout; None if they are the video's.
        codec: key of `CODECS`. None keeps the video's if the file can hold it, and otherwise takes H.264 (VP9 in WebM);
            if that would lose transparency, depth or chroma, another codec that keeps them is taken.
        quality: the encoder's quantizer, lower is better; None takes our default.
        pixel_format: FFmpeg's name; None keeps depth and chroma as far as the codec supports them.

    Raises:
        UserError: if the file cannot hold the codec, or the codec the pixel format.
    """
    check_video_suffix(path)
    suffix, notes = Path(path).suffix.lower(), []
    is_new = size is not None
    given = "rgb24" if is_new and has_alpha(video.pixel_format) else video.pixel_format
    turn = UPRIGHT if is_new else video.turn
    width, height = size or (video.width, video.height)
    aspect = video.sample_aspect_ratio
    if is_new and video.turn[0] and aspect:
        aspect = 1 / aspect
    if turn[0]:
        width, height = height, width

    if suffix in (".gif", ".webp") or is_sequence(path):
        if codec or pixel_format or quality is not None:
            raise UserError(f"--codec, --quality and --pixel_format do not apply to {suffix[1:]} files")
        is_kept = has_alpha(given) and suffix in _ALPHA_IN_FRAMES
        is_missing, notes = has_alpha(given) and not is_kept, ()
        if is_missing:
            notes = (f"{video.path}: its transparency is left out",)
        elif is_kept and suffix == ".gif" and video.codec != "gif":
            notes = (f"{video.path}: its transparency is on or off in .gif files",)
        pixel_format, size = "bgra" if is_kept else "bgr0", size or (video.width, video.height)
        return Encoding("ffv1", pixel_format, {}, size, UPRIGHT, None, aspect, video.colors, notes, is_missing)
    if codec is None:
        held = suffix in CODECS[video.codec].suffixes if video.codec in CODECS else False
        codec = usual = video.codec if held else "vp9" if suffix == ".webm" else "h264"
        if pixel_format is None:
            codec = min(
                (usual, *(other for other in _STAND_INS if suffix in CODECS[other].suffixes)),
                key=lambda name: _losses(given, _nearest_format(given, _formats(name, suffix))),
            )
        if codec != usual:
            what = "transparency, depth or chroma" if has_alpha(given) else "depth or chroma"
            notes.append(f"coded as {codec}: our encoder of {usual} would lose {what} of {given}")
    elif suffix not in CODECS[codec].suffixes:
        raise UserError(f"{suffix} files do not hold {codec}; {', '.join(CODECS[codec].suffixes)} files do")
    kind, formats = CODECS[codec], _formats(codec, suffix)
    if pixel_format is None:
        pixel_format = _nearest_format(given, formats)
        if any(_losses(given, pixel_format)[1:]):
            notes.append(f"{given} becomes {pixel_format}: {codec} in {suffix} files supports no more")
    elif pixel_format not in formats:
        raise UserError(f"{codec} has no pixel format {pixel_format}; it has {', '.join(formats)}")
    options = dict(kind.options)
    if kind.quality:
        name, default = kind.quality
        options[name] = str(default if quality is None else quality)
    elif quality is not None:
        raise UserError(f"{codec} is lossless and takes no --quality")
    if kind.encoder == "libx265":
        words = {"log-level": "none", **video.mastering}
        words |= {"hdr10": 1, "repeat-headers": 1} if video.mastering else {}
        options["x265-params"] = ":".join(f"{word}={value}" for word, value in words.items())
    coded = padded_size(width, height, pixel_format)
    matrix = None if is_new else video.display_matrix
    is_missing = has_alpha(given) and not has_alpha(pixel_format)
    if is_missing:
        notes.append("its transparency is left out")
    notes = tuple(f"{video.path}: {note}" for note in notes)
    return Encoding(kind.encoder, pixel_format, options, coded, turn, matrix, aspect, video.colors, notes, is_missing)


def _formats(codec, suffix):
    """Returns the pixel formats that a codec's encoder supports and we write to files with this suffix."""
    encoder = CODECS[codec].encoder
    names = [item.name for item in av.codec.Codec(encoder, "w").video_formats if _is_written(item.name)]
    with_alpha = _WITH_ALPHA.get(encoder, names) if codec != "vp9" or suffix in _ALPHA_APART else ()
    return [name for name in names if not has_alpha(name) or name in with_alpha]


def _nearest_format(pixel_format, formats):
    """Returns the format of a list nearest to `pixel_format`: the least loss of alpha, then depth, then chroma."""
    wanted = _kind_of(pixel_format)

    def distance(name):
        apart = (abs(a - b) for a, b in zip(_kind_of(name)[:3], wanted, strict=False))
        return *_losses(pixel_format, name), has_alpha(name), *apart

    planar = [name for name in formats if _kind_of(name)[3]]
    return min(planar, key=distance)


def _losses(pixel_format, name):
    """Returns four bools: whether format `name` lacks alpha, has less depth, coarser chroma across, and down."""
    wanted, found = _kind_of(pixel_format), _kind_of(name)
    is_opaque = has_alpha(pixel_format) and not has_alpha(name)
    return is_opaque, found[0] < wanted[0], found[1] > wanted[1], found[2] > wanted[2]


def has_alpha(name):
    """Whether a pixel format has an alpha channel."""
    kind = av.VideoFormat(name, 16, 16)
    return any(part.is_alpha for part in kind.components)


def _is_written(name):
    """Whether `colors.add_change` supports a format: one component a plane, chroma of at least half the resolution."""
    kind = av.VideoFormat(name, 16, 16)
    parts = kind.components
    has_planes = len({part.plane for part in parts}) == len(parts)
    return kind.is_rgb or (has_planes and all(min(part.width, part.height) >= 8 for part in parts))


def _kind_of(name):
    """Returns `(bits, horizontal chroma step, vertical chroma step, whether we write it)` of a pixel format."""
    kind = av.VideoFormat(name, 16, 16)
    parts = kind.components
    planes = len(parts) - has_alpha(name)
    is_gray = planes < 3
    across, down = (1, 1) if is_gray or kind.is_rgb else (16 // parts[1].width, 16 // parts[1].height)
    # Gray video is coded with neutral chroma, which every player supports.
    if is_gray and not kind.has_palette:
        across = down = 2
    is_ours = kind.is_planar and not kind.is_rgb and planes == 3 and name.startswith("yuv") and "yuvj" not in name
    return parts[0].bits, across, down, is_ours
