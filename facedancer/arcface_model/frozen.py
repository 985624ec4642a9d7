"""What all frozen networks have in common."""

import functools

import keras


def frozen(build):
    """Makes a builder's network one that is never trained, and that computes in float32 whatever the policy is.

    Its features are a measure, and half precision would put noise and overflow into it.
    """

    @functools.wraps(build)
    def build_frozen(*args, **kwargs):
        policy = keras.config.dtype_policy()
        keras.config.set_dtype_policy("float32")
        try:
            network = build(*args, **kwargs)
        finally:
            keras.config.set_dtype_policy(policy)
        network.trainable = False
        return network

    return build_frozen
