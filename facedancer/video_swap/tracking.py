"""Faces over time: joins detections to tracks, fills gaps, smooths landmarks, fades the ends.

The whole video is analyzed before its first face is swapped, so nothing here has to predict: the filter
runs forward and backward and adds no lag, a face that is about to be lost fades out beforehand, and gaps between
two detections are interpolated from both.

The filter is One Euro (Casiez et al., CHI 2012): a low pass whose cutoff grows with the speed, measured here in eye
distances, so that it behaves the same at every size. Changed on purpose: the mean of both directions of time.
"""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated

import cv2
import msgspec
import numpy as np

from facedancer.core.schemas import Landmarks
from facedancer.video_swap.assignment import assign

# One Euro: cutoff for a still face in hertz, its growth with speed in eye distances per second, cutoff of the speed.
_STILL_CUTOFF, _GROWTH, _SPEED_CUTOFF = 0.5, 6.0, 2.0

_LONGEST_GAP = 0.35  # maximum seconds without a detection that are filled
_FADE = 0.16  # seconds in which a face that appears or disappears without a cut fades
_FARTHEST = 0.75  # maximum distance of a face from where it is expected, in face sizes
# Eye distance divided by eye-mouth distance: at the first value a face is so far in profile that its swap is invisible,
# from the second on the swap is opaque.
_PROFILE = (0.15, 0.4)

_THUMBNAIL = (64, 36)
_CUT_HISTOGRAM, _CUT_DIFFERENCE = 0.3, 18.0


_Embedding = list[Annotated[float, msgspec.Meta(ge=-1e6, le=1e6)]]


class KeptFrame(msgspec.Struct, frozen=True):
    """A `SeenFrame` as stored in JSON."""

    cut: int
    detected: int
    landmarks: list[Landmarks]
    embeddings: list[_Embedding] | None
    carried: list[Landmarks] | None
    pts: int


class KeptFrames(msgspec.Struct, frozen=True):
    """A line of the first pass's journal."""

    frames: list[KeptFrame]


@dataclass
class SeenFrame:
    """What the first pass found in one frame.

    Attributes:
        is_cut: whether a new scene begins with it.
        is_detected: whether the detector was run on it.
        landmarks: (n, 5, 2) in pixels; without detection, those of the last detection, carried here by optical flow.
        embeddings: (n, dim) identity embeddings, or None.
        carried: (m, 5, 2), with detection: the landmarks of the last detection, carried here; None if there are none.
        pts: when it is shown, in the video's `time_base`.
    """

    is_cut: bool
    is_detected: bool
    landmarks: np.ndarray
    embeddings: np.ndarray | None = None
    carried: np.ndarray | None = None
    pts: int = 0

    def to_json(self):
        """Returns it as JSON values, rounded to hundredths of a pixel."""
        return {
            "cut": int(self.is_cut),
            "detected": int(self.is_detected),
            "landmarks": np.round(self.landmarks.astype(float), 2).tolist(),
            "embeddings": None if self.embeddings is None else np.round(self.embeddings.astype(float), 3).tolist(),
            "carried": None if self.carried is None else np.round(self.carried.astype(float), 2).tolist(),
            "pts": self.pts,
        }

    @classmethod
    def from_json(cls, values):
        """Builds a frame from a `KeptFrame` or a dictionary of its fields."""
        kept = msgspec.convert(values, KeptFrame)
        return cls(
            bool(kept.cut),
            bool(kept.detected),
            np.array(kept.landmarks, np.float32).reshape(-1, 5, 2),
            None if kept.embeddings is None else np.array(kept.embeddings, np.float32),
            None if kept.carried is None else np.array(kept.carried, np.float32).reshape(-1, 5, 2),
            kept.pts,
        )


@dataclass
class Track:
    """One face over consecutive frames.

    Attributes:
        start: its first frame.
        landmarks: (n, 5, 2) in pixels.
        weights: (n,) opacity of the swapped face, [0, 1].
        embedding: (dim,), sum of its unit identity embeddings; None if there are none.
    """

    start: int
    landmarks: np.ndarray
    weights: np.ndarray
    embedding: np.ndarray | None

    @property
    def end(self):
        """Number of the frame after its last."""
        return self.start + len(self.landmarks)


@dataclass
class _Path:
    """Detections of one face: frames, its landmarks in them, and its index among each frame's faces."""

    frames: list = field(default_factory=list)
    points: list = field(default_factory=list)
    indices: list = field(default_factory=list)
    embedding_sum: np.ndarray | None = None

    def add(self, frame, points, index, embedding):
        self.frames.append(frame)
        self.points.append(points)
        self.indices.append(index)
        if embedding is not None:
            unit = embedding / max(np.linalg.norm(embedding), 1e-9)
            self.embedding_sum = unit if self.embedding_sum is None else self.embedding_sum + unit

    def expected_at(self, frame, seen, times):
        """Returns its expected landmarks: carried by optical flow if possible, else extrapolated."""
        if _is_carried(seen, self.frames[-1], frame):
            return seen[frame].carried[self.indices[-1]]
        if len(self.frames) < 2:
            return self.points[-1]
        before = self.frames[-1] - self.frames[-2]
        speed = (self.points[-1] - self.points[-2]) / before
        passed = (times[frame] - times[self.frames[-1]]) / (times[self.frames[-1]] - times[self.frames[-2]]) * before
        return self.points[-1] + speed * min(float(passed), 3)


class Watcher:
    """Analyzes frames in order: finds cuts, detects faces after cuts and in every k-th frame, and tracks in between.

    Args:
        detector: `FaceDetector`, or an object with its `detect`.
        every: detect in every k-th frame; optical flow carries landmarks through the others.
        embed: function of a frame and landmarks (n, 5, 2) that returns identity embeddings (n, dim); None for none.
        scale: size of the frame divided by that of the images given to `detect`, across and down.
        settle: `turned_faces.settle`, which corrects the landmarks of turned faces; None leaves them.
    """

    def __init__(self, detector, every=1, embed=None, scale=(1, 1), settle=None):
        self.detector, self.every, self.embed, self.settle = detector, every, embed, settle
        self.scale = np.array(scale, np.float32)
        self._thumbnail = self._gray = self._points = None

    def detect(self, images, first=0, frames=None):
        """Returns a `SeenFrame` for each of the next frames.

        Args:
            images: list of (H, W, 3) uint8 RGB.
            first: number of the first frame.
            frames: frames to pass to `embed`, if `images` are scaled down.
        """
        frames = images if frames is None else frames
        cuts = [self._is_cut(image) for image in images]
        to_detect = [i for i, is_cut in enumerate(cuts) if is_cut or (first + i) % self.every == 0]
        found = dict(zip(to_detect, self.detector.detect([images[i] for i in to_detect]), strict=True))
        return [self._see(image, found.get(i), frames[i], cuts[i]) for i, image in enumerate(images)]

    def go_on_after(self, image, frame):
        """Resumes after a frame: its image, (H, W, 3) uint8 RGB, and its `SeenFrame`."""
        self._is_cut(image)
        self._points = frame.landmarks
        if self.every > 1:
            self._gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)

    def _see(self, image, faces, frame, is_cut):
        if faces is None:
            self._carry(image)
            return SeenFrame(is_cut, False, self._points)
        carried = None
        if self.every > 1 and self._points is not None:
            self._carry(image)
            carried = self._points
        if self.settle:
            before = () if is_cut or self._points is None else self._points / self.scale
            faces = self.settle(image, faces, before, self.detector.detect if is_cut else None)
        self._points = _rounded(np.array([face.landmarks * self.scale for face in faces]))
        embeddings = None
        if self.embed and len(faces):
            embeddings = self.embed(frame, self._points)
        if self.every > 1:
            self._gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        return SeenFrame(is_cut, True, self._points, embeddings, carried)

    def _carry(self, image):
        """Carries the landmarks to this frame by Lucas-Kanade optical flow."""
        gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        if len(self._points):
            flat = (self._points / self.scale).reshape(-1, 1, 2)
            moved, found, _ = cv2.calcOpticalFlowPyrLK(self._gray, gray, flat, None, winSize=(21, 21), maxLevel=3)
            shift = np.where(found.reshape(-1, 5, 1) > 0, (moved - flat).reshape(-1, 5, 2), np.nan)
            lost = np.isnan(shift)
            if lost.any():  # a lost point moves with the others of its face
                center = np.nanmedian(np.where(lost.all(1, keepdims=True), 0, shift), axis=1, keepdims=True)
                shift = np.where(lost, center, shift)
            self._points = _rounded(self._points + shift * self.scale)
        self._gray = gray

    def _is_cut(self, image):
        thumbnail = cv2.resize(image, _THUMBNAIL, interpolation=cv2.INTER_AREA)
        before, self._thumbnail = self._thumbnail, thumbnail
        if before is None:
            return True
        difference = np.abs(thumbnail.astype(np.int16) - before).mean()
        if difference < _CUT_DIFFERENCE:
            return False
        histograms = [cv2.calcHist([part], [0, 1, 2], None, [6, 6, 6], [0, 256] * 3) for part in (before, thumbnail)]
        return float(np.abs(histograms[0] - histograms[1]).sum() / histograms[0].sum() / 2) > _CUT_HISTOGRAM


def _rounded(points):
    """Rounds to the journal's precision, so that a resumed run sees the same values."""
    return np.round(points.astype(np.float64), 2).astype(np.float32).reshape(-1, 5, 2)


def build_tracks(seen, times):
    """Joins detections to `Track`s, with smoothed landmarks and faded ends.

    Args:
        seen: list of `SeenFrame`, one per frame.
        times: time of each frame in seconds, `Fraction`s, strictly increasing.

    Returns:
        List of `Track`, ordered by start.
    """
    tracks = []
    for first, last in _scenes(seen):
        for path in _join(seen, first, last, times):
            landmarks = _fill(path, seen, last, times)
            start, end = path.frames[0], path.frames[0] + len(landmarks)
            landmarks = smooth_landmarks(landmarks, times[start:end])
            tracks.append(Track(start, landmarks, None, path.embedding_sum))
            tracks[-1].weights = _fade(tracks[-1], first, last, times)
    return sorted(tracks, key=lambda track: track.start)


def smooth_landmarks(landmarks, times):
    """Smooths the landmarks of one face over successive frames by a One Euro filter; fast motion is kept.

    Args:
        landmarks: (n, 5, 2) in pixels.
        times: as for `build_tracks`.

    Returns:
        (n, 5, 2) float32.
    """
    landmarks = np.asarray(landmarks, np.float64)
    if len(landmarks) < 3:
        return landmarks.astype(np.float32)
    size = np.median(face_sizes(landmarks))
    rates = [float(1 / (after - before)) for before, after in pairwise(times)]
    forwards = _one_euro(landmarks / size, rates)
    backwards = _one_euro(landmarks[::-1] / size, rates[::-1])[::-1]
    return (size * (forwards + backwards) / 2).astype(np.float32)


def face_sizes(landmarks):
    """Returns the size (n,) of faces in pixels: the distance of eyes and mouth corners from their center, doubled."""
    landmarks = np.asarray(landmarks, np.float64)
    corners = landmarks[:, [0, 1, 3, 4]]
    return 2 * np.linalg.norm(corners - corners.mean(1, keepdims=True), axis=-1).mean(1) / np.sqrt(2)


def _one_euro(values, rates):
    steady = np.empty_like(values)
    steady[0], speed = values[0], np.zeros(values.shape[1:])
    for index, rate in enumerate(rates, 1):
        speed += _share(_SPEED_CUTOFF, rate) * ((values[index] - values[index - 1]) * rate - speed)
        # The face moves as one, so the jitter of a single landmark is not speed.
        cutoff = _STILL_CUTOFF + _GROWTH * np.linalg.norm(np.median(speed, axis=0))
        steady[index] = steady[index - 1] + _share(cutoff, rate) * (values[index] - steady[index - 1])
    return steady


def _share(cutoff, rate):
    """Returns the weight of a new value in a low-pass filter with that cutoff, both in hertz."""
    return 1 / (1 + rate / (2 * np.pi * cutoff))


def _scenes(seen):
    cuts = [index for index, frame in enumerate(seen) if frame.is_cut and index] + [len(seen)]
    return [(first, last) for first, last in zip([0, *cuts[:-1]], cuts, strict=True) if first < last]


def _join(seen, first, last, times):
    """Joins the detections of a scene to paths, frame by frame, by minimum total distance."""
    live, done = [], []
    for frame in range(first, last):
        if not seen[frame].is_detected:
            continue
        points, embeddings = seen[frame].landmarks, seen[frame].embeddings
        gone = [frame - path.frames[-1] > _frames_in(_LONGEST_GAP, path.frames[-1], frame, times) for path in live]
        done += [path for path, is_gone in zip(live, gone, strict=True) if is_gone]
        live = [path for path, is_gone in zip(live, gone, strict=True) if not is_gone]
        expected = [path.expected_at(frame, seen, times) for path in live]
        costs = np.array(
            [
                [_distance(path, there, points, embeddings, i) for i in range(len(points))]
                for path, there in zip(live, expected, strict=True)
            ]
        )
        pairs = assign(costs.reshape(len(live), len(points)), limit=_FARTHEST)
        for row, column in pairs:
            live[row].add(frame, points[column], column, None if embeddings is None else embeddings[column])
        for column in set(range(len(points))) - {column for _, column in pairs}:
            path = _Path()
            path.add(frame, points[column], column, None if embeddings is None else embeddings[column])
            live.append(path)
    return sorted(done + live, key=lambda path: path.frames[0])


def _frames_in(seconds, start, end, times):
    """Returns the number of frames, at least 2, in a time span, at the frame rate between `start` and `end`."""
    return max(2, round(seconds * float((end - start) / (times[end] - times[start]))))


def _distance(path, expected, points, embeddings, index):
    """Returns the cost of joining a detection to a path: distance in face sizes, and difference of identity."""
    sizes = face_sizes(np.stack([path.points[-1], points[index]]))
    if not 0.5 < sizes[1] / max(sizes[0], 1e-6) < 2:
        return np.inf
    distance = np.linalg.norm(expected - points[index], axis=-1).mean() / sizes.mean()
    if embeddings is None or path.embedding_sum is None:
        return distance
    likeness = similarity(path.embedding_sum, embeddings[index])
    # Crossing faces are as near to the other path as to their own; then identity decides.
    return np.inf if likeness < 0.2 else 0.5 * distance + 0.4 * (1 - likeness)


def similarity(a, b):
    """Returns the cosine of the angle between two embeddings."""
    return float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-9))


def _is_carried(seen, start, end):
    """Whether optical flow carried a detection's landmarks up to the next detection of the same face."""
    return seen[end].carried is not None and not any(seen[frame].is_detected for frame in range(start + 1, end))


def _fill(path, seen, last, times):
    """Returns the landmarks (n, 5, 2) of a path from its first to its last frame, gaps filled."""
    parts = []
    for (start, end), (points, following), index in zip(
        zip(path.frames[:-1], path.frames[1:], strict=True),
        zip(path.points[:-1], path.points[1:], strict=True),
        path.indices[:-1],
        strict=True,
    ):
        lasts = times[end] - times[start]
        share = np.array([float((time - times[start]) / lasts) for time in times[start:end]])[:, None, None]
        part = points + share * (following - points)
        if _is_carried(seen, start, end):
            flow = [seen[frame].landmarks[index] for frame in range(start, end)]
            # Optical flow drifts; its error at the next detection is distributed over the frames up to it.
            part = np.stack(flow) + share * (following - seen[end].carried[index])
        parts.append(part)
    tail = path.points[-1][None]
    rest = []
    for frame in range(path.frames[-1] + 1, last):  # tracked after the last detection of the video
        if seen[frame].is_detected:
            rest = []
            break
        rest.append(seen[frame].landmarks[path.indices[-1]])
    return np.concatenate([*parts, tail, *[points[None] for points in rest]]).astype(np.float32)


def _fade(track, first, last, times):
    """Returns the weights (n,) of a track in the scene of frames `first` to `last` (exclusive)."""
    frames = range(track.start, track.end)
    weights = np.ones(len(frames))
    if track.start > first:
        weights = np.minimum(weights, _rise(track.start - 1, frames, times))
    if track.end < last:
        weights = np.minimum(weights, _rise(track.end, frames[::-1], times)[::-1])
    eyes, mouth = track.landmarks[:, :2].mean(1), track.landmarks[:, 3:].mean(1)
    across = np.linalg.norm(track.landmarks[:, 1] - track.landmarks[:, 0], axis=-1)
    ratio = across / np.maximum(np.linalg.norm(mouth - eyes, axis=-1), 1e-6)
    low, high = _PROFILE
    return (weights * np.clip((ratio - low) / (high - low), 0, 1)).astype(np.float32)


def _rise(outside, frames, times):
    """Returns weights (n,) of frames that grow with the time since the frame `outside`, just before the first."""
    places = [abs(frame - outside) for frame in frames]
    lengths = [1 + _frames_in(_FADE, *sorted((outside, frame)), times) for frame in frames]
    return np.maximum.accumulate(np.array(places) / lengths)
