"""TensorFlow, JAX and PyTorch take the same steps, go on from a checkpoint to the bit, and export the same.

An engine is tested where it is installed: in this Python, or in the one that FACEDANCER_ENGINE_PYTHON names.
"""

import functools
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from facedancer.models import load_swapper
from facedancer.models.families import DEFAULT_FAMILY

HERE = Path(__file__).parent
PICTURES = ("target", "source", "truth", "warped")
# Of each family some losses that must not be 0 for the comparison to say something.
LOSSES = {
    "autoencoder": {"reconstruction", "edges"},
    "facedancer": {"reconstruction", "background", "own_swaps", "identity", "perceptual", "ifsr", "adversarial"},
    "hififace": {"shape", "identity", "mask", "reconstruction", "cycle", "perceptual", "adversarial", "discriminator"},
    "reswapper": {"content", "identity", "adversarial", "discriminator"},
    "simswap": {"reconstruction", "background", "identity", "features", "discriminator", "gradient_penalty", "r1"},
}
R1_EVERY_OTHER_STEP = ("facedancer", "reswapper")


def python_with(library):
    """Returns the Python in which a library is installed; skips the test where there is none."""
    if importlib.util.find_spec(library):
        return sys.executable
    other = os.environ.get("FACEDANCER_ENGINE_PYTHON")
    if other and subprocess.run([other, "-c", f"import {library}"], capture_output=True).returncode == 0:
        return other
    pytest.skip(f"{library} is not installed here, nor where FACEDANCER_ENGINE_PYTHON points")


@pytest.fixture(scope="module")
def batches(tmp_path_factory):
    """Five batches of four pairs, with true swaps, in a file; what is warped is of both people, then of one of them."""
    rng = np.random.default_rng(3)
    pictures = {name: rng.integers(0, 256, (5, 4, 32, 32, 3), dtype=np.uint8) for name in PICTURES}
    colors = rng.uniform((-0.1, 0.9, 0.9), (0.1, 1.1, 1.1), (5, 4, 2, 3)).astype(np.float32)
    same, truth = (np.tile(np.float32(row), (5, 1)) for row in ([1, 0, 0, 0], [0, 1, 1, 0]))
    path = tmp_path_factory.mktemp("engines") / "batches.npz"
    mask = rng.integers(0, 2, (5, 4, 32, 32, 1), dtype=np.uint8) * 255
    views = np.concatenate([rng.normal(0, 0.03, (5, 4, 3)), rng.choice([-1.0, 1.0], (5, 4, 1))], -1).astype(np.float32)
    people = np.float32([[0, 1, 1, -1], [0, 0, 0, 0], [1, 1, 1, 1], [-1, 1, 0, 1], [1, 0, 0, 0]])
    people = np.stack([people, people], -1)
    np.savez(path, **pictures, mask=mask, colors=colors, views=views, is_same=same, has_truth=truth, people=people)
    return path


def steps_on(python, backend, family, batches, *words, **environment):
    out = batches.with_name(f"{family}_{backend}{len(words)}.json")
    done = subprocess.run(
        [python, HERE / "engine_steps.py", family, batches, out, *words],
        env={**os.environ, "KERAS_BACKEND": backend, **environment}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return {**json.loads(out.read_text()), "exports": out.with_suffix("")}


@pytest.fixture(scope="module")
def with_jax():
    return python_with("jax")


@pytest.fixture(scope="module")
def with_torch():
    return python_with("torch")


@pytest.fixture(scope="module")
def expected(batches):
    """Function that returns what TensorFlow's steps give; each family takes them once."""
    return functools.cache(lambda family: steps_on(sys.executable, "tensorflow", family, batches))


def assert_agree(family, found, expected):
    assert all(row[name] != 0 for row in expected["losses"] for name in LOSSES[family])
    if family in R1_EVERY_OTHER_STEP:
        assert [row["r1"] > 0 for row in expected["losses"]] == [True, False, True, False, True]
    for a, b in zip(found["losses"], expected["losses"], strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert a[name] == pytest.approx(b[name], rel=1e-4, abs=1e-6), name
    assert found["sums"].keys() == expected["sums"].keys()
    for name in expected["sums"]:
        assert found["sums"][name] == pytest.approx(expected["sums"][name], rel=1e-4, abs=1e-5), name
    assert found["steps"] == expected["steps"]
    assert set(found["steps"]) == {5}
    assert found["resumed_differing"] == expected["resumed_differing"] == 0
    assert_exports_give_the_same(family, found["exports"])


def assert_exports_give_the_same(family, folder):
    """Here, on TensorFlow, the files give what the swapper gave where it was trained."""
    with np.load(folder / "inputs.npz") as inputs, np.load(folder / "outputs.npz") as outputs:
        inputs, wanted = dict(inputs), list(outputs.values())
    for ending in (".h5", ".keras"):
        found = load_swapper(folder / f"{family}_5{ending}").predict_on_batch(inputs)
        for a, b in zip(found if isinstance(found, list) else [found], wanted, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(b).max())


@pytest.mark.parametrize("family", LOSSES)
def test_jax_agrees(with_jax, family, batches, expected):
    assert_agree(family, steps_on(with_jax, "jax", family, batches), expected(family))


@pytest.mark.parametrize("family", LOSSES)
def test_torch_agrees(with_torch, family, batches, expected):
    assert_agree(family, steps_on(with_torch, "torch", family, batches), expected(family))


def test_jax_on_two_devices_agrees(with_jax, batches, expected):
    two = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    found = steps_on(with_jax, "jax", DEFAULT_FAMILY, batches, "parallel", **two)
    assert_agree(DEFAULT_FAMILY, found, expected(DEFAULT_FAMILY))
