"""The assignment is the best there is: compared with all there are."""

from itertools import permutations

import numpy as np
import pytest

from facedancer.video_swap.assignment import assign


def best_total(costs, limit):
    """The least total over all assignments, each row left alone at the cost of `limit`."""
    rows, columns = costs.shape
    wide = np.concatenate([costs, np.full((rows, rows), limit)], axis=1)
    return min(
        sum(wide[row, column] for row, column in enumerate(order))
        for order in permutations(range(columns + rows), rows)
    )


@pytest.mark.parametrize("seed", range(40))
def test_is_optimal(seed):
    draw = np.random.default_rng(seed)
    costs = draw.uniform(0, 1, draw.integers(1, 4, 2))
    limit = draw.choice([0.3, 0.7, 2.0])
    pairs = assign(costs, limit)
    assert len({row for row, _ in pairs}) == len({column for _, column in pairs}) == len(pairs)
    total = sum(costs[pair] for pair in pairs) + limit * (len(costs) - len(pairs))
    assert total == pytest.approx(best_total(costs, limit))


def test_is_not_greedy():
    # The cheapest pair alone, 0.1, would cost 0.1 + 0.9.
    assert assign(np.array([[0.1, 0.2], [0.2, 0.9]])) == [(0, 1), (1, 0)]


def test_what_must_not_be():
    assert assign(np.array([[np.inf, 0.5], [np.inf, 0.4]])) == [(1, 1)]
    assert assign(np.full((2, 2), np.inf)) == []
    assert assign(np.zeros((0, 3))) == assign(np.zeros((3, 0))) == []


def test_large_ones():
    costs = np.random.default_rng(0).uniform(0, 1, (60, 80))
    hidden = np.random.default_rng(1).permutation(80)[:60]
    costs[np.arange(60), hidden] -= 2
    assert assign(costs) == list(enumerate(hidden.tolist()))
