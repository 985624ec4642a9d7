"""Reads FaceDancer's files: the original's `.h5` and checkpoints, and ours (`keras2` writes the original's).

Keras never deserializes a file. Its configuration is read as a graph, our own network is built with the shapes found in
it, and both graphs are compared layer by layer from the output backward: class, settings and connections. So each layer
of the file is matched with one of ours, whatever Keras named it, and its weights are assigned by name and shape.
Anything that does not fit, is missing or left over is an error that names it.
"""

import re
import struct
import zipfile
from collections import Counter
from pathlib import Path

from facedancer.core.console import UserError
from facedancer.core.hdf5 import read_hdf5
from facedancer.core.keras_h5 import KerasH5, assign_weights, read_keras_h5
from facedancer.core.schemas import MOST_BYTES, decode, read_json
from facedancer.core.weights_to_come import weights_to_come
from facedancer.models.facedancer import Config, build_discriminator, build_generator
from facedancer.models.graphs import WEIGHTS, graph_of, read_graph

# Files in a `.keras` archive.
_CONFIG, _ARRAYS = "config.json", "model.weights.h5"
# Stems of the numbered layer names in such a file.
_KERAS_3_STEMS = {
    "Conv2D": "conv2d",
    "Dense": "dense",
    "GroupNormalization": "group_normalization",
    "AdaIN": "ada_in",
}
# Upper bound of a configuration's weights, as a multiple of those in the file; it is 4 in the paper's network.
_MOST_GROWN = 16
_VARIABLES = {"kernel": "0", "bias": "1", "gamma": "0", "beta": "1"}


def load_generator(path, architecture=None):
    """Loads a generator, ours or the original's: inputs `target` and `source_embedding`.

    Args:
        path: a complete model (`.h5`, `.keras`) or weights only (`.h5`).
        architecture: for weights only, the file from `to_json()`; by default the one next to them, `gen.json` for
            `gen_30.h5`.

    Returns:
        The network of `facedancer.build_generator`.

    Raises:
        UserError: if the file is missing, damaged or does not fit.
    """
    return _load(Path(path), architecture, _infer_generator, build_generator)


def load_discriminator(path, architecture=None):
    """Loads a discriminator; arguments and errors as for `load_generator`."""
    return _load(Path(path), architecture, _infer_discriminator, build_discriminator)


@weights_to_come()
def _load(path, architecture, infer, build):
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if zipfile.is_zipfile(path):
        graph, stored = _read_keras_file(path)
        described = path
    else:
        stored = read_keras_h5(path)
        described = path if stored.config else Path(architecture or _architecture_beside(path))
        graph = read_graph(stored.config or _read_architecture(described), described)
    _check_widths(graph, stored)
    network, names = _rebuild(graph, described, infer, build)
    _take_weights(network, graph, names, stored)
    return network


def _read_keras_file(path):
    """Reads a Keras 3 `.keras` file, which numbers the layers of each class in order."""
    try:
        with zipfile.ZipFile(path) as archive:
            # Keras stores entries uncompressed; refusing others bounds what is read by the file's size.
            if any(archive.getinfo(name).compress_type != zipfile.ZIP_STORED for name in (_CONFIG, _ARRAYS)):
                raise UserError(f"{path}: refused, its entries are compressed, as Keras never does")
            with archive.open(_CONFIG) as file:
                content = file.read(MOST_BYTES + 1)
    except (zipfile.BadZipFile, OSError, EOFError, KeyError, ValueError, RuntimeError, struct.error) as error:
        raise UserError(f"{path}: not a complete .keras file ({error})") from None
    config = decode(content, dict, f"{path}: its {_CONFIG}")
    arrays = dict(read_hdf5(path, _ARRAYS).arrays)
    graph = read_graph(config, path)
    weights, counts = {}, Counter()
    for name, node in graph.nodes.items():
        if node.kind not in WEIGHTS:
            continue
        stem, number = _KERAS_3_STEMS[node.kind], counts[node.kind]
        counts[node.kind] += 1
        folder = f"layers/{stem}_{number}" if number else f"layers/{stem}"
        weights[name] = {}
        for leaf in WEIGHTS[node.kind][0]:
            parent, _, variable = leaf.rpartition("/")
            place = "/".join(filter(None, (folder, parent, "vars", _VARIABLES[variable])))
            if place not in arrays:
                raise UserError(f"{path}: lacks {place}, the {leaf} of layer {name}")
            weights[name][leaf] = arrays.pop(place)
    if arrays:
        raise UserError(f"{path}: has {min(arrays)}, which belongs to no layer")
    return graph, KerasH5(path, config, weights)


def _architecture_beside(path):
    return path.with_name(re.sub(r"_\d+$", "", path.stem) + ".json")


def _read_architecture(path):
    try:
        return read_json(path, dict)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; weights alone need the architecture's JSON next to them") from None


def _check_widths(graph, stored):
    """Refuses a configuration for a larger network than the file's arrays, before one is built from it."""
    widths = [1]
    for name, node in graph.nodes.items():
        if node.kind in WEIGHTS and not stored.weights.get(name):
            raise UserError(f"{stored.path}: lacks the weights of layer {name}")
        if node.kind in ("Conv2D", "Dense"):
            shape = next(iter(stored.weights[name].values())).shape
            widths.append(node.settings["filters" if node.kind == "Conv2D" else "units"])
            if shape[-1:] != (widths[-1],):
                raise UserError(f"{stored.path}: layer {name} has weights of shape {shape}, expected {widths[-1]} wide")
    held = sum(array.size for arrays in stored.weights.values() for array in arrays.values())
    # No layer has more weights than a 3×3 convolution between the two widest.
    if len(widths) * 9 * max(widths) ** 2 > _MOST_GROWN * held:
        raise UserError(f"{stored.path}: its configuration is for a larger network than its weights")


def _rebuild(graph, path, infer, build):
    """Builds our network for a file's graph; returns it and `{layer name in the file: our layer's name}`."""
    try:
        config = infer(graph)
        network = build(config)
    except (UserError, KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: not the graph of a FaceDancer network ({str(error).splitlines()[0]})") from None
    return network, _match(graph, graph_of(network), path)


def _infer_generator(graph):
    """Infers the `Config` of a generator; comparing the graphs later shows whether it is right."""
    faces, embeddings = _input_shapes(graph)
    adains = graph.of_kind("AdaIN")
    if not (len(faces) == len(embeddings) == 1 and adains):
        raise UserError("a generator has a target, an embedding and AdaIN layers")
    dense = graph.of_kind("Dense")
    widths = _encoder_widths(graph)
    decoding, blocks = _decoder_blocks(graph, adains)
    return Config(
        image_size=_length(faces[0][1], 8192),
        embedding_dim=_length(embeddings[0][1], 65_536),
        mapping_depth=len(dense),
        mapping_size=dense[0].settings["units"] if dense else Config.mapping_size,
        widths=widths,
        up_types=tuple(_up_type(graph, adain) for adain in decoding[1:]),
        discriminator_widths=widths[:1],
        half_stem=bool(graph.of_kind("DepthToSpace")),
        identity_blocks=blocks,
        adain_base=adains[0].settings["base"],
    )


def _infer_discriminator(graph):
    faces, embeddings = _input_shapes(graph)
    if len(faces) != 1 or embeddings or graph.of_kind("AdaIN") or not graph.of_kind("AveragePooling2D"):
        raise UserError("a discriminator has one image and no AdaIN layers")
    widths = _encoder_widths(graph)
    return Config(
        image_size=_length(faces[0][1], 8192),
        widths=widths,
        up_types=("no_skip",) * len(widths),
        discriminator_widths=widths,
    )


def _input_shapes(graph):
    shapes = [node.settings["batch_shape"] for node in graph.of_kind("InputLayer")]
    return [shape for shape in shapes if len(shape) == 4], [shape for shape in shapes if len(shape) == 2]


def _length(value, most):
    if type(value) is not int or not 1 <= value <= most:
        raise UserError(f"an input of length {value}")
    return value


def _encoder_widths(graph):
    """Returns the channels of the first convolution and of each 3×3 one before a pooling, in file order: by depth."""
    pooled = [graph.input_nodes(node)[0] for node in graph.of_kind("AveragePooling2D")]
    convolutions = graph.of_kind("Conv2D")[:1] + [node for node in pooled if node.settings["kernel_size"] == [3, 3]]
    return tuple(node.settings["filters"] for node in convolutions)


def _decoder_blocks(graph, adains):
    """Returns the AdaINs that begin decoder blocks, and the number of identity blocks after each, in file order.

    An identity block has two AdaINs; the normalization before the second one follows a convolution.
    """
    decoding, blocks = [], []
    for adain in adains:
        if graph.input_nodes(graph.input_nodes(adain)[0])[0].kind == "Conv2D":
            decoding.pop()
            blocks.pop()
            blocks[-1] += 1
        else:
            decoding.append(adain)
            blocks.append(0)
    while blocks and not blocks[-1]:
        blocks.pop()
    return decoding, tuple(blocks)


def _up_type(graph, adain):
    """Returns the kind of fusion before a decoder block's normalization."""
    norm = graph.input_nodes(adain)[0]
    fused = graph.input_nodes(norm)[0]
    inputs = graph.input_nodes(fused)
    if fused.kind == "AttentionFusion":
        if inputs[0].kind == "Multiply":
            return "do_affa"
        return "d_affa" if inputs[2].kind == "AttentionFusion" else "affa"
    if fused.kind == "Concatenate":
        return "concat"
    # Without fusion, this sum ends the previous block: of convolutions, resampled or not, or an identity block.
    ends_block = inputs[0].kind == "Conv2D" and graph.input_nodes(inputs[0])[0].kind == "LeakyReLU"
    return "no_skip" if ends_block or {node.kind for node in inputs} == {"UpSampling2D"} else "add"


def _match(graph, ours, path):
    """Compares the file's graph with ours from the output backward.

    Returns:
        `{layer name in the file: our layer's name}`.
    """
    names, pending = {}, [(graph.output, ours.output)]
    while pending:
        name, our_name = pending.pop()
        if name in names:
            if names[name] != our_name:
                raise UserError(f"{path}: layer {name} is connected differently than in FaceDancer's networks")
            continue
        node, expected = graph.nodes[name], ours.nodes[our_name]
        if (node.kind, len(node.inputs)) != (expected.kind, len(expected.inputs)):
            found, wanted = (f"{x.kind} of {len(x.inputs)} inputs" for x in (node, expected))
            raise UserError(f"{path}: layer {name} is {found}, expected {wanted}")
        for key, value in expected.settings.items():
            if node.settings[key] != value:
                raise UserError(f"{path}: layer {name} has {key} {node.settings[key]}, expected {value}")
        names[name] = our_name
        pending.extend(zip(node.inputs, expected.inputs, strict=True))
    if left_over := graph.nodes.keys() - names.keys():
        raise UserError(f"{path}: layer {min(left_over)} is left over; FaceDancer's networks have no such layer")
    return names


def _take_weights(network, graph, names, stored):
    """Assigns each layer its weights from the file, by name and shape."""
    wanted = {name for name in names if network.get_layer(names[name]).weights}
    if missing := wanted - stored.weights.keys():
        raise UserError(f"{stored.path}: lacks the weights of layer {min(missing)}")
    if left_over := stored.weights.keys() - wanted:
        raise UserError(f"{stored.path}: has weights of an unknown layer {min(left_over)}")
    for name in wanted:
        arrays = stored.weights[name]
        found = tuple(weight.removesuffix(":0").removeprefix(f"{name}/") for weight in arrays)
        known = WEIGHTS[graph.nodes[name].kind]
        if found not in known:
            expected = ", ".join(known[-1])
            raise UserError(f"{stored.path}: layer {name} has the weights {', '.join(found)}; expected {expected}")
        assign_weights(network.get_layer(names[name]), arrays.values(), stored.path, name)
