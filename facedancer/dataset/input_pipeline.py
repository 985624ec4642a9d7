"""Shards -> batches of pairs, in tf.data.

Everything random is a function of the seed and the position in the stream, so that two runs see the same batches
however many threads read them, and a run can start in the middle.
"""

import tensorflow as tf

from facedancer.core.records import count_records, find_shards
from facedancer.dataset.augment import augment_face

# So many records are shuffled together, and partners sought among them; they are kept encoded (about 100 MB as PNG).
WINDOW = 1024

_FEATURES = {
    "face": tf.io.FixedLenFeature([], tf.string),
    "identity": tf.io.FixedLenFeature([], tf.string, default_value=""),
}


def build_dataset(
    pattern, batch_size, image_size, *, same_ratio=0.2, shuffle=True, augment=True, repeat=True, seed=0, start_step=0
):
    """Builds the stream of training batches.

    A target is every record, once an epoch. Its source is of another identity, or, for a share `same_ratio` of the
    targets and at least one in each batch, another picture of the same identity; where the window of records holds
    none, or the records have no identity, the same picture.

    Args:
        pattern: glob of shards.
        batch_size: pairs in a batch; the last batch of a stream that ends may be smaller.
        image_size: side in pixels that faces are resized to.
        same_ratio: share of pairs of one identity.
        shuffle: whether the order of shards, and of records in each window, is drawn anew in each epoch.
        augment: whether colours are changed at random, target and source independently.
        repeat: whether the stream goes on for ever.
        seed: integer.
        start_step: number of batches to leave out, for a run that goes on.

    Returns:
        A `tf.data.Dataset` of dictionaries: `target`, `source` (batch, S, S, 3) float32 in [-1, 1], and `is_same`
        (batch,) float32, 1 where both show one identity.

    Raises:
        UserError: if no shard matches or one is truncated.
    """
    shards = find_shards(pattern)
    count = count_records(shards)
    first = start_step * batch_size

    def epoch_pairs(epoch):
        records = _read_epoch(shards, tf.stack([tf.constant(seed, tf.int64), epoch]), shuffle)

        def pair(index, window):
            position = epoch * count + index * WINDOW
            if shuffle:
                window = _shuffle_window(window, tf.stack([tf.constant(seed, tf.int64), position]))
            return _pair_window(window, position, batch_size, same_ratio, seed)

        return records.batch(WINDOW).enumerate().map(pair).unbatch()

    epochs = tf.data.Dataset.range(first // count, tf.int64.max if repeat else 1)
    pairs = epochs.flat_map(epoch_pairs).skip(first % count)
    decode = _build_decoder(image_size, augment, seed)
    batches = pairs.map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).batch(batch_size)
    return batches.prefetch(2)


def _read_epoch(shards, epoch_seed, shuffle):
    """The parsed records of all shards, several shards read by turns."""
    files = tf.constant(shards)
    if shuffle:
        files = tf.random.experimental.stateless_shuffle(files, epoch_seed)
    records = tf.data.Dataset.from_tensor_slices(files).interleave(
        tf.data.TFRecordDataset, cycle_length=min(len(shards), 8), block_length=4
    )
    return records.map(lambda data: tf.io.parse_single_example(data, _FEATURES))


def _shuffle_window(window, seed):
    order = tf.random.experimental.stateless_shuffle(tf.range(tf.size(window["identity"])), seed)
    return {name: tf.gather(column, order) for name, column in window.items()}


def _pair_window(window, start, batch_size, same_ratio, seed):
    """Gives each record of a window its source.

    Args:
        window: dictionary of (n,) strings `face` and `identity`.
        start: position of the first record in the whole stream, int64.

    Returns:
        Dictionary of (n,) tensors `target`, `source`, `is_same`, `position`.
    """
    size = tf.size(window["identity"])
    position = start + tf.range(tf.cast(size, tf.int64))
    unlabelled = tf.strings.join(["\n", tf.strings.as_string(position)])  # a name that no folder has
    identity = tf.unique(tf.where(window["identity"] == "", unlabelled, window["identity"])).idx

    draws = tf.random.stateless_uniform([size, size + 1], tf.stack([tf.constant(seed, tf.int64), start]))
    # The first pair of each batch is one of the same identity, the others as often as makes `same_ratio` of all.
    rate = max(0.0, (same_ratio * batch_size - 1) / max(batch_size - 1, 1))
    wants_same = (draws[:, size] < rate) | (position % batch_size == 0)

    # In order of preference: another picture of the wanted kind; for a pair of one identity the same picture; any other
    # picture, where the window shows one identity alone; the same picture, where it is the only one.
    itself = tf.eye(size, dtype=tf.bool)
    is_wanted = (identity[:, None] == identity[None, :]) == wants_same[:, None]
    rank = tf.where(is_wanted & ~itself, 3, tf.where(is_wanted, 2, tf.where(itself, 0, 1)))
    chosen = tf.argmax(tf.cast(rank, tf.float32) + draws[:, :size], axis=1)
    return {
        "target": window["face"],
        "source": tf.gather(window["face"], chosen),
        "is_same": tf.cast(tf.gather(identity, chosen) == identity, tf.float32),
        "position": position,
    }


def _build_decoder(image_size, augment, seed):
    def decode_face(encoded, random_seed):
        face = tf.io.decode_image(encoded, channels=3, expand_animations=False)
        face = tf.ensure_shape(tf.cast(face, tf.float32) / 255.0, (None, None, 3))
        if tf.shape(face)[0] != image_size or tf.shape(face)[1] != image_size:
            face = tf.image.resize(face, (image_size, image_size), antialias=True)
        face = tf.ensure_shape(face, (image_size, image_size, 3))
        if augment:
            face = augment_face(face, random_seed)
        return face * 2.0 - 1.0

    def decode(pair):
        seeds = tf.random.split(tf.stack([tf.constant(seed, tf.int64), pair["position"]]), 2)
        return {
            "target": decode_face(pair["target"], seeds[0]),
            "source": decode_face(pair["source"], seeds[1]),
            "is_same": pair["is_same"],
        }

    return decode
