"""Several devices and several processes train as one with the whole batch, and come back after a kill."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from test_resume import TINY_RUN, last_step, shards  # noqa: F401, a fixture
from tiny_run import FLAGS, run_eagerly, see_what_two_workers_see, use_tiny_networks

from facedancer.train.train import main


def flags_of(shards, name, num_steps):  # noqa: F811
    flags = f"--log_name {name} --num_steps {num_steps} --batch_size 4 --r1_every 3 --save_every 2 --log_every 1"
    return ["--data_dir", shards, *flags.split()]


@pytest.fixture
def run_alone(shards, tmp_path, monkeypatch):  # noqa: F811
    """Function that does a tiny run in this process, on one device."""
    monkeypatch.chdir(tmp_path)
    use_tiny_networks(monkeypatch.setattr)
    run_eagerly(monkeypatch.setattr)

    def run_alone(name, *words):
        assert main([*FLAGS, *flags_of(shards, name, 6), *words]) == 0

    return run_alone


@pytest.fixture
def start(shards, tmp_path):  # noqa: F811
    """Function that starts a tiny run in a process of its own."""

    def start(name, *words, num_steps=6, **environment):
        return subprocess.Popen(
            [sys.executable, TINY_RUN, *flags_of(shards, name, num_steps), *words],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path,
            env={**os.environ, **environment},
        )  # fmt: skip

    return start


def finish(*processes):
    for process in processes:
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, said[-3000:]
    return said


def start_workers(start, name, *words, **options):
    """Two workers of one cluster on free ports."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    addresses = [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]
    for server in sockets:
        server.close()
    found = []
    for index in range(2):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        found.append(start(name, *words, "--strategy", "multiworker", TF_CONFIG=json.dumps(config), **options))
    return found


def losses_of(folder):
    """(step, loss) -> value, from the event file."""
    (path,) = folder.glob("events.*")
    found = {}
    for data in RawEventFileLoader(str(path)).Load():
        event = Event.FromString(data)
        for value in event.summary.value:
            if value.tag.startswith("losses/"):
                found[event.step, value.tag] = value.simple_value
    return found


def test_two_workers_equal_one_process_with_the_whole_batch_and_go_on_after_a_kill(
    start, run_alone, tmp_path, monkeypatch
):
    folder = tmp_path / "runs/two/checkpoints"
    without_cycles = ("--c_lambda", "0")  # half of a graph; with two devices, below, there are all losses
    workers = start_workers(start, "two", *without_cycles, num_steps=10**6)
    while last_step(folder) < 6:
        assert workers[0].poll() is None, workers[0].stdout.read()[-3000:]
        time.sleep(0.05)
    workers[1].send_signal(signal.SIGKILL)
    workers[1].wait()
    workers[0].kill()  # it waits for the other, as whoever runs the job will see
    workers[0].wait()
    see_what_two_workers_see(monkeypatch.setattr)
    run_alone("one", *without_cycles)
    one, two = (losses_of(tmp_path / "runs" / name / "logs") for name in ("one", "two"))
    two = {(step, name): value for (step, name), value in two.items() if step <= 6}
    assert one.keys() == two.keys() and len(one) == 6 * 8
    for key, value in one.items():
        assert two[key] == pytest.approx(value, rel=1e-5, abs=1e-5), key

    step = last_step(folder)
    said = finish(*start_workers(start, "two", *without_cycles, num_steps=step + 2))
    assert f"steps {step} to {step + 2}" in said
    assert last_step(folder) == step + 2


def test_two_devices_equal_one(start, run_alone, tmp_path):
    two = start("two", "--strategy", "mirrored", TINY_RUN_DEVICES="2")
    run_alone("one")
    assert "2 devices, mirrored" in finish(two)
    one, two = (losses_of(tmp_path / "runs" / name / "logs") for name in ("one", "two"))
    # IFSR's margin is of the mean over a device's pairs.
    for key, value in one.items():
        assert two[key] == pytest.approx(value, rel=1e-4, abs=1e-4) or key[1] == "losses/ifsr", key
