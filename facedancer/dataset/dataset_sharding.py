"""Aligned faces to shards: TFRecord files that the input pipeline reads as a stream.

After FaceDancer's `dataset/dataset_sharding.py` (Rosberg et al., WACV 2023). Changed on purpose: every image is written
exactly once; `--num_shards` is the number of shards, as the original's README says; a record holds a face's identity,
so that images of one person can be paired; people can be held out for validation; no TensorFlow is needed.

An image's identity is the path of its folder below `--data_dir`. Images in `--data_dir` itself have none:
training takes each for a different person. Landmarks come from `crop_align`'s manifest, if there is one.

All shards are written to a hidden folder and appear together at the end. An interrupted run leaves none and starts
over, which is quick compared with the alignment.
"""

import argparse
import glob
import hashlib
import io
import os
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from facedancer.core.console import UserError, add_boolean, command, progress
from facedancer.core.files import list_files, make_folder, only_writer
from facedancer.core.images import IMAGE_SUFFIXES, ImageError, decode_image, encode_image
from facedancer.core.records import FaceRecord, RecordWriter, shard_name
from facedancer.dataset.crop_align import (
    MANIFEST_NAME,
    SETTINGS_NAME,
    kind_of_reason,
    list_reasons,
    read_manifest,
    submit_ahead,
)
from facedancer.dataset.face_masks import find_mask, read_mask
from facedancer.dataset.true_pairs import build_pair_record, read_pairs

# Images per shard by default, and the maximum number of shards then, which is the original's default.
PICTURES_PER_SHARD = 256
MOST_SHARDS = 1000

# A shuffled stream consists of runs of this many images of one person, as the input pipeline looks for partners in a
# window of the stream. In a set like VGGFace2, a tenth of single images find one there, and three quarters of those in
# runs.
RUN_LENGTH = 8

_EXIF_ORIENTATION = 0x0112


def shard_dataset(
    data_dir,
    target_dir,
    data_name="vggface2",
    data_type="train",
    shuffle=True,
    num_shards=None,
    validation_fraction=0.0,
    validation_type="val",
    seed=0,
    mask_dir=None,
):
    """Writes the aligned faces below a folder to shards.

    Args:
        data_dir: folder of aligned faces, as written by `crop_align`.
        target_dir: folder for the shards.
        data_name, data_type: start of the shards' names, `{data_name}_{data_type}_00000-of-00009.records`.
        shuffle: whether to shuffle people; otherwise records are in the order of the files.
        num_shards: number of `data_type` shards, with `validation_type` shards in proportion; None makes one per 256
            images, at most 1,000.
        validation_fraction: share of the identities that go to `validation_type` shards, [0, 1).
        validation_type: see `validation_fraction`.
        seed: integer; equal seeds give equal shards.
        mask_dir: folder of the faces' masks under the same names, see `face_masks`; faces without one are skipped.

    Returns:
        (written, refused): Counter of images by data type, and Counter of skipped files by reason.

    Raises:
        UserError: if there are no faces, fewer than shards, or `target_dir` holds other shards of that name.
    """
    data_dir, target_dir = Path(data_dir), Path(target_dir)
    names, refused = _list_pictures(data_dir)
    parts = split_names(names, data_type, validation_fraction, validation_type, seed)
    shards = {part: _choose_shards(part, data_name, parts, data_type, num_shards) for part in parts}
    for part in parts:
        _refuse_other_shards(target_dir, f"{data_name}_{part}", shards[part])
    places = {name: place for place, name in enumerate(names)}
    landmarks = _read_landmarks(data_dir / MANIFEST_NAME, places)

    def build_record(name):
        known = landmarks[places[name]]
        face, size = _read_face(data_dir / name)
        return FaceRecord(
            face=face,
            identity=identity_of(name),
            landmarks=known if np.isfinite(known).all() else None,
            name=name,
            mask=None if mask_dir is None else read_mask(find_mask(Path(mask_dir), name), size),
        )

    orders = {part: _shuffle_runs(members, seed) if shuffle else members for part, members in parts.items()}
    written, unread = _write_shards(target_dir, f"{data_name}_{data_type}", orders, shards, build_record)
    if not written.total():
        reasons = list_reasons(refused + unread)
        raise UserError(f"{data_dir} holds no aligned faces ({reasons}); make them with crop_align")
    return written, refused + unread


def shard_pairs(
    world,
    target_dir,
    data_name="vggface2",
    data_type="train",
    shuffle=True,
    num_shards=None,
    seed=0,
    image_size=256,
    shrink_factor=1.0,
):
    """Writes the true swaps of a synthetic world, each with its target and source, to shards.

    Target and source are aligned by their true landmarks, and the true swap by the target's, so that they match pixel
    by pixel.

    Args:
        world: folder written by `facedancer synthesize --swaps`.
        target_dir, data_name, data_type, shuffle, num_shards, seed: as for `shard_dataset`.
        image_size: side of the aligned faces in pixels.
        shrink_factor: as for `crop_align`.

    Returns:
        (written, refused), as for `shard_dataset`.

    Raises:
        UserError: if there are no pairs, fewer than shards, or `target_dir` holds other shards of that name.
    """
    world, target_dir = Path(world), Path(target_dir)
    pairs = read_pairs(world)
    parts = {data_type: _shuffle_runs(sorted(pairs), seed) if shuffle else sorted(pairs)}
    shards = {data_type: _choose_shards(data_type, data_name, parts, data_type, num_shards)}
    _refuse_other_shards(target_dir, f"{data_name}_{data_type}", shards[data_type])

    def build_record(name):
        return build_pair_record(world, name, pairs[name], image_size, shrink_factor)

    written, refused = _write_shards(target_dir, f"{data_name}_{data_type}", parts, shards, build_record)
    if not written.total():
        raise UserError(f"{world} holds no whole pairs ({list_reasons(refused)}); make them with `synthesize --swaps`")
    return written, refused


def _write_shards(target_dir, beginning, orders, shards, build_record):
    """Writes each part's images to its shards, which appear together at the end; without records, none appear.

    Args:
        target_dir: folder for the shards.
        beginning: start of the hidden folder's name, by which the next run finds what a killed run left.
        orders: data type -> names in order.
        shards: data type -> file names.
        build_record: function of a name that returns a `FaceRecord`; it may raise `ImageError`.

    Returns:
        (written, refused): Counter of images by data type, and Counter of skipped ones by reason.
    """
    with only_writer(target_dir, f".{beginning}.lock"):
        return _write_shards_alone(target_dir, target_dir / f".partial-{beginning}", orders, shards, build_record)


def _write_shards_alone(target_dir, hidden, orders, shards, build_record):
    shutil.rmtree(hidden, ignore_errors=True)
    make_folder(hidden)
    written, refused = Counter(), Counter()
    try:
        with ThreadPoolExecutor() as pool, progress(total=sum(map(len, orders.values())), desc="shard") as bar:
            for part, order in orders.items():
                for index, name in enumerate(shards[part]):
                    first, end = (len(order) * i // len(shards[part]) for i in (index, index + 1))
                    with open(hidden / name, "wb") as file:
                        writer = RecordWriter(file)
                        for _, record in submit_ahead(pool, build_record, order[first:end], 32):
                            try:
                                writer.write(record.result())
                                written[part] += 1
                            except ImageError as error:
                                refused[kind_of_reason(str(error))] += 1
                            bar.update()
        if written.total():
            for path in sorted(hidden.iterdir()):
                os.replace(path, target_dir / path.name)
    except OSError as error:
        error.filename = error.filename or os.fspath(target_dir)
        raise
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
    return written, refused


def identity_of(name):
    """Returns the identity of an image by its path below the data folder; None if it is in no subfolder."""
    return name.rpartition("/")[0] or None


def _list_pictures(data_dir):
    """Returns the sorted names of the images, and a Counter of reasons for skipping other files."""
    names, refused = [], Counter()
    for path in list_files(data_dir):
        name = path.relative_to(data_dir).as_posix()
        if path.suffix.lower() in IMAGE_SUFFIXES:
            names.append(name)
        elif name not in (MANIFEST_NAME, SETTINGS_NAME):
            refused["no picture by its suffix"] += 1
    if not names:
        raise UserError(f"{data_dir} holds no pictures")
    return names, refused


def split_names(names, data_type, validation_fraction, validation_type, seed):
    """Returns data type -> names, with no identity in both; identities are drawn by `seed`.

    One identity more or fewer moves at most one other: nearly all who are held out from a training stay so when the
    data change a little, or another machine finds a face less.
    """
    if not 0.0 <= validation_fraction < 1.0:
        raise UserError(f"--validation_fraction {validation_fraction}: give a number from 0 to below 1")
    if not validation_fraction:
        return {data_type: names}
    if validation_type == data_type:
        raise UserError(f"--validation_type {validation_type} is --data_type, too; give it another name")
    identities = sorted({_group_of(name) for name in names})
    if len(identities) < 2:
        raise UserError("--validation_fraction: there is one identity alone; leave the flag out")
    held_out = min(max(round(validation_fraction * len(identities)), 1), len(identities) - 1)
    identities.sort(key=lambda name: hashlib.sha256(os.fsencode(f"{seed}/{name}")).digest())
    validation = set(identities[:held_out])
    return {
        data_type: [name for name in names if _group_of(name) not in validation],
        validation_type: [name for name in names if _group_of(name) in validation],
    }


def _group_of(name):
    """Returns what stays together: an identity, or a single image that has none."""
    return identity_of(name) or name


def _choose_shards(part, data_name, parts, data_type, num_shards):
    """Returns the file names of a part's shards."""
    pictures = len(parts[part])
    if num_shards is None:
        count = min(max(pictures // PICTURES_PER_SHARD, 1), MOST_SHARDS)
    elif part == data_type:
        count = num_shards
        if not 1 <= count <= pictures:
            raise UserError(
                f"--num_shards {count}: there are {pictures} pictures; leave the flag out for a fitting number"
            )
    else:
        count = min(max(round(num_shards * pictures / len(parts[data_type])), 1), pictures)
    names = [shard_name(data_name, part, index, count) for index in range(count)]
    if Path(names[0]).name != names[0]:
        raise UserError(
            f"{names[0]} is no file name; --data_name and --data_type are parts of one, --target_dir is the folder"
        )
    return names


def _refuse_other_shards(target_dir, beginning, names):
    """Raises `UserError` for an earlier run's shards of another number, which would be read along with the new ones."""
    for path in sorted(target_dir.glob(f"{glob.escape(beginning)}_[0-9]*-of-[0-9]*.records")):
        if path.name not in names:
            raise UserError(
                f"{target_dir} holds {path.name} of an earlier run, this one makes {len(names)} shards; remove the old"
                " ones or give another --data_name"
            )


def _read_landmarks(manifest, places):
    """Returns (n, 5, 2) float32 landmarks on the aligned faces, NaN where the manifest has none."""
    landmarks = np.full((len(places), 5, 2), np.nan, np.float32)
    if manifest.is_file():
        for entry in read_manifest(manifest):
            for face in entry.faces:
                if face.file in places:
                    landmarks[places[face.file]] = face.aligned_landmarks
    return landmarks


def _shuffle_runs(names, seed):
    """Shuffles names in runs of images of one person."""
    generator = np.random.default_rng(seed)
    groups = {}
    for place in generator.permutation(len(names)):
        groups.setdefault(_group_of(names[place]), []).append(names[place])
    runs = [group[i : i + RUN_LENGTH] for group in groups.values() for i in range(0, len(group), RUN_LENGTH)]
    return [name for place in generator.permutation(len(runs)) for name in runs[place]]


def _read_face(path):
    """Returns the bytes to record and the side in pixels.

    The bytes are the file's own, or a PNG's if TensorFlow would decode the file differently.

    Raises:
        ImageError: with the reason, if the file is not a complete, square image.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ImageError(error.strerror) from None
    face = decode_image(content)
    height, width = face.shape[:2]
    if height != width:
        raise ImageError(f"not square ({width}x{height})")
    with Image.open(io.BytesIO(content)) as picture:
        is_plain = picture.format in ("JPEG", "PNG") and picture.mode in ("RGB", "L")
        if is_plain and picture.getexif().get(_EXIF_ORIENTATION, 1) == 1:
            return content, height
    return encode_image(face, ".png"), height


def build_parser():
    parser = argparse.ArgumentParser(
        prog="facedancer dataset_sharding",
        description="Writes aligned faces to TFRecord shards for training. Each subfolder is a person.",
    )
    parser.add_argument(
        "--data_dir", required=True, metavar="DIR", help="folder of aligned faces, as written by crop_align"
    )
    parser.add_argument("--target_dir", required=True, metavar="DIR", help="folder for the shards")
    parser.add_argument(
        "--data_name",
        default="vggface2",
        metavar="NAME",
        help="first part of the shards' names, as in NAME_TYPE_00000-of-00009.records (default: %(default)s)",
    )
    parser.add_argument(
        "--data_type",
        default="train",
        metavar="TYPE",
        help="second part of the names of training shards (default: %(default)s)",
    )
    add_boolean(parser, "--shuffle", True, "shuffle the people (default: True)")
    parser.add_argument(
        "--num_shards",
        type=int,
        metavar="N",
        help=f"number of shards (default: one per {PICTURES_PER_SHARD} images, at most {MOST_SHARDS})",
    )
    parser.add_argument(
        "--validation_fraction",
        type=float,
        default=0.0,
        metavar="X",
        help="share of the people held out, in shards of their own (default: %(default)s)",
    )
    parser.add_argument(
        "--validation_type",
        default="val",
        metavar="TYPE",
        help="second part of the names of validation shards (default: %(default)s)",
    )
    parser.add_argument(
        "--mask_dir",
        metavar="DIR",
        help="folder of the faces' masks under the same names, gray or colored by face part, to train with masks",
    )
    add_boolean(
        parser,
        "--pairs",
        False,
        "--data_dir is a synthetic data set; write its true swaps (default: False)",
    )
    parser.add_argument(
        "--im_size", type=int, metavar="N", help="with --pairs: side of the faces in pixels (default: 256)"
    )
    parser.add_argument(
        "--shrink_factor", type=float, metavar="X", help="with --pairs: as for crop_align (default: 1.0)"
    )
    add_seed(parser)
    return parser


def add_seed(parser):
    """Adds `--seed`, the flag of commands that write shards."""
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="random seed; equal seeds give equal shards (default: %(default)s)",
    )


@command
def main(argv=None):
    args = build_parser().parse_args(argv)
    names = ("target_dir", "data_name", "data_type", "shuffle", "num_shards", "seed")
    common = {name: getattr(args, name) for name in names}
    aligned = {"image_size": args.im_size, "shrink_factor": args.shrink_factor}
    aligned = {name: value for name, value in aligned.items() if value is not None}
    if args.pairs:
        if args.validation_fraction:
            raise UserError("--validation_fraction: not with --pairs; a world of another seed validates")
        if args.mask_dir:
            raise UserError("--mask_dir: not with --pairs, which have masks")
        written, refused = shard_pairs(args.data_dir, **common, **aligned)
    else:
        if aligned:
            raise UserError("--im_size and --shrink_factor are for --pairs; other faces are aligned already")
        held_out = {name: getattr(args, name) for name in ("validation_fraction", "validation_type", "mask_dir")}
        written, refused = shard_dataset(args.data_dir, **common, **held_out)
    line = f"wrote {written.total()} of {written.total() + refused.total()} files: "
    line += ", ".join(f"{part} {count}" for part, count in written.items())
    print(line + (f"; left out {refused.total()}: {list_reasons(refused)}" if refused else ""))
