"""Five steps of a family's tiny networks on KERAS_BACKEND's engine.

`python engine_steps.py FAMILY BATCHES.npz OUT.json`

All losses of the family are on, its discriminator's as well. `parallel` as a last word spreads the batch over devices.
The last two steps are taken once more from a checkpoint of the third; the swapper is exported, into the folder OUT
without its ending, with what it makes of some inputs.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import keras
import numpy as np
from tiny_networks import (
    CONFIG,
    SHAPE,
    SIZE,
    TINY_SHAPES,
    build_encoder,
    build_perceptual,
    build_shapes_model,
    to_landmarks,
)
from tiny_run import draw_weights

from facedancer.arcface_model.face_shapes import FaceShapes
from facedancer.models.families import DEFAULT_FAMILY, find_family
from facedancer.train.callbacks import StepCallback, StepCallbacks
from facedancer.train.checkpoints import AVERAGE, Checkpoints
from facedancer.train.export import export_swapper
from facedancer.train.objectives import autoencoder, facedancer, hififace, reswapper, simswap
from facedancer.train.trainer import SwapTrainer

PEOPLE = ("ann", "ben")
# Learning rates. With larger ones rounding grows: HifiFace's mask loss weighs 100, and SimSwap's gradient penalty jumps
# where an activation changes its sign.
RATES = {"hififace": 1e-5, "simswap": 1e-4}


class Record(StepCallback):
    """Keeps the losses of every step, and writes a checkpoint after the third."""

    def __init__(self, save, start_step=0):
        super().__init__(start_step)
        self.save, self.rows = save, []

    def on_step(self, step, losses):
        self.rows.append({name: float(keras.ops.convert_to_numpy(value)) for name, value in losses.items()})
        if step == 3:
            self.save()


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
    if family == "hififace":
        shapes = FaceShapes(draw_weights(build_shapes_model(), 5), SHAPE, to_landmarks)
        weights = hififace.Weights(perceptual_network="mobilenet_v2")
        return hififace.HifiFaceObjective(encoder, shapes, features, weights)
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
    config = build_config(family)
    networks = find_family(family).build_networks(config)
    for seed, network in enumerate(networks.values(), 4):
        draw_weights(network, seed)
    trainer = SwapTrainer(networks, build_objective(family, r1_every), 0.9, microbatches)
    roles = ["generator", *(["discriminator"] if "discriminator" in networks else [])]
    optimizers = {role: keras.optimizers.SGD(RATES.get(family, 1e-3), momentum=0.5) for role in roles}
    trainer.compile(*optimizers.values(), jit_compile="auto")
    folder = Path(out).with_suffix("")
    checkpoints = Checkpoints(folder / "checkpoints", family=family)
    kept = {**networks, **{f"{name}{AVERAGE}": average for name, average in trainer.averages.items()}}

    def synchronize():
        if keras.config.backend() == "jax":
            trainer.jax_state_sync()

    def save():
        synchronize()
        checkpoints.save(3, kept, optimizers, {})

    def state():
        return [
            keras.ops.convert_to_numpy(variable)
            for one in (*kept.values(), *optimizers.values())
            for variable in (one.weights if isinstance(one, keras.Model) else one.variables)
        ]

    def take_steps(start_step):
        record = Record(save, start_step)
        trainer.fit(
            open_stream(batches, start_step), steps_per_epoch=5 - start_step, shuffle=False, verbose=0,
            callbacks=StepCallbacks([record], trainer),
        )  # fmt: skip
        return record.rows

    rows, unbroken = take_steps(0), state()
    checkpoints.load_networks(3, kept)
    checkpoints.load_optimizers(3, kept, optimizers)
    again, resumed = take_steps(3), state()
    sums = {
        name.replace(AVERAGE, " average"): [float(np.abs(value).sum()) for value in network.get_weights()]
        for name, network in kept.items()
    }
    differing = sum(not np.array_equal(a, b) for a, b in zip(unbroken, resumed, strict=True)) + (again != rows[3:])
    steps = [int(optimizer.iterations) for optimizer in optimizers.values()]
    export(family, config, networks, folder)
    Path(out).write_text(json.dumps({"losses": rows, "sums": sums, "steps": steps, "resumed_differing": differing}))


def open_stream(path, start_step):
    """Returns the batches of a file from a step on, as the engine's `fit` takes them."""
    with np.load(path) as stored:
        columns = {name: stored[name][start_step:] for name in stored}
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        return tf.data.Dataset.from_tensor_slices(columns)
    batches = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return ((batch,) for batch in batches)


def export(family, config, networks, folder):
    """Exports the swapper, and what it makes of inputs: `inputs.npz`, `outputs.npz`."""
    swapper = find_family(family).build_swapper(networks)
    rng = np.random.default_rng(0)
    inputs = {tensor.name: rng.uniform(-1, 1, (3, *tensor.shape[1:])).astype(np.float32) for tensor in swapper.inputs}
    outputs = keras.tree.flatten(swapper.predict_on_batch(inputs))
    np.savez(folder / "inputs.npz", **inputs)
    np.savez(folder / "outputs.npz", *outputs)
    export_swapper(
        swapper, folder, family=family, step=5, shrink_factor=1.0, identity_encoder="dlib_resnet", training={},
        licence="none", network=vars(config), decoders=PEOPLE if family == "autoencoder" else (), onnx=False,
    )  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:4])
