"""A run that is killed, whenever, and started again by the same command ends as one that never was."""

import os
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
KILLS = int(os.environ.get("FACEDANCER_KILLS", "3"))
STEPS = 100 * KILLS


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

    def start(name, *words, num_steps=STEPS):
        flags = f"--log_name {name} --num_steps {num_steps} --batch_size 2 --r1_every 3 --warmup 5 --save_every 10"
        return subprocess.Popen(
            [sys.executable, TINY_RUN, "--data_dir", shards, "--deterministic", *flags.split(), *words],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
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
    return max((int(path.stem) for path in folder.glob("state/*.json")), default=0)


def assert_equal(a, b):
    assert a.keys() == b.keys() and len(a) > 100
    assert [key for key in a if not np.array_equal(a[key], b[key])] == []


def test_killed_at_random_equals_unbroken_bit_for_bit(start, tmp_path):
    """`FACEDANCER_KILLS=20` for more than the few kills of a quick run."""
    unbroken = start("unbroken")
    assert unbroken.wait() == 0, unbroken.stderr.read()
    rng = random.Random(1)
    folder = tmp_path / "runs/killed/checkpoints"
    kills, stops = 0, []
    while True:
        process = start("killed")
        if kills < KILLS:
            before = last_step(folder)
            while last_step(folder) == before and process.poll() is None and rng.random() < 0.999:
                time.sleep(0.01)  # now and then a kill comes before the first checkpoint of a process
            time.sleep(rng.uniform(0, 0.4))
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
                stops.append(last_step(folder))
                continue
        assert process.wait() == 0, process.stderr.read()
        break
    print("killed after the checkpoints", stops)
    assert kills == KILLS and max(stops) > 0
    assert_equal(state_of(tmp_path / "runs/unbroken/checkpoints", STEPS), state_of(folder, STEPS))


def test_sigterm_saves_and_the_same_command_goes_on(start, tmp_path):
    folder = tmp_path / "runs/t/checkpoints"
    process = start("t", "--save_every", "1000000", num_steps=10**6)
    events = tmp_path / "runs/t/logs"
    while not any(path.stat().st_size > 5000 for path in events.glob("events.*")):  # until it trains
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    step = last_step(folder)
    assert step > 0 and f"stopped by SIGTERM at step {step}" in said
    again = start("t", num_steps=step + 2)
    said, _ = again.communicate()
    assert again.returncode == 0 and f"steps {step} to {step + 2}" in said
