"""Learning rates as functions of the step."""

import math

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="facedancer")
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """Rises linearly from 0 to another schedule, then follows it.

    Args:
        schedule: a `LearningRateSchedule`.
        steps: length of the rise; 0 for none.
    """

    def __init__(self, schedule, steps):
        super().__init__()
        self.schedule = schedule
        self.steps = steps

    def __call__(self, step):
        rise = (ops.cast(step, "float32") + 1.0) / max(self.steps, 1)
        return self.schedule(step) * ops.minimum(rise, 1.0)

    def get_config(self):
        return {"schedule": keras.saving.serialize_keras_object(self.schedule), "steps": self.steps}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config["schedule"]), config["steps"])


@keras.saving.register_keras_serializable(package="facedancer")
class Cosine(keras.optimizers.schedules.LearningRateSchedule):
    """Half a cosine from `peak` at step 0 to 0 at step `steps` (Loshchilov and Hutter, 2017, without restarts)."""

    def __init__(self, peak, steps):
        super().__init__()
        self.peak = peak
        self.steps = steps

    def __call__(self, step):
        share = ops.minimum(ops.cast(step, "float32") / self.steps, 1.0)
        return self.peak * 0.5 * (1.0 + ops.cos(math.pi * share))

    def get_config(self):
        return {"peak": self.peak, "steps": self.steps}


def build_schedule(config, num_steps):
    """Builds a run's learning rate: exponential decay per 100,000 steps, as in the paper, or half a cosine."""
    if config.lr_schedule == "cosine":
        schedule = Cosine(config.lr, num_steps)
    else:
        schedule = keras.optimizers.schedules.ExponentialDecay(config.lr, 100_000, config.lr_decay)
    return WarmUp(schedule, config.warmup)
