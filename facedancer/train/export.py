"""Exports to `<export_dir>/<log_name>/<family>_<step>` in all formats, with `card.json` next to them."""

import hashlib
from dataclasses import asdict
from pathlib import Path

import keras

from facedancer import arcface_model
from facedancer.core.card import ExportCard, write_card
from facedancer.core.console import say
from facedancer.core.files import atomic_path, only_writer
from facedancer.core.keras_h5 import save_keras_h5
from facedancer.models.families import DEFAULT_FAMILY, find_family
from facedancer.models.onnx_export import save_onnx
from facedancer.train.build import build_networks, load_shapes_encoder, network_shapes, takes_embedding
from facedancer.train.checkpoints import AVERAGE, Checkpoints
from facedancer.train.config import TrainConfig, check_types


def export(config, step, engine):
    """Exports a checkpoint's swapper, built according to the checkpoint's own configuration.

    Raises:
        UserError: if that step has no checkpoint, or another command is exporting to the same folder.
    """
    checkpoints = Checkpoints(config.folder("checkpoints"), family=config.family)
    _, trained = checkpoints.read_state(step)
    checkpoints.verify(step)
    # The original's checkpoints have no configuration, so the flags' is used.
    if trained:
        values = {name: value for name, value in trained.items() if value is not None}
        check_types(f"{checkpoints.folder}, checkpoint {step}", values, values.get("family", DEFAULT_FAMILY))
    trained = TrainConfig.from_json(trained) if trained else config
    keras.config.set_dtype_policy("float32")
    identity = arcface_model.IdentityEncoder(trained.arcface_path)
    shapes = network_shapes(trained, identity, load_shapes_encoder(trained))
    networks = build_networks(shapes, trained)
    networks.pop("discriminator", None)
    for name, network in networks.items():
        network.trainable = True
        kept = f"{name}{AVERAGE}"
        checkpoints.load_networks(step, {kept if checkpoints.has(step, kept) else name: network})
    folder = config.folder("exports")
    with only_writer(folder):
        paths = export_swapper(
            find_family(trained.family).build_swapper(networks),
            folder,
            family=trained.family,
            step=step,
            shrink_factor=min(trained.seen_factor, 1.0),
            identity_encoder=trained.arcface_path,
            network=asdict(shapes),
            decoders=() if takes_embedding(trained) else trained.network.people,
            training=trained.to_json(),
            licence="that of the training data and of the weights trained with; see NOTICE",
            onnx=engine.name == "tensorflow",
        )
    if engine.name != "tensorflow":
        say("no ONNX file: Keras writes it only with TensorFlow; export again there with --load")
    say(f"exported {', '.join(map(str, paths))}")


def export_swapper(
    swapper, folder, *, family, step, shrink_factor, identity_encoder, training, licence, network=None, onnx=True,
    decoders=(),
):  # fmt: skip
    """Writes a trained swapper in all formats.

    Args:
        swapper: model with input `target` (n, S, S, 3) in [-1, 1] and, unless it has decoders, `source_embedding`
            (n, dim) and, if it needs them, the coefficients of both faces.
        folder: output folder.
        family, step, shrink_factor, identity_encoder, training, licence, network: for the card (`ExportCard`).
        onnx: whether to write ONNX as well; Keras writes it only with TensorFlow.
        decoders: names of the swapper's outputs, if it has one decoder per person.

    Returns:
        List of the paths written: `.h5`, `.keras`, `.onnx`, and those of the family's own formats.
    """
    paths = [Path(folder) / f"{family}_{step}{ending}" for ending in (".h5", ".keras", ".onnx")]
    save_keras_h5(swapper, paths[0])
    with atomic_path(paths[1]) as temporary:
        swapper.save(temporary)
    if onnx:
        save_onnx(swapper, paths[2], decoders or ("swapped",))
    else:
        paths.pop()
    paths += find_family(family).save_published(swapper, Path(folder) / f"{family}_{step}")
    inputs = {tensor.name: tensor.shape for tensor in swapper.inputs}
    needs = "coefficients" if "source_coefficients" in inputs else "decoder" if decoders else "nothing"
    card = ExportCard(
        family=family,
        image_size=inputs["target"][1],
        embedding_dim=inputs.get("source_embedding", (None, None))[1],
        needs=needs,
        face_shapes=network["face_shapes"] if needs == "coefficients" else None,
        decoders=tuple(decoders),
        shrink_factor=shrink_factor,
        identity_encoder=identity_encoder,
        step=step,
        training=training,
        licence=licence,
        network=network or {},
        files={path.name: {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()} for path in paths},
    )
    write_card(folder, card)
    return paths
