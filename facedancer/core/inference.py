"""Networks that are run and not trained: one graph for batches of every size."""

import functools


def runner(model):
    """Returns a function that runs a network on a batch, as its `predict_on_batch` does: arrays in, arrays out.

    Keras makes a graph of the first batch and another one when the next has another size, and TensorFlow warns of that,
    counting the graphs of all networks together. Here the sizes that the network's inputs leave open stay open.

    Args:
        model: a Keras model with one input.
    """
    import keras

    if keras.config.backend() != "tensorflow":
        model.compile(jit_compile=False)  # would compile for every new size
        return model.predict_on_batch
    import tensorflow as tf

    @functools.cache
    def graph():
        (tensor,) = model.inputs
        # XLA would compile for every new size, and was measured slower on a processor.
        run = tf.function(lambda batch: model(batch, training=False), autograph=False, jit_compile=False)
        return run.get_concrete_function(tf.TensorSpec(tensor.shape, tensor.dtype))

    def run(batch):
        found = graph()(tf.convert_to_tensor(batch, model.inputs[0].dtype))
        return keras.tree.map_structure(lambda tensor: tensor.numpy(), found)

    return run
