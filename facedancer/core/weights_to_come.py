"""Networks whose weights all come from a file or from another network: random numbers for them are never drawn."""

import contextlib
import math


@contextlib.contextmanager
def weights_to_come():
    """Spares the networks that are built inside, or by a function that this decorates, their random weights.

    What Keras would draw is NaN instead until the loader assigns it, so that a forgotten weight shows. Weights that
    begin as constants, such as biases, do so here too. It acts on the whole process: nothing that is to be trained from
    random weights may be built meanwhile in another thread.
    """
    from keras import initializers, layers

    kinds = (
        initializers.VarianceScaling,
        initializers.RandomNormal,
        initializers.RandomUniform,
        initializers.TruncatedNormal,
        initializers.Orthogonal,
    )
    add_weight = layers.Layer.add_weight

    def add_undrawn(layer, *args, initializer=None, **settings):
        if isinstance(initializers.get(initializer), kinds):
            initializer = initializers.Constant(math.nan)
        return add_weight(layer, *args, initializer=initializer, **settings)

    layers.Layer.add_weight = add_undrawn
    try:
        yield
    finally:
        layers.Layer.add_weight = add_weight
