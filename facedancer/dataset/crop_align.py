"""Photographs to aligned faces: finds the faces in a folder of images and crops them to ArcFace's template.

After FaceDancer's `dataset/crop_align.py` (Rosberg et al., WACV 2023). Changed on purpose: every image, whatever its
pixel format, is either aligned or skipped with a reason; the largest face is taken, not the first; an interrupted run
resumes; `manifest.jsonl` records what was found. A folder without subfolders needs no parent folder.

`manifest.jsonl` has a line for each file below `data_dir`, sorted, whose names are relative to `data_dir` (`file`) and
`target_dir` (`faces[].file`):

    {"file": "anna/1.jpg", "width": 640, "height": 480, "refused": null, "faces": [
        {"file": "anna/1.png", "score": 0.998, "bounding_box": [x1, y1, x2, y2], "landmarks": [[x, y], …],
         "aligned_landmarks": [[x, y], …], "frame_to_aligned": [[a, b, c], [d, e, f]]}]}
"""

import argparse
import json
import math
import os
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np

from facedancer.core.alignment import align_matrix, transform_points, warp_to_aligned
from facedancer.core.console import PARTLY_DONE, UserError, command, progress, say
from facedancer.core.devices import add_device_flag, select_device
from facedancer.core.files import LOCK_NAME, Journal, list_files, only_writer, write_atomic, write_json
from facedancer.core.images import ImageError, picture_size, read_image, write_image
from facedancer.core.schemas import ManifestEntry, Share, ShrinkFactor, Side, read_json, read_json_lines
from facedancer.face_parts.dense_landmarks import load_face_mesh
from facedancer.face_parts.turned_faces import settle
from facedancer.retinaface import DEFAULT_SIDE, FaceDetector, largest_face

MANIFEST_NAME = "manifest.jsonl"
SETTINGS_NAME = "settings.json"

# Maximum number of images, and of their pixels, given to the detector at once.
BATCH_SIZE = 16
BATCH_PIXELS = 16_000_000

# Maximum pixels of images being decoded, or being cropped and encoded, at once; a single image may have more.
AHEAD_PIXELS = 2**26

# Skipped images that are named one by one.
_NAMED = 20


@dataclass(frozen=True)
class AlignSettings:
    """What determines the aligned faces; stored next to them, and unchanged when a run resumes.

    Attributes:
        data_dir: folder of images.
        image_size: side of an aligned face in pixels.
        min_size: minimum width and height of an image in pixels.
        shrink_factor: shrink factor of the landmark template (see `core.alignment`).
        faces: "largest" or "all" faces of an image.
        score: minimum score of a face.
        format: "png" or "jpg".
    """

    data_dir: str
    image_size: Side = 256
    min_size: int = 128
    shrink_factor: ShrinkFactor = 1.0
    faces: Literal["largest", "all"] = "largest"
    score: Share = 0.6
    format: Literal["png", "jpg"] = "png"

    def __post_init__(self):
        if self.image_size < 8:
            raise UserError(f"--im_size {self.image_size}: give at least 8 pixels")
        if not 0.0 < self.shrink_factor <= 1.0:
            raise UserError(f"--shrink_factor {self.shrink_factor}: give a number above 0, at most 1")
        if not 0.0 < self.score < 1.0:
            raise UserError(f"--score {self.score}: give a number between 0 and 1")


def crop_align(settings, target_dir, build_detector, workers=2, settle=None):
    """Aligns the faces of all images below a folder; resumes an earlier run into `target_dir`.

    The folder structure is kept. `anna/1.jpg` becomes `anna/1.png`, with all faces `anna/1_1.png`, `anna/1_2.png`, …;
    images whose names differ only in the suffix keep it, `anna/1.jpg.png`. The result is the same for any `workers`.

    Args:
        settings: `AlignSettings`.
        target_dir: folder to write to.
        build_detector: function that returns a `facedancer.retinaface.FaceDetector` or an equivalent.
        workers: threads that decode and encode images.
        settle: `turned_faces.settle`, which gives turned faces their landmarks; None leaves them.

    Returns:
        Counter of images: under None those aligned, under each reason those skipped.

    Raises:
        UserError: if a folder cannot be read or written, or `target_dir` holds something else.
    """
    data_dir, target_dir = Path(settings.data_dir), Path(target_dir)
    names = [path.relative_to(data_dir).as_posix() for path in list_files(data_dir)]
    if not names:
        raise UserError(f"{data_dir} holds no files")
    if target_dir.resolve().is_relative_to(data_dir.resolve()):
        raise UserError(f"--target_dir {target_dir} lies inside --data_dir; choose a folder outside")
    with only_writer(target_dir):
        return _align_all(names, settings, data_dir, target_dir, build_detector, workers, settle)


def _align_all(names, settings, data_dir, target_dir, build_detector, workers, settle):
    """Does the work of `crop_align`, with the target folder locked."""
    is_new = _check_target(settings, target_dir)
    detector = build_detector()
    if is_new:
        write_json(target_dir / SETTINGS_NAME, asdict(settings))
    for path in target_dir.rglob(".partial-*"):
        path.unlink()  # a killed run was writing it

    stems = _choose_stems(names)

    def decode(name):
        return _decode(data_dir / name, settings.min_size)

    def pixels(name):
        try:
            return math.prod(picture_size(data_dir / name))
        except ImageError:  # decoding will report it
            return 0

    def finish(found):
        name, image, faces, refused = found
        if refused is None:
            try:
                described = [_describe(face, settings) for face in faces]
            except ValueError as error:  # landmarks that coincide
                refused = str(error)
        if refused is not None:
            return {"file": name, "refused": refused, "faces": []}
        for number, face in enumerate(described, 1):
            stem = f"{stems[name]}_{number}" if settings.faces == "all" else stems[name]
            face["file"] = f"{stem}.{settings.format}"
            aligned = warp_to_aligned(image, face["frame_to_aligned"], settings.image_size)
            write_image(target_dir / face["file"], aligned)
        height, width = image.shape[:2]
        return {"file": name, "width": width, "height": height, "refused": None, "faces": described}

    counts = Counter()

    def count(name, refused):
        counts[kind_of_reason(refused)] += 1
        number = counts.total() - counts[None]
        if refused is not None and number <= _NAMED + 1:
            more = f"more files, named in {target_dir / MANIFEST_NAME}"
            say(f"not aligned: {f'{name}: {refused}' if number <= _NAMED else more}")

    with Journal(target_dir / MANIFEST_NAME, keep=_outline, kind=ManifestEntry) as journal:
        done = {name: refused for name, outputs, refused in journal.entries if _all_there(target_dir, outputs)}
        left = [name for name in names if name not in done]
        with (
            ThreadPoolExecutor(workers) as pool,
            progress(total=len(done) + len(left), initial=len(done), desc="align", unit="picture") as bar,
        ):
            for name, refused in done.items():
                count(name, refused)
            found = _detect(
                submit_ahead(pool, decode, left, 2 * workers, pixels, AHEAD_PIXELS), detector, settings.faces, settle
            )
            for aligned in submit_ahead(pool, finish, found, 2 * workers, _pixels_of, AHEAD_PIXELS):
                entry = aligned[1].result()
                del aligned  # the picture in it, before the next one is decoded
                journal.append(entry)
                count(entry["file"], entry["refused"])
                bar.update()
        written = [name for name, _, _ in journal.entries] + left
    if any(_order(first) >= _order(second) for first, second in pairwise(written)):
        _sort_manifest(target_dir / MANIFEST_NAME)
    return counts


def read_settings(target_dir):
    """Returns the `AlignSettings` that the faces of a folder were aligned with.

    Raises:
        UserError: if `crop_align` did not write the folder.
    """
    try:
        return read_json(Path(target_dir) / SETTINGS_NAME, AlignSettings)
    except FileNotFoundError:
        raise UserError(
            f"{target_dir} holds no {SETTINGS_NAME}, so crop_align did not write it; name the folder of aligned faces"
        ) from None
    except UserError as error:
        raise UserError(f"{error}; not written by crop_align, choose another folder") from None


def read_manifest(path):
    """Yields the `ManifestEntry`s of a manifest, without a line left incomplete by a killed run.

    Raises:
        UserError: if a line is not such an entry.
    """
    try:
        for _, entry in read_json_lines(path, ManifestEntry, skip_torn=True):
            yield entry
    except UserError as error:
        raise UserError(f"{error}; make it again with crop_align") from None
    except FileNotFoundError:
        raise UserError(f"{path} is not there; make it with crop_align") from None


def summarize(counts):
    """Returns the line that says how many images were aligned and why others were not."""
    refused = Counter({reason: count for reason, count in counts.items() if reason is not None})
    line = f"aligned {counts[None]} of {counts.total()} pictures"
    return line + (f"; refused {refused.total()}: {list_reasons(refused)}" if refused else "")


def list_reasons(refused):
    """Returns a Counter of reasons as text, most common first."""
    return ", ".join(f"{reason} {count}" for reason, count in refused.most_common())


def kind_of_reason(refused):
    """Returns a reason without image-specific details, `too small (90x100)` -> `too small`; None stays None."""
    return None if refused is None else refused.partition(" (")[0]


def submit_ahead(pool, function, items, ahead, weigh=lambda item: 0, most=0):
    """Runs a function in a thread pool on items that arrive one by one.

    Args:
        ahead: maximum number of results that may wait.
        weigh: function of an item; the waiting ones weigh at most `most` in total, except a single one.

    Yields:
        (item, future of the function's result), in order.
    """
    waiting, weights = deque(), deque()
    for item in items:
        weights.append(weigh(item))
        while waiting and sum(weights) > most:
            weights.popleft()
            yield waiting.popleft()
        waiting.append((item, pool.submit(function, item)))
        del item  # so that no reference is kept
        while len(waiting) > ahead or (waiting and sum(weights) > most):
            weights.popleft()
            yield waiting.popleft()
    while waiting:
        yield waiting.popleft()


def _check_target(settings, target_dir):
    """Returns whether `target_dir` is new; raises `UserError` if it belongs to a run with other settings."""
    if not (target_dir / SETTINGS_NAME).exists():
        if {path.name for path in target_dir.iterdir()} != {LOCK_NAME}:
            raise UserError(f"--target_dir {target_dir} is not empty and holds no aligned faces; choose another")
        return True
    earlier = read_settings(target_dir)
    for name, value in asdict(settings).items():
        if (before := getattr(earlier, name)) != value:
            raise UserError(f"{target_dir} was begun with {name} {before}, not {value}; choose another --target_dir")
    return False


def _choose_stems(names):
    """Returns name -> the output's name without suffix, all distinct."""
    stems = {name: name[: len(name) - len(Path(name).suffix)] for name in names}
    uses = Counter(stems.values())
    taken = set(names)
    return {name: stem if uses[stem] == 1 and stem not in taken else name for name, stem in stems.items()}


def _decode(path, min_size):
    """Reads an image; raises `ImageError` with the reason if it is skipped."""
    image = read_image(path)
    height, width = image.shape[:2]
    if min(height, width) < min_size:
        raise ImageError(f"too small ({width}x{height})")
    return image


def _detect(decoded, detector, which, settle):
    """Yields (name, image, faces to align, None) or (name, None, [], reason)."""
    for batch in _batches(decoded):
        images = [image for _, image, _ in batch if image is not None]
        detected = iter(detector.detect(images) if images else [])
        del images
        while batch:  # emptied as it is read, so that no image is held longer than needed
            name, image, refused = batch.popleft()
            if refused is None:
                faces = next(detected)
                if which == "largest":
                    faces = faces and [largest_face(faces)]
                if settle:
                    faces = settle(image, faces, detect=detector.detect)
                if which == "largest":  # rotating the image may have found several
                    faces = faces and [largest_face(faces)]
                if not faces:
                    image, refused = None, "no face"
            found = name, image, ([] if refused else faces), refused
            del image
            yield found
            del found


def _pixels_of(found):
    _, image, _, _ = found
    return 0 if image is None else image.shape[0] * image.shape[1]


def _batches(decoded):
    """Yields batches of (name, image or None, None or reason), limited in images and in pixels."""
    batch, pixels = deque(), 0
    for name, future in decoded:
        try:
            image, refused = future.result(), None
            pixels += image.shape[0] * image.shape[1]
        except ImageError as error:
            image, refused = None, str(error)
        batch.append((name, image, refused))
        del image, future
        if len(batch) == BATCH_SIZE or pixels >= BATCH_PIXELS:
            yield batch
            batch, pixels = deque(), 0
    if batch:
        yield batch


def _describe(face, settings):
    """Returns a face's entry in the manifest. The crop is made from it, so that the manifest is exact.

    Raises `ValueError` if the landmarks coincide.
    """
    landmarks = _rounded(face.landmarks, 2)
    frame_to_aligned = _rounded(align_matrix(landmarks, settings.image_size, settings.shrink_factor), 6)
    return {
        "file": None,
        "score": round(float(face.score), 4),
        "bounding_box": _rounded(face.bounding_box, 2),
        "landmarks": landmarks,
        "aligned_landmarks": _rounded(transform_points(frame_to_aligned, landmarks), 2),
        "frame_to_aligned": frame_to_aligned,
    }


def _rounded(array, digits):
    return np.round(np.asarray(array, np.float64), digits).tolist()


def _outline(entry):
    """Returns what a resumed run needs of an entry."""
    return entry.file, [face.file for face in entry.faces], entry.refused


def _all_there(target_dir, outputs):
    return all((target_dir / output).is_file() for output in outputs)


def _order(name):
    """Returns the sort key of a file: by folder, then by name."""
    return tuple(name.split("/"))


def _sort_manifest(path):
    """Sorts the lines by file, and keeps the last line of each file."""
    with open(path, encoding="utf-8") as file:
        lines = {_order(json.loads(line)["file"]): line for line in file}
    write_atomic(path, "".join(lines[key] for key in sorted(lines)))


def build_parser():
    parser = argparse.ArgumentParser(
        prog="facedancer crop_align",
        description="Finds, aligns and crops the faces in a folder of images, for training. Each subfolder is a person;"
        " a flat folder also works. After an interruption, run it again to resume.",
        epilog="Exit status: 0 all images were aligned, 2 invalid input or none could be aligned, 4 some were skipped;"
        " manifest.jsonl gives the reasons.",
    )
    parser.add_argument("--data_dir", required=True, metavar="DIR", help="folder of images, searched recursively")
    parser.add_argument(
        "--target_dir", required=True, metavar="DIR", help="folder for the aligned faces and manifest.jsonl"
    )
    parser.add_argument(
        "--im_size", type=int, default=256, metavar="N", help="side of an aligned face in pixels (default: %(default)s)"
    )
    parser.add_argument(
        "--min_size",
        type=int,
        default=128,
        metavar="N",
        help="minimum image width and height in pixels (default: %(default)s)",
    )
    parser.add_argument(
        "--shrink_factor",
        type=float,
        default=1.0,
        metavar="X",
        help="side of ArcFace's crop, in the middle, as a share of the aligned face's; smaller shows more background"
        " (default: %(default)s)",
    )
    parser.add_argument(
        "--faces",
        choices=("largest", "all"),
        default="largest",
        help="faces to take from an image (default: %(default)s)",
    )
    parser.add_argument(
        "--score",
        type=float,
        default=0.6,
        metavar="X",
        help="minimum detection score, between 0 and 1 (default: %(default)s)",
    )
    parser.add_argument(
        "--format",
        choices=("png", "jpg"),
        default="png",
        help="file format of the aligned faces (default: %(default)s)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count(),
        metavar="N",
        help="threads that decode and encode images (default: %(default)s, one per CPU core)",
    )
    add_device_flag(parser)
    return parser


@command
def main(argv=None):
    args = build_parser().parse_args(argv)
    if args.workers < 1:
        raise UserError(f"--workers {args.workers}: give at least 1")
    settings = AlignSettings(
        data_dir=str(Path(args.data_dir).resolve()),
        image_size=args.im_size,
        min_size=args.min_size,
        shrink_factor=args.shrink_factor,
        faces=args.faces,
        score=args.score,
        format=args.format,
    )

    def build_detector():
        print(f"device: {select_device(args.device_id)}")
        load_face_mesh()  # for `settle`; says now where it is not there
        # Small faces are looked for where all are wanted; the largest of a picture is hardly one of them.
        return FaceDetector(score_threshold=args.score, max_side=None if args.faces == "all" else DEFAULT_SIDE)

    counts = crop_align(settings, args.target_dir, build_detector, args.workers, settle)
    if not counts[None]:
        raise UserError(f"{args.data_dir}: {summarize(counts)}")
    print(summarize(counts))
    return PARTLY_DONE if counts.total() > counts[None] else 0
