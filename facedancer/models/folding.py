"""Makes a network cheaper: consecutive linear layers become one.

When a 2×2 mean follows a convolution, the mean is taken first and only the outputs that are kept are computed: a
quarter of the products. When upsampled tensors are added, the sum is upsampled instead. An instance normalization
absorbs the AdaIN after it. Results differ only by rounding; so do gradients.
"""

from collections import defaultdict

import keras
from keras import layers, ops

from facedancer.models.layers import AdaIN


def normalize_features(x, scale, offset, epsilon):
    """Gives each channel of each picture (n, H, W, C) the mean `offset` and the deviation `scale`, (n or 1, C)."""
    features = ops.cast(x, "float32")
    mean, variance = ops.moments(features, (1, 2), keepdims=True)
    scale, offset = (ops.cast(value, "float32") for value in (scale, offset))
    factor = scale[:, None, None] * ops.rsqrt(variance + epsilon)
    return ops.cast(features * factor + (offset[:, None, None] - mean * factor), x.dtype)


def fold(model, precision="float32", normalize=normalize_features):
    """Returns a model that gives what `model` gives, with weights of its own; layers that fit no pattern stay.

    Args:
        model: functional Keras model whose layers are each called once.
        precision: dtype policy of the layers, but for the last one.
        normalize: function that does what `normalize_features` does, where an engine has a faster one.
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
    """Returns a model of the layers and weights of `model`, which is trained when they are; to be called, not saved.

    Args:
        model: as `fold` has it.
        normalize: function that does what `normalize_features` does; by default normalisations stay as they are.
    """
    view = _View(model, normalize)
    return keras.models.clone_model(model, clone_function=view.layer, call_function=view.call)


class HalvingConv2D(layers.Layer):
    """A convolution's weights with a stride of 2 and without padding."""

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
    """An instance normalisation's weights, and those of an AdaIN that follows, by a function as `normalize_features`.

    Called as the normalisation is, or as the AdaIN.
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
    """Keras' instance normalisation, by a function such as `normalize_features`."""

    def __init__(self, normalize, **kwargs):
        super().__init__(**kwargs)
        self._normalize = normalize

    def call(self, x):
        return self._normalize(x, *(value[None] for value in _affine(self)), self.epsilon)


class NormAdaIN(AdaIN):
    """Instance normalisation and AdaIN, called as that is."""

    def __init__(self, normalize, epsilon, **kwargs):
        super().__init__(**kwargs)
        self._normalize, self.epsilon = normalize, epsilon

    def call(self, inputs):
        features, identity = inputs
        return self._normalize(features, self.scale(identity), self.offset(identity), self.epsilon)


class _Folding:
    """What becomes of each layer, and of the call of it.

    Attributes:
        halving: names of the convolutions that take a stride of 2.
        passed: names of the layers that have nothing left to do.
        norm_of: name of an AdaIN -> the normalisation that it takes in.
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
            if _is_halving(layer) and _is_convolution(read[0], 3):  # which needs the mean at every place
                self.halving |= names
                self.passed.add(layer.name)
            elif _is_halving(layer) and _is_convolution(read[0], 1):  # at every second
                self._halved_before |= names
                self.passed.add(layer.name)
            elif isinstance(layer, layers.Add) and all(_is_doubling(operation) for operation in read):
                self._doubled_after.add(layer.name)
                self.passed |= names
        self.norm_of = {}

    def _take_in_norms(self):
        """Has every AdaIN take in the normalisation before it."""
        for layer, read in self._read.items():
            if isinstance(layer, AdaIN) and _is_instance_norm(read[0]) and self._is_read_once(read[0]):
                self.norm_of[layer.name] = read[0]
                self.passed.add(read[0].name)

    def _is_read_once(self, operation):
        return self._readers[operation.name] == 1 and operation.name not in self._last

    def call(self, layer, inputs, mask=None):
        """Calls a layer that `layer` returned; masks are for series, and None here."""
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
    """Layers of their own."""

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
    """The layers themselves."""

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
    """The scale and the offset (C,) of an instance normalisation, 1 and 0 where it has none."""
    channels = norm.input.shape[-1] if norm.gamma is None or norm.beta is None else None
    gamma = ops.ones((channels,)) if norm.gamma is None else norm.gamma
    return gamma, ops.zeros((channels,)) if norm.beta is None else norm.beta


def _after_norm(weights, base, gamma, beta):
    """The weights (d, C), (C,), (d, C), (C,) of AdaIN's scale and offset, with the norm's own (C,) before it."""
    scale, scale_bias, offset, offset_bias = weights
    scale_bias = scale_bias + base
    return [scale * gamma, scale_bias * gamma, scale * beta + offset, scale_bias * beta + offset_bias]
