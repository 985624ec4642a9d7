"""Shards -> batches of pairs, in tf.data. `pairing` draws the pairs; `record_loader` is the same without TensorFlow."""

import contextlib

import numpy as np
import tensorflow as tf

from facedancer.core.records import (
    PICTURES,
    count_records,
    find_shards,
    name_damage,
    own_shards,
    parse_record,
    with_plain_pictures,
)
from facedancer.dataset import pairing, warping

_FEATURES = ("identity", *PICTURES)


def build_dataset(pattern, options):
    """Builds the stream of training batches.

    Each record is a target once per epoch; `pairing.pair_window` picks its source.

    Args:
        pattern: glob of shards.
        options: `pairing.StreamOptions`.

    Returns:
        A `tf.data.Dataset` of dictionaries: `target`, `source` (batch, S, S, 3) uint8; `is_same` (batch,) float32, 1
        if both show the same identity; `truth` (batch, S, S, 3) uint8, the true swap, black without one; `has_truth`
        (batch,) float32, 1 or 0; `mask` (batch, S, S, 1) uint8, 255 where a swap may change the target; `colors`
        (batch, 2, 3) float32 (`augment.prepare_batch`); `views` (batch, 4) float32 (`augment.look_at`). With `people`
        also `warped` (batch, S, S, 3) uint8, the target's face warped by `warping`, and `people` (batch, 2) float32,
        who target and source are; the records' truths and masks are then ignored.

    Raises:
        UserError: if no shard matches, a shard is truncated, or there are fewer shards than workers.
    """
    batch_size, shuffle, seed = options.batch_size, options.shuffle, options.seed
    image_size, people = options.image_size, options.people
    shards = own_shards(find_shards(pattern), options.worker)
    count = count_records(shards)
    first_epoch, first = divmod(options.start_step * batch_size, count)
    first_window, first = divmod(first, pairing.WINDOW)

    def epoch_pairs(epoch):
        # The windows before the first are read and dropped without parsing or pairing.
        skipped = tf.where(epoch == first_epoch, tf.constant(first_window, tf.int64), tf.constant(0, tf.int64))
        records = _read_epoch(shards, shuffle, seed, epoch).skip(skipped * pairing.WINDOW)

        def pair(index, window):
            window = _parse(window)
            start = epoch * count + (skipped + index) * pairing.WINDOW
            return _pair_window(window, start, options)

        return records.batch(pairing.WINDOW).enumerate().map(pair).unbatch()

    epochs = tf.data.Dataset.range(first_epoch, tf.int64.max if options.repeat else 1)
    pairs = epochs.flat_map(epoch_pairs).skip(first)
    decoder = _build_decoder(image_size) if people is None else _build_warping_decoder(image_size, people.coverage)
    decoded = pairs.map(decoder, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return decoded.batch(batch_size, drop_remainder=options.repeat).prefetch(2)


def _read_epoch(shards, shuffle, seed, epoch):
    """Returns the serialized records of all shards, interleaved."""

    def order(epoch):
        return pairing.shard_order(len(shards), shuffle, seed, int(epoch))

    order = tf.ensure_shape(tf.numpy_function(order, [epoch], tf.int64, stateful=False), (len(shards),))
    return tf.data.Dataset.from_tensor_slices(tf.gather(tf.constant(shards), order)).interleave(
        tf.data.TFRecordDataset, cycle_length=min(len(shards), pairing.CYCLE), block_length=pairing.BLOCK
    )


def _parse(window):
    """Returns a dictionary of (n,) strings, "" for missing features, parsed as in every reader."""

    def parse(examples):
        records = [with_plain_pictures(parse_record(example)) for example in examples]
        identity = [(record.identity or "").encode(errors="surrogateescape") for record in records]
        pictures = [[getattr(record, name) or b"" for record in records] for name in PICTURES]
        return [np.array(texts, object) for texts in (identity, *pictures)]

    texts = tf.numpy_function(parse, [window], [tf.string] * len(_FEATURES), stateful=False)
    return {name: tf.ensure_shape(text, (None,)) for name, text in zip(_FEATURES, texts, strict=True)}


@contextlib.contextmanager
def damage_named(pattern):
    """Turns TensorFlow's error for a damaged record, raised in the block, into a `UserError` that names the record."""
    try:
        yield
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError, tf.errors.UnknownError):
        name_damage(find_shards(pattern), _check_picture)
        raise  # the data is intact


def _check_picture(encoded):
    try:
        tf.io.decode_image(encoded, channels=3, expand_animations=False)
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(error.message.splitlines()[0]) from None


def _pair_window(window, start, options):
    """Returns a dictionary of (n, …) tensors: the pairs of a window, encoded."""

    def decide(identity, has_own_source, start):
        identity, start = identity.tolist(), int(start)
        pairs = pairing.pair_window(identity, has_own_source, start, options)
        return pairing.take_turns(pairs, identity, start, options) if options.people else pairs

    size = tf.shape(window["face"])[0]
    kinds = (tf.int64, tf.int64, tf.float32, tf.float32, tf.float32)
    inputs = (window["identity"], window["source"] != "", start)
    kinds += (tf.float32,) * 3 if options.people else ()
    target, source, is_same, colors, views, *warps = tf.numpy_function(decide, inputs, kinds, stateful=False)
    names = {"people": (2,), "placement": (5,), "warp": (2, 5, 5)} if options.people else {}
    target, source, is_same = (tf.reshape(x, (size,)) for x in (target, source, is_same))
    own = source < 0
    return {
        "target": tf.gather(window["face"], target),
        "source": tf.where(
            own, tf.gather(window["source"], target), tf.gather(window["face"], tf.where(own, target, source))
        ),
        "is_same": is_same,
        "colors": tf.reshape(colors, (size, 2, 3)),
        "views": tf.reshape(views, (size, 4)),
        **{name: tf.reshape(x, (size, *shape)) for (name, shape), x in zip(names.items(), warps, strict=True)},
        "truth": tf.gather(window["truth"], target),
        "mask": tf.gather(window["mask"], target),
    }


def _build_decoder(image_size):
    def decode_picture(encoded, channels=3):
        face = tf.io.decode_image(encoded, channels=channels, expand_animations=False)
        face = tf.ensure_shape(face, (None, None, channels))
        if tf.shape(face)[0] != image_size or tf.shape(face)[1] != image_size:
            face = tf.image.resize(tf.cast(face, tf.float32), (image_size, image_size), antialias=True)
            face = tf.cast(tf.round(tf.clip_by_value(face, 0.0, 255.0)), tf.uint8)
        return tf.ensure_shape(face, (image_size, image_size, channels))

    def decode(pair):
        has_truth = pair["truth"] != ""
        # AutoGraph turns the statements into conditional branches.
        if has_truth:  # noqa: SIM108
            truth = decode_picture(pair["truth"])
        else:
            truth = tf.zeros((image_size, image_size, 3), tf.uint8)
        if pair["mask"] != "":
            mask = decode_picture(pair["mask"], channels=1)
        else:
            mask = tf.fill((image_size, image_size, 1), tf.constant(255, tf.uint8))
        pictures = {name: decode_picture(pair[name]) for name in ("target", "source")}
        return {**pair, **pictures, "truth": truth, "has_truth": tf.cast(has_truth, tf.float32), "mask": mask}

    return decode


def _build_warping_decoder(image_size, coverage):
    def warp(picture, placement, warp):
        return warping.warp_pair(picture, placement, warp, coverage, image_size)

    def faces(encoded, *numbers):
        picture = tf.io.decode_image(encoded, channels=3, expand_animations=False)
        pair = tf.numpy_function(warp, (picture, *numbers), (tf.uint8, tf.uint8), stateful=False)
        return [tf.ensure_shape(face, (image_size, image_size, 3)) for face in pair]

    still = [tf.constant(value[0]) for value in warping.draw_warps(1, 0, 0, augment=False)]

    def decode(pair):
        pair = dict(pair)
        warped, target = faces(pair["target"], pair.pop("placement"), pair.pop("warp"))
        return {
            **pair,
            "warped": warped,
            "target": target,
            "source": faces(pair["source"], *still)[0],
            "truth": tf.zeros_like(target),
            "has_truth": tf.constant(0.0),
            "mask": tf.fill((image_size, image_size, 1), tf.constant(255, tf.uint8)),
        }

    return decode
