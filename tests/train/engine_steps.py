"""Five steps of the tiny networks on KERAS_BACKEND's engine: `python engine_steps.py BATCHES.npz OUT.json`."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import keras
import numpy as np
from tiny_networks import CONFIG, build_encoder, build_perceptual
from tiny_run import draw_weights

from facedancer.models.facedancer import build_networks
from facedancer.train.callbacks import StepCallback, StepCallbacks
from facedancer.train.objectives.facedancer import FaceDancerObjective, Weights
from facedancer.train.trainer import SwapTrainer


class Record(StepCallback):
    rows = []  # noqa: RUF012

    def on_step(self, step, losses):
        self.rows.append({name: float(keras.ops.convert_to_numpy(value)) for name, value in losses.items()})


def main(batches, out, r1_every=2, microbatches=1):
    if keras.config.backend() == "jax" and "parallel" in sys.argv:
        keras.distribution.set_distribution(keras.distribution.DataParallel())
    objective = FaceDancerObjective(
        draw_weights(build_encoder(), 1), draw_weights(build_perceptual(), 3), 0.85, {"tap": 0.05},
        Weights(own_lambda=1.0, r1_every=r1_every), change_lambda=6.0,
    )  # fmt: skip
    networks = build_networks(CONFIG)
    for seed, network in enumerate(networks.values(), 4):
        draw_weights(network, seed)
    trainer = SwapTrainer(networks, objective, ema=0.9, microbatches=microbatches)
    trainer.compile(keras.optimizers.SGD(1e-3), keras.optimizers.SGD(1e-3), jit_compile="auto")
    with np.load(batches) as stored:
        columns = {name: stored[name] for name in stored}
    stream = [{name: column[index] for name, column in columns.items()} for index in range(5)]
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        stream = tf.data.Dataset.from_tensor_slices(columns)
    else:
        stream = ((batch,) for batch in stream)
    trainer.fit(stream, steps_per_epoch=5, shuffle=False, verbose=0, callbacks=StepCallbacks([Record()], trainer))
    sums = {
        name: [float(np.abs(value).sum()) for value in network.get_weights()]
        for name, network in {**networks, "average": trainer.averages["generator"]}.items()
    }
    steps = [int(o.iterations) for o in (trainer.optimizer, trainer.discriminator_optimizer)]
    Path(out).write_text(json.dumps({"losses": Record.rows, "sums": sums, "steps": steps}))


if __name__ == "__main__":
    main(*sys.argv[1:3])
