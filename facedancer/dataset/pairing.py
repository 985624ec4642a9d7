"""Draws the pairs of pictures, their order and their color changes, in NumPy, for every engine.

All randomness is a function of the seed and the position in the stream. So every reader makes the same batches, with
any number of threads or processes, and a run can start in the middle.
"""

from dataclasses import dataclass

import numpy as np

from facedancer.dataset.warping import draw_warps

# So many records are shuffled together, and partners sought among them; they are kept encoded (about 100 MB as PNG).
WINDOW = 1024
# Shards are read by turns, so many at a time, so many records of each.
CYCLE, BLOCK = 8, 4

BRIGHTNESS = 0.15  # for a range of 1; the original's 0.3 is for [-1, 1], a range of 2
CONTRAST = (0.9, 1.1)
SATURATION = (0.9, 1.1)
UNCHANGED = (0.0, 1.0, 1.0)
# Standard deviations of shift right, shift down and growth, as shares of the side.
VIEW = (0.02, 0.02, 0.04)
UNCHANGED_VIEW = (0.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True)
class People:
    """The people of a stream, for families that train a decoder for each (see `take_turns`).

    Attributes:
        names: all of them, as the records' identities.
        turn: batches of one person before the next person's; 0 for pairs as `pair_window` draws them.
        coverage: share of the picture's side that the face shows; the rest is margin for warps.
    """

    names: tuple
    turn: int
    coverage: float


@dataclass(frozen=True)
class StreamOptions:
    """How records become a stream of training batches; every reader takes it.

    Attributes:
        batch_size: pairs per batch; the last batch of a finite stream may be smaller.
        image_size: side in pixels that faces are resized to.
        same_ratio: mean share of same-identity pairs, at any batch size.
        same_batches: whether same-identity pairs come in whole batches, see `draw_same`.
        shuffle: whether each epoch shuffles the shards, and the records within each window.
        augment: whether to jitter colors, of target and source independently.
        repeat: whether the stream is infinite.
        seed: non-negative integer.
        start_step: number of batches to skip, for a resumed run.
        worker: `(index, count)`: this stream is that of worker `index` of the `count` that share the shards.
        people: `People`, for families that train a decoder for each person.
    """

    batch_size: int
    image_size: int
    same_ratio: float = 0.2
    same_batches: bool = False
    shuffle: bool = True
    augment: bool = True
    repeat: bool = True
    seed: int = 0
    start_step: int = 0
    worker: tuple = (0, 1)
    people: People | None = None


def shard_order(count, shuffle, seed, epoch):
    """Returns the order in which an epoch reads `count` shards, (count,) int64."""
    return np.random.default_rng([seed, epoch, 0]).permutation(count) if shuffle else np.arange(count)


def draw_same(start, size, options):
    """Draws which pairs of a stream show the same identity.

    A global batch of B pairs, over all workers, has floor(B same_ratio + u) same-identity pairs, with u uniform in
    [0, 1), at random places. Each batch is as close to the ratio as whole numbers allow, and the mean is exact, even
    for a batch size of 1. With `same_batches`, whole batches are same-identity instead, including the very first, and
    the others have no same-identity pairs.

    Args:
        start: position in the worker's stream.
        size: number of pairs from there on.
        options: `StreamOptions`; each worker has its own places in the global batch.

    Returns:
        (size,) bool.
    """
    batch_size, (index, count) = options.batch_size, options.worker
    own = slice(index * batch_size, (index + 1) * batch_size)
    first, last = start // batch_size, (start + size - 1) // batch_size
    batches = []
    for batch in range(first, last + 1):
        rng = np.random.default_rng([options.seed, batch, 2])
        number = int(batch_size * count * options.same_ratio + rng.random())
        if options.same_batches:
            # A batch is same-identity where the running count of such batches goes up; the epsilon absorbs rounding.
            before, after = (np.ceil(place * options.same_ratio - 1e-9) for place in (batch, batch + 1))
            number = batch_size * count * int(after > before)
        batches.append(rng.permutation(batch_size * count)[own] < number)
    offset = start - first * batch_size
    return np.concatenate(batches)[offset : offset + size]


def pair_window(identity, has_own_source, start, options):
    """Draws the order of a window's records and the source of each.

    A record that carries its own source keeps it. Otherwise the source shows another identity, except for a share
    `same_ratio` of the pairs: there it is another picture of the same identity, or the target picture itself if the
    window has no other or the records have no identity.

    Args:
        identity: n names, as bytes; b"" for a record without one.
        has_own_source: (n,) whether the record carries its source.
        start: position of the window's first record in the whole stream.
        options: `StreamOptions`.

    Returns:
        `(target, source, is_same, colors, views)`: indices of records (n,) int64, source -1 for the record's own;
        (n,) float32, 1 if both show the same identity; (n, 2, 3) float32: brightness, contrast and saturation of target
        and source, see `augment.change_colors`; (n, 4) float32, how the identity encoder looks at the swap, see
        `augment.look_at`.
    """
    size, augment = len(identity), options.augment
    rng = np.random.default_rng([options.seed, start, 1])
    target = rng.permutation(size) if options.shuffle else np.arange(size)
    # A unique name that no folder can have.
    names = np.array([identity[i] or b"\n%d" % (start + i) for i in target], object)
    person = np.unique(names, return_inverse=True)[1]

    wants_same = draw_same(start, size, options)
    # In order of preference: another picture of the wanted kind; for a same-identity pair the picture itself; any other
    # picture, if the window shows a single identity; the picture itself, if it is the only one.
    itself = np.eye(size, dtype=bool)
    is_wanted = (person[:, None] == person[None, :]) == wants_same[:, None]
    rank = np.where(is_wanted & ~itself, 3, np.where(is_wanted, 2, np.where(itself, 0, 1)))
    chosen = np.argmax(rank + rng.random((size, size), np.float32), axis=1)
    own = np.asarray(has_own_source, bool)[target]
    is_same = (person[chosen] == person) & ~own

    low, high = zip((-BRIGHTNESS, BRIGHTNESS), CONTRAST, SATURATION, strict=True)
    colors = rng.uniform(low, high, (size, 2, 3)) if augment else np.tile(UNCHANGED, (size, 2, 1))
    views = np.column_stack([rng.normal(0, VIEW, (size, 3)), rng.choice([-1.0, 1.0], size)])
    views = views if augment else np.tile(UNCHANGED_VIEW, (size, 1))
    source = np.where(own, -1, target[chosen])
    return target.astype(np.int64), source.astype(np.int64), *map(np.float32, (is_same, colors, views))


def take_turns(pairs, identity, start, options):
    """Makes the people of a window take turns, and draws how each face is warped.

    A batch shows the person whose turn it is, with records from the window; if the window has too few of them, some are
    used twice, and if it has none, its records stay as they come.

    Args:
        pairs: what `pair_window` returned.
        identity, start: as for `pair_window`.
        options: `StreamOptions` with `people`.

    Returns:
        `(target, source, is_same, colors, views, numbers, placement, warp)`: those of `pairs`, with unchanged colors,
        and each target as its own source if people take turns; (n, 2) float32, indices of the people in target and
        source, -1 for anyone else; and what `warping.draw_warps` returns.
    """
    target, source, is_same, _, views = pairs
    people, batch_size = options.people, options.batch_size
    known = {name.encode(errors="surrogateescape"): number for number, name in enumerate(people.names)}
    number_of = np.array([known.get(name, -1) for name in identity])
    if people.turn:
        turn = (start + np.arange(len(target))) // batch_size // people.turn % len(people.names)
        target = target.copy()
        shuffled = target.copy()
        for number in np.unique(turn):
            own = shuffled[number_of[shuffled] == number]
            places = np.flatnonzero(turn == number)
            if len(own):
                target[places] = own[np.arange(len(places)) % len(own)]
        source, is_same = target, np.ones_like(is_same)
    numbers = np.float32(np.column_stack([number_of[target], np.where(source < 0, -1, number_of[source])]))
    colors = np.tile(np.float32(UNCHANGED), (len(target), 2, 1))
    warps = draw_warps(len(target), options.seed, start, options.augment)
    return target, source, is_same, colors, views, numbers, *warps
