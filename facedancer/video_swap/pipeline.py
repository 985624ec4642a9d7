"""Work in stages that run at the same time, each in a thread of its own, with bounded queues between them."""

import queue
import threading

_END = object()
_SHORT = 0.1  # seconds after which a waiting stage looks whether another one has failed


def run_ahead(iterable, size=2):
    """Yields what an iterable yields, which is worked out ahead in a thread of its own, `size` items at most.

    Its exceptions are raised here. Where this is left off early the thread stops, and is waited for.

    Args:
        iterable: anything; FFmpeg, OpenCV and the networks leave Python's lock to others while they work.
        size: of the queue.
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
                put((item, None))
                if stopped.is_set():
                    break
            put((_END, None))
        except BaseException as error:  # of any kind: it is raised again where the items are taken
            put((_END, error))
        finally:
            if hasattr(iterable, "close"):
                iterable.close()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            item, error = items.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        stopped.set()
        thread.join()
