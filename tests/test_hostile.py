"""A small slice of the campaign of hostile inputs, in this process: no traceback, and both readers of records agree."""

import sys

import pytest

from facedancer.core import hdf5

COUNTS = {"pictures": 60, "records": 12, "json": 40, "weights": 16, "videos": 25}


@pytest.fixture(scope="module")
def hostile(repository):
    sys.path.insert(0, str(repository / "benchmarks"))
    import hostile

    yield hostile
    sys.path.remove(str(repository / "benchmarks"))


@pytest.mark.parametrize("kind", COUNTS)
def test_mutated_inputs_end_in_one_line(hostile, tmp_path, monkeypatch, kind):
    from hostile_inputs import Mutator

    monkeypatch.setattr(hdf5, "PATIENCE", 6)
    mutator, read, found = Mutator(kind, seed=20), hostile.READERS[kind](tmp_path), []
    for number in range(COUNTS[kind]):
        name, content = mutator.draw(number)
        path = tmp_path / name
        path.write_bytes(content)
        found.append(hostile.outcome_of(read, path)[0])
        path.unlink()
    assert set(found) <= {"clean", "accepted"}
    assert found[0] == "accepted"  # a whole one
    assert found.count("clean") > len(found) // 5


@pytest.mark.campaign
@pytest.mark.parametrize("kind", COUNTS)
def test_two_thousand_mutated_inputs_of_each_kind(hostile, tmp_path, kind):
    """In a process that is watched: no hang, and no more memory than is allowed."""
    found = hostile.run_campaign(kind, 2000, 1, tmp_path / "failing")
    assert not any((tmp_path / "failing").glob("*")), found.counts
    assert found.counts["clean"] + found.counts["accepted"] == 2000


def test_inputs_are_a_function_of_the_seed(hostile):
    from hostile_inputs import Mutator

    first, second, other = Mutator("json", 1), Mutator("json", 1), Mutator("json", 2)
    drawn = [first.draw(number) for number in range(1, 30)]
    assert drawn == [second.draw(number) for number in range(1, 30)]
    assert drawn != [other.draw(number) for number in range(1, 30)]


def test_a_worker_that_hangs_takes_memory_or_fails_is_told_apart(hostile, tmp_path, monkeypatch):
    """The campaign can find what it looks for: a reader that does all of it."""
    monkeypatch.setattr(hostile, "SECONDS", 1.5)
    monkeypatch.setattr(hostile, "SLOWED", 2)
    monkeypatch.setattr(hostile, "BYTES", 200 * 10**6)
    worker = hostile.Worker("itself", str(tmp_path))
    try:
        for what in ("accepted", "clean", "traceback", "memory", "hang", "crash", "accepted"):
            (tmp_path / what).touch()
            result, said, _, _ = worker.read(tmp_path / what)
            assert result == ("traceback" if what == "crash" else what), said
    finally:
        worker.stop()
