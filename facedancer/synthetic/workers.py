"""Processes that render side by side, with their results in order."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from itertools import islice

import cv2

from facedancer.core.processes import end_with_parent


class Workers:
    """A pool of processes, to be used as a context.

    Args:
        count: processes, by default as many as there are processors.
    """

    def __init__(self, count=None):
        self.count = count or os.cpu_count() or 1

    def __enter__(self):
        context = multiprocessing.get_context("spawn")  # a forked numba or OpenCV may hang
        self._pool = ProcessPoolExecutor(self.count, mp_context=context, initializer=_settle)
        return self

    def __exit__(self, *_):
        self._pool.shutdown(cancel_futures=True)

    def in_order(self, work, items):
        """Yields `work(item)` of every item, in order, with a few under way ahead."""
        items = iter(items)
        under_way = [self._pool.submit(work, item) for item in islice(items, 4 * self.count)]
        while under_way:
            yield under_way.pop(0).result()
            under_way += [self._pool.submit(work, item) for item in islice(items, 1)]


def _settle():
    """What a process does first."""
    cv2.setNumThreads(1)  # the processors are the others' too
    end_with_parent()
