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
        encoder: model of it, faces [-1, 1] -> {"embedding", tap: features}, in the run's precision.
        expression: model, faces [-1, 1] -> (batch, dim) expression embedding.
        face_shapes: `FaceShapes`, None where the family's networks take no coefficients.
    """

    identity: object
    encoder: keras.Model
    expression: keras.Model
    face_shapes: object = None


@dataclass
class Session:
    """What is trained, and with what.

    Attributes:
        trainer: `SwapTrainer`, compiled.
        networks: dictionary of what is kept in checkpoints: the trainer's networks and averages.
        optimizers: "generator", of all networks but the discriminator, and "discriminator" where there is one.
        swapper: the model that is validated and exported: of the averages where there are any.
        encoder, expression, face_shapes: frozen models for validation; the latter as `Frozen` has it.
    """

    trainer: SwapTrainer
    networks: dict
    optimizers: dict
    swapper: keras.Model
    encoder: keras.Model
    expression: keras.Model
    face_shapes: object

    def learning_rate(self, step):
        optimizer = self.optimizers["generator"]
        # From the step, not the optimizer's own count: JAX lends its variables to the step that runs.
        return float(getattr(optimizer, "inner_optimizer", optimizer)._learning_rate(step))


def build_session(config, engine, num_steps):
    """Builds networks, objective, trainer and optimizers as configured."""
    family = find_family(config.family)
    with engine.scope():
        identity = arcface_model.IdentityEncoder(config.arcface_path)
        encoder = identity.build_model(config.image_size, config.seen_factor)
        seen_by = encoder
        if config.precision == "bfloat16":  # float16 would overflow in it
            seen_by = identity.build_model(config.image_size, config.seen_factor, config.precision)
        expression = arcface_model.ExpressionEmbedder(config.eval_model_expface)
        expression = expression.build_model(config.image_size, config.seen_factor)
        face_shapes = build.load_shapes_encoder(config)
        networks = build.build_networks(build.network_shapes(config, identity, face_shapes), config)
        if config.finetune:
            people = () if build.takes_embedding(config) else config.network.people
            build.load_swapper_weights(config.finetune, config.family, family.build_swapper(networks), people)
        objective = find_objective(config.family).build(config, Frozen(identity, seen_by, expression, face_shapes))
        trainer = SwapTrainer(
            networks, objective, config.ema, config.accumulate, config.truth_lambda, config.change_lambda
        )
        roles = ["generator", *(["discriminator"] if "discriminator" in networks else [])]
        optimizers = {role: build.build_optimizer(config, num_steps) for role in roles}
        trainer.compile(*optimizers.values(), jit_compile=config.jit_compile or (engine.name == "jax"))
        swapper = family.build_swapper({**networks, **trainer.averages})
    averages = {f"{name}{AVERAGE}": average for name, average in trainer.averages.items()}
    return Session(trainer, {**networks, **averages}, optimizers, swapper, encoder, expression, face_shapes)
