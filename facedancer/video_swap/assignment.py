"""Optimal assignment: matches rows to columns, each at most once, at minimum total cost."""

import numpy as np


def assign(costs, limit=np.inf):
    """Returns the pairs `(row, column)` of the assignment with the least total cost, by row.

    The Hungarian method with potentials (Kuhn 1955, Munkres 1957, in its form with shortest augmenting paths), cubic in
    the number of rows. A pair that would cost `limit` or more is left out, at the cost of `limit` for the row, so that
    one that matches nothing takes no column away from another.

    Args:
        costs: (rows, columns) finite numbers; infinity is a pair that must not be.
        limit: cost of leaving a row without a column.
    """
    costs = np.asarray(costs, np.float64)
    rows, columns = costs.shape
    if not rows or not columns:
        return []
    finite = costs[np.isfinite(costs)]
    leave = limit if np.isfinite(limit) else (np.abs(finite).sum() + 1 if finite.size else 1.0)
    # Every row has a column of its own to be left alone in.
    alone = np.full((rows, rows), 1e3 * (abs(leave) + 1))
    np.fill_diagonal(alone, leave)
    table = np.concatenate([np.where(np.isfinite(costs), costs, 1e3 * (abs(leave) + 1)), alone], axis=1)
    owner = _solve(table)
    pairs = [(int(row), column) for column, row in enumerate(owner[:columns]) if row >= 0]
    return sorted((row, column) for row, column in pairs if costs[row, column] < leave)


def _solve(table):
    """Returns for each column its row, -1 for none; there are at least as many columns as rows."""
    rows, columns = table.shape
    of_row, of_column = np.zeros(rows), np.zeros(columns + 1)
    owner = np.full(columns + 1, -1)  # the last column is where a path begins
    for row in range(rows):
        column, owner[columns] = columns, row
        shortest, before = np.full(columns, np.inf), np.full(columns, columns)
        seen = np.zeros(columns + 1, bool)
        while owner[column] >= 0:
            seen[column] = True
            here = owner[column]
            free = ~seen[:columns]
            reduced = table[here] - of_row[here] - of_column[:columns]
            better = free & (reduced < shortest)
            shortest[better], before[better] = reduced[better], column
            following = int(np.argmin(np.where(free, shortest, np.inf)))
            step = shortest[following]
            of_row[owner[seen]] += step
            of_column[seen] -= step
            shortest[free] -= step
            column = following
        while column != columns:
            owner[column] = owner[before[column]]
            column = before[column]
    return owner[:columns]
