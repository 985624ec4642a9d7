"""The evaluation cases: pairs of aligned faces, some with the true swap. One function per protocol."""

import itertools
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from facedancer.core.console import UserError
from facedancer.core.files import list_files, write_atomic
from facedancer.core.images import IMAGE_SUFFIXES, ImageError, decode_image, read_image
from facedancer.core.records import find_shards, read_records
from facedancer.core.schemas import FilePair, path_inside, read_json_lines
from facedancer.dataset.crop_align import SETTINGS_NAME, read_settings
from facedancer.dataset.dataset_sharding import identity_of
from facedancer.dataset.triplets import DRAWN
from facedancer.dataset.true_pairs import build_pair_record, read_pairs
from facedancer.synthetic.synthesize import folder_of

PAIRS_NAME = "pairs.jsonl"


@dataclass(frozen=True)
class Case:
    """A swap to make.

    Attributes:
        name: name of the pair, for reports.
        target, source: aligned faces, (S, S, 3) uint8 RGB.
        truth: the true swap, (S, S, 3) uint8 RGB, or None.
        target_person, source_person: names of the people they show (their folders), or None if unknown.
    """

    name: str
    target: np.ndarray
    source: np.ndarray
    truth: np.ndarray | None = None
    target_person: str | None = None
    source_person: str | None = None

    def onto_itself(self):
        """Returns the case of swapping the target with its own identity: the truth is the target."""
        return replace(self, source=self.target, truth=self.target, source_person=self.target_person)


def read_cases(protocol, data, out, count, size, shrink_factor, seed):
    """Yields the cases of a protocol, always the same ones for the same arguments.

    Args:
        protocol: "triplets", "synthetic" or "pairs".
        data: triplets: glob of shards whose records hold the truth; synthetic: folder from `synthesize --swaps`;
            pairs: folder from `crop_align`, one subfolder per person, or a list of pairs, `pairs.jsonl`.
        out: folder to write the list of pairs to.
        count: maximum number of cases.
        size, shrink_factor: side in pixels and shrink factor of the swapper's aligned faces.
        seed: integer seed for drawing pairs.

    Raises:
        UserError: if the data are missing or of another kind, or an image is damaged.
    """
    readers = {"triplets": _read_triplets, "synthetic": _read_synthetic, "pairs": _read_pairs}
    cases = readers[protocol](data, Path(out), count, size, shrink_factor, seed)
    return itertools.islice(cases, count)


def _read_triplets(data, out, count, size, shrink_factor, seed):
    for path in find_shards(data):
        for number, record in enumerate(read_records(path)):
            # A record with the person's own face drawn in is not a swap.
            picture, _, drawn = (record.name or "").partition(DRAWN)
            if record.truth is not None and drawn and identity_of(drawn) != identity_of(picture):
                try:
                    faces = [_sized(decode_image(face), size) for face in (record.face, record.source, record.truth)]
                except ImageError as error:
                    raise UserError(f"{path}: record {number} is not an image ({error})") from None
                yield Case(f"{Path(path).name}#{number}", *faces)


def _read_synthetic(data, out, count, size, shrink_factor, seed):
    pairs = read_pairs(data)
    for name in np.random.default_rng(seed).permutation(sorted(pairs)).tolist():
        try:
            record = build_pair_record(data, name, pairs[name], size, shrink_factor)
        except ImageError as error:
            raise UserError(f"{data}: {name} cannot be read ({error}); run synthesize again") from None
        faces = (decode_image(face) for face in (record.face, record.source, record.truth))
        yield Case(name, *faces, *(folder_of(pairs[name][part].identity) for part in ("target", "source")))


def _read_pairs(data, out, count, size, shrink_factor, seed):
    data = Path(data)
    if data.is_file():
        folder, pairs = data.parent, read_list(data)
    else:
        folder, pairs = data, _draw_pairs(data, size, shrink_factor, count, seed)
        lines = [json.dumps({"target": target, "source": source}, ensure_ascii=False) for target, source in pairs]
        write_atomic(out / PAIRS_NAME, "\n".join([*lines, ""]).encode(errors="backslashreplace"))
    for target, source in pairs:
        faces = []
        for name in (target, source):
            try:
                faces.append(_sized(read_image(folder / name), size))
            except ImageError as error:
                raise UserError(f"{folder / name}: {error}") from None
        yield Case(f"{target} < {source}", *faces)


def read_list(path):
    """Reads a list of pairs, `pairs.jsonl`.

    Returns:
        List of (target, source): names of files inside the list's folder, relative to it.

    Raises:
        UserError: if it is not such a list, or is empty.
    """
    pairs = []
    try:
        for number, pair in read_json_lines(path, FilePair):
            for name in (pair.target, pair.source):
                path_inside(path.parent, name, f"{path}, line {number}")
            pairs.append((pair.target, pair.source))
    except UserError as error:
        raise UserError(f'{error}; a line of a list of pairs is {{"target": FILE, "source": FILE}}') from None
    except FileNotFoundError:
        raise UserError(f"{path}: no such list of pairs") from None
    if not pairs:
        raise UserError(f"{path}: the list of pairs is empty")
    return pairs


def _draw_pairs(folder, size, shrink_factor, count, seed):
    """Draws pairs of different people; every image is a target once before any is again."""
    if (folder / SETTINGS_NAME).is_file():
        settings = read_settings(folder)
        if abs(settings.shrink_factor - shrink_factor) > 1e-3:
            raise UserError(
                f"{folder} was aligned with --shrink_factor {settings.shrink_factor}, the swapper needs {shrink_factor}"
            )
    people = {}
    for path in list_files(folder):
        if path.suffix.lower() in IMAGE_SUFFIXES:
            people.setdefault(path.parent, []).append(path.relative_to(folder).as_posix())
    if len(people) < 2:
        raise UserError(f"{folder}: pairs need aligned faces of at least 2 people, one subfolder each")
    people = [people[person] for person in sorted(people)]
    random = np.random.default_rng(seed)
    targets = [(person, name) for person, names in enumerate(people) for name in names]
    order = itertools.chain.from_iterable(random.permutation(len(targets)) for _ in itertools.count())
    sources = itertools.chain.from_iterable(random.permutation(len(people)) for _ in itertools.count())
    pairs = []
    while len(pairs) < count:
        person, target = targets[next(order)]
        other = next(sources)
        if other == person:
            other = (other + 1) % len(people)
        pairs.append((target, str(random.choice(people[other]))))
    return pairs


def _sized(face, size):
    if face.shape[0] != face.shape[1]:
        raise UserError(f"an aligned face is square, one has {face.shape[1]}×{face.shape[0]} pixels")
    if face.shape[0] == size:
        return face
    import cv2

    return cv2.resize(face, (size, size), interpolation=cv2.INTER_AREA)
