"""Checks the records before training starts: wrong data would spoil a run silently."""

import itertools
from dataclasses import replace

import numpy as np

from facedancer.core.alignment import estimate_similarity, landmark_template, scale_of
from facedancer.core.console import UserError
from facedancer.core.images import ImageError, decode_image
from facedancer.core.records import find_shards, own_shards, read_records
from facedancer.dataset.pairing import WINDOW
from facedancer.dataset.record_loader import read_epoch

# Who get a decoder each without being named.
MOST_PEOPLE = 64


def check_data(config, worker=(0, 1)):
    """Refuses shards that do not fit a run.

    Args:
        config: `TrainConfig`.
        worker: `(index, count)`: of `count` workers that share the shards, the one that this process is.

    Raises:
        UserError: if faces were aligned in another way, or nothing in the data would teach to swap.
    """
    check_alignment(config)
    check_truth(config)
    check_masks(config)
    if "people" in config.weights.needs:
        check_decoders(config)
    else:
        check_people(config, worker)


def with_people(config):
    """Returns the configuration with the people of the data, where each has a decoder and none were named.

    Raises:
        UserError: if the records have no identities, too many people for a decoder each, or not those that were named.
    """
    if "people" not in config.weights.needs:
        return config
    found = _people_in(config.data_dir)
    people = config.network.people
    if people is None:
        if not found or len(found) > MOST_PEOPLE:
            raise UserError(
                f"{config.data_dir} shows {len(found)} people by name, and each gets a decoder: name those to train,"
                f" up to {MOST_PEOPLE}, with --people"
            )
        people = tuple(sorted(found))
    if unknown := [name for name in people if name not in found]:
        raise UserError(f"--people: {config.data_dir} shows nobody named {unknown[0]}")
    config = replace(config, network=replace(config.network, people=people))
    if config.weights.log_interval is None:
        return config
    every = config.weights.log_interval * config.weights.inner_loop * len(people)
    return replace(config, save_every=every, eval_every=every)


def check_decoders(config):
    """Refuses to validate people by decoders that they do not have. Raises `UserError`."""
    if config.eval_dir is None:
        return
    if others := sorted(_people_in(config.eval_dir) - set(config.network.people)):
        raise UserError(
            f"--eval_dir {config.eval_dir} shows {others[0]}, who has no decoder: validate with other pictures of those"
            " who are trained"
        )


def _people_in(pattern):
    """Returns the set of identities in shards."""
    records = (record for shard in find_shards(pattern) for record in read_records(shard))
    return {record.identity for record in records if record.identity}


def check_alignment(config):
    """Compares the landmarks of the first records with `--shrink_factor`.

    Records without landmarks, such as the original's, are not checked.

    Raises:
        UserError: if the faces were aligned with another shrink factor, or are no pictures.
    """
    shard = find_shards(config.data_dir)[0]
    factors = []
    for record in itertools.islice(read_records(shard), 16):
        if record.landmarks is not None:
            try:
                size = decode_image(record.face).shape[0]
            except ImageError as error:
                raise UserError(f"{shard}: the face of record {record.name} is no picture ({error})") from None
            factors.append(scale_of(estimate_similarity(landmark_template(size), record.landmarks)))
    if factors and abs(np.median(factors) - config.shrink_factor) > 0.05:
        raise UserError(
            f"{shard}: faces look aligned with shrink factor {np.median(factors):.2f}, not {config.shrink_factor};"
            " pass the --shrink_factor that crop_align was given"
        )


def check_truth(config):
    """Refuses a training in which nothing teaches to swap: no true swaps, and no losses that do without.

    Raises:
        UserError: if it is one, with what to do.
    """
    why = config.weights.needs.get("truth")
    if why is None:
        return
    for shard in find_shards(config.data_dir):
        record = next(read_records(shard), None)
        if record is not None and record.source is not None:
            return
    raise UserError(
        f"{config.data_dir}: no record carries a true swap, and {why}: nothing would teach to swap; make triplets of"
        " the pictures (`facedancer triplets`), or give those weights"
    )


def check_masks(config):
    """Refuses records without masks where a loss compares with them: whatever they lack would count as face.

    Raises:
        UserError: if one of the first records of a shard has none, with what to do.
    """
    why = config.weights.needs.get("masks")
    if why is None:
        return
    for shard in find_shards(config.data_dir):
        for record in itertools.islice(read_records(shard), 16):
            if record.mask is None:
                raise UserError(
                    f"{shard}: {record.name or 'a record'} has no mask of the face, and {why} learns from them: give"
                    f" `facedancer dataset_sharding` a --mask_dir, make triplets, or give {why} 0"
                )


def check_people(config, worker):
    """Refuses a training whose pairs all show one identity: the networks would learn to copy the target.

    Records are looked at up to the first of another identity, and no further than partners are sought.

    Raises:
        UserError: if it is one, with what to do.
    """
    shards = own_shards(find_shards(config.data_dir), worker)
    people = set()
    for number, record in enumerate(itertools.islice(read_epoch(shards, config.shuffle, config.seed, 0), WINDOW)):
        if record.source is not None:  # which is somebody else's: pairs of any other kind are beside these
            return
        people.add(record.identity or number)
        if len(people) > 1 and config.same_ratio < 1:
            return
    if len(people) > 1:
        raise UserError(
            f"--same_ratio {config.same_ratio} pairs people with themselves alone, and no record carries a true swap:"
            " nothing would teach to swap; give less, such as 0.2"
        )
    which = f"the first {WINDOW} records show" if number + 1 == WINDOW else "the records show"
    raise UserError(
        f"{config.data_dir}: {which} one identity alone and carry no true swap: nothing would teach to swap; add people"
        " (a subfolder for each), shuffle (`facedancer dataset_sharding --shuffle True`), or make triplets"
        " (`facedancer triplets`)"
    )
