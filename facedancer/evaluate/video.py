"""What a swap does to a video from frame to frame: jitter, flicker of the identity, flicker of the pixels.

Each number is a share of the target's own, measured in the same places: 1 is a swap as steady as its target.
"""

import itertools
import json
from pathlib import Path

import cv2
import numpy as np

from facedancer.core.alignment import align_matrix, invert_affine, transform_points, warp_to_aligned
from facedancer.core.console import UserError, progress
from facedancer.evaluate.pose import find_landmarks
from facedancer.retinaface.detector import largest_face

MEASURES = ("jitter", "identity_flicker", "warped_difference")
_FACE_SIZE = 128
# Frames that are held at once.
_PIECE = 32
_EYES = (133, 362)


def read_video_list(path):
    """Reads a list of swaps to make, {"target": VIDEO, "source": PICTURE} a line, relative to the list's folder.

    Returns:
        A list of (target, source) paths.

    Raises:
        UserError: if it is not such a list, or empty.
    """
    path = Path(path)
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        pairs = [(path.parent / line["target"], path.parent / line["source"]) for line in lines]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f'--data {path}: not a list of videos; a line is {{"target": VIDEO, "source": PICTURE}}'
        ) from None
    if not pairs:
        raise UserError(f"--data {path}: the list is empty")
    return pairs


def swap_once(model, target, source, output):
    """Swaps a video as `facedancer swap_video` does; a file that is there stays.

    Raises:
        UserError: if that fails, after its own message.
    """
    from facedancer.video_swap.multi_face_single_source import main

    if not output.is_file():
        output.parent.mkdir(parents=True, exist_ok=True)
        words = {"vid_path": target, "swap_source": source, "facedancer_path": model, "output": output}
        if main([word for name, value in words.items() for word in (f"--{name}", str(value))]):
            raise UserError(f"{target} could not be swapped")


def read_pictures(path):
    """Yields the frames of a video, (H, W, 3) uint8 RGB, upright."""
    from facedancer.media.probe import probe_video
    from facedancer.media.read import read_frames

    video = probe_video(path)
    for frame in progress(read_frames(video), total=video.frame_count, desc=Path(path).name, unit="frame"):
        yield frame.image


class Watch:
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
            share of the range. All as name -> (swap, target), NaN where no three frames in a row have a face.
        """
        counts = {"frames": 0, "without_face": 0, "unseen": 0}
        sums = {name: [] for name in MEASURES}
        past = []
        frames = zip(target, swapped, strict=False)
        while piece := list(itertools.islice(frames, _PIECE)):
            for faces in self._look(piece, counts):
                if faces is None:
                    past = []
                    continue
                past = [*past[-2:], faces]
                if len(past) > 1:
                    sums["identity_flicker"].append(_identity_flicker(*past[-2:]))
                    sums["warped_difference"].append(_warped_difference(*past[-2:]))
                if len(past) > 2:
                    sums["jitter"].append(_jitter(*past))
        means = {name: np.mean(rows, axis=0).tolist() if rows else [np.nan] * 2 for name, rows in sums.items()}
        return {**counts, **means}

    def _look(self, piece, counts):
        """Yields, of every pair of frames, what is known of the faces of swap and target, or None."""
        targets, swaps = zip(*piece, strict=True)
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
    """In the aligned face of the frame that is now: its pictures come from there and from the one before it."""
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
