"""Exact truth out of single pictures: the picture of a person is the truth, and the target is made from it.

    facedancer crop_align --data_dir portraits --target_dir portraits_192 --im_size 192 --shrink_factor 0.6667
    facedancer triplets --data_dir portraits_192 --target_dir shards --data_name portraits --count 100000

Somebody else's face is drawn into the picture's place by the 468 landmarks, its colors and light fitted, its
proportions drawn toward its owner's: the target. The source is a changed copy of the picture. What a swapper shall
make of both is the picture itself, real in every pixel. So any folder of portraits, one of each person, is a training
set.

`triplet_records` says what is drawn, and what a record holds besides such triplets.
"""

import argparse
import functools
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from facedancer.core.console import UserError, command, progress, say
from facedancer.core.devices import select_device
from facedancer.core.files import atomic_path, keep_settings, only_writer
from facedancer.core.processes import end_with_parent
from facedancer.core.records import RecordWriter, shard_name
from facedancer.core.schemas import path_inside
from facedancer.dataset.crop_align import MANIFEST_NAME, read_manifest, read_settings
from facedancer.dataset.dataset_sharding import add_seed, split_names

# The aligned face and a border about it, so that warps and shifts have something to draw from.
FACE_SIZE, CANVAS_SIZE = 128, 192
SHRINK_FACTOR = FACE_SIZE / CANVAS_SIZE
RECORDS_A_SHARD = 1024
# In a record's name, between the portrait and the other one: whose face was drawn, or who is the source.
DRAWN = " < "


def write_triplets(
    data_dir,
    target_dir,
    data_name="triplets",
    count=100_000,
    validation_fraction=0.1,
    validation_count=2048,
    seed=0,
    workers=None,
):
    """Makes triplets of a folder of aligned portraits and writes them to shards.

    Shards that are there already are kept, so that an interrupted command goes on.

    Args:
        data_dir: folder that `crop_align` wrote with `--im_size 192 --shrink_factor 0.6667`; subfolders are people.
        target_dir: folder for the shards `{data_name}_train_…` and `{data_name}_val_…`.
        data_name: beginning of their names.
        count: records for training.
        validation_fraction: share of the people who are kept for validation; they are no partners of the others either.
            Who they are does not depend on the seed: with another one there are more triplets of the same people.
        validation_count: records for validation.
        seed: integer; equal seeds give equal shards.
        workers: processes, by default one for each processor.

    Returns:
        Shards' type -> number of records.

    Raises:
        UserError: if the folder holds no such portraits, or `target_dir` shards of other settings.
    """
    from facedancer.dataset.triplet_records import find_portraits, read_portraits

    data_dir, target_dir = Path(data_dir), Path(target_dir)
    names = _list_portraits(data_dir)
    settings = {
        "data_dir": os.fspath(data_dir.resolve()), "portraits": len(names), "count": count,
        "validation_fraction": validation_fraction, "validation_count": validation_count, "seed": seed,
    }  # fmt: skip
    keep_settings(
        target_dir / f"{data_name}.triplets.json", settings, "remove it and its shards, or give another --data_name"
    )
    known = target_dir / f"{data_name}.landmarks.npz"
    if not known.is_file():
        say(f"device: {select_device()}")
        find_portraits(data_dir, names, known)
    parts = split_names(read_portraits(data_dir, known).names, "train", validation_fraction, "val", 0)
    if small := [part for part, members in parts.items() if len(members) < 2]:
        raise UserError(f"{data_dir}: triplets need 2 portraits for {small[0]}; change --validation_fraction")

    numbers = {"val": validation_count, "train": count}
    jobs, total = [], 0
    for part in sorted(parts, reverse=True):  # validation first: a training may begin before the last shard is there
        shards = -(-numbers[part] // RECORDS_A_SHARD)
        total += shards
        for index in range(shards):
            path = target_dir / shard_name(data_name, part, index, shards)
            if not path.is_file():
                jobs.append((path, part, index, min(RECORDS_A_SHARD, numbers[part] - index * RECORDS_A_SHARD)))
    write = functools.partial(_write_shard, data_dir, known, parts, seed)
    with (
        ProcessPoolExecutor(workers or os.cpu_count(), get_context("spawn"), end_with_parent) as pool,
        progress(total=total, initial=total - len(jobs), desc="triplets", unit="shard") as bar,
    ):
        for _ in pool.map(write, jobs):
            bar.update()
    return {part: numbers[part] for part in parts}


def _list_portraits(data_dir):
    """Returns the sorted names of the aligned portraits; refuses a folder that was aligned otherwise."""
    settings = read_settings(data_dir)
    if settings.image_size != CANVAS_SIZE or abs(settings.shrink_factor - SHRINK_FACTOR) > 1e-3:
        raise UserError(
            f"{data_dir}: triplets need a border about the face; align with crop_align --im_size {CANVAS_SIZE}"
            f" --shrink_factor {SHRINK_FACTOR:.4f}"
        )
    manifest = data_dir / MANIFEST_NAME
    names = sorted(face.file for entry in read_manifest(manifest) for face in entry.faces)
    for name in names:
        path_inside(data_dir, name, manifest)
    if len(names) < 2:
        raise UserError(f"{data_dir}: triplets need at least 2 portraits, it holds {len(names)}")
    return names


def _write_shard(data_dir, known, parts, seed, job):
    """Writes a shard; what the process knows of the portraits it reads once."""
    import cv2
    import numpy as np

    from facedancer.dataset.triplet_records import make_record, read_portraits

    cv2.setNumThreads(1)  # the processors are the others' too
    path, part, index, count = job
    portraits = read_portraits(data_dir, known)
    places = {name: place for place, name in enumerate(portraits.names)}
    members = np.array([places[name] for name in parts[part]])
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        writer = RecordWriter(file)
        for number in range(count):
            random = np.random.default_rng([seed, index, number, *part.encode()])
            writer.write(make_record(portraits, members, random, morphs=part == "train"))


def build_parser():
    parser = argparse.ArgumentParser(
        prog="facedancer triplets",
        description="Makes training data with exact truth from portraits; one per person is enough.",
    )
    parser.add_argument(
        "--data_dir", required=True, metavar="DIR", help="folder written by crop_align; each subfolder is a person"
    )
    parser.add_argument("--target_dir", required=True, metavar="DIR", help="folder for the shards; run again to resume")
    parser.add_argument(
        "--data_name", default="triplets", metavar="NAME", help="first part of the shards' names (default: %(default)s)"
    )
    parser.add_argument(
        "--count", type=int, default=100_000, metavar="N", help="number of training records (default: %(default)s)"
    )
    parser.add_argument(
        "--validation_fraction",
        type=float,
        default=0.1,
        metavar="X",
        help="share of the people held out, in shards of their own (default: %(default)s)",
    )
    parser.add_argument(
        "--validation_count",
        type=int,
        default=2048,
        metavar="N",
        help="number of validation records (default: %(default)s)",
    )
    add_seed(parser)
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one per CPU core)")
    return parser


@command
def main(argv=None):
    args = build_parser().parse_args(argv)
    for name in ("count", "validation_count", "workers"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise UserError(f"--{name} {getattr(args, name)}: give at least 1")
    with only_writer(args.target_dir, f".{args.data_name}.lock"):
        written = write_triplets(**vars(args))
    print(f"{args.target_dir}: " + ", ".join(f"{number} records for {part}" for part, number in written.items()))
