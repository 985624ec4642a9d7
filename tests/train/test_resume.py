"""A run that is killed, whenever, and started again by the same command ends as one that never was."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from drawn_faces import draw_face

from facedancer.core.alignment import landmark_template
from facedancer.core.images import encode_image
from facedancer.core.records import FaceRecord, RecordWriter, shard_name

TINY_RUN = Path(__file__).with_name("tiny_run.py")
FOR_EVER = 10**6


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Two shards of twelve drawn faces each."""
    folder = tmp_path_factory.mktemp("shards")
    for index in range(2):
        with open(folder / shard_name("x", "train", index, 2), "wb") as file:
            writer = RecordWriter(file)
            for person in range(6):
                for variation in range(2):
                    face = encode_image(draw_face(10 * index + person, 48, variation), ".png")
                    writer.write(FaceRecord(face, f"{index} {person}", landmark_template(48)))
    return str(folder / "x_train_*-of-*.records")


@pytest.fixture
def start(shards, tmp_path):
    """Function that starts a tiny run in a process of its own."""

    def start(name, *words, num_steps=FOR_EVER):
        flags = f"--log_name {name} --num_steps {num_steps} --batch_size 2 --r1_every 3 --warmup 5 --save_every 10"
        flags += " --deterministic --c_lambda 0 --ifsr_lambda 0"  # without them a process has its graph sooner
        return subprocess.Popen(
            [sys.executable, TINY_RUN, "--data_dir", shards, *flags.split(), *words],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path,
        )  # fmt: skip

    return start


def state_of(folder, step):
    """Every array of a checkpoint."""
    arrays = {}
    for short in ("gen", "dis", "ema"):
        with h5py.File(folder / short / f"{short}_{step}.h5") as file:
            file.visititems(
                lambda name, item, short=short: (
                    arrays.update({f"{short}/{name}": item[()]}) if isinstance(item, h5py.Dataset) else None
                )
            )
    with np.load(folder / "state" / f"{step}.npz") as stored:
        return {**arrays, **stored}


def last_step(folder):
    """The last whole checkpoint; what a killed process left half written has no number."""
    return max((int(path.stem) for path in folder.glob("state/*.json") if path.stem.isdigit()), default=0)


def assert_equal(a, b):
    assert a.keys() == b.keys() and len(a) > 100
    assert [key for key in a if not np.array_equal(a[key], b[key])] == []


def finish(process):
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said[-3000:]
    return said


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.campaign)])
def test_stopped_and_killed_at_random_equals_unbroken_bit_for_bit(start, tmp_path, kills):
    """One SIGTERM, then one SIGKILL after another."""
    folder = tmp_path / "runs/killed/checkpoints"
    logs = tmp_path / "runs/killed/logs"
    process = start("killed", "--save_every", str(FOR_EVER))  # what is saved is saved because of the signal
    while not any(path.stat().st_size > 5000 for path in logs.glob("events.*")):  # until it trains
        assert process.poll() is None, process.stdout.read()[-3000:]
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 128 + signal.SIGTERM, said[-3000:]
    stopped = last_step(folder)
    assert stopped > 0 and f"stopped by SIGTERM at step {stopped}" in said

    rng = random.Random(1)
    stops = [stopped]
    for kill in range(kills):
        process = start("killed")
        if kill % 3 == 1:  # now and then a kill comes before the first checkpoint of a process
            time.sleep(rng.uniform(0, 5))
        else:
            while last_step(folder) == stops[-1]:
                assert process.poll() is None, process.stdout.read()[-3000:]
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.4))
        process.kill()
        said, _ = process.communicate()
        assert process.returncode == -signal.SIGKILL
        stops.append(last_step(folder))
        if kill == 0:
            assert f"steps {stopped} to {FOR_EVER}" in said
            assert stops[-1] > stopped
    print("ended after the checkpoints", stops)

    steps = stops[-1] + 15
    last, unbroken = start("killed", num_steps=steps), start("unbroken", num_steps=steps)
    assert f"steps {stops[-1]} to {steps}" in finish(last)
    assert f"steps 0 to {steps}" in finish(unbroken)
    assert_equal(state_of(tmp_path / "runs/unbroken/checkpoints", steps), state_of(folder, steps))
