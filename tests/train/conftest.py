"""Fixtures of the trainer's tests."""

import keras
import numpy as np
import pytest
from tiny_networks import CONFIG, build_encoder, build_perceptual

from facedancer.dataset.pairing import UNCHANGED, UNCHANGED_VIEW
from facedancer.models.facedancer import build_networks
from facedancer.train.objectives.facedancer import FaceDancerObjective, Weights
from facedancer.train.trainer import SwapTrainer


@pytest.fixture
def quick_graphs():
    """Leaves out Grappler, which takes a third of the time in which a graph's first step is ready.

    The runs of the command itself, in this process and in others, have it.
    """
    import tensorflow as tf

    before = tf.config.optimizer.get_experimental_options()
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    yield
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False, **before})


@pytest.fixture
def make_trainer(quick_graphs):
    """Function that builds a compiled trainer, always the same one; eager, as most tests take few steps."""

    def make(
        learning_rate=1e-3, run_eagerly=True, ema=0.0, microbatches=1, optimizer=None, change_lambda=6.0,
        jit_compile=False, truth_lambda=0.0, motion=None, **weights,
    ):  # fmt: skip
        keras.utils.set_random_seed(7)
        objective = FaceDancerObjective(
            build_encoder(),
            build_perceptual(),
            0.85,
            {"tap": 0.05},
            Weights(**{"own_lambda": 1.0, "r1_every": 1, **weights}),
            change_lambda,
            motion,
            has_fixed_shapes=jit_compile,
        )
        trainer = SwapTrainer(build_networks(CONFIG), objective, ema, microbatches, truth_lambda, change_lambda)
        optimizer = optimizer or (lambda: keras.optimizers.Adam(learning_rate, beta_1=0.0, beta_2=0.99))
        trainer.compile(optimizer(), optimizer(), jit_compile=False, run_eagerly=run_eagerly)
        return trainer

    return make


@pytest.fixture
def batch():
    """Four pairs, the first of one identity."""
    rng = np.random.default_rng(3)
    coarse = rng.integers(25, 230, (2, 4, 4, 4, 3), dtype=np.uint8).repeat(8, 2).repeat(8, 3)
    coarse[1, 0] = coarse[0, 0]
    return {
        "target": coarse[0],
        "source": coarse[1],
        "is_same": np.array([1, 0, 0, 0], np.float32),
        "truth": np.zeros_like(coarse[0]),
        "has_truth": np.zeros(4, np.float32),
        "mask": np.full((4, 32, 32, 1), 255, np.uint8),
        "colors": np.tile(np.float32(UNCHANGED), (4, 2, 1)),
        "views": np.tile(np.float32(UNCHANGED_VIEW), (4, 1)),
    }


@pytest.fixture
def stream(batch):
    """The same batch for ever, as a dataset."""
    import tensorflow as tf

    return tf.data.Dataset.from_tensors(batch).repeat()
