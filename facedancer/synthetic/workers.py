"""Rendering in parallel processes, with ordered results."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from facedancer.core.console import progress
from facedancer.core.files import atomic_path, make_folder
from facedancer.core.processes import end_with_parent

_A_FILE = 100


class Workers:
    """A process pool, used as a context manager.

    Args:
        count: processes, by default as many as there are processors.
    """

    def __init__(self, count=None):
        self.count = count or os.cpu_count() or 1

    def __enter__(self):
        context = multiprocessing.get_context("spawn")  # forked Numba or OpenCV may hang
        self._pool = ProcessPoolExecutor(self.count, mp_context=context, initializer=_settle)
        return self

    def __exit__(self, *_):
        self._pool.shutdown(cancel_futures=True)

    def in_order(self, work, items):
        """Yields `work(item)` for each item in order, computing a few ahead."""
        items = iter(items)
        under_way = [self._pool.submit(work, item) for item in islice(items, 4 * self.count)]
        while under_way:
            yield under_way.pop(0).result()
            under_way += [self._pool.submit(work, item) for item in islice(items, 1)]


def render_many(render, folder, first, count, workers=1):
    """Calls `render(number)` in parallel for the numbers from `first` on, and stores the results in files in a folder.

    Returns:
        The stacked results: name -> array (count, …).
    """
    make_folder(folder)
    files = [Path(folder, f"{start}.npz") for start in range(first, first + count, _A_FILE)]
    missing = [path for path in files if not path.is_file()]
    if missing:
        numbers = [int(path.stem) + i for path in missing for i in range(_A_FILE)]
        with Workers(workers) as pool:
            rendered = iter(progress(pool.in_order(render, numbers), total=len(numbers), unit="picture"))
            for path in missing:
                with atomic_path(path) as temporary:
                    np.savez_compressed(temporary, **_stacked(islice(rendered, _A_FILE)))
    found = [np.load(path) for path in files]
    return {name: np.concatenate([part[name] for part in found])[:count] for name in found[0].files}


def _settle():
    """Initializes a process."""
    cv2.setNumThreads(1)  # the processors are shared with the other processes
    end_with_parent()


def _stacked(records):
    records = list(records)
    return {name: np.stack([record[name] for record in records]) for name in records[0]}
