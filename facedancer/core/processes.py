"""Worker processes, and process scheduling."""

import contextlib
import multiprocessing
import os
import threading


def end_with_parent():
    """Makes this pool process exit when its parent does, however the parent ends."""
    parent = multiprocessing.parent_process()

    def wait():
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


@contextlib.contextmanager
def kept_scheduling():
    """Restores the scheduling of all threads after the block, whatever a library changed.

    SVT-AV1, opened by root, gives itself and its caller the highest real-time priority, ahead of everything else on
    the machine; child processes would inherit it.
    """
    if not hasattr(os, "sched_getscheduler"):  # only Linux has such priorities
        yield
        return
    policy, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        for thread in os.listdir("/proc/self/task"):
            with contextlib.suppress(ProcessLookupError):  # it has ended
                if os.sched_getscheduler(int(thread)) != policy:
                    os.sched_setscheduler(int(thread), policy, priority)
