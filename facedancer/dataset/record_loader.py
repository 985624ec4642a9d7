"""Shards -> batches of pairs without TensorFlow: the batches of `input_pipeline`, decoded by worker processes.

One process reads the records and draws the pairs (`pairing`); the others decode. They load only NumPy and Pillow, so
that they start quickly and use little memory.
"""

import itertools
import os
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
from PIL import Image

from facedancer.core.console import UserError
from facedancer.core.images import ImageError, decode_image
from facedancer.core.processes import end_with_parent
from facedancer.core.records import (
    check_pixels,
    count_records,
    find_shards,
    name_damage,
    own_shards,
    read_records,
    with_plain_pictures,
)
from facedancer.dataset import pairing, warping


def iterate_batches(pattern, options, processes=None):
    """Yields the training batches of `input_pipeline.build_dataset`, as NumPy arrays.

    Args:
        pattern: glob of shards.
        options: `pairing.StreamOptions`.
        processes: number of decoding processes; by default one per processor, 0 decodes in this process.

    Raises:
        UserError: as `build_dataset`; and for a damaged record or picture, naming its file.
    """
    shards = own_shards(find_shards(pattern), options.worker)
    batches = _in_batches(_iterate_pairs(shards, options), options.batch_size, drop_remainder=options.repeat)
    jobs = ((batch, options.image_size, options.people and options.people.coverage) for batch in batches)
    try:
        yield from _decode_all(jobs, processes)
    except ImageError as error:
        name_damage(shards, check_picture)
        raise UserError(f"{pattern}: a picture cannot be read ({error})") from None


def _decode_all(jobs, processes):
    if processes == 0:
        yield from itertools.starmap(decode_pairs, jobs)
        return
    processes = processes or os.cpu_count()
    with ProcessPoolExecutor(processes, get_context("spawn"), end_with_parent) as pool:
        waiting = deque()
        try:
            for job in jobs:
                waiting.append(pool.submit(decode_pairs, *job))
                if len(waiting) > 2 * processes:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def decode_pairs(pairs, image_size, coverage=None):
    """Decodes a list of encoded pairs to a batch; warps faces if `coverage` is given, that of `pairing.People`."""
    if coverage:
        batch = _warp_faces(pairs, image_size, coverage)
        pairs = [{**pair, "truth": None, "mask": None} for pair in pairs]
    else:
        batch = {
            name: np.stack([_decode_face(pair[name], image_size) for pair in pairs]) for name in ("target", "source")
        }
    batch["is_same"] = np.array([pair["is_same"] for pair in pairs], np.float32)
    batch["colors"] = np.stack([pair["colors"] for pair in pairs])
    batch["views"] = np.stack([pair["views"] for pair in pairs])
    black = np.zeros((image_size, image_size, 3), np.uint8)
    truths = [pair["truth"] for pair in pairs]
    batch["truth"] = np.stack([_decode_face(truth, image_size) if truth else black for truth in truths])
    batch["has_truth"] = np.array([truth is not None for truth in truths], np.float32)
    white = np.full((image_size, image_size, 1), 255, np.uint8)
    masks = [pair["mask"] for pair in pairs]
    batch["mask"] = np.stack([_decode_face(mask, image_size)[..., :1] if mask else white for mask in masks])
    return batch


def _warp_faces(pairs, image_size, coverage):
    (still,) = zip(*warping.draw_warps(1, 0, 0, augment=False), strict=True)
    faces = [
        (
            *warping.warp_pair(_decoded(pair["target"]), pair["placement"], pair["warp"], coverage, image_size),
            warping.warp_pair(_decoded(pair["source"]), *still, coverage, image_size)[0],
        )
        for pair in pairs
    ]
    batch = {
        name: np.stack(column)
        for name, column in zip(("warped", "target", "source"), zip(*faces, strict=True), strict=True)
    }
    return {**batch, "people": np.stack([pair["people"] for pair in pairs])}


def _iterate_pairs(shards, options):
    """Yields the stream's encoded pairs."""
    count = count_records(shards)
    first_epoch, first = divmod(options.start_step * options.batch_size, count)
    skipped, first = divmod(first, pairing.WINDOW)
    for epoch in itertools.count(first_epoch) if options.repeat else range(first_epoch, 1):
        records = read_epoch(shards, options.shuffle, options.seed, epoch)
        start = epoch * count + skipped * pairing.WINDOW
        records = itertools.islice(records, skipped * pairing.WINDOW, None)
        while window := list(itertools.islice(records, pairing.WINDOW)):
            yield from itertools.islice(_pair_window(window, start, options), first, None)
            start, first = start + len(window), 0
        skipped = 0


def _pair_window(window, start, options):
    try:
        window = [with_plain_pictures(record) for record in window]
    except ValueError as error:
        raise ImageError(str(error)) from None
    identity = [(record.identity or "").encode(errors="surrogateescape") for record in window]
    has_own_source = [record.source is not None for record in window]
    pairs = pairing.pair_window(identity, has_own_source, start, options)
    if options.people:
        pairs = pairing.take_turns(pairs, identity, start, options)
    for target, source, is_same, colors, views, *warps in zip(*pairs, strict=True):
        record = window[target]
        yield {
            "target": record.face,
            "source": record.source if source < 0 else window[source].face,
            "is_same": is_same,
            "colors": colors,
            "views": views,
            "truth": record.truth,
            "mask": record.mask,
            **dict(zip(("people", "placement", "warp"), warps, strict=False)),
        }


def read_epoch(shards, shuffle, seed, epoch):
    """Yields the `FaceRecord`s of all shards in an epoch's reading order, before shuffling.

    Shards are interleaved as by `tf.data.Dataset.interleave`.
    """
    paths = [shards[index] for index in pairing.shard_order(len(shards), shuffle, seed, epoch)]
    waiting = deque(paths)
    slots = [None] * min(len(paths), pairing.CYCLE)
    slot = 0
    while waiting or any(slots):
        if slots[slot] is None and waiting:
            slots[slot] = read_records(waiting.popleft())
        block = list(itertools.islice(slots[slot], pairing.BLOCK)) if slots[slot] else []
        yield from block
        if len(block) < pairing.BLOCK:
            slots[slot] = None
        slot = (slot + 1) % len(slots)


def _in_batches(items, size, drop_remainder):
    while batch := list(itertools.islice(items, size)):
        if len(batch) == size or not drop_remainder:
            yield batch


def check_picture(encoded):
    """Raises `ValueError` if a record's picture cannot be decoded here."""
    try:
        _decoded(encoded)
    except ImageError as error:
        raise ValueError(str(error)) from None


def _decoded(encoded):
    """Decodes as `decode_image` does, and minds what TensorFlow minds."""
    try:
        check_pixels(encoded)
    except ValueError as error:
        raise ImageError(str(error)) from None
    return decode_image(encoded)


def _decode_face(encoded, image_size):
    face = _decoded(encoded)
    if face.shape[:2] == (image_size, image_size):
        return face
    # Each channel in floating point: Pillow's resampling of bytes rounds twice.
    channels = [Image.fromarray(face[..., index].astype(np.float32)) for index in range(3)]
    resized = [channel.resize((image_size, image_size), Image.Resampling.BILINEAR) for channel in channels]
    return np.rint(np.clip(np.stack(resized, axis=-1), 0, 255)).astype(np.uint8)
