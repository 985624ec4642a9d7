"""The training command with tiny networks, and frozen ones of drawn weights: `python tiny_run.py [flags]`.

Everything else is the command itself, so that it can be killed and spread over workers. Other tests call
`use_tiny_networks`, this file's main is for processes of their own.
"""

import dataclasses
import functools
import gc
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

FLAGS = ["--preset", "lite", "--arcface_path", "tiny", "--image_size", "32", "--mapping_depth", "1"]
FLAGS += ["--mapping_size", "8", "--up_types", "no_skip", "affa", "concat"]
# All losses, which lite leaves out in part.
FLAGS += ["--a_lambda", "1", "--c_lambda", "1", "--ifsr_lambda", "1"]


def draw_weights(model, seed):
    """Gives a model weights that are the same on every engine."""
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(0, np.prod(x.shape[:-1]) ** -0.5, x.shape) for x in model.get_weights()])
    return model


def run_eagerly(replace):
    """Lets trainers take their steps, and models predict, without a graph: tracing takes as long as ten of them."""
    import keras

    from facedancer.train.trainer import SwapTrainer

    def predict_on_batch(self, inputs):
        return keras.tree.map_structure(keras.ops.convert_to_numpy, self(inputs, training=False))

    replace(SwapTrainer, "compile", functools.partialmethod(SwapTrainer.compile, run_eagerly=True))
    replace(keras.Model, "predict_on_batch", predict_on_batch)


def use_tiny_networks(replace=setattr):
    """Replaces the presets' networks and the frozen ones; a test passes pytest's `monkeypatch.setattr`."""
    import keras
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

    import facedancer.arcface_model
    from facedancer.arcface_model import face_shapes, perceptual
    from facedancer.models import facedancer as family
    from facedancer.models.families import find_family

    class Identity:
        dim = 8
        ifsr_margins = {"tap": 0.05}  # noqa: RUF012

        def __init__(self, path):
            assert path == "tiny"

        def build_model(self, image_size, shrink_factor):
            assert image_size == SIZE
            return draw_weights(build_encoder(), 1)

    class Expression:
        def __init__(self, path):
            """Takes any path: there is no file."""

        def build_model(self, image_size, shrink_factor):
            model = draw_weights(build_encoder(), 2)
            return keras.Model(model.input, model.output["embedding"])

    def build_drawn_networks(config):
        networks = built(config)
        return {name: draw_weights(network, seed) for seed, (name, network) in enumerate(networks.items(), 4)}

    built = family.build_networks
    replace(family, "PRESETS", {**family.PRESETS, "lite": CONFIG})
    for name, shapes in TINY_SHAPES.items():
        other = find_family(name)
        replace(other, "PRESETS", {**other.PRESETS, "lite": other.Config(image_size=SIZE, embedding_dim=8, **shapes)})
    replace(family, "build_networks", build_drawn_networks)
    replace(perceptual, "build_perceptual_network", lambda kind, image_size: draw_weights(build_perceptual(), 3))
    replace(
        face_shapes,
        "load_face_shapes",
        lambda name, image_size, shrink_factor: face_shapes.FaceShapes(
            draw_weights(build_shapes_model(), 5), SHAPE, to_landmarks
        ),
    )
    replace(facedancer.arcface_model, "IdentityEncoder", Identity)
    replace(facedancer.arcface_model, "ExpressionEmbedder", Expression)


def see_what_two_workers_see(replace):
    """Makes one process's batches those of two workers, together; takes pytest's `monkeypatch.setattr`."""
    import tensorflow as tf

    from facedancer.dataset.input_pipeline import build_dataset
    from facedancer.train.engines import TensorFlowEngine

    def stream(self, pattern, options):
        batch_size = options.batch_size // 2
        halves = (
            build_dataset(pattern, dataclasses.replace(options, batch_size=batch_size, worker=(i, 2))) for i in range(2)
        )
        together = tf.data.Dataset.zip(*halves)
        return together.map(lambda *halves: {name: tf.concat([half[name] for half in halves], 0) for name in halves[0]})

    replace(TensorFlowEngine, "stream", stream)


def main(argv):
    import tensorflow as tf

    from facedancer.train.train import main as train

    if devices := os.environ.get("TINY_RUN_DEVICES"):  # of one processor, to try what is for several
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * int(devices))
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})  # a tenth of a process's time
    use_tiny_networks()
    gc.freeze()
    gc.enable()
    return train([*FLAGS, *argv])


if __name__ == "__main__":
    gc.disable()  # until all is imported, which stays: a quarter of the imports' time
    sys.exit(main(sys.argv[1:]))
