"""The graph of a FaceDancer network: layers, settings and connections, read from its configuration.

Keras 2 files, Keras 3 files and our own models all become this graph, so that they can be compared.
"""

from dataclasses import dataclass

from facedancer.core.console import UserError

# Class names in files, including the original's from Keras 2.8 to 2.15 -> ours.
_CLASSES = {
    "Addons>InstanceNormalization": "GroupNormalization",
    "InstanceNormalization": "GroupNormalization",
    "AdaptiveAttention": "AttentionFusion",
    "facedancer>AttentionFusion": "AttentionFusion",
    "facedancer>AdaIN": "AdaIN",
    "facedancer>DepthToSpace": "DepthToSpace",
}

# Settings that affect a layer's result, by Keras 3's names.
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
    "AdaIN": ("base",),
    "AttentionFusion": (),
    "DepthToSpace": (),
}
# Settings that the original's layers lack, with the value that they imply.
_DEFAULTS = {"base": 0.0}
KERAS_2_SETTINGS = {"batch_shape": "batch_input_shape", "negative_slope": "alpha"}

# The largest network of a published kind has about 300.
MOST_LAYERS = 2000

# Class -> names of its weights: first those in our files, last those in Keras 2's.
WEIGHTS = {
    "Conv2D": [("kernel", "bias")],
    "Dense": [("kernel", "bias")],
    "GroupNormalization": [("gamma", "beta")],
    "AdaIN": [
        ("scale/kernel", "scale/bias", "offset/kernel", "offset/bias"),
        ("dense/kernel", "dense/bias", "dense_1/kernel", "dense_1/bias"),
    ],
}


@dataclass
class Node:
    """A layer in a graph: its class and settings by our names, and the names of its input layers."""

    kind: str
    settings: dict
    inputs: list[str]


@dataclass
class Graph:
    """A network: its layers by name, the names of its input layers and of its only output layer."""

    nodes: dict[str, Node]
    inputs: list[str]
    output: str

    def of_kind(self, kind):
        """Returns the nodes of a class, in order."""
        return [node for node in self.nodes.values() if node.kind == kind]

    def input_nodes(self, node):
        """Returns the nodes that a node is called on, in order."""
        return [self.nodes[name] for name in node.inputs]


def graph_of(model):
    """Returns the `Graph` of one of our functional models."""
    return read_graph({"class_name": "Functional", "config": model.get_config()}, model.name)


def read_graph(config, path):
    """Reads the configuration of a functional model, as Keras 2 or 3 writes it, into a `Graph`.

    Args:
        config: dict from the file's JSON.
        path: the file, for messages.

    Raises:
        UserError: if the configuration is damaged, or has a layer of a class that FaceDancer's networks lack.
    """
    try:
        if config["class_name"] not in ("Functional", "Model"):
            raise UserError(f"{path}: a {config['class_name']} model, not FaceDancer's")
        config = config["config"]
        if len(config["layers"]) > MOST_LAYERS:
            raise UserError(f"{path}: a model of {len(config['layers'])} layers, not FaceDancer's")
        nodes = {layer["name"]: _read_node(layer, path) for layer in config["layers"]}
        inputs, outputs = _end_names(config["input_layers"]), _end_names(config["output_layers"])
        if len(outputs) != 1 or not set(inputs + outputs) <= nodes.keys():
            raise UserError(f"{path}: a model with outputs {outputs}, not FaceDancer's")
        if missing := {name for node in nodes.values() for name in node.inputs} - nodes.keys():
            raise UserError(f"{path}: its configuration lacks layer {min(missing)}")
        return Graph(nodes, inputs, outputs[0])
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise UserError(f"{path}: its model configuration is damaged ({type(error).__name__}: {error})") from None


def _read_node(layer, path):
    name, config = layer["name"], layer["config"]
    if not isinstance(name, str):
        raise TypeError(f"a layer named {name}")
    kind = _CLASSES.get(layer["class_name"], layer["class_name"])
    if kind == "TFOpLambda" and config["function"] == "math.multiply":
        kind = "Multiply"
    if kind not in _SETTINGS:
        raise UserError(f"{path}: layer {name} is a {kind}, which FaceDancer's networks do not have")
    if len(layer["inbound_nodes"]) > 1:
        raise UserError(f"{path}: layer {name} is used more than once, which FaceDancer's networks do not do")
    settings = {}
    for key in _SETTINGS[kind]:
        value = config[key] if key in config else _DEFAULTS.get(key)
        value = config[KERAS_2_SETTINGS.get(key, key)] if value is None else value
        settings[key] = round(value, 6) if isinstance(value, float) else _listed(value)
    return Node(kind, settings, _tensor_names(layer["inbound_nodes"]))


def _listed(value):
    return list(value) if isinstance(value, tuple) else value


def _tensor_names(value):
    """Returns the names of the layers whose outputs a layer is called on, in order, however they are nested.

    Keras 2 writes a tensor as `[layer, 0, 0, …]`, Keras 3 as a dictionary with `keras_history`; keyword arguments may
    be tensors too (`tf.multiply(x, y=…)`).
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
    """Returns the names of a model's input or output layers; Keras 3 writes a single one without the outer list."""
    return [ends[0]] if isinstance(ends[0], str) else [end[0] for end in ends]
