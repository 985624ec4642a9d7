"""Callbacks of a run: loss logging, checkpoints, validation, signals. Steps are counted over the whole run."""

import math
import signal
import time
from pathlib import Path

import keras
import numpy as np
from keras import ops

from facedancer.core.console import UserError, progress, say
from facedancer.core.images import write_image

SUMMARY_STEPS = 20
# A loss this many times its own average so far has exploded; averages below the floor count as the floor.
EXPLOSION, FLOOR = 1000.0, 0.1


class StepCallbacks(keras.callbacks.CallbackList):
    """A callback list that passes losses on as tensors: reading them after each step would wait for the device.

    Args:
        callbacks: list of `StepCallback`, called in this order.
        model: the trainer.
    """

    def __init__(self, callbacks, model):
        super().__init__(callbacks, add_history=True, model=model)

    def _on_train_batch_end(self, batch, logs=None):
        for callback in self.callbacks:
            callback.on_train_batch_end(batch, logs)


class StepCallback(keras.callbacks.Callback):
    """A callback that counts steps: `on_step(step, losses)` is called after each, `on_end(step)` after the last."""

    def __init__(self, start_step=0):
        super().__init__()
        self.step = start_step

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        self.on_step(self.step, logs)

    def on_train_end(self, logs=None):
        self.on_end(self.step)

    def on_step(self, step, losses):
        """Does nothing by default."""

    def on_end(self, step):
        """Does nothing by default."""


class LossLog(StepCallback):
    """Reads the losses' values at intervals: to log them, to stop on a bad loss, and for the summary.

    Args:
        log: `Logs`.
        learning_rate: function of the step.
        start_step, num_steps: first and last step of the run.
        batch_size: pairs in a batch.
        every: steps between scalars, which are the averages since the last.

    Raises:
        UserError: for a bad loss, at most `every` steps later and before any checkpoint.
    """

    def __init__(self, log, learning_rate, start_step, num_steps, batch_size, every):
        super().__init__(start_step)
        self.log = log
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.every = every
        self.waiting = []  # losses whose values were not read yet
        self.first, self.last = [], []  # for the steps of this call
        self.average, self.seen = {}, 0
        self.seconds = []  # per step
        self.busy = 0.0
        self.bar = progress(total=num_steps, initial=start_step, desc="train", unit="step")

    def on_train_batch_begin(self, batch, logs=None):
        self.started = time.perf_counter()

    def on_step(self, step, losses):
        self.waiting.append(losses)
        self.busy += time.perf_counter() - self.started
        if step % self.every == 0:
            self.take()

    def on_end(self, step):
        self.take()
        self.bar.close()

    def take(self):
        """Waits for the device, then reads, checks and logs the losses."""
        if not self.waiting:
            return
        started = time.perf_counter()
        taken = [{name: float(np.ravel(ops.convert_to_numpy(x))[0]) for name, x in row.items()} for row in self.waiting]
        self.busy += time.perf_counter() - started
        for step, losses in enumerate(taken, self.step - len(taken) + 1):
            self._look(step, losses)
        self.first = (self.first + taken)[:SUMMARY_STEPS]
        self.last = (self.last + taken)[-SUMMARY_STEPS:]
        self.seconds = [*self.seconds, self.busy / len(taken)][-100:]
        self.bar.update(len(taken))
        self.bar.set_postfix({name: f"{value:.3g}" for name, value in taken[-1].items()}, refresh=False)
        scalars = {f"losses/{name}": value for name, value in _average(taken).items()}
        scalars |= {
            "learning_rate": self.learning_rate(self.step),
            "images_per_second": self.batch_size / self.seconds[-1],
        }
        self.log.scalars(scalars, self.step)
        self.waiting, self.busy = [], 0.0

    def _look(self, step, losses):
        for name, value in losses.items():
            average = max(self.average.get(name, 0.0), FLOOR)
            if not math.isfinite(value):
                raise UserError(f"loss `{name}` is {value} at step {step}; the last checkpoint is good: lower --lr")
            if self.seen >= SUMMARY_STEPS and abs(value) > EXPLOSION * average:
                raise UserError(
                    f"loss `{name}` explodes at step {step}: {value:.3g}, after an average of {average:.3g};"
                    " the last checkpoint is good: lower --lr"
                )
        for name, value in losses.items():
            self.average[name] = 0.98 * self.average.get(name, abs(value)) + 0.02 * abs(value)
        self.seen += 1

    def images_per_second(self):
        """Pairs per second by the median step, which ignores the first step's compilation."""
        return self.batch_size / float(np.median(self.seconds))

    def summary(self):
        """Returns lines of text: each loss at the start and the end of this call's training."""
        span = len(self.first)
        first, last = _average(self.first), _average(self.last)
        lines = [f"  {name:16}{first[name]:10.4f} -> {last[name]:.4f}" for name in first]
        return [f"losses, mean of the first and last {span} steps:", *lines]


class SaveCheckpoints(StepCallback):
    """Writes checkpoints at intervals and at the end.

    Args:
        save: function of the step.
        losses: `LossLog`, which checks the losses first.
    """

    def __init__(self, save, losses, start_step, every):
        super().__init__(start_step)
        self.save = save
        self.losses = losses
        self.every = every
        self.saved = start_step

    def on_step(self, step, losses):
        if step % self.every == 0:
            self.on_end(step)

    def on_end(self, step):
        if step != self.saved:
            self.losses.take()
            self.save(step)
            self.saved = step


class Validate(StepCallback):
    """Evaluates and displays swaps at intervals and at the end, and marks the best checkpoint.

    Args:
        validator: `SwapValidator`.
        batches: name ("train", "validation", "people") -> list of a few batches. "validation" gives the metrics;
            "people" gives one grid per person, in the folder `face_id`.
        log: `Logs`.
        folder: for the swap grids, as PNG.
        synchronize: function without arguments, called before the networks are read.
        checkpoints: `Checkpoints`.
        saving: `SaveCheckpoints`.
    """

    def __init__(self, validator, batches, log, folder, synchronize, checkpoints, saving, start_step, every):
        super().__init__(start_step)
        self.validator = validator
        self.batches = batches
        self.log = log
        self.folder = Path(folder)
        self.synchronize = synchronize
        self.checkpoints = checkpoints
        self.saving = saving
        self.every = every
        self.validated = None
        self.best_score = checkpoints.best()[1]

    def on_step(self, step, losses):
        if step % self.every == 0:
            self.on_end(step)

    def on_end(self, step):
        if step == self.validated or self.model.stop_training:  # on a stop request, skip validation
            return
        self.validated = step
        self.synchronize()
        for name, grid in self.validator.people_grids(self.batches.get("people", [])).items():
            write_image(self.folder / "face_id" / f"{name}_{step:08d}.png", grid)
            self.log.image(f"face_id/{name}", grid, step)
        for name in self.batches.keys() - {"people"}:
            batches = self.batches[name]
            grid = self.validator.swap_grid(batches[0])
            write_image(self.folder / f"{name}_{step:08d}.png", grid)
            self.log.image(f"swaps/{name}", grid, step)
        if "validation" in self.batches:
            metrics = self.validator.measure(self.batches["validation"])
            counted = {name: value for name, value in metrics.items() if not np.isnan(value)}
            self.log.scalars({f"validation/{name}": value for name, value in counted.items()}, step)
            text = ", ".join(f"{name} {value:.4f}" for name, value in counted.items())
            say(f"step {step}: {text}")
            if metrics["score"] > self.best_score:
                self.best_score = metrics["score"]
                self.saving.on_end(step)
                self.checkpoints.mark_best(step, metrics["score"])


class StopOnSignal(StepCallback):
    """Ends training, with a checkpoint, after the step in which SIGTERM or SIGINT arrives; a second ends it at once.

    Attributes:
        received: the signal, or None.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self):
        super().__init__()
        self.received = None
        self.before = {}

    def on_train_begin(self, logs=None):
        self.before = {number: signal.signal(number, self._receive) for number in self.SIGNALS}

    def on_step(self, step, losses):
        if self.received is not None:
            self.model.stop_training = True

    def on_end(self, step):
        self.restore()

    def restore(self):
        """Restores the previous signal handlers."""
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _receive(self, number, frame):
        self.received = signal.Signals(number)
        self.restore()


class Profile(StepCallback):
    """Profiles some steps.

    Args:
        engine: `Engine`.
        folder: for the profile.
        count: number of steps.
    """

    FIRST = 10

    def __init__(self, engine, folder, start_step, count):
        super().__init__(start_step)
        self.engine = engine
        self.folder = folder
        self.first, self.end = start_step + self.FIRST, start_step + self.FIRST + count
        self.is_running = False

    def on_step(self, step, losses):
        if step == self.first:
            self.engine.start_profile(self.folder)
            self.is_running = True
        elif step == self.end:
            self.on_end(step)

    def on_end(self, step):
        if self.is_running:
            self.engine.stop_profile()
            self.is_running = False


def _average(rows):
    return {name: float(np.mean([losses[name] for losses in rows])) for name in rows[0]}
