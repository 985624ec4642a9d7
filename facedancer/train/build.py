"""Builds networks and optimizers from a configuration."""

from dataclasses import replace

import keras

from facedancer.arcface_model import face_shapes
from facedancer.core.console import UserError
from facedancer.models.families import decoders_of, find_family
from facedancer.train.schedules import build_schedule


def build_networks(shapes, config):
    """Builds a family's networks, frozen as configured.

    Args:
        shapes: what `network_shapes` returned.
        config: `TrainConfig`.

    Returns:
        Name -> model; `discriminator` among them if asked for.
    """
    networks = find_family(config.family).build_networks(shapes)
    if not config.weights.is_adversarial:
        networks.pop("discriminator", None)
    freeze([network for name, network in networks.items() if name != "discriminator"], config.freeze or ())
    return networks


def network_shapes(config, identity_encoder, face_shapes=None):
    """Returns the family's `Config` with the dimensions of what the run's encoders give.

    Args:
        config: `TrainConfig`.
        identity_encoder: `IdentityEncoder`.
        face_shapes: what `load_shapes_encoder` returned.

    Raises:
        UserError: if embeddings have another length than was asked for.
    """
    if not takes_embedding(config):
        return config.network
    if config.z_id_size not in (None, identity_encoder.dim):
        raise UserError(
            f"--z_id_size {config.z_id_size}, but {config.arcface_path} gives embeddings of {identity_encoder.dim}"
        )
    dims = {"embedding_dim": identity_encoder.dim}
    if face_shapes is not None:
        dims |= {"coefficients_dim": face_shapes.dim, "shape_dim": face_shapes.shape_dim}
    return replace(config.network, **dims)


def load_shapes_encoder(config):
    """Loads the encoder of face shapes that a run's networks need; None where they need none."""
    name = getattr(config.network, "face_shapes", None)
    return name and face_shapes.load_face_shapes(name, config.image_size, min(config.seen_factor, 1.0))


def takes_embedding(config):
    """Returns whether a run's swapper takes an identity embedding; others show people by a decoder for each."""
    return "people" not in config.weights.needs


def freeze(networks, beginnings):
    """Freezes the layers of networks whose names begin with one of some words.

    Raises:
        UserError: if no layer does, or none is left to train.
    """
    if not beginnings:
        return
    all_layers = [layer for network in networks for layer in network.layers if layer.weights]
    for beginning in beginnings:
        layers = [layer for layer in all_layers if layer.name.startswith(beginning)]
        if not layers:
            stems = sorted({layer.name.split("_")[0] for layer in all_layers})
            raise UserError(f"--freeze {beginning}: no layer's name begins so; they begin with {', '.join(stems)}")
        for layer in layers:
            layer.trainable = False
    if not any(network.trainable_variables for network in networks):
        raise UserError("--freeze leaves nothing to train")


def load_swapper_weights(path, family, swapper, people=()):
    """Gives a swapper, and so the networks that it is made of, the weights of a file.

    Of a swapper with a decoder for each person, those who are not in the file begin anew.

    Args:
        path: an export, or a file as the family's authors publish it.
        family: its name.
        swapper: what the family's `build_swapper` returned.
        people: names of its decoders, where it has some.

    Raises:
        UserError: if it is not there, or another network.
    """
    found = find_family(family).read_published(path)
    if decoders := decoders_of(path):
        _load_people(path, found, decoders, swapper, people)
        return
    shapes = [[tuple(variable.shape) for variable in network.weights] for network in (found, swapper)]
    # Weights of the same shapes may belong to a network with another activation or range.
    kinds = [[type(layer).__name__ for layer in network.layers] for network in (found, swapper)]
    if shapes[0] == shapes[1] and kinds[0] != kinds[1]:
        only = sorted(set(kinds[0]) ^ set(kinds[1])) or ["others"]
        raise UserError(f"--finetune {path}: a network of other layers than this run's ({', '.join(only)})")
    if shapes[0] != shapes[1]:
        sides = [f"{n.input_shape[0][1]} pixels, {n.count_params():,} parameters" for n in (found, swapper)]
        raise UserError(f"--finetune {path}: another network ({sides[0]}) than this run's ({sides[1]})")
    swapper.set_weights(found.get_weights())


def _load_people(path, found, decoders, swapper, people):
    """Gives a swapper with decoders the layers of a file that all share, and the decoders of who is in both."""
    layers = {layer.name: layer for layer in found.layers if layer.weights}
    numbers = {f"decoder{number}_": name for number, name in enumerate(people)}
    for layer in swapper.layers:
        if not layer.weights:
            continue
        beginning = layer.name.split("_")[0] + "_"
        name = layer.name
        if beginning in numbers:
            if numbers[beginning] not in decoders:
                continue
            name = name.replace(beginning, f"decoder{decoders.index(numbers[beginning])}_", 1)
        shapes = [[tuple(weight.shape) for weight in one.weights] for one in (layers.get(name, layer), layer)]
        if name not in layers or shapes[0] != shapes[1]:
            raise UserError(f"--finetune {path}: another network than this run's, its {name} differs")
        layer.set_weights(layers[name].get_weights())


def build_optimizer(config, num_steps):
    """Adam; under float16 one that scales its loss, so that small gradients are not rounded to zero."""
    adam = keras.optimizers.Adam(build_schedule(config, num_steps), beta_1=config.beta_1, beta_2=config.beta_2)
    return keras.optimizers.LossScaleOptimizer(adam) if config.precision == "float16" else adam
