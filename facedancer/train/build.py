"""From a configuration to what is trained: networks, objective, optimizers."""

import json
from dataclasses import replace
from pathlib import Path

import keras

from facedancer.arcface_model.perceptual import build_perceptual_network
from facedancer.core.console import UserError
from facedancer.models import facedancer as family
from facedancer.models import published
from facedancer.train.objectives import facedancer as objectives
from facedancer.train.schedules import build_schedule


def with_network_shape(config):
    """Fills in what the flags leave to the preset's networks (`models.facedancer.PRESETS`)."""
    shape = family.PRESETS[config.preset]
    names = ("image_size", "mapping_depth", "mapping_size", "up_types")
    return replace(config, **{name: getattr(shape, name) for name in names if getattr(config, name) is None})


def build_networks(config, identity_encoder):
    """Builds the generator for an identity encoder's embeddings, frozen as configured, and a discriminator if asked."""
    if config.z_id_size not in (None, identity_encoder.dim):
        raise UserError(
            f"--z_id_size {config.z_id_size}, but {config.arcface_path} gives embeddings of {identity_encoder.dim}"
        )
    networks = family.build_networks(
        replace(
            family.PRESETS[config.preset],
            image_size=config.image_size,
            embedding_dim=identity_encoder.dim,
            mapping_depth=config.mapping_depth,
            mapping_size=config.mapping_size,
            up_types=config.up_types,
        )
    )
    if not config.a_lambda:
        del networks["discriminator"]
    freeze(networks["generator"], config.freeze or ())
    return networks


def freeze(network, beginnings):
    """Freezes the layers whose names begin with one of some words.

    Raises:
        UserError: if no layer does, or none is left to train.
    """
    for beginning in beginnings:
        layers = [layer for layer in network.layers if layer.name.startswith(beginning) and layer.weights]
        if not layers:
            stems = sorted({layer.name.split("_")[0] for layer in network.layers if layer.weights})
            raise UserError(f"--freeze {beginning}: no layer's name begins so; they begin with {', '.join(stems)}")
        for layer in layers:
            layer.trainable = False
    if not network.trainable_variables:
        raise UserError("--freeze leaves nothing to train")


def load_generator_weights(path, generator):
    """Gives the generator the weights of an exported model, ours or the original's.

    Raises:
        UserError: if it is not there, or another network.
    """
    found = published.load_generator(path)
    shapes = [[tuple(variable.shape) for variable in network.weights] for network in (found, generator)]
    if shapes[0] != shapes[1]:
        sides = [f"{n.input_shape[0][1]} pixels, {n.count_params():,} parameters" for n in (found, generator)]
        raise UserError(f"--finetune {path}: another network ({sides[0]}) than this run's ({sides[1]})")
    generator.set_weights(found.get_weights())


def build_objective(config, encoder, ifsr_margins):
    """Builds the objective: losses, and the frozen networks that they look through.

    Args:
        encoder: frozen model of identity, faces [-1, 1] -> {"embedding", tap: features}.
        ifsr_margins: tap -> margin, the encoder's own.
    """
    blocks = config.ifsr_blocks or tuple(ifsr_margins)
    if unknown := [name for name in blocks if name not in encoder.output]:
        raise UserError(
            f"--ifsr_blocks: {unknown[0]} is no tap of {config.arcface_path}; it has {', '.join(ifsr_margins)}"
        )
    margins = config.ifsr_margin or tuple(ifsr_margins[name] for name in blocks)
    if len(margins) != len(blocks):
        raise UserError(f"{len(margins)} --ifsr_margin for {len(blocks)} taps")

    perceptual = build_perceptual_network(config.perceptual_network, config.image_size)
    if config.p_blocks:
        levels = len(perceptual.outputs)
        if not all(1 <= level <= levels for level in config.p_blocks):
            raise UserError(f"--p_blocks are numbers from 1 to {levels}, not {' '.join(map(str, config.p_blocks))}")
        perceptual = keras.Model(perceptual.input, [perceptual.outputs[level - 1] for level in config.p_blocks])
        perceptual.trainable = False
    return objectives.FaceDancerObjective(
        encoder,
        perceptual,
        objectives.PERCEPTUAL_SCALES[config.perceptual_network],
        dict(zip(blocks, margins, strict=True)),
        config,
    )


def read_margins(path, encoder, taps):
    """Reads margins of IFSR that `facedancer ifsr_calibrate` wrote.

    Args:
        path: the JSON file.
        encoder: name of the encoder that they must be of.
        taps: its taps.

    Returns:
        Tap -> margin, in the order of `taps`.

    Raises:
        UserError: if the file is none, or of another encoder.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        version, name, margins = found["version"], found["encoder"], found["margins"]
        whole = version == 1 and margins.keys() == set(taps) and all(0.0 <= float(x) <= 2.0 for x in margins.values())
    except FileNotFoundError:
        raise UserError(f"--ifsr_margins {path} is not there; make it with `facedancer ifsr_calibrate`") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"--ifsr_margins {path}: not what `facedancer ifsr_calibrate` writes") from None
    if name != encoder:
        raise UserError(f"--ifsr_margins {path}: of {name}, but the run's identity encoder is {encoder}")
    if not whole:
        raise UserError(f"--ifsr_margins {path}: not the margins of this version's {encoder}; make them again")
    return {tap: float(margins[tap]) for tap in taps}


def build_optimizer(config, num_steps):
    """Adam; under float16 one that scales its loss, so that small gradients are not rounded to zero."""
    adam = keras.optimizers.Adam(build_schedule(config, num_steps), beta_1=config.beta_1, beta_2=0.99)
    return keras.optimizers.LossScaleOptimizer(adam) if config.precision == "float16" else adam
