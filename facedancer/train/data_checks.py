"""Checks the records before training starts, as wrong data would silently spoil a run."""

import itertools
from dataclasses import replace

import numpy as np

from facedancer.core.alignment import estimate_similarity, landmark_template, scale_of
from facedancer.core.console import UserError
from facedancer.core.images import ImageError, decode_image
from facedancer.core.records import find_shards, own_shards, read_records
from facedancer.dataset.pairing import WINDOW
from facedancer.dataset.record_loader import read_epoch

# People who get a decoder each without being named by --people.
MOST_PEOPLE = 64


def check_data(config, worker=(0, 1)):
    """Refuses shards that do not fit a run.

    Args:
        config: `TrainConfig`.
        worker: `(index, count)`: this process's index among the `count` workers that share the shards.

    Raises:
        UserError: if the faces were aligned differently, masks or people are missing, or nothing in the data would
            teach the networks to swap.
    """
    check_alignment(config)
    check_truth(config)
    check_masks(config)
    if "people" in config.weights.needs:
        check_decoders(config)
    else:
        check_people(config, worker)


def with_people(config):
    """Returns the configuration with the people in the data, for families with one decoder per person.

    Other families' configurations are returned unchanged.

    Raises:
        UserError: if the records have no identities, too many people for a decoder each, or lack a named person.
    """
    if "people" not in config.weights.needs:
        return config
    found = _people_in(config.data_dir)
    people = config.network.people
    if people is None:
        if not found or len(found) > MOST_PEOPLE:
            raise UserError(
                f"{config.data_dir} has {len(found)} named people, and each gets a decoder: choose those to train,"
                f" up to {MOST_PEOPLE}, with --people"
            )
        people = tuple(sorted(found))
    if unknown := [name for name in people if name not in found]:
        raise UserError(f"--people: {config.data_dir} has nobody named {unknown[0]}")
    config = replace(config, network=replace(config.network, people=people))
    if config.weights.log_interval is None:
        return config
    every = config.weights.log_interval * config.weights.inner_loop * len(people)
    return replace(config, save_every=every, eval_every=every)


def check_decoders(config):
    """Raises `UserError` if the validation data have people without a decoder."""
    if config.eval_dir is None:
        return
    if others := sorted(_people_in(config.eval_dir) - set(config.network.people)):
        raise UserError(
            f"--eval_dir {config.eval_dir} has {others[0]}, who has no decoder: validate with other images of the"
            " trained people"
        )


def _people_in(pattern):
    """Returns the set of identities in shards."""
    records = (record for shard in find_shards(pattern) for record in read_records(shard))
    return {record.identity for record in records if record.identity}


def check_alignment(config):
    """Compares the landmarks of the first records with `--shrink_factor`.

    Records without landmarks, such as the original's, are not checked.

    Raises:
        UserError: if the faces were aligned with another shrink factor, or are not images.
    """
    shard = find_shards(config.data_dir)[0]
    factors = []
    for record in itertools.islice(read_records(shard), 16):
        if record.landmarks is not None:
            try:
                size = decode_image(record.face).shape[0]
            except ImageError as error:
                raise UserError(f"{shard}: the face of record {record.name} is not an image ({error})") from None
            factors.append(scale_of(estimate_similarity(landmark_template(size), record.landmarks)))
    if factors and abs(np.median(factors) - config.shrink_factor) > 0.05:
        raise UserError(
            f"{shard}: faces look aligned with shrink factor {np.median(factors):.2f}, not {config.shrink_factor};"
            " pass the --shrink_factor that crop_align was given"
        )


def check_truth(config):
    """Refuses a run in which nothing teaches the networks to swap: no true swaps, and no loss that works without.

    Raises:
        UserError: if so; the message says what to do.
    """
    why = config.weights.needs.get("truth")
    if why is None:
        return
    for shard in find_shards(config.data_dir):
        record = next(read_records(shard), None)
        if record is not None and record.source is not None:
            return
    raise UserError(
        f"{config.data_dir}: no record has a true swap, and {why}: nothing would teach the networks to swap; make"
        " triplets of the images (`facedancer triplets`), or set those flags"
    )


def check_masks(config):
    """Refuses records without masks if a loss needs them: without one, the whole image would count as face.

    Raises:
        UserError: if one of the first records of a shard has none; the message says what to do.
    """
    why = config.weights.needs.get("masks")
    if why is None:
        return
    for shard in find_shards(config.data_dir):
        for record in itertools.islice(read_records(shard), 16):
            if record.mask is None:
                raise UserError(
                    f"{shard}: {record.name or 'a record'} has no face mask, which {why} needs: pass --mask_dir to"
                    f" `facedancer dataset_sharding`, make triplets, or set {why} 0"
                )


def check_people(config, worker):
    """Refuses a run whose pairs all show one person: the networks would learn to copy the target.

    It reads records up to the first other identity, and no further than the window in which partners are drawn.

    Raises:
        UserError: if so; the message says what to do.
    """
    shards = own_shards(find_shards(config.data_dir), worker)
    people = set()
    for number, record in enumerate(itertools.islice(read_epoch(shards, config.shuffle, config.seed, 0), WINDOW)):
        if record.source is not None:  # a true swap has another person as source
            return
        people.add(record.identity or number)
        if len(people) > 1 and config.same_ratio < 1:
            return
    if len(people) > 1:
        raise UserError(
            f"--same_ratio {config.same_ratio} pairs people only with themselves, and no record has a true swap:"
            " nothing would teach the networks to swap; lower it, for example to 0.2"
        )
    which = f"the first {WINDOW} records show" if number + 1 == WINDOW else "the records show"
    raise UserError(
        f"{config.data_dir}: {which} only one person and have no true swap: nothing would teach swapping; add"
        " people (one subfolder each), shuffle (`facedancer dataset_sharding --shuffle True`), or make triplets"
        " (`facedancer triplets`)"
    )
