"""The device that is asked for is the one that is used, or it is said that it is not there."""

import argparse

import pytest
import tensorflow as tf

from facedancer.core.console import UserError
from facedancer.core.devices import add_device_flag, select_device

GPUS = tf.config.list_physical_devices("GPU")


@pytest.fixture(autouse=True)
def forget_the_choice():
    """A process chooses once."""
    select_device.cache_clear()
    yield
    select_device.cache_clear()


def test_the_cpu():
    if GPUS:
        pytest.skip("would hide the GPU from the tests after this one")
    assert select_device(-1) == "CPU"


def test_the_default_is_what_is_there():
    assert select_device().startswith("GPU 0 (" if GPUS else "CPU")


@pytest.mark.parametrize("device_id", [len(GPUS), -2])
def test_a_gpu_that_is_not_there(device_id):
    with pytest.raises(UserError, match=f"GPU {device_id} was asked for, TensorFlow finds") as raised:
        select_device(device_id)
    assert "\n" not in str(raised.value) and "--device_id -1" in str(raised.value)


def test_the_choice_is_handed_to_tensorflow(monkeypatch):
    """As on a machine with two GPUs."""
    fakes = [f"GPU:{n}" for n in range(2)]
    chosen = []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: fakes)
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda devices, kind: chosen.append((devices, kind)))
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", lambda gpu, grow: chosen.append((gpu, grow)))
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: {"device_name": f"fake {gpu}"})
    assert select_device(1) == "GPU 1 (fake GPU:1)"
    assert select_device() == "GPU 0 (fake GPU:0)"
    assert select_device(-1) == "CPU"
    assert chosen == [("GPU:1", "GPU"), ("GPU:1", True), ("GPU:0", "GPU"), ("GPU:0", True), ([], "GPU")]
    assert select_device(1) == "GPU 1 (fake GPU:1)" and len(chosen) == 5  # a second command of a process
    with pytest.raises(UserError, match="finds GPUs 0 to 1"):
        select_device(2)


def test_the_flag():
    parser = argparse.ArgumentParser()
    add_device_flag(parser)
    assert parser.parse_args([]).device_id is None
    assert parser.parse_args(["--device_id", "-1"]).device_id == -1
