"""Writes generators and discriminators in the original code's format: Keras 2.15 `.h5` files."""

import json
import re
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from facedancer.core.keras_h5 import written_hdf5
from facedancer.models.graphs import KERAS_2_SETTINGS, WEIGHTS, graph_of


@dataclass
class _Original:
    """A layer class of the original: its name, the stem of Keras 2's automatic layer names, and constant settings."""

    class_name: str
    stem: str
    settings: dict = field(default_factory=dict)


def _initializer(class_name, **config):
    return {"module": "keras.initializers", "class_name": class_name, "config": config, "registered_name": None}


_KERAS_2 = "2.15.0"
_ORDINARY = {"trainable": True, "dtype": "float32"}
_AFFINE = {
    **_ORDINARY,
    "kernel_initializer": _initializer("GlorotUniform", seed=None),
    "bias_initializer": _initializer("Zeros"),
    **dict.fromkeys(
        ("kernel_regularizer", "bias_regularizer", "activity_regularizer", "kernel_constraint", "bias_constraint")
    ),
}
_NORM = {
    **_ORDINARY,
    "beta_initializer": _initializer("Zeros"),
    "gamma_initializer": _initializer("Ones"),
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


def is_originals(model):
    """Whether the original's code has all layers of a network; it lacks our additions."""
    graph = graph_of(model)
    return not graph.of_kind("DepthToSpace") and not any(node.settings["base"] for node in graph.of_kind("AdaIN"))


def save_keras2_h5(model, path):
    """Writes a generator or discriminator as the original code does: a Keras 2.15 `.h5`, atomically.

    The original loads it with `load_model(path, custom_objects={"AdaIN": …, "AdaptiveAttention": …,
    "InstanceNormalization": …})`. Layers get the names that Keras 2 gave them.
    """
    graph = graph_of(model)
    names = _keras2_names(graph)
    config = _keras2_config(graph, names)
    with written_hdf5(path) as file:
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
            leaves = WEIGHTS[type(layer).__name__][-1] if layer.weights else ()
            stored.attrs["weight_names"] = [f"{name}/{leaf}:0".encode() for leaf in leaves]
            for leaf, array in zip(leaves, layer.get_weights(), strict=True):
                stored[f"{name}/{leaf}:0"] = array


def _keras2_names(graph):
    """Returns `{our layer's name: its name in the original}`.

    Keras 2 numbers the layers of a class in order of creation. The original creates the mapping network first, then
    each block from its input on, with a shortcut before the layers that it bypasses. That is our graph's order if the
    last of a layer's inputs is visited first. Only masks, and the last sum after a `concat`, have explicit names.
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
    """Returns the explicit name of a layer, or None.

    `decoder_64x64_affa_mask` is `64x64`; d_affa's two masks end in `_0` and `_1`, do_affa's shared one in `_hat`.
    """
    if mask := re.fullmatch(r"(?:decoder_)?(\w+)_affa(\d?)(_shared)?_mask", name):
        place, index, shared = mask.groups()
        return place + (f"_{index}" if index else "") + ("_hat" if shared else "")
    fusion = graph.nodes.get("final_fusion")
    return "final" if name == "final_add" and fusion is not None and fusion.kind == "Concatenate" else None


def _keras2_config(graph, names):
    layers = []
    for our_name, node in graph.nodes.items():
        original, name = _ORIGINALS[node.kind], names[our_name]
        known = {key: value for key, value in node.settings.items() if node.kind != "AdaIN"}  # the original's has none
        settings = {KERAS_2_SETTINGS.get(key, key): value for key, value in known.items()}
        if "alpha" in settings:
            settings["alpha"] = float(np.float32(settings["alpha"]))  # Keras 2 stores it as a float32
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
