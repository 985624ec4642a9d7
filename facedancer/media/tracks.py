"""The other tracks of a video: sound, subtitles, attachments, data, further video tracks.

A track is copied if the output file can hold it; sound and text that it cannot hold are encoded anew; tracks that are
left out are named. This is decided before any work by a trial: the tracks are written as they will be at the end, and
discarded.
"""

import contextlib
import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.logging
from av.audio.resampler import AudioResampler
from av.stream import Discard, Disposition

from facedancer.media.containers import open_nowhere, open_video
from facedancer.media.joins import continued
from facedancer.media.sequences import is_sequence
from facedancer.media.subtitles import ConvertedSubtitles, subtitles_of

_KINDS = {"audio": "sound", "subtitle": "subtitles", "video": "pictures", "attachment": "attached file"}
_PICTURES_ALONE = (".gif", ".webp")

_WITH_COVER = ("matroska", "mp4")  # FFmpeg's names of containers that hold cover art

# The encoder for sound that a kind of file cannot hold as it is, and its bits per second for each channel.
_ENCODERS, _ENCODER, _BIT_RATE = {".webm": "libopus"}, "aac", 96_000
_PRIMING = Fraction(1, 10)  # seconds before the start that a sound decoder may need
_TRIED = 64  # packets of sound to try; at least one must decode

# Raised for a damaged packet, which is skipped.
_DAMAGED = (av.error.InvalidDataError, BlockingIOError)


@dataclass(frozen=True)
class Track:
    """A track other than the video track whose faces are swapped.

    Attributes:
        index: its number in the file, from 0.
        kind: FFmpeg's name: audio, subtitle, data, attachment, video or unknown.
        codec: short name of its codec.
        is_empty: whether it has no packets.
        is_known: whether FFmpeg can decode it, so that it can be seen or heard.
        is_cover: whether it is cover art, a single image.
    """

    index: int
    kind: str
    codec: str
    is_empty: bool
    is_known: bool = True
    is_cover: bool = False

    def __str__(self):
        return f"track {self.index} ({_KINDS.get(self.kind, self.kind)}, {self.codec})"


@dataclass(frozen=True)
class TrackPlan:
    """What happens to the other tracks of a video.

    Attributes:
        copied: indices of tracks that are copied.
        encoded: indices of sound and subtitle tracks that are encoded anew.
        notes: one line for each track that is not copied completely.
        has_cover: whether a cover is among the copied tracks.
        is_missing: whether content is lost. A track that FFmpeg cannot decode, such as Apple's spatial sound or a
            camera's telemetry, counts only if it is the video's only sound.
    """

    copied: frozenset[int] = frozenset()
    encoded: frozenset[int] = frozenset()
    notes: tuple[str, ...] = ()
    has_cover: bool = False
    is_missing: bool = False


def tracks_of(container, shown, counts):
    """Lists the `Track`s of an open file.

    Args:
        container: the open `av` container.
        shown: the video stream whose faces are swapped.
        counts: `{index: number of packets}`.
    """
    streams = [stream for stream in container.streams if stream.index != shown.index]
    names = _names(container) if streams else {}
    return tuple(
        Track(
            stream.index,
            stream.type,
            names.get(stream.index, "of an unknown kind"),
            stream.type != "attachment" and not counts.get(stream.index),
            stream.type == "attachment" or stream.codec_context is not None,
            _is_cover(stream),
        )
        for stream in streams
        # Skips the text track of MP4's chapter titles, and the still image that stands for an animation, as in AVIF.
        if stream.discard != Discard.all and not (shown.frames > stream.frames == 1 and _look_alike(stream, shown))
    )


def late_tracks(container):
    """Returns a line for each stream that FFmpeg has found only midway in an open file, which PyAV does not read."""
    count = len(container.streams)
    return [
        f"track {index} ({codec}) begins midway and is left out"
        for index, codec in _names(container).items()
        if index >= count
    ]


def plan_tracks(path, video):
    """Returns the `TrackPlan` for writing a `Video` to the file `path`."""
    if not video.tracks:
        return TrackPlan()
    if _suffix(path) in _PICTURES_ALONE or is_sequence(path):
        named = ", ".join(map(str, video.tracks))
        return TrackPlan(notes=(f"{path} holds pictures alone: {named} of {video.path} left out",))
    held = [track for track in video.tracks if (track.kind != "video" or track.is_cover) and not track.is_empty]
    copied = _try(path, video, {track.index for track in held}, _Copied)
    rest = [track for track in held if track.index not in copied]
    encoded = _try(path, video, {track.index for track in rest if track.kind == "audio"}, _Encoded, _TRIED)
    converted = _try(path, video, {track.index for track in rest if track.kind == "subtitle"}, ConvertedSubtitles)
    has_sound = any(track.kind == "audio" and track.index in copied | encoded for track in held)
    notes, is_missing = [], False
    for track in video.tracks:
        if damaged := _damaged(copied | converted, track.index):
            notes.append(f"{track} is damaged, packets of it are left out: {damaged}")
            is_missing = True
        if track.index in converted:
            lost = ", ".join(sorted(converted[track.index].writer.lost))
            lost = lost and f"; left out of its styling: {lost}"
            notes.append(
                f"{track} is converted to {subtitles_of(path)}: {_suffix(path)} files do not hold it as it is{lost}"
            )
        elif track.index in copied:
            continue
        elif track.index in encoded:
            notes.append(f"{track} is encoded anew ({_encoder(path)}): {_suffix(path)} files do not hold it as it is")
        elif track.is_empty:
            notes.append(f"{track} is left out: nothing is in it")
        elif track.kind == "video" and not track.is_cover:
            notes.append(f"{track} is left out: another one is swapped, which is the one that players show")
            is_missing = True
        else:
            notes.append(f"{track} is left out: {_suffix(path)} files do not hold it")
            is_missing |= track.is_known or (track.kind == "audio" and not has_sound)
    has_cover = any(track.is_cover and track.index in copied for track in held)
    if has_cover and names_camera(video) and _suffix(path) != ".mkv":
        notes.append(f"the texts of its camera are left out: {_suffix(path)} files hold them or a cover")
    notes = tuple(f"{video.path}: {note}" for note in notes)
    return TrackPlan(frozenset(copied), frozenset(encoded | converted), notes, has_cover, is_missing)


def _damaged(trials, index):
    """Returns how many packets of a track are left out; of sound that is encoded anew, nobody counts them."""
    return trials[index].damaged + trials[index].writer.damaged if index in trials else 0


def names_camera(video):
    """Returns whether a camera or phone has written texts into a `Video` that MP4 and MOV hold in a list of their own.

    That list has no place for a cover.
    """
    return any(name.startswith("com.") or name in ("make", "model") for name in video.metadata)


class TrackCopier:
    """Writes the tracks of a video into an open file as planned, packet by packet.

    Args:
        container: the output container, whose header is not written yet.
        source: another open container of the video.
        video: its `Video`.
        plan: `TrackPlan` for that output.
    """

    def __init__(self, container, source, video, plan):
        self._source, self._video = source, video
        self._writers = {
            stream.index: _writer_of(stream, plan)(container, stream)
            for stream in source.streams
            if stream.index in plan.copied | plan.encoded
        }

    def packets(self):
        """Yields `(time, packet)` in the source's order, ready to be written; time in seconds of the output."""
        for index, packet in _read(self._source, self._video, self._writers.keys()):
            for ready in self._writers[index].packets(packet):
                yield ready.pts * ready.time_base, ready
        for writer in self._writers.values():
            for ready in writer.packets(None):
                yield ready.pts * ready.time_base, ready


def _writer_of(stream, plan):
    if stream.index in plan.copied:
        return _Copied
    return _Encoded if stream.type == "audio" else ConvertedSubtitles


def mux_track(container, packet):
    """Writes a packet of a track; returns False if it is damaged."""
    try:
        container.mux(packet)
    except _DAMAGED:
        return False
    return True


class _Copied:
    """A track whose packets are copied unchanged."""

    damaged = 0  # what is damaged turns out when it is written

    def __init__(self, container, stream):
        kind = container.format.name
        # FFmpeg accepts these, but writes nothing.
        if (_is_cover(stream) and kind not in _WITH_COVER) or (stream.type == "attachment" and kind != "matroska"):
            raise ValueError(f"{kind} has no place for it")
        if _is_cover(stream) and kind == "matroska":
            _attach_cover(container, stream)
            self._stream = None
            return
        self._stream = container.add_stream_from_template(stream, opaque=True)
        self._stream.metadata.update(stream.metadata)
        self._stream.disposition = stream.disposition

    def packets(self, packet):
        if packet is not None and self._stream:
            packet.stream = self._stream
            yield packet


class _Encoded:
    """A sound track that is re-encoded, at its own sample rate and channel count if the encoder supports them.

    Packets that do not decode are skipped.
    """

    def __init__(self, container, stream):
        self._decoder = stream.codec_context
        if self._decoder is None:
            raise ValueError("no decoder")
        name = _encoder(container.name)
        rates = sorted(av.codec.Codec(name, "w").audio_rates)
        rate = next((rate for rate in rates if rate >= self._decoder.sample_rate), rates[-1])
        self._stream = container.add_stream(name, rate=rate)
        self._encoder = self._stream.codec_context
        # By channel count alone, as a file may not state its channel layout.
        self._encoder.layout = {1: "mono", 6: "5.1"}.get(self._decoder.layout.nb_channels, "stereo")
        self._encoder.bit_rate = _BIT_RATE * self._encoder.layout.nb_channels
        self._stream.metadata.update(stream.metadata)
        self._stream.disposition = stream.disposition
        self._kind, self._resampler, self._end = None, None, -(2**62)

    def packets(self, packet):
        try:
            frames = self._decoder.decode(packet)
        except (*_DAMAGED, av.error.EOFError):
            frames = []
        for frame in frames:
            kind = (frame.format.name, frame.layout.name, frame.sample_rate)
            if kind != self._kind:  # broadcasts switch between stereo and surround
                yield from self._encode(self._resampler.resample(None) if self._resampler else ())
                self._kind, self._resampler = kind, self._new_resampler()
            yield from self._encode(self._resampler.resample(frame))
        if packet is None and self._resampler:
            yield from self._encode([*self._resampler.resample(None), None])

    def _new_resampler(self):
        return AudioResampler(self._encoder.format, self._encoder.layout, self._encoder.sample_rate)

    def _encode(self, frames):
        unit = Fraction(1, self._encoder.sample_rate)
        for frame in frames:
            if frame is not None:
                # Where packets were lost or clips joined, times may go back, which encoders refuse.
                time = self._end if frame.pts is None else round(frame.pts * frame.time_base / unit)
                frame.pts, frame.time_base = max(time, self._end), unit
                self._end = frame.pts + frame.samples
            for packet in self._encoder.encode(frame):
                packet.stream = self._stream
                yield packet


def _read(source, video, indices):
    """Yields `(index, packet)` of some tracks in the source's order, with times of the output."""
    streams = [source.streams[index] for index in sorted(indices)]
    for _, packet in continued(source, streams, video.joins) if streams else ():
        if _is_cover(packet.stream) and packet.size:
            packet.pts = packet.dts = 0
            yield packet.stream_index, packet
            continue
        if packet.pts is None or not packet.size:  # the end of a stream
            continue
        shift = round(video.start / packet.time_base)
        packet.pts -= shift
        if packet.dts is not None:
            packet.dts -= shift
        time = packet.pts * packet.time_base
        if packet.is_discard and time < -_PRIMING:  # removed by an edit list, which Matroska lacks
            continue
        # In a cut video, a packet that reaches across the start would shift its track.
        if (time >= 0 or not video.skipped) and video.reaches(time):
            yield packet.stream_index, packet


def _try(path, video, indices, kind, most=None):
    """Tries to write tracks, each alone; returns `{index: _Trial}` of those that can be written.

    Args:
        path: its suffix says what kind of file it would be.
        video: `Video`.
        indices: indices of the tracks.
        kind: `_Copied`, `_Encoded` or `ConvertedSubtitles`.
        most: maximum number of packets to try per track; None is all of them.
    """
    if not indices:
        return {}
    trials = {}
    with open_video(video.path) as (source, _), contextlib.ExitStack() as stack:
        for index in indices:
            container = stack.enter_context(open_nowhere(path))
            trials[index] = _Trial(container, kind, source.streams[index])
        seen = dict.fromkeys(indices, 0)
        for index, packet in _read(source, video, indices):
            seen[index] += 1
            if most is None or seen[index] <= most:
                trials[index].write(packet)
            elif min(seen.values()) > most:
                break
        return {index: trial for index, trial in trials.items() if trial.finish()}


class _Trial:
    """A track that is written alone to a file that is discarded.

    Attributes:
        damaged: number of packets that cannot be written.
        writer: what writes the track.
    """

    def __init__(self, container, kind, stream):
        self._container, self.damaged, self._written, self._fails = container, 0, 0, False
        self._is_attachment = stream.type == "attachment" or _is_cover(stream)
        with self._failing():
            self.writer = kind(container, stream)
            container.start_encoding()

    def write(self, packet):
        """Writes a packet of the source, unless the track has already failed."""
        if not self._fails:
            with self._failing():
                for ready in self.writer.packets(packet):
                    is_whole = mux_track(self._container, ready)
                    self._written += is_whole
                    self.damaged += not is_whole

    def finish(self):
        """Ends the file; returns whether the track can be written."""
        self.write(None)
        with self._failing():
            self._container.close()
        return not self._fails and (self._written > 0 or self._is_attachment)

    @contextlib.contextmanager
    def _failing(self):
        # PyAV raises ValueError if the file cannot hold the track; so do we if there is no decoder.
        try:
            yield
        except (av.FFmpegError, ValueError):
            self._fails = True


def _is_cover(stream):
    return bool(stream.disposition & Disposition.attached_pic)


def _look_alike(stream, other):
    one, two = stream.codec_context, other.codec_context
    return bool(one and two) and (one.name, one.width, one.height) == (two.name, two.width, two.height)


def _attach_cover(container, stream):
    """Adds a cover as Matroska has them: as an attached file."""
    kinds = {"mjpeg": ("cover.jpg", "image/jpeg"), "png": ("cover.png", "image/png")}
    if stream.codec_context is None or stream.codec_context.name not in kinds:
        raise ValueError("no attachment is known for it")
    name, kind = kinds[stream.codec_context.name]
    name, kind = stream.metadata.get("filename", name), stream.metadata.get("mimetype", kind)
    # FFmpeg gives covers before all other packets.
    content = next(packet for packet in stream.container.demux(stream) if packet.size)
    container.add_attachment(name, kind, bytes(content))


def _encoder(path):
    return _ENCODERS.get(_suffix(path), _ENCODER)


def _suffix(path):
    return Path(path).suffix.lower()


def _names(container):
    """Returns `{index: codec name}` from FFmpeg's listing, as PyAV has no names for codecs that it cannot decode."""
    level = av.logging.get_level()
    av.logging.set_level(av.logging.INFO)
    try:
        listing = container.dumps_format()
    finally:
        av.logging.set_level(level)
    found = re.findall(r"Stream #\d+:(\d+)\S*: \w+: (\w+)(?: \([^/()]*\))?(?: \((\w{4}) /)?", listing)
    return {
        int(index): tag if tag and codec in ("none", "unknown", "bin_data") else codec for index, codec, tag in found
    }
