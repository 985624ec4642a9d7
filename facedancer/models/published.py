"""FaceDancer's files: the original's `.h5` and checkpoints, and ours, read and written.

A file is never handed to Keras to be run. Its configuration is read as a graph, the shapes of the networks are taken
from it, our own graph is built, and both are compared layer by layer from the output back: class, settings and
connections. So every layer of the file has its counterpart in ours, whatever Keras named it, and its weights are taken
by name and shape. What does not fit, is missing or left over is an error that names it.
"""

import io
import json
import re
import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from facedancer.core.console import UserError
from facedancer.core.files import atomic_path
from facedancer.core.keras_h5 import KerasH5, assign_weights, read_keras_h5
from facedancer.models.facedancer import FaceDancerConfig, build_discriminator, build_generator

# Classes in files, the original's under the names of Keras 2.8 to 2.15, and what they are with us.
_CLASSES = {
    "Addons>InstanceNormalization": "GroupNormalization",
    "InstanceNormalization": "GroupNormalization",
    "AdaptiveAttention": "AttentionFusion",
    "facedancer>AttentionFusion": "AttentionFusion",
    "facedancer>AdaIN": "AdaIN",
}

# What decides a layer's result, by the names of Keras 3.
_SETTINGS = {
    "InputLayer": ("batch_shape",),
    "Conv2D": (
        *("filters", "kernel_size", "strides", "padding", "data_format", "dilation_rate", "groups"),
        *("activation", "use_bias"),
    ),
    "Dense": ("units", "activation", "use_bias"),
    "GroupNormalization": ("groups", "axis", "epsilon", "center", "scale"),
    "LeakyReLU": ("negative_slope",),
    "AveragePooling2D": ("pool_size", "padding", "strides", "data_format"),
    "UpSampling2D": ("size", "data_format", "interpolation"),
    "Concatenate": ("axis",),
    "Reshape": ("target_shape",),
    "Add": (),
    "Multiply": (),
    "AdaIN": (),
    "AttentionFusion": (),
}
_KERAS_2_SETTINGS = {"batch_shape": "batch_input_shape", "negative_slope": "alpha"}

_WEIGHTS = {
    "Conv2D": [("kernel", "bias")],
    "Dense": [("kernel", "bias")],
    "GroupNormalization": [("gamma", "beta")],
    "AdaIN": [
        ("scale/kernel", "scale/bias", "offset/kernel", "offset/bias"),
        ("dense/kernel", "dense/bias", "dense_1/kernel", "dense_1/bias"),
    ],
}

# How a `.keras` file numbers them.
_KERAS_3_STEMS = {
    "Conv2D": "conv2d",
    "Dense": "dense",
    "GroupNormalization": "group_normalization",
    "AdaIN": "ada_in",
}
_VARIABLES = {"kernel": "0", "bias": "1", "gamma": "0", "beta": "1"}


@dataclass
class _Node:
    """A layer in a graph: its class and settings as ours, and the names of the layers that it is called on."""

    kind: str
    settings: dict
    inputs: list[str]


@dataclass
class _Graph:
    nodes: dict[str, _Node]
    inputs: list[str]
    output: str

    def of_kind(self, kind):
        return [node for node in self.nodes.values() if node.kind == kind]

    def input_nodes(self, node):
        return [self.nodes[name] for name in node.inputs]


def load_swapper(path):
    """Loads a swap network for inference or further training.

    Args:
        path: an export of ours (`.h5`, `.keras`), a published FaceDancer `.h5`, or the weights of a checkpoint
            (`gen_30.h5`) with the architecture beside them (`gen.json`).

    Returns:
        Keras model with inputs `target` (n, S, S, 3) in [-1, 1] and `source_embedding` (n, dim), output swapped.

    Raises:
        UserError: if the file is no whole FaceDancer generator.
    """
    return load_generator(path)


def load_generator(path, architecture=None):
    """Loads a generator, ours or the original's.

    Args:
        path: a whole model (`.h5`, `.keras`) or weights alone (`.h5`).
        architecture: for weights alone, the file from `to_json()`; by default the one beside them, `gen.json` for
            `gen_30.h5`.

    Returns:
        The network of `facedancer.build_generator`.

    Raises:
        UserError: in one line, what does not fit.
    """
    return _load(Path(path), architecture, _infer_generator, build_generator)


def load_discriminator(path, architecture=None):
    """Loads a discriminator, as `load_generator` does a generator."""
    return _load(Path(path), architecture, _infer_discriminator, build_discriminator)


def save_keras2_h5(model, path):
    """Writes a generator or discriminator as the original code does: a Keras 2.15 `.h5`.

    The original loads it with `load_model(path, custom_objects={"AdaIN": …, "AdaptiveAttention": …,
    "InstanceNormalization": …})`. Layers have the names that Keras 2 gave them.
    """
    graph = _graph_of(model)
    names = _keras2_names(graph)
    config = _keras2_config(graph, names)
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["keras_version"] = _KERAS_2
        file.attrs["backend"] = "tensorflow"
        file.attrs["model_config"] = json.dumps(config).encode()
        group = file.create_group("model_weights")
        group.attrs["keras_version"] = _KERAS_2
        group.attrs["backend"] = "tensorflow"
        group.attrs["layer_names"] = [names[layer.name].encode() for layer in model.layers]
        group.create_group("top_level_model_weights").attrs["weight_names"] = []
        for layer in model.layers:
            name = names[layer.name]
            stored = group.create_group(name)
            leaves = _WEIGHTS[type(layer).__name__][-1] if layer.weights else ()
            stored.attrs["weight_names"] = [f"{name}/{leaf}:0".encode() for leaf in leaves]
            for leaf, array in zip(leaves, layer.get_weights(), strict=True):
                stored[f"{name}/{leaf}:0"] = array


# Reading


def _load(path, architecture, infer, build):
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if zipfile.is_zipfile(path):
        graph, stored = _read_keras_file(path)
        described = path
    else:
        stored = read_keras_h5(path)
        described = path if stored.config else Path(architecture or _architecture_beside(path))
        graph = _read_graph(stored.config or _read_json(described), described)
    network, names = _rebuild(graph, described, infer, build)
    _take_weights(network, graph, names, stored)
    return network


def _read_keras_file(path):
    """Reads Keras 3's own `.keras`, which numbers the weights of the layers of a class in the order of the layers."""
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
            content = archive.read("model.weights.h5")
        arrays = {}
        with h5py.File(io.BytesIO(content)) as file:
            file.visititems(
                lambda name, item: arrays.update({name: item[()]} if isinstance(item, h5py.Dataset) else {})
            )
    except (zipfile.BadZipFile, zlib.error, OSError, KeyError, ValueError, RuntimeError) as error:
        raise UserError(f"{path}: not a whole .keras file ({error})") from None
    graph = _read_graph(config, path)
    weights, counts = {}, Counter()
    for name, node in graph.nodes.items():
        if node.kind not in _WEIGHTS:
            continue
        stem, number = _KERAS_3_STEMS[node.kind], counts[node.kind]
        counts[node.kind] += 1
        folder = f"layers/{stem}_{number}" if number else f"layers/{stem}"
        weights[name] = {}
        for leaf in _WEIGHTS[node.kind][0]:
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


def _read_json(path):
    if not path.is_file():
        raise UserError(f"{path}: no such file; weights alone need the architecture's JSON beside them")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise UserError(f"{path}: not the JSON of a model's architecture") from None


def _read_graph(config, path):
    """Reads the configuration of a functional model, as Keras 2 or 3 writes it."""
    try:
        if config["class_name"] not in ("Functional", "Model"):
            raise UserError(f"{path}: a {config['class_name']} model, not FaceDancer's")
        config = config["config"]
        nodes = {layer["name"]: _read_node(layer, path) for layer in config["layers"]}
        inputs, outputs = _end_names(config["input_layers"]), _end_names(config["output_layers"])
        if len(outputs) != 1 or not set(inputs + outputs) <= nodes.keys():
            raise UserError(f"{path}: a model with outputs {outputs}, not FaceDancer's")
        if missing := {name for node in nodes.values() for name in node.inputs} - nodes.keys():
            raise UserError(f"{path}: its configuration lacks layer {min(missing)}")
        return _Graph(nodes, inputs, outputs[0])
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise UserError(f"{path}: its model configuration is damaged ({type(error).__name__}: {error})") from None


def _read_node(layer, path):
    name, config = layer["name"], layer["config"]
    kind = _CLASSES.get(layer["class_name"], layer["class_name"])
    if kind == "TFOpLambda" and config["function"] == "math.multiply":
        kind = "Multiply"
    if kind not in _SETTINGS:
        raise UserError(f"{path}: layer {name} is a {kind}, which FaceDancer's networks do not have")
    if len(layer["inbound_nodes"]) > 1:
        raise UserError(f"{path}: layer {name} is used more than once, which FaceDancer's networks do not do")
    settings = {}
    for key in _SETTINGS[kind]:
        value = config[key] if key in config else config[_KERAS_2_SETTINGS.get(key, key)]
        settings[key] = round(value, 6) if isinstance(value, float) else _listed(value)
    return _Node(kind, settings, _tensor_names(layer["inbound_nodes"]))


def _listed(value):
    return list(value) if isinstance(value, tuple) else value


def _tensor_names(value):
    """Names of the layers whose outputs a layer is called on, in order, however they are nested.

    Keras 2 writes a tensor as `[layer, 0, 0, …]`, Keras 3 as a dictionary with `keras_history`; keyword arguments are
    tensors as well (`tf.multiply(x, y=…)`).
    """
    if isinstance(value, dict):
        if "keras_history" in value:
            return [value["keras_history"][0]]
        return [name for item in value.values() for name in _tensor_names(item)]
    if isinstance(value, list | tuple):
        own = [value[0]] if len(value) > 2 and isinstance(value[0], str) else []
        return own + [name for item in value for name in _tensor_names(item)]
    return []


def _end_names(ends):
    """Names of a model's input or output layers: Keras 3 writes a single one without the outer list."""
    return [ends[0]] if isinstance(ends[0], str) else [end[0] for end in ends]


def _rebuild(graph, path, infer, build):
    """Builds our network for a file's graph; returns it with our layer's name for every name in the file."""
    try:
        config = infer(graph)
        network = build(config)
    except (UserError, KeyError, IndexError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not the graph of a FaceDancer network ({str(error).splitlines()[0]})") from None
    return network, _match(graph, _graph_of(network), path)


def _graph_of(model):
    return _read_graph({"class_name": "Functional", "config": model.get_config()}, model.name)


def _infer_generator(graph):
    """Reads off the arguments of `build_generator`; whether they are right is seen when the graphs are compared."""
    faces, embeddings = _input_shapes(graph)
    adains = graph.of_kind("AdaIN")
    if not (len(faces) == len(embeddings) == 1 and adains):
        raise UserError("a generator has a target, an embedding and AdaIN layers")
    dense = graph.of_kind("Dense")
    widths = _encoder_widths(graph)
    return FaceDancerConfig(
        image_size=faces[0][1],
        embedding_dim=embeddings[0][1],
        mapping_depth=len(dense),
        mapping_size=dense[0].settings["units"] if dense else FaceDancerConfig.mapping_size,
        widths=widths,
        up_types=tuple(_up_type(graph, adain) for adain in adains[1:]),
        discriminator_widths=widths,
    )


def _infer_discriminator(graph):
    faces, embeddings = _input_shapes(graph)
    if len(faces) != 1 or embeddings or graph.of_kind("AdaIN") or not graph.of_kind("AveragePooling2D"):
        raise UserError("a discriminator has one image and no AdaIN layers")
    widths = _encoder_widths(graph)
    return FaceDancerConfig(
        image_size=faces[0][1], widths=widths, up_types=("no_skip",) * len(widths), discriminator_widths=widths
    )


def _input_shapes(graph):
    shapes = [node.settings["batch_shape"] for node in graph.of_kind("InputLayer")]
    return [shape for shape in shapes if len(shape) == 4], [shape for shape in shapes if len(shape) == 2]


def _encoder_widths(graph):
    """Channels of the first convolution and of every 3×3 one before a pooling, in the order of the file: by depth."""
    pooled = [graph.input_nodes(node)[0] for node in graph.of_kind("AveragePooling2D")]
    convolutions = graph.of_kind("Conv2D")[:1] + [node for node in pooled if node.settings["kernel_size"] == [3, 3]]
    return tuple(node.settings["filters"] for node in convolutions)


def _up_type(graph, adain):
    """The kind of fusion before a decoder block's normalisation."""
    norm = graph.input_nodes(adain)[0]
    fused = graph.input_nodes(norm)[0]
    inputs = graph.input_nodes(fused)
    if fused.kind == "AttentionFusion":
        if inputs[0].kind == "Multiply":
            return "do_affa"
        return "d_affa" if inputs[2].kind == "AttentionFusion" else "affa"
    if fused.kind == "Concatenate":
        return "concat"
    # Without fusion it is the sum that ends the block before, of convolutions, resampled or not.
    return "no_skip" if {node.kind for node in inputs} in ({"Conv2D"}, {"UpSampling2D"}) else "add"


def _match(graph, ours, path):
    """Compares the file's graph with ours from the output back.

    Returns:
        For every name of a layer in the file, the name of ours.
    """
    names, pending = {}, [(graph.output, ours.output)]
    while pending:
        name, our_name = pending.pop()
        if name in names:
            if names[name] != our_name:
                raise UserError(f"{path}: layer {name} is connected otherwise than in FaceDancer's networks")
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
    """Gives every layer its weights from the file, by name and shape."""
    wanted = {name for name in names if network.get_layer(names[name]).weights}
    if missing := wanted - stored.weights.keys():
        raise UserError(f"{stored.path}: lacks the weights of layer {min(missing)}")
    if left_over := stored.weights.keys() - wanted:
        raise UserError(f"{stored.path}: has weights of an unknown layer {min(left_over)}")
    for name in wanted:
        arrays = stored.weights[name]
        found = tuple(weight.removesuffix(":0").removeprefix(f"{name}/") for weight in arrays)
        known = _WEIGHTS[graph.nodes[name].kind]
        if found not in known:
            expected = ", ".join(known[-1])
            raise UserError(f"{stored.path}: layer {name} has the weights {', '.join(found)}; expected {expected}")
        assign_weights(network.get_layer(names[name]), arrays.values(), stored.path, name)


# Writing


@dataclass
class _Original:
    """A class of the original: its name, the stem of Keras 2's automatic names, settings that never change."""

    class_name: str
    stem: str
    settings: dict = field(default_factory=dict)


def _initialiser(class_name, **config):
    return {"module": "keras.initializers", "class_name": class_name, "config": config, "registered_name": None}


_KERAS_2 = "2.15.0"
_ORDINARY = {"trainable": True, "dtype": "float32"}
_AFFINE = {
    **_ORDINARY,
    "kernel_initializer": _initialiser("GlorotUniform", seed=None),
    "bias_initializer": _initialiser("Zeros"),
    **dict.fromkeys(
        ("kernel_regularizer", "bias_regularizer", "activity_regularizer", "kernel_constraint", "bias_constraint")
    ),
}
_NORM = {
    **_ORDINARY,
    "beta_initializer": _initialiser("Zeros"),
    "gamma_initializer": _initialiser("Ones"),
    **dict.fromkeys(("beta_regularizer", "gamma_regularizer", "beta_constraint", "gamma_constraint")),
}
_ORIGINALS = {
    "InputLayer": _Original("InputLayer", "input", {"dtype": "float32", "sparse": False, "ragged": False}),
    "Conv2D": _Original("Conv2D", "conv2d", _AFFINE),
    "Dense": _Original("Dense", "dense", _AFFINE),
    "GroupNormalization": _Original("Addons>InstanceNormalization", "instance_normalization", _NORM),
    "LeakyReLU": _Original("LeakyReLU", "leaky_re_lu", _ORDINARY),
    "AveragePooling2D": _Original("AveragePooling2D", "average_pooling2d", _ORDINARY),
    "UpSampling2D": _Original("UpSampling2D", "up_sampling2d", _ORDINARY),
    "Concatenate": _Original("Concatenate", "concatenate", _ORDINARY),
    "Reshape": _Original("Reshape", "reshape", _ORDINARY),
    "Add": _Original("Add", "add", _ORDINARY),
    "Multiply": _Original("TFOpLambda", "tf.math.multiply", {**_ORDINARY, "function": "math.multiply"}),
    "AdaIN": _Original("AdaIN", "ada_in", _ORDINARY),
    "AttentionFusion": _Original("AdaptiveAttention", "adaptive_attention", _ORDINARY),
}


def _keras2_names(graph):
    """Returns for every layer of ours the name that it has in the original.

    Keras 2 numbers the layers of a class in the order in which code makes them. The original makes the mapping first,
    then every block from its input on, a shortcut before what it goes around: our graph's own order, if of a layer's
    inputs the last comes first. Only masks have names of their own, and the last sum after a `concat`.
    """
    order = []

    def visit(name):
        if name not in order:
            for previous in reversed(graph.nodes[name].inputs):
                visit(previous)
            order.append(name)

    for start in (*graph.inputs, *(adain.inputs[1] for adain in graph.of_kind("AdaIN")[:1]), graph.output):
        visit(start)
    names, counts = {}, Counter()
    for name in order:
        kind = graph.nodes[name].kind
        names[name] = _own_name(name, graph)
        if names[name] is None:
            stem = _ORIGINALS[kind].stem
            number = counts[kind] + (kind == "InputLayer")
            names[name] = f"{stem}_{number}" if number else stem
            counts[kind] += 1
    return names


def _own_name(name, graph):
    """`64x64` for `decoder_64x64_affa_mask`; `_0` and `_1` for the two of d_affa, `_hat` for do_affa's shared one."""
    if mask := re.fullmatch(r"(?:decoder_)?(\w+)_affa(\d?)(_shared)?_mask", name):
        place, index, shared = mask.groups()
        return place + (f"_{index}" if index else "") + ("_hat" if shared else "")
    fusion = graph.nodes.get("final_fusion")
    return "final" if name == "final_add" and fusion is not None and fusion.kind == "Concatenate" else None


def _keras2_config(graph, names):
    layers = []
    for our_name, node in graph.nodes.items():
        original, name = _ORIGINALS[node.kind], names[our_name]
        settings = {_KERAS_2_SETTINGS.get(key, key): value for key, value in node.settings.items()}
        if "alpha" in settings:
            settings["alpha"] = float(np.float32(settings["alpha"]))  # Keras 2 keeps it as an array
        inputs = [[names[previous], 0, 0, {}] for previous in node.inputs]
        if node.kind == "Multiply":
            (first, *_), (second, *_) = inputs
            nodes = [[first, 0, 0, {"y": [second, 0, 0], "name": None}]]
        else:
            nodes = [inputs] if inputs else []
        config = {"name": name, **original.settings, **settings}
        layers.append({"class_name": original.class_name, "config": config, "name": name, "inbound_nodes": nodes})
    return {
        "class_name": "Functional",
        "config": {
            "name": "model",
            "trainable": True,
            "layers": layers,
            "input_layers": [[names[name], 0, 0] for name in graph.inputs],
            "output_layers": [[names[graph.output], 0, 0]],
        },
    }
