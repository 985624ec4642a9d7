"""Which picture is paired with which, when, and how its colours are changed: decided here, in NumPy, for every engine.

Everything random is a function of the seed and the position in the stream. So any reader makes the same batches,
however many threads or processes read, and a run can start in the middle.
"""

from dataclasses import dataclass

import numpy as np

from facedancer.dataset.warping import draw_warps

# So many records are shuffled together, and partners sought among them; they are kept encoded (about 100 MB as PNG).
WINDOW = 1024
# Shards are read by turns, so many at a time, so many records of each.
CYCLE, BLOCK = 8, 4

BRIGHTNESS = 0.15  # of a range of 1; the original's 0.3 is of [-1, 1], a range of 2
CONTRAST = (0.9, 1.1)
SATURATION = (0.9, 1.1)
UNCHANGED = (0.0, 1.0, 1.0)
# Deviations of shift to the right, shift down and growth, as shares of the side.
VIEW = (0.02, 0.02, 0.04)
UNCHANGED_VIEW = (0.0, 0.0, 0.0, 1.0)


def shard_order(count, shuffle, seed, epoch):
    """Returns the order in which an epoch reads `count` shards, (count,) int64."""
    return np.random.default_rng([seed, epoch, 0]).permutation(count) if shuffle else np.arange(count)


def draw_same(start, size, batch_size, worker, same_ratio, seed, same_batches=False):
    """Draws which pairs of a stream are to be of one identity.

    A batch of B pairs, that of all workers together, has floor(B same_ratio + u) of them with u uniform in [0, 1), at
    places that are drawn: as near to the share as whole numbers come, and it exactly in the mean, even of single pairs.

    Args:
        start: position in the worker's stream.
        size: how many pairs from there on.
        batch_size: pairs in a batch of the worker's.
        worker: `(index, count)`; each has its own places in the batch of all.
        same_ratio: share of pairs of one identity.
        seed: integer.
        same_batches: whether they come in whole batches instead, the first of all among them, and the others have none.

    Returns:
        (size,) bool.
    """
    index, count = worker
    own = slice(index * batch_size, (index + 1) * batch_size)
    first, last = start // batch_size, (start + size - 1) // batch_size
    batches = []
    for batch in range(first, last + 1):
        rng = np.random.default_rng([seed, batch, 2])
        number = int(batch_size * count * same_ratio + rng.random())
        if same_batches:
            # A batch is one of them where their number goes up; less a rounding error.
            before, after = (np.ceil(place * same_ratio - 1e-9) for place in (batch, batch + 1))
            number = batch_size * count * int(after > before)
        batches.append(rng.permutation(batch_size * count)[own] < number)
    offset = start - first * batch_size
    return np.concatenate(batches)[offset : offset + size]


def pair_window(
    identity, has_own_source, start, batch_size, *, worker, same_ratio, same_batches, shuffle, augment, seed
):
    """Decides the order of a window of records and the source of each.

    A record that carries its source keeps it. Another target's source is of another identity; for a share `same_ratio`
    of them it is another picture of the same identity, and where the window holds none, or the records have no
    identity, the same picture.

    Args:
        identity: n names, as bytes; b"" where a record has none.
        has_own_source: (n,) whether the record carries its source.
        start: position of the window's first record in the whole stream.
        batch_size: pairs in a batch.
        worker: `(index, count)`: of `count` workers that share the records, the one whose stream this is.
        same_ratio, same_batches: which pairs are of one identity, see `draw_same`.
        shuffle: whether the order is drawn.
        augment: whether colours are.
        seed: integer.

    Returns:
        `(target, source, is_same, colours, views)`: indices of records (n,) int64, source -1 where it is the record's
        own; (n,) float32, 1 where both show one identity; (n, 2, 3) float32: brightness, contrast and saturation of
        target and source, see `augment.change_colours`; (n, 4) float32, how the identity encoder looks at the swap, see
        `augment.look_at`.
    """
    size = len(identity)
    rng = np.random.default_rng([seed, start, 1])
    target = rng.permutation(size) if shuffle else np.arange(size)
    # A name that no folder has.
    names = np.array([identity[i] or b"\n%d" % (start + i) for i in target], object)
    person = np.unique(names, return_inverse=True)[1]

    wants_same = draw_same(start, size, batch_size, worker, same_ratio, seed, same_batches)
    # In order of preference: another picture of the wanted kind; for a pair of one identity the same picture; any other
    # picture, where the window shows one identity alone; the same picture, where it is the only one.
    itself = np.eye(size, dtype=bool)
    is_wanted = (person[:, None] == person[None, :]) == wants_same[:, None]
    rank = np.where(is_wanted & ~itself, 3, np.where(is_wanted, 2, np.where(itself, 0, 1)))
    chosen = np.argmax(rank + rng.random((size, size), np.float32), axis=1)
    own = np.asarray(has_own_source, bool)[target]
    is_same = (person[chosen] == person) & ~own

    low, high = zip((-BRIGHTNESS, BRIGHTNESS), CONTRAST, SATURATION, strict=True)
    colours = rng.uniform(low, high, (size, 2, 3)) if augment else np.tile(UNCHANGED, (size, 2, 1))
    views = np.column_stack([rng.normal(0, VIEW, (size, 3)), rng.choice([-1.0, 1.0], size)])
    views = views if augment else np.tile(UNCHANGED_VIEW, (size, 1))
    source = np.where(own, -1, target[chosen])
    return target.astype(np.int64), source.astype(np.int64), *map(np.float32, (is_same, colours, views))


@dataclass(frozen=True)
class People:
    """What a stream is to know of its people, where each is trained by themselves (see `take_turns`).

    Attributes:
        names: of all, as the records' identities.
        turn: batches of one person before the next one's; 0 for pairs as `pair_window` decides them.
        coverage: share of the pictures' side that the faces show, the rest being margin for warps.
    """

    names: tuple
    turn: int
    coverage: float


def take_turns(decided, identity, start, batch_size, people, *, augment, seed):
    """Lets the people of a window take turns, and draws how each face is warped.

    A batch is of the person whose turn it is, of whose records in the window so many are taken, some twice where they
    are fewer; of a window that has none the records stay as they come.

    Args:
        decided: of `pair_window`.
        identity, start, batch_size, augment, seed: as there.
        people: `People`.

    Returns:
        `(target, source, is_same, colours, views, shown, placement, warp)`: those of `decided`, colours unchanged, a
        target its own source where people take turns; (n, 2) float32, numbers of the people in target and source, -1
        for others; and what `warping.draw_warps` returns.
    """
    target, source, is_same, colours, views = decided
    numbers = {name.encode(errors="surrogateescape"): number for number, name in enumerate(people.names)}
    number_of = np.array([numbers.get(name, -1) for name in identity])
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
    shown = np.column_stack([number_of[target], np.where(source < 0, -1, number_of[source])])
    colours = np.tile(np.float32(UNCHANGED), (len(target), 2, 1))
    return target, source, is_same, colours, views, np.float32(shown), *draw_warps(len(target), seed, start, augment)
