"""The training session: the networks, the objective and the frozen networks of a run."""

from dataclasses import dataclass

import keras

from facedancer import arcface_model
from facedancer.models.families import find_family
from facedancer.train import build
from facedancer.train.checkpoints import AVERAGE
from facedancer.train.objectives import find_objective
from facedancer.train.trainer import SwapTrainer


@dataclass(frozen=True)
class Frozen:
    """The frozen networks that any objective may use.

    Attributes:
        identity: `IdentityEncoder`.
        encoder: its model, faces (batch, S, S, 3) in [-1, 1] -> {"embedding", tap: features}, in the run's precision.
        face_shapes: `FaceShapes`; None if the family's networks take no coefficients.
    """

    identity: object
    encoder: keras.Model
    face_shapes: object = None


@dataclass
class Session:
    """The networks being trained, and everything needed to train, validate and save them.

    Attributes:
        trainer: `SwapTrainer`, compiled.
        networks: name -> model of everything in checkpoints: the trainer's networks and their moving averages.
        optimizers: "generator", for all networks but the discriminator, and "discriminator" if there is one.
        swapper: the model that is validated and exported, made of the averages if there are any.
        encoder, face_shapes: frozen models for validation, as in `Frozen`; the encoder in float32.
        expression: frozen model for validation, faces (batch, S, S, 3) in [-1, 1] -> (batch, dim) embeddings.
    """

    trainer: SwapTrainer
    networks: dict
    optimizers: dict
    swapper: keras.Model
    encoder: keras.Model
    expression: keras.Model
    face_shapes: object

    def learning_rate(self, step):
        """Returns the learning rate of the generator's optimizer at a step."""
        optimizer = self.optimizers["generator"]
        # Computed from the step, not the optimizer's own count, whose variables JAX holds during a step.
        return float(getattr(optimizer, "inner_optimizer", optimizer)._learning_rate(step))


def build_session(config, engine, num_steps):
    """Builds networks, objective, trainer and optimizers as configured.

    Raises:
        UserError: if weights are missing, or flags do not fit the networks.
    """
    family = find_family(config.family)
    with engine.scope():
        identity = arcface_model.IdentityEncoder(config.arcface_path)
        encoder = identity.build_model(config.image_size, config.seen_factor)
        seen_by = encoder
        if config.precision == "bfloat16":  # its activations overflow float16
            seen_by = identity.build_model(config.image_size, config.seen_factor, config.precision)
        expression = arcface_model.ExpressionEmbedder(config.eval_model_expface)
        expression = expression.build_model(config.image_size, config.seen_factor)
        face_shapes = build.load_shapes_encoder(config)
        networks = build.build_networks(build.network_shapes(config, identity, face_shapes), config)
        if config.finetune:
            people = () if build.takes_embedding(config) else config.network.people
            build.load_swapper_weights(config.finetune, config.family, family.build_swapper(networks), people)
        objective = find_objective(config.family).build(config, Frozen(identity, seen_by, face_shapes))
        trainer = SwapTrainer(
            networks, objective, config.ema, config.accumulate, config.truth_lambda, config.change_lambda
        )
        roles = ["generator", *(["discriminator"] if "discriminator" in networks else [])]
        optimizers = {role: build.build_optimizer(config, num_steps) for role in roles}
        trainer.compile(*optimizers.values(), jit_compile=config.jit_compile or (engine.name == "jax"))
        swapper = family.build_swapper({**networks, **trainer.averages})
    averages = {f"{name}{AVERAGE}": average for name, average in trainer.averages.items()}
    return Session(trainer, {**networks, **averages}, optimizers, swapper, encoder, expression, face_shapes)
