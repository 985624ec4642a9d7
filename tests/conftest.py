"""Fixtures that several folders of tests share."""

import functools
import gc
import os
import sys
from pathlib import Path

import pytest

# The two workers of `make test`, and the processes that tests start, fill two cores: more threads would wait in turn.
# OpenBLAS' wait busily: on cores that others use, an eigendecomposition takes ten times as long with two as with one.
if "PYTEST_XDIST_WORKER" in os.environ:
    for library in ("TF_NUM_INTRAOP_THREADS", "OPENBLAS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"):
        os.environ.setdefault(library, "1")

# What the imports make stays to the end: Python's search for cycles needs to walk none of it, now or later.
gc.disable()

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tests"))  # for `drawn_faces`, `small_videos`


# The modules whose tests take longest. They come first, so that none of them is left for one worker alone at the end.
LONGEST = {
    "test_autoencoder_family.py", "test_commands.py", "test_demo.py", "test_families.py", "test_quiet.py",
    "test_resume.py", "test_strategies.py", "test_train_command.py", "test_trainer.py",
}  # fmt: skip


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name not in LONGEST)


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
def kept_networks():
    """Functions of the package in a form that loads a network once, by their owner and name."""
    from facedancer import arcface_model
    from facedancer.arcface_model import perceptual
    from facedancer.retinaface import conversion, detector
    from facedancer.video_swap import engines, swapper

    def once(init):
        @functools.cache
        def state(*args, **options):
            made = object.__new__(args[0])
            init(made, *args[1:], **options)
            return vars(made)

        def shares_state(self, *args, **options):
            self.__dict__ = state(type(self), *args, **options)

        return shares_state

    functions = [
        (conversion, "load_retinaface"),
        (detector, "runner"),
        (perceptual, "build_perceptual_network"),
        (engines, "load_engine"),
    ]
    kept = {(owner, name): functools.cache(getattr(owner, name)) for owner, name in functions}
    kept[swapper, "load_engine"] = kept[engines, "load_engine"]
    for encoder in (arcface_model.IdentityEncoder, arcface_model.ExpressionEmbedder):
        kept[encoder, "__init__"] = once(encoder.__init__)
    return kept


@pytest.fixture(scope="module")
def networks_loaded_once(kept_networks):
    """Detectors, encoders and swappers that a test of this process has loaded are those of the next: they stay as are.

    For tests of what commands do with them; the networks' own tests load them anew.
    """
    with pytest.MonkeyPatch.context() as patch:
        for (owner, name), function in kept_networks.items():
            patch.setattr(owner, name, function)
        yield


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
