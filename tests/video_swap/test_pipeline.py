"""Stages that run at the same time: in order, bounded, and none fails in silence."""

import threading
import time

import pytest

from facedancer.video_swap.pipeline import run_ahead


def test_everything_in_order():
    assert list(run_ahead(range(1000), 3)) == list(range(1000)) and list(run_ahead([])) == []


def test_no_more_than_the_queue_holds():
    made = []
    ahead = run_ahead((made.append(n) or n for n in range(1000)), 3)
    assert next(ahead) == 0
    time.sleep(0.3)
    assert len(made) <= 5  # one is taken, three are held, one waits


def test_stages_overlap():
    def slow(items):
        for item in items:
            time.sleep(0.02)
            yield item

    started = time.perf_counter()
    list(slow(run_ahead(slow(run_ahead(slow(range(20)))))))
    assert time.perf_counter() - started < 0.85  # one after the other it is 1.2 s


def test_errors_come_through():
    def fails():
        yield 1
        raise OSError("no more")

    ahead = run_ahead(run_ahead(fails()))
    assert next(ahead) == 1
    with pytest.raises(OSError, match="no more"):
        next(ahead)


def test_threads_end_when_left_off():
    before = threading.active_count()
    ahead = run_ahead(run_ahead(iter(range(1000)), 2), 2)
    assert next(ahead) == 0 and threading.active_count() == before + 2
    ahead.close()
    assert threading.active_count() == before
