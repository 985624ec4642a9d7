"""Five steps of a family's tiny networks on KERAS_BACKEND's engine.

`python engine_steps.py FAMILY BATCHES.npz OUT.json`

All losses of the family are on, its discriminator's as well. `parallel` as a last word spreads the batch over devices.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import keras
import numpy as np
from tiny_networks import (
    CONFIG,
    SIZE,
    TINY_SHAPES,
    build_encoder,
    build_perceptual,
)
from tiny_run import draw_weights

from facedancer.models.families import DEFAULT_FAMILY, find_family
from facedancer.train.callbacks import StepCallback, StepCallbacks
from facedancer.train.objectives import autoencoder, facedancer, reswapper, simswap
from facedancer.train.trainer import SwapTrainer

PEOPLE = ("ann", "ben")


class Record(StepCallback):
    rows = []  # noqa: RUF012

    def on_step(self, step, losses):
        self.rows.append({name: float(keras.ops.convert_to_numpy(value)) for name, value in losses.items()})


def build_objective(family, r1_every):
    """Builds a family's objective, which looks through tiny networks."""
    encoder, features = draw_weights(build_encoder(), 1), draw_weights(build_perceptual(), 3)
    if family == "autoencoder":
        return autoencoder.AutoencoderObjective(autoencoder.Weights())
    if family == "reswapper":
        return reswapper.ReSwapperObjective(encoder, reswapper.Weights(a_lambda=1.0, r1_every=r1_every))
    if family == "simswap":
        weights = simswap.Weights(lambda_gp=1.0, lambda_r1=1.0)
        return simswap.SimSwapObjective(encoder, features, judges_patches=True, weights=weights)
    weights = facedancer.Weights(own_lambda=1.0, r1_every=r1_every)
    return facedancer.FaceDancerObjective(encoder, features, 0.85, {"tap": 0.05}, weights, change_lambda=6.0)


def build_config(family):
    """Returns the shapes of a family's tiny networks."""
    if family == DEFAULT_FAMILY:
        return CONFIG
    if family == "autoencoder":
        shapes = {"init_dim": 4, "code_dim": 8, "code_width": 8, "widths": (16, 8, 8, 4), "people": PEOPLE}
        return find_family(family).Config(image_size=SIZE, **shapes)
    return find_family(family).Config(image_size=SIZE, embedding_dim=8, **TINY_SHAPES[family])


def main(family, batches, out, r1_every=2, microbatches=1):
    if keras.config.backend() == "jax" and "parallel" in sys.argv:
        keras.distribution.set_distribution(keras.distribution.DataParallel())
    networks = find_family(family).build_networks(build_config(family))
    for seed, network in enumerate(networks.values(), 4):
        draw_weights(network, seed)
    trainer = SwapTrainer(networks, build_objective(family, r1_every), 0.9, microbatches)
    optimizers = [keras.optimizers.SGD(1e-3) for _ in range(1 + ("discriminator" in networks))]
    trainer.compile(*optimizers, jit_compile="auto")
    with np.load(batches) as stored:
        columns = {name: stored[name] for name in stored}
    stream = [{name: column[index] for name, column in columns.items()} for index in range(5)]
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        stream = tf.data.Dataset.from_tensor_slices(columns)
    else:
        stream = ((batch,) for batch in stream)
    trainer.fit(stream, steps_per_epoch=5, shuffle=False, verbose=0, callbacks=StepCallbacks([Record()], trainer))
    averages = {f"average of {name}": average for name, average in trainer.averages.items()}
    sums = {
        name: [float(np.abs(value).sum()) for value in network.get_weights()]
        for name, network in {**networks, **averages}.items()
    }
    steps = [int(optimizer.iterations) for optimizer in optimizers]
    Path(out).write_text(json.dumps({"losses": Record.rows, "sums": sums, "steps": steps}))


if __name__ == "__main__":
    main(*sys.argv[1:4])
