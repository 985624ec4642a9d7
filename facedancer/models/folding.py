"""Makes a network cheaper by merging consecutive linear layers.

If a 2×2 mean follows a convolution, the mean is taken first and only the remaining outputs are computed: a quarter of
the multiplications. If upsampled tensors are added, the sum is upsampled instead. An AdaIN absorbs the instance
normalization before it. Results and gradients differ only by rounding.
"""

from collections import defaultdict

import keras
from keras import layers, ops

from facedancer.core.weights_to_come import weights_to_come
from facedancer.models.layers import AdaIN


def normalize_features(x, scale, offset, epsilon):
    """Normalizes each channel of each image to mean `offset` and standard deviation `scale`.

    Args:
        x: (n, H, W, C), any float type.
        scale, offset: (n, C) or (1, C).
        epsilon: added to the variance.

    Returns:
        (n, H, W, C) in the type of `x`, computed in float32.
    """
    features = ops.cast(x, "float32")
    mean, variance = ops.moments(features, (1, 2), keepdims=True)
    scale, offset = (ops.cast(value, "float32") for value in (scale, offset))
    factor = scale[:, None, None] * ops.rsqrt(variance + epsilon)
    return ops.cast(features * factor + (offset[:, None, None] - mean * factor), x.dtype)


@weights_to_come()
def fold(model, precision="float32", normalize=normalize_features):
    """Returns a model with the same outputs as `model`, with its own weights; layers that fit no pattern are kept.

    Args:
        model: functional Keras model that calls each layer once.
        precision: dtype policy of all layers but the last.
        normalize: function equivalent to `normalize_features`, for engines with a faster one.
    """
    folding = _Copy(model, precision, normalize)
    folded = keras.models.clone_model(model, clone_function=folding.layer, call_function=folding.call)
    for layer in model.layers:
        weights = layer.get_weights()
        if layer.name in folding.norm_of:
            weights = _after_norm(weights, layer.base, *map(ops.convert_to_numpy, _affine(folding.norm_of[layer.name])))
        if weights and layer.name not in folding.passed:
            folded.get_layer(layer.name).set_weights(weights)
    return folded


def folded_view(model, normalize=None):
    """Returns a folded model that shares layers and weights with `model`; for calling and training, not for saving.

    Args:
        model: as for `fold`.
        normalize: function equivalent to `normalize_features`; by default normalizations are kept as they are.
    """
    view = _View(model, normalize)
    return keras.models.clone_model(model, clone_function=view.layer, call_function=view.call)


class HalvingConv2D(layers.Layer):
    """Applies another convolution layer's weights at stride 2 without padding."""

    def __init__(self, convolution, **kwargs):
        super().__init__(dtype=convolution.dtype_policy, **kwargs)
        self.convolution = convolution
        self.built = True

    def call(self, x):
        x = ops.conv(x, self.convolution.kernel, strides=2, padding="valid")
        return x + self.convolution.bias if self.convolution.use_bias else x

    def compute_output_shape(self, shape):
        return shape[0], (shape[1] - 1) // 2, (shape[2] - 1) // 2, self.convolution.filters


class NormView(layers.Layer):
    """Applies an instance normalization layer, and an AdaIN layer after it if any, by a `normalize_features` function.

    Called like the normalization layer, or like the AdaIN layer if there is one.
    """

    def __init__(self, normalize, norm, adain=None, **kwargs):
        super().__init__(dtype=norm.dtype_policy, **kwargs)
        self._normalize, self.norm, self.adain = normalize, norm, adain
        self.built = True

    def call(self, inputs):
        gamma, beta = (value[None] for value in _affine(self.norm))
        if self.adain is None:
            return self._normalize(inputs, gamma, beta, self.norm.epsilon)
        features, identity = inputs
        scale = ops.cast(self.adain.scale(identity), "float32") + self.adain.base
        offset = ops.cast(self.adain.offset(identity), "float32")
        return self._normalize(features, scale * gamma, scale * beta + offset, self.norm.epsilon)

    def compute_output_shape(self, shape):
        return shape if self.adain is None else shape[0]


class InstanceNorm(layers.GroupNormalization):
    """Instance normalization by a function such as `normalize_features`."""

    def __init__(self, normalize, **kwargs):
        super().__init__(**kwargs)
        self._normalize = normalize

    def call(self, x):
        return self._normalize(x, *(value[None] for value in _affine(self)), self.epsilon)


class NormAdaIN(AdaIN):
    """Instance normalization and AdaIN in one layer, called like AdaIN."""

    def __init__(self, normalize, epsilon, **kwargs):
        super().__init__(**kwargs)
        self._normalize, self.epsilon = normalize, epsilon

    def call(self, inputs):
        features, identity = inputs
        return self._normalize(features, self.scale(identity), self.offset(identity), self.epsilon)


class _Folding:
    """Decides what happens to each layer and to its call.

    Attributes:
        halving: names of the convolutions that get stride 2.
        passed: names of the layers that become the identity.
        norm_of: name of an AdaIN -> the normalization layer that it absorbs.
    """

    def __init__(self, model):
        self._last = {tensor._keras_history.operation.name for tensor in model.outputs}
        self.halving, self._halved_before, self._doubled_after, self.passed = set(), set(), set(), set()
        self._read, self._readers = {}, defaultdict(int)
        for layer in model.layers:
            if not isinstance(layer, layers.InputLayer):
                self._read[layer] = [tensor._keras_history.operation for tensor in keras.tree.flatten(layer.input)]
                for read in self._read[layer]:
                    self._readers[read.name] += 1
        for layer, read in self._read.items():
            if not all(self._is_read_once(operation) for operation in read):
                continue
            names = {operation.name for operation in read}
            if _is_halving(layer) and _is_convolution(read[0], 3):  # needs the mean at every position
                self.halving |= names
                self.passed.add(layer.name)
            elif _is_halving(layer) and _is_convolution(read[0], 1):  # needs it at every second position
                self._halved_before |= names
                self.passed.add(layer.name)
            elif isinstance(layer, layers.Add) and all(_is_doubling(operation) for operation in read):
                self._doubled_after.add(layer.name)
                self.passed |= names
        self.norm_of = {}

    def _take_in_norms(self):
        """Makes each AdaIN absorb the normalization before it."""
        for layer, read in self._read.items():
            if isinstance(layer, AdaIN) and _is_instance_norm(read[0]) and self._is_read_once(read[0]):
                self.norm_of[layer.name] = read[0]
                self.passed.add(read[0].name)

    def _is_read_once(self, operation):
        return self._readers[operation.name] == 1 and operation.name not in self._last

    def call(self, layer, inputs, mask=None):
        """Calls a layer that `layer` returned. `mask` is always None: Keras passes it for sequence models."""
        if layer.name in self.passed:
            return inputs
        if layer.name in self.halving:
            inputs = layers.ZeroPadding2D(1, dtype=layer.dtype_policy, name=f"{layer.name}_padding")(inputs)
            inputs = layers.AveragePooling2D(2, 1, dtype=layer.dtype_policy, name=f"{layer.name}_mean")(inputs)
            return self.halve(layer, inputs)
        if layer.name in self._halved_before:
            inputs = layers.AveragePooling2D(2, dtype=layer.dtype_policy, name=f"{layer.name}_mean")(inputs)
        outputs = layer(inputs)
        if layer.name in self._doubled_after:
            name = f"{layer.name}_doubling"
            outputs = layers.UpSampling2D(interpolation="bilinear", dtype=layer.dtype_policy, name=name)(outputs)
        return outputs


class _Copy(_Folding):
    """Folding to new layers with their own weights."""

    def __init__(self, model, precision, normalize):
        super().__init__(model)
        self._precision, self._normalize = precision, normalize
        self._take_in_norms()

    def layer(self, layer):
        kind, config = type(layer), layer.get_config()
        if layer.name in self.halving:
            config |= {"strides": 2, "padding": "valid"}
        if layer.name in self.norm_of:
            kind, config = NormAdaIN, config | {"epsilon": self.norm_of[layer.name].epsilon}
        elif _is_instance_norm(layer):
            kind = InstanceNorm
        if kind in (InstanceNorm, NormAdaIN):
            config["normalize"] = self._normalize
        if layer.name not in self._last:
            config["dtype"] = self._precision
        return kind.from_config(config)

    def halve(self, layer, inputs):
        return layer(inputs)


class _View(_Folding):
    """Folding that keeps the layers themselves."""

    def __init__(self, model, normalize):
        super().__init__(model)
        self._normalize = normalize
        if normalize:
            self._take_in_norms()

    def layer(self, layer):
        if layer.name in self.norm_of:
            return NormView(self._normalize, self.norm_of[layer.name], layer, name=layer.name)
        if self._normalize and layer.name not in self.passed and _is_instance_norm(layer):
            return NormView(self._normalize, layer, name=layer.name)
        return layer

    def halve(self, layer, inputs):
        return HalvingConv2D(layer, name=f"{layer.name}_halving")(inputs)


def _is_halving(layer):
    return (
        isinstance(layer, layers.AveragePooling2D)
        and layer.padding == "valid"
        and layer.data_format == "channels_last"
        and tuple(layer.pool_size) == tuple(layer.strides) == (2, 2)
        and all(side % 2 == 0 for side in layer.input.shape[1:3])
    )


def _is_doubling(layer):
    return (
        isinstance(layer, layers.UpSampling2D)
        and layer.interpolation == "bilinear"
        and layer.data_format == "channels_last"
        and tuple(layer.size) == (2, 2)
    )


def _is_convolution(layer, size):
    return (
        isinstance(layer, layers.Conv2D)
        and layer.padding == "same"
        and layer.data_format == "channels_last"
        and layer.activation is keras.activations.linear
        and tuple(layer.kernel_size) == (size, size)
        and tuple(layer.strides) == tuple(layer.dilation_rate) == (1, 1)
    )


def _is_instance_norm(layer):
    return (
        isinstance(layer, layers.GroupNormalization)
        and layer.groups in (-1, layer.input.shape[-1])
        and layer.axis in (-1, 3)
    )


def _affine(norm):
    """Returns the scale and offset (C,) of an instance normalization layer; 1 and 0 if it has none."""
    channels = norm.input.shape[-1] if norm.gamma is None or norm.beta is None else None
    gamma = ops.ones((channels,)) if norm.gamma is None else norm.gamma
    return gamma, ops.zeros((channels,)) if norm.beta is None else norm.beta


def _after_norm(weights, base, gamma, beta):
    """Returns AdaIN's weights, (d, C), (C,), (d, C), (C,), after absorbing a normalization's scale and offset (C,)."""
    scale, scale_bias, offset, offset_bias = weights
    scale_bias = scale_bias + base
    return [scale * gamma, scale_bias * gamma, scale * beta + offset, scale_bias * beta + offset_bias]
