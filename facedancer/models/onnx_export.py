"""Exports models to ONNX for other engines, with tf2onnx.

Keras' own exporter gives the same file, but traces the model twice and lets tf2onnx copy all weights 36 times.
"""

import logging
import os
import warnings

from facedancer.core.files import atomic_path


def save_onnx(model, path, names=("swapped",)):
    """Writes a model as ONNX, atomically, for any batch size. Needs Keras on TensorFlow.

    Args:
        model: Keras model; its inputs keep their names.
        path: the `.onnx` file.
        names: names of the outputs.
    """
    import tensorflow as tf
    import tf2onnx
    from keras.src.export.tf2onnx_lib import patch_tf2onnx

    os.environ["TF2ONNX_CATCH_ERRORS"] = "FALSE"  # else each of its optimizers gets a copy, in case it fails
    run = tf.function(lambda inputs: model(inputs, training=False), autograph=False)
    specs = [tf.TensorSpec((None, *x.shape[1:]), x.dtype, name=x.name) for x in model.inputs]
    quieted = [logging.getLogger(name) for name in ("tf2onnx", "tensorflow")]
    levels = [logger.level for logger in quieted]
    for logger in quieted:
        logger.setLevel(logging.ERROR)
    try:
        with atomic_path(path) as temporary, warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # from Keras' patch
            patch_tf2onnx()  # for NumPy 2
            tf2onnx.convert.from_function(run, [specs], output_path=str(temporary))
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
