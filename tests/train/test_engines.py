"""TensorFlow, JAX and PyTorch take the same steps.

An engine is tested where it is installed: in this Python, or in the one that FACEDANCER_ENGINE_PYTHON names.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent


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
    """Five batches of four pairs, with true swaps, in a file."""
    rng = np.random.default_rng(3)
    pictures = {name: rng.integers(0, 256, (5, 4, 32, 32, 3), dtype=np.uint8) for name in ("target", "source", "truth")}
    colours = rng.uniform((-0.1, 0.9, 0.9), (0.1, 1.1, 1.1), (5, 4, 2, 3)).astype(np.float32)
    same, truth = (np.tile(np.float32(row), (5, 1)) for row in ([1, 0, 0, 0], [0, 1, 1, 0]))
    path = tmp_path_factory.mktemp("engines") / "batches.npz"
    mask = rng.integers(0, 2, (5, 4, 32, 32, 1), dtype=np.uint8) * 255
    views = np.concatenate([rng.normal(0, 0.03, (5, 4, 3)), rng.choice([-1.0, 1.0], (5, 4, 1))], -1).astype(np.float32)
    np.savez(path, **pictures, mask=mask, colours=colours, views=views, is_same=same, has_truth=truth)
    return path


def steps_on(python, backend, batches, *words, **environment):
    out = batches.with_name(f"{backend}{len(words)}.json")
    done = subprocess.run(
        [python, HERE / "engine_steps.py", batches, out, *words],
        env={**os.environ, "KERAS_BACKEND": backend, **environment}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(out.read_text())


@pytest.fixture(scope="module")
def on_tensorflow(batches):
    return steps_on(sys.executable, "tensorflow", batches)


def assert_agree(found, expected):
    for a, b in zip(found["losses"], expected["losses"], strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert a[name] == pytest.approx(b[name], rel=1e-4, abs=1e-6), name
    for name in expected["sums"]:
        assert found["sums"][name] == pytest.approx(expected["sums"][name], rel=1e-4, abs=1e-5), name
    assert found["steps"] == expected["steps"] == [5, 5]


def test_five_steps_have_all_losses(on_tensorflow):
    rows = on_tensorflow["losses"]
    assert [row["r1"] > 0 for row in rows] == [True, False, True, False, True]
    assert all(
        row[name] > 0
        for row in rows
        for name in ("reconstruction", "background", "own_swaps", "identity", "perceptual", "ifsr")
    )


def test_jax_agrees(batches, on_tensorflow):
    assert_agree(steps_on(python_with("jax"), "jax", batches), on_tensorflow)


def test_torch_agrees(batches, on_tensorflow):
    assert_agree(steps_on(python_with("torch"), "torch", batches), on_tensorflow)


def test_jax_on_two_devices_agrees(batches, on_tensorflow):
    two = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    assert_agree(steps_on(python_with("jax"), "jax", batches, "parallel", **two), on_tensorflow)
