"""Fixtures that several folders of tests share."""

import gc
import os
import sys
from pathlib import Path

import pytest

# The two workers of `make test`, and the processes that tests start, fill two cores: more threads would wait in turn.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

# What the imports make stays to the end: Python's search for cycles needs to walk none of it, now or later.
gc.disable()

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tests"))  # for `drawn_faces`, `small_videos`


def pytest_collection_finish():
    """What all tests share lies outside the garbage collector's rounds, and weights are made quickly."""
    if "keras" in sys.modules and sys.modules["keras"].backend.backend() == "tensorflow":
        import quick_weights

        quick_weights.install()
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 5, 2)  # a network is made of thousands of objects, and is freed by a full round only
    gc.enable()


@pytest.fixture(autouse=True)
def same_draws():
    """A test draws the same weights whatever ran before it in its process."""
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(0)


@pytest.fixture(scope="session")
def repository():
    return REPOSITORY


@pytest.fixture(scope="session")
def real_faces():
    """The folder of photographs for development, by person; tests that use it skip without it."""
    folder = REPOSITORY.parent / "shared" / "data" / "faces"
    if not folder.is_dir():
        pytest.skip("needs ../shared/data/faces, photographs that are not in the repository")
    return folder
