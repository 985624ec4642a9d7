"""Networks that are built sooner: a quarter of the time of a sample of tests went into weights, most soon overwritten.

Random weights repeat themselves after some 65,000 numbers, a prime, so that no row or kernel comes twice. TensorFlow
names no variable for its debugger: with a new name it compiles the operation that makes a variable anew, in 1 ms.
Python 3.11 lists a protocol's members at each `isinstance`, of which TensorFlow makes some for each tensor; here they
are listed once, as by 3.12: a tenth of the time in which a network is built.

A new seed leaves TensorFlow's graphs as they are. It would throw away what it has made of them, for the sake of random
operations with a state, of which none is used here; each test would compile detectors and encoders anew, in a second.
"""

import functools
import random
import sys
import typing

import numpy as np

_DRAWN = 65_521


def install():
    """Has Keras and TensorFlow, which must be imported, make weights in this way from now on."""
    import tensorflow as tf
    from keras import ops
    from keras.src.initializers import random_initializers
    from tensorflow.python.eager import context
    from tensorflow.python.ops import resource_variable_ops

    class QuickDraws:
        """Keras' random numbers, repeated where there are many."""

        def __init__(self, random):
            self._random = random

        def __getattr__(self, name):
            draw = getattr(self._random, name)
            if name not in ("uniform", "normal", "truncated_normal"):
                return draw

            def quick(shape, *args, **kwargs):
                number = int(np.prod(shape))
                if number <= _DRAWN:
                    return draw(shape, *args, **kwargs)
                drawn = ops.convert_to_numpy(draw((_DRAWN,), *args, **kwargs))
                return ops.convert_to_tensor(np.resize(drawn, shape))

            return quick

    class NamelessVariables:
        """TensorFlow's operations on variables."""

        def __init__(self, operations):
            self._operations = operations

        def __getattr__(self, name):
            return getattr(self._operations, name)

        def var_handle_op(self, *args, debug_name="", **kwargs):
            return self._operations.var_handle_op(*args, **kwargs)

    def set_seed(seed):
        context.context()._seed, context.context()._rng = seed, random.Random(seed)

    tf.random.set_seed = set_seed
    if sys.version_info < (3, 12):
        typing._get_protocol_attrs = functools.cache(typing._get_protocol_attrs)
    random_initializers.random = QuickDraws(random_initializers.random)
    resource_variable_ops.gen_resource_variable_ops = NamelessVariables(resource_variable_ops.gen_resource_variable_ops)
