"""Optimal assignment: matches rows to columns, each at most once, at minimum total cost."""

import numpy as np


def assign(costs, limit=np.inf):
    """Returns the pairs `(row, column)` of the minimum-cost assignment, ordered by row.

    The Hungarian method with potentials (Kuhn 1955, Munkres 1957, in its form with shortest augmenting paths), cubic in
    the number of rows. A pair that costs `limit` or more is dropped, and the row costs `limit` instead, so that a row
    that matches nothing takes no column from another.

    Args:
        costs: (rows, columns) finite numbers, or infinity for a forbidden pair.
        limit: cost of leaving a row without a column.
    """
    costs = np.asarray(costs, np.float64)
    rows, columns = costs.shape
    if not rows or not columns:
        return []
    finite = costs[np.isfinite(costs)]
    leave = limit if np.isfinite(limit) else (np.abs(finite).sum() + 1 if finite.size else 1.0)
    # Each row has its own dummy column for staying unmatched.
    alone = np.full((rows, rows), 1e3 * (abs(leave) + 1))
    np.fill_diagonal(alone, leave)
    table = np.concatenate([np.where(np.isfinite(costs), costs, 1e3 * (abs(leave) + 1)), alone], axis=1)
    owner = _solve(table)
    pairs = [(int(row), column) for column, row in enumerate(owner[:columns]) if row >= 0]
    return sorted((row, column) for row, column in pairs if costs[row, column] < leave)


def _solve(table):
    """Returns the row of each column, -1 for none; expects at least as many columns as rows."""
    rows, columns = table.shape
    of_row, of_column = np.zeros(rows), np.zeros(columns + 1)
    owner = np.full(columns + 1, -1)  # paths start in the last column
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
