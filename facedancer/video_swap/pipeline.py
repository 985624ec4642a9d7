"""Concurrent stages, each in its own thread, connected by bounded queues."""

import queue
import threading
from concurrent.futures import ThreadPoolExecutor

_END = object()
_SHORT = 0.1  # seconds after which a waiting stage checks whether it should stop


def run_ahead(iterable, size=2):
    """Yields what an iterable yields, computed ahead in its own thread by at most `size` items.

    Its exceptions are raised here. The thread ends with this generator; close it if you stop early
    (`contextlib.closing`).

    Args:
        iterable: any iterable; FFmpeg, OpenCV and the networks release Python's lock while they work.
        size: length of the queue.
    """
    items, stopped = queue.Queue(size), threading.Event()

    def put(item):
        while not stopped.is_set():
            try:
                return items.put(item, timeout=_SHORT)
            except queue.Full:
                continue

    def work():
        try:
            for item in iterable:
                put(item)
                if stopped.is_set():
                    break
        finally:
            if hasattr(iterable, "close"):
                iterable.close()
            put(_END)

    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(work)
        try:
            while (item := items.get()) is not _END:
                yield item
        finally:
            stopped.set()
        working.result()
