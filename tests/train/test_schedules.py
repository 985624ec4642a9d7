"""Learning rates at steps where they are known."""

import types

import keras
import pytest

from facedancer.train.schedules import build_schedule


def rates(steps, **config):
    config = {"lr": 2.0, "lr_schedule": "exponential", "lr_decay": 0.97, "warmup": 0, **config}
    schedule = build_schedule(types.SimpleNamespace(**config), num_steps=1000)
    again = type(schedule).from_config(schedule.get_config())
    found = [float(schedule(keras.ops.convert_to_tensor(step, "int32"))) for step in steps]
    assert found == [float(again(step)) for step in steps]
    return found


def test_the_papers():
    assert rates([0, 100_000, 200_000]) == pytest.approx([2.0, 2 * 0.97, 2 * 0.97**2], rel=1e-5)


def test_half_a_cosine_ends_at_zero():
    assert rates([0, 500, 1000, 2000], lr_schedule="cosine") == pytest.approx([2.0, 1.0, 0.0, 0.0], abs=1e-5)


def test_warm_up_rises_from_zero_to_the_schedule():
    assert rates([0, 4, 9, 500], lr_schedule="cosine", warmup=10) == pytest.approx([0.2, 2.0 * 0.5, 2.0, 1.0], rel=1e-3)
