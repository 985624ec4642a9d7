"""Processes that work for another one end with it; nobody's becomes more important than another's."""

import os
import subprocess
import sys
import threading
import time

import pytest

from facedancer.core.processes import kept_scheduling

SCRIPT = """
import multiprocessing, os, time
from concurrent.futures import ProcessPoolExecutor
from facedancer.core.processes import end_with_parent

if __name__ == "__main__":
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn"), initializer=end_with_parent) as pool:
        print(*{pool.submit(os.getpid).result() for _ in range(8)}, flush=True)
        time.sleep(100)
"""


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        return file.read().rpartition(")")[2].split()[0] != "Z"  # ended, and waited for by nobody


def test_workers_end_when_their_parent_is_killed(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    assert workers and all(is_running(pid) for pid in workers)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 20
    while any(is_running(pid) for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.skipif(not hasattr(os, "sched_setscheduler") or os.geteuid() != 0, reason="root alone can be in real time")
def test_threads_stay_scheduled_as_they_were():
    before, over = os.sched_getscheduler(0), threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    tasks = [0, thread.native_id]
    try:
        with kept_scheduling():
            for task in tasks:
                os.sched_setscheduler(task, os.SCHED_FIFO, os.sched_param(99))
        assert {os.sched_getscheduler(task) for task in tasks} == {before}
    finally:
        over.set()
        thread.join()
