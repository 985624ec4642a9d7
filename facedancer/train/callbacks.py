"""Callbacks of a run: stop on NaN, log, checkpoint, validate. Steps are counted over the whole run."""

import math
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from facedancer.core.console import UserError, progress, say
from facedancer.core.images import write_image


class StepCallback(keras.callbacks.Callback):
    """A callback that knows the step. `on_step(step, losses)` comes after each, `on_end(step)` after the last."""

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


class StopOnNaN(StepCallback):
    """Ends training where a loss is no number any more, before a checkpoint is overwritten with it."""

    def on_step(self, step, losses):
        for name, value in losses.items():
            if not math.isfinite(value):
                raise UserError(f"loss `{name}` is {value} at step {step}; the last checkpoint is whole: lower --lr")


class LossLog(StepCallback):
    """Scalars for TensorBoard, the progress bar, and the averages of the first and last steps for the summary.

    Args:
        writer: `tf.summary` writer.
        start_step, num_steps: first and last step of the run.
        batch_size: pairs in a batch.
        every: steps between scalars, which are the averages since the last.
    """

    def __init__(self, writer, start_step, num_steps, batch_size, every):
        super().__init__(start_step)
        self.writer = writer
        self.batch_size = batch_size
        self.every = every
        self.history = []
        self.seconds = []
        self.bar = progress(total=num_steps, initial=start_step, desc="train", unit="step")

    def on_train_batch_begin(self, batch, logs=None):
        self.started = time.perf_counter()

    def on_step(self, step, losses):
        self.seconds.append(time.perf_counter() - self.started)
        self.history.append(losses)
        self.bar.update()
        self.bar.set_postfix({name: f"{value:.3g}" for name, value in losses.items()}, refresh=False)
        if step % self.every == 0:
            scalars = {f"losses/{name}": value for name, value in self.average(self.history[-self.every :]).items()}
            scalars["learning_rate"] = float(self.model.optimizer.learning_rate)
            scalars["images_per_second"] = self.images_per_second(self.seconds[-self.every :])
            write_scalars(self.writer, scalars, step)
            # Only what the summary needs is kept: memory must not grow with the run.
            self.history = self.history[:SUMMARY_STEPS] + self.history[SUMMARY_STEPS:][-SUMMARY_STEPS - self.every :]
            self.seconds = self.seconds[-max(self.every, 100) :]

    def on_end(self, step):
        self.bar.close()

    def images_per_second(self, seconds):
        """Pairs per second by the median step, which the first step's compilation does not move."""
        return self.batch_size / float(np.median(seconds))

    def summary(self):
        """Returns lines for people: each loss at the beginning and the end of what this call trained."""
        span = max(1, min(SUMMARY_STEPS, len(self.history) // 2))
        first, last = self.average(self.history[:span]), self.average(self.history[-span:])
        lines = [f"  {name:16}{first[name]:10.4f} -> {last[name]:.4f}" for name in first]
        return [f"losses, mean of the first and last {span} steps:", *lines]

    @staticmethod
    def average(history):
        return {name: float(np.mean([losses[name] for losses in history])) for name in history[0]}


SUMMARY_STEPS = 20


class SaveCheckpoints(StepCallback):
    """Writes a checkpoint every so many steps and at the end.

    Args:
        save: function of the step.
    """

    def __init__(self, save, start_step, every):
        super().__init__(start_step)
        self.save = save
        self.every = every
        self.saved = start_step

    def on_step(self, step, losses):
        if step % self.every == 0:
            self.on_end(step)

    def on_end(self, step):
        if step != self.saved:
            self.save(step)
            self.saved = step


class Validate(StepCallback):
    """Measures and shows swaps every so many steps and at the end.

    Args:
        validator: `SwapValidator`.
        batches: name ("train", "validation") -> iterable of a few batches; metrics are of "validation".
        writer: `tf.summary` writer.
        folder: where the swap grids go as PNG.
    """

    def __init__(self, validator, batches, writer, folder, start_step, every):
        super().__init__(start_step)
        self.validator = validator
        self.batches = batches
        self.writer = writer
        self.folder = Path(folder)
        self.every = every
        self.shown = None

    def on_step(self, step, losses):
        if step % self.every == 0:
            self.on_end(step)

    def on_end(self, step):
        if step == self.shown:
            return
        self.shown = step
        for name, batches in self.batches.items():
            grid = self.validator.swap_grid(batches[0])
            write_image(self.folder / f"{name}_{step:08d}.png", grid)
            with self.writer.as_default(step):
                tf.summary.image(f"swaps/{name}", grid[None])
        if "validation" in self.batches:
            metrics = self.validator.measure(self.batches["validation"])
            metrics = {name: value for name, value in metrics.items() if not math.isnan(value)}
            write_scalars(self.writer, {f"validation/{name}": value for name, value in metrics.items()}, step)
            text = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
            say(f"step {step}: {text}")


def write_scalars(writer, scalars, step):
    """Writes a dictionary of numbers to TensorBoard."""
    with writer.as_default(step):
        for name, value in scalars.items():
            tf.summary.scalar(name, value)
    writer.flush()
