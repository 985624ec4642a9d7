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
        shapes: the `Config` from `network_shapes`.
        config: `TrainConfig`.

    Returns:
        Name -> model, with `discriminator` if the losses need one.

    Raises:
        UserError: if `--freeze` names no layer, or leaves none to train.
    """
    networks = find_family(config.family).build_networks(shapes)
    if not config.weights.is_adversarial:
        networks.pop("discriminator", None)
    freeze([network for name, network in networks.items() if name != "discriminator"], config.freeze or ())
    return networks


def network_shapes(config, identity_encoder, face_shapes=None):
    """Returns the family's `Config` with the output dimensions of the run's encoders.

    Args:
        config: `TrainConfig`.
        identity_encoder: `IdentityEncoder`.
        face_shapes: `FaceShapes` from `load_shapes_encoder`, or None.

    Raises:
        UserError: if `--z_id_size` is not the length of the encoder's embeddings.
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
    """Loads the `FaceShapes` encoder that a run's networks need; None if they need none."""
    name = getattr(config.network, "face_shapes", None)
    return name and face_shapes.load_face_shapes(name, config.image_size, min(config.seen_factor, 1.0))


def takes_embedding(config):
    """Whether a run's swapper takes an identity embedding; others have one decoder per person."""
    return "people" not in config.weights.needs


def freeze(networks, beginnings):
    """Freezes the layers whose names begin with one of `beginnings`.

    Raises:
        UserError: if one of them matches no layer, or no layer is left to train.
    """
    if not beginnings:
        return
    all_layers = [layer for network in networks for layer in network.layers if layer.weights]
    for beginning in beginnings:
        layers = [layer for layer in all_layers if layer.name.startswith(beginning)]
        if not layers:
            stems = sorted({layer.name.split("_")[0] for layer in all_layers})
            raise UserError(
                f"--freeze {beginning}: no layer's name begins with that; they begin with {', '.join(stems)}"
            )
        for layer in layers:
            layer.trainable = False
    if not any(network.trainable_variables for network in networks):
        raise UserError("--freeze leaves nothing to train")


def load_swapper_weights(path, family, swapper, people=()):
    """Loads weights from a file into a swapper, and so into the networks that it consists of.

    In a swapper with one decoder per person, decoders of people not in the file keep their initial weights.

    Args:
        path: an export, or a file published by the family's authors.
        family: name of the family.
        swapper: model from the family's `build_swapper`.
        people: names of its decoders, if it has any.

    Raises:
        UserError: if the file is missing, or holds another network.
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
    """Loads into a swapper with decoders the file's shared layers, and the decoders of people that both have."""
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
    """Returns Adam; with float16 it scales the loss, so that small gradients do not underflow."""
    adam = keras.optimizers.Adam(build_schedule(config, num_steps), beta_1=config.beta_1, beta_2=config.beta_2)
    return keras.optimizers.LossScaleOptimizer(adam) if config.precision == "float16" else adam
