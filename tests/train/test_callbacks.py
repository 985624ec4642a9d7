"""What a run logs, and that a lost loss stops it, by name and step, before a checkpoint is written over."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest

from facedancer.core.console import UserError
from facedancer.train.callbacks import EXPLOSION, LossLog, SaveCheckpoints, StepCallbacks, Validate
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
    model = keras.Sequential([])
    model.stop_training = False
    callbacks = StepCallbacks(callbacks, model)
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


def test_a_metric_for_which_no_pair_counts_is_not_shown(tmp_path, capsys):
    def measure(batches):
        return {"reconstruction": np.nan, "truth_error": 0.7, "score": -0.3}

    validator = SimpleNamespace(
        measure=measure, people_grids=lambda _: {}, swap_grid=lambda _: np.zeros((8, 8, 3), "u1")
    )
    checkpoints = SimpleNamespace(best=lambda: (None, -np.inf), mark_best=lambda *best: kept.append(best))
    log, kept, saving = Recorded(), [], SimpleNamespace(on_end=lambda step: None)
    log.image = lambda *_: None
    validate = Validate(validator, {"validation": [{}]}, log, tmp_path, lambda: None, checkpoints, saving, 0, every=2)
    feed([validate], [1.0] * 2)
    assert log.rows == [(2, {"validation/truth_error": 0.7, "validation/score": -0.3})] and kept == [(2, -0.3)]
    assert "step 2: truth_error 0.7000, score -0.3000\n" in capsys.readouterr().out
