"""What a swap does to a video from frame to frame: landmark jitter, identity flicker, pixel flicker.

Each number is relative to the target's own, measured in the same places: 1 means as steady as the target.
"""

import itertools
from pathlib import Path

import cv2
import numpy as np

from facedancer.arcface_model import IdentityEncoder
from facedancer.core.alignment import align_matrix, invert_affine, transform_points, warp_to_aligned
from facedancer.core.console import PARTLY_DONE, UserError, progress
from facedancer.core.files import Journal, keep_settings, write_json
from facedancer.core.weights import find_weights
from facedancer.evaluate import report
from facedancer.evaluate.cases import read_list
from facedancer.evaluate.evaluate import METRICS_NAME, REPORT_NAME, SETTINGS_NAME
from facedancer.evaluate.metrics import interval
from facedancer.evaluate.swappers import key_of, name_of, read_model_card
from facedancer.evaluate.tables import VIDEO_TITLES, measures_table
from facedancer.face_parts.pose import find_landmarks
from facedancer.media.probe import probe_video
from facedancer.media.read import read_frames
from facedancer.retinaface import FaceDetector, largest_face
from facedancer.video_swap.multi_face_single_source import main as swap_video

MEASURES = ("jitter", "identity_flicker", "warped_difference")
_FACE_SIZE = 128
# Frames held in memory.
_PIECE = 32
_EYES = (133, 362)


def evaluate_video(models, data, out, seed=0, judge="faceres"):
    """Swaps videos with models, measures how steady the swaps are, and writes metrics and report.

    Args:
        models, out, judge: as for `evaluate`.
        data: list of videos and sources, see `cases.read_list`.
        seed: integer, for the bootstrap intervals.

    Returns:
        Name of the swapper -> name of the measure -> (mean over the videos, low, high); counts are summed.

    Raises:
        UserError: as for `evaluate`, or if a video cannot be swapped.
    """
    out = Path(out)
    data = Path(data)
    pairs = read_list(data)
    models = [find_weights(path) for path in models]
    for path in models:
        read_model_card(path, judge)
    keep_settings(
        out / SETTINGS_NAME, {"protocol": "video", "data": str(data), "judge": judge}, "give another --output"
    )
    measure = Steadiness(FaceDetector(), IdentityEncoder(judge))
    found, rows = {}, {}
    for path in models:
        name, key = name_of(path), key_of(path)
        with Journal(out / f"{key}.jsonl") as journal:
            for index, (target, source) in enumerate(pairs[len(journal.entries) :], len(journal.entries)):
                swapped = out / key / f"{index:04d}.mkv"
                swap_once(path, data.parent / target, data.parent / source, swapped)
                row = measure(read_pictures(data.parent / target), read_pictures(swapped))
                journal.append(row)
                journal.entries.append(row)
            rows[name] = journal.entries
        found[name] = {}
        for what in VIDEO_TITLES:
            if what in MEASURES:
                shares = [row[what][0] / row[what][1] for row in rows[name] if row[what][1] > 0]
                if shares:
                    found[name][what] = interval([shares], np.mean, seed)
            else:
                found[name][what] = (sum(row[what] for row in rows[name]),) * 3
    write_json(out / METRICS_NAME, {"videos": len(pairs), "judge": judge, "swappers": found})
    parts = [
        report.section(
            "What was measured",
            f"{len(pairs)} videos, the largest face of each frame; identity by {judge}. Every flicker is a share of the"
            " target's own, measured in the same places: 1 is a swap as steady as its target.",
        ),
        measures_table(found, VIDEO_TITLES),
    ]
    report.write_report(out / REPORT_NAME, "Swapped videos, measured", parts)
    return found


def swap_once(model, target, source, output):
    """Swaps a video with `facedancer swap_video`; keeps an existing file.

    Raises:
        UserError: if it fails, after its own message.
    """
    if not output.is_file():
        output.parent.mkdir(parents=True, exist_ok=True)
        words = {"vid_path": target, "swap_source": source, "facedancer_path": model, "output": output}
        status = swap_video([word for name, value in words.items() for word in (f"--{name}", str(value))])
        if status not in (0, PARTLY_DONE):
            raise UserError(f"{target} could not be swapped")


def read_pictures(path):
    """Yields the frames of a video, (H, W, 3) uint8 RGB, upright."""
    video = probe_video(path)
    for frame in progress(read_frames(video), total=video.frame_count, desc=Path(path).name, unit="frame"):
        yield frame.image


class Steadiness:
    """Measures videos against their swaps.

    Args:
        detector: `FaceDetector`.
        judge: `IdentityEncoder` of aligned faces of shrink factor 1.
    """

    def __init__(self, detector, judge):
        self._detector, self._judge = detector, judge

    def __call__(self, target, swapped):
        """Measures a video's largest face, frame by frame.

        Args:
            target, swapped: iterables of (H, W, 3) uint8 frames.

        Returns:
            A dictionary: `frames`; `without_face`, frames of the target in which no face was found, which are not
            measured; `unseen`, frames of the swap in which none was found where the target has one; and of swap and
            target, means of `jitter`, second difference of the 468 landmarks by the distance of the eyes' inner
            corners; `identity_flicker`, 1 - cosine of the identities of consecutive frames; `warped_difference`,
            between a face and the one before it brought there by the optical flow of the target (Farnebäck, 2003),
            share of the range. These as name -> [swap, target], zeros where no three frames in a row have a face.

        Raises:
            UserError: if one has more frames than the other.
        """
        counts = {"frames": 0, "without_face": 0, "unseen": 0}
        sums = {name: np.zeros(2) for name in MEASURES}
        numbers = dict.fromkeys(MEASURES, 0)

        def add(name, values):
            sums[name] = sums[name] + values
            numbers[name] += 1

        past = []
        frames = itertools.zip_longest(target, swapped)
        while piece := list(itertools.islice(frames, _PIECE)):
            for faces in self._detect(piece, counts):
                if faces is None:
                    past = []
                    continue
                past = [*past[-2:], faces]
                if len(past) > 1:
                    add("identity_flicker", _identity_flicker(*past[-2:]))
                    add("warped_difference", _warped_difference(*past[-2:]))
                if len(past) > 2:
                    add("jitter", _jitter(*past))
        means = {name: (sums[name] / max(numbers[name], 1)).tolist() for name in MEASURES}
        return {**counts, **means}

    def _detect(self, piece, counts):
        """Yields face data of swap and target for each pair of frames, or None."""
        targets, swaps = zip(*piece, strict=True)
        if any(frame is None for frame in (*targets, *swaps)):
            raise UserError("the swap of a video has another number of frames than the video; remove it to swap again")
        found = [largest_face(faces) for faces in self._detector.detect(list(targets))]
        again = self._detector.detect(list(swaps))
        counts["frames"] += len(piece)
        counts["without_face"] += sum(face is None for face in found)
        counts["unseen"] += sum(face is not None and not seen for face, seen in zip(found, again, strict=True))
        matrices = [None if face is None else align_matrix(face.landmarks, _FACE_SIZE) for face in found]
        sides = []
        for frames in (swaps, targets):
            aligned = [
                warp_to_aligned(frame, matrix, _FACE_SIZE)
                for frame, matrix in zip(frames, matrices, strict=True)
                if matrix is not None
            ]
            sides.append(self._measure(np.stack(aligned)) if aligned else iter(()))
        for matrix in matrices:
            if matrix is None:
                yield None
                continue
            swap, own = (next(side) for side in sides)
            back = invert_affine(matrix)
            for one in (swap, own):
                one["points"] = transform_points(back, one["points"])
            yield {"swap": swap, "target": own}

    def _measure(self, faces):
        points = find_landmarks(faces)[..., :2]
        identities = self._judge(faces)
        for face, place, identity in zip(faces, points, identities, strict=True):
            yield {"face": face, "points": place, "identity": identity / np.linalg.norm(identity)}


def _jitter(first, second, third):
    found = []
    for side in ("swap", "target"):
        a, b, c = (moment[side]["points"] for moment in (first, second, third))
        found.append(np.linalg.norm(a - 2 * b + c, axis=1).mean() / np.linalg.norm(b[_EYES[0]] - b[_EYES[1]]))
    return found


def _identity_flicker(before, now):
    return [1 - float(before[side]["identity"] @ now[side]["identity"]) for side in ("swap", "target")]


def _warped_difference(before, now):
    """Compares in the current frame's aligned face, with crops from it and from the previous frame."""
    own, last = now["target"]["face"], before["target"]["face"]
    flow = cv2.calcOpticalFlowFarneback(
        cv2.cvtColor(own, cv2.COLOR_RGB2GRAY), cv2.cvtColor(last, cv2.COLOR_RGB2GRAY), None, 0.5, 3, 15, 3, 5, 1.2, 0
    )
    places = np.float32(np.stack(np.meshgrid(np.arange(own.shape[1]), np.arange(own.shape[0])), -1)) + flow
    found = []
    for side in ("swap", "target"):
        moved = cv2.remap(before[side]["face"], places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        found.append(np.abs(np.float32(moved) - now[side]["face"]).mean() / 255)
    return found
