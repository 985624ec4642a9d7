"""Processes: those that work for another one, and how all are scheduled."""

import contextlib
import multiprocessing
import os
import threading


def end_with_parent():
    """Lets this process, one of a pool, end when its parent does, however that ends: nobody else would tell it."""
    parent = multiprocessing.parent_process()

    def wait():
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


@contextlib.contextmanager
def kept_scheduling():
    """Leaves all threads of the process scheduled as they were, whatever a library asks for while the block runs.

    SVT-AV1, opened by root, makes itself and its caller real-time processes of the highest priority, which nothing else
    on the machine comes before; child processes would inherit it.
    """
    if not hasattr(os, "sched_getscheduler"):  # Linux alone has such priorities
        yield
        return
    policy, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        for thread in os.listdir("/proc/self/task"):
            with contextlib.suppress(ProcessLookupError):  # it has ended since
                if os.sched_getscheduler(int(thread)) != policy:
                    os.sched_setscheduler(int(thread), policy, priority)
