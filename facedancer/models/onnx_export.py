"""Exports models to ONNX for other engines, with Keras' own exporter."""

import logging
import warnings

import keras

from facedancer.core.files import atomic_path


def save_onnx(model, path, names=("swapped",)):
    """Writes a model as ONNX, atomically, for any batch size.

    Args:
        model: Keras model; its inputs keep their names.
        path: the `.onnx` file.
        names: names of the outputs.
    """
    quieted = [logging.getLogger(name) for name in ("tf2onnx", "tensorflow")]
    levels = [logger.level for logger in quieted]
    for logger in quieted:
        logger.setLevel(logging.ERROR)
    try:
        with atomic_path(path) as temporary, warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # from Keras' patch for tf2onnx
            model.export(
                temporary,
                format="onnx",
                verbose=False,
                input_signature=[[keras.InputSpec(shape=x.shape, dtype=x.dtype, name=x.name) for x in model.inputs]],
            )
            _name_onnx_ends(temporary, names)
    finally:
        for logger, level in zip(quieted, levels, strict=True):
            logger.setLevel(level)


def _name_onnx_ends(path, names):
    """Renames the outputs and the batch axis, which tf2onnx calls `Identity:0` and `unk__…`."""
    import onnx

    exported = onnx.load(path)
    graph = exported.graph
    new = {end.name: name for end, name in zip(graph.output, names, strict=True)}
    for node in graph.node:
        node.output[:] = [new.get(name, name) for name in node.output]
        node.input[:] = [new.get(name, name) for name in node.input]
    for end in graph.output:
        end.name = new[end.name]
    for end in (*graph.input, *graph.output):
        end.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.checker.check_model(exported)
    onnx.save(exported, path)
