"""The layers of FaceDancer that Keras lacks: adaptive instance normalisation and AFFA's fusion.

Rosberg et al., FaceDancer, WACV 2023. Both have the original's weights in the original's order. Its third custom layer,
tensorflow-addons' InstanceNormalization, is `keras.layers.GroupNormalization(groups=-1, epsilon=1e-3)`.
"""

import keras


@keras.saving.register_keras_serializable(package="facedancer")
class AdaIN(keras.layers.Layer):
    """Scales and shifts every channel by affine functions of the identity: `x * scale(w) + offset(w)`.

    The normalisation itself comes before it, a layer of its own with learnt scale and offset. As in the original, the
    scale is not offset by 1.

    Called on `[features (n, H, W, C), identity (n, d)]`; returns (n, H, W, C).
    """

    def build(self, input_shape):
        features, identity = input_shape
        self.scale = keras.layers.Dense(features[-1], dtype=self.dtype_policy, name="scale")
        self.offset = keras.layers.Dense(features[-1], dtype=self.dtype_policy, name="offset")
        self.scale.build(identity)
        self.offset.build(identity)

    def call(self, inputs):
        features, identity = inputs
        return features * self.scale(identity)[:, None, None, :] + self.offset(identity)[:, None, None, :]

    def compute_output_shape(self, input_shape):
        return input_shape[0]


@keras.saving.register_keras_serializable(package="facedancer")
class AttentionFusion(keras.layers.Layer):
    """Blends encoder and decoder features by AFFA's mask: `(1 - mask) * skip + mask * decoded` (equation 1).

    Called on `[mask (n, H, W, C) or (n, H, W, 1) in [0, 1], skip (n, H, W, C), decoded (n, H, W, C)]`; returns
    (n, H, W, C).
    """

    def call(self, inputs):
        mask, skip, decoded = inputs
        return skip + mask * (decoded - skip)

    def compute_output_shape(self, input_shape):
        return input_shape[1]
