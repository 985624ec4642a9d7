"""Losses that are lost stop a run, by name and step, before a checkpoint is written over."""

import keras
import numpy as np
import pytest

from facedancer.core.console import UserError
from facedancer.train.callbacks import EXPLOSION, LossLog, SaveCheckpoints, StepCallbacks
from facedancer.train.logs import Logs


class Recorded:
    """A log that keeps scalars."""

    def __init__(self):
        self.rows = []

    def scalars(self, values, step):
        self.rows.append((step, values))


def losses_log(every=10, start_step=0, log=None):
    return LossLog(log or Logs([]), lambda step: 0.1, start_step, 1000, batch_size=4, every=every)


def feed(callbacks, values):
    """As `fit` would: a step for each value of loss `a`."""
    callbacks = StepCallbacks(callbacks, keras.Sequential([]))
    for index, value in enumerate(values):
        callbacks.on_train_batch_begin(index)
        callbacks.on_train_batch_end(index, {"a": keras.ops.convert_to_tensor(value), "b": np.float32(1.0)})


def test_a_loss_that_is_no_number_is_named_with_its_step():
    with pytest.raises(UserError, match="loss `a` is nan at step 107"):
        feed([losses_log(start_step=100)], [1.0] * 6 + [np.nan] + [1.0] * 3)


def test_a_loss_that_explodes_is_named_with_its_step():
    with pytest.raises(UserError, match="loss `a` explodes at step 27"):
        feed([losses_log()], [1.0] * 26 + [2 * EXPLOSION] + [1.0] * 3)
    feed([losses_log()], [1.0] * 26 + [EXPLOSION / 2] + [1.0] * 3)  # a high one alone does not


def test_no_checkpoint_is_written_after_a_lost_loss():
    saved = []
    losses = losses_log(every=100)
    saving = SaveCheckpoints(saved.append, losses, 0, every=4)
    with pytest.raises(UserError, match="step 7"):
        feed([losses, saving], [1.0] * 6 + [np.inf] + [1.0] * 3)
    assert saved == [4]


def test_scalars_are_averages_and_the_history_does_not_grow():
    log = Recorded()
    losses = losses_log(log=log)
    feed([losses], [float(index) for index in range(50)])
    assert [step for step, _ in log.rows] == [10, 20, 30, 40, 50]
    assert log.rows[1][1]["losses/a"] == pytest.approx(14.5) and log.rows[1][1]["learning_rate"] == 0.1
    feed([losses], [1.0] * 3000)
    assert max(map(len, (losses.first, losses.last, losses.seconds, losses.waiting))) <= 100
    losses.take()
    assert "a" in "\n".join(losses.summary())
