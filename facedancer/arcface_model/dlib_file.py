"""Reads dlib's serialized networks (`.dat`) as plain data: the layers of its face ResNet, with their numbers.

The format has no lengths or field names, only the order in which dlib's templates write the fields. So the reader is
strict: every version number, flag and size must match this network, and the file must end where the network ends.
"""

from dataclasses import dataclass, field

import numpy as np

from facedancer.core.console import UserError

# The integer before each nested template identifies it.
_TAG_OR_SKIP, _LAYER, _INNERMOST_LAYER = 1, 2, 3


@dataclass
class DlibLayer:
    """One layer.

    Attributes:
        kind: dlib's name for it ("con_4", "affine_", "relu_", …); "tag" for its tag and skip layers, which have
            no content.
        settings: sizes and strides.
        arrays: its numbers.
    """

    kind: str
    settings: dict = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


def read_dlib_network(content):
    """Reads a network.

    Args:
        content: the file's bytes.

    Returns:
        A list of `DlibLayer`, from the input to the loss. Arrays are float32: "kernel" (out, in, height, width) and
        "bias" of a convolution, "scale" and "shift" of an affine layer, "kernel" (inputs, outputs) of a dense one.

    Raises:
        UserError: if the content is truncated, continues after the network, or is not this network.
    """
    try:
        return _read(_Stream(content))
    except _FormatError as error:
        raise UserError(f"not dlib's face recognition network: {error}") from None


class _FormatError(Exception):
    """The content does not match the format at that position."""


class _Stream:
    """dlib's elementary types."""

    def __init__(self, content):
        self.content, self.position = content, 0

    def take(self, count):
        part = self.content[self.position : self.position + count]
        if len(part) != count:
            raise _FormatError(f"it ends early, at byte {len(self.content)}")
        self.position += count
        return part

    def expect(self, condition, what):
        if not condition:
            raise _FormatError(f"{what} at byte {self.position}")

    def integer(self):
        """A control byte (number of bytes, and the sign in bit 7), then the magnitude, little-endian."""
        control = self.take(1)[0]
        self.expect(control & 0x70 == 0 and 1 <= control & 0x0F <= 8, f"no integer (control byte {control:#04x})")
        magnitude = int.from_bytes(self.take(control & 0x0F), "little")
        return -magnitude if control & 0x80 else magnitude

    def integers(self, count):
        return tuple(self.integer() for _ in range(count))

    def number(self):
        """Integer mantissa and base-2 exponent."""
        mantissa, exponent = self.integers(2)
        self.expect(abs(exponent) < 1024 and abs(mantissa) < 2**53, "no finite number")
        return mantissa * 2.0**exponent

    def numbers(self, count):
        return tuple(self.number() for _ in range(count))

    def text(self):
        length = self.integer()
        self.expect(0 <= length <= 64, f"a name of {length} characters")
        return self.take(length).decode("latin-1")

    def boolean(self):
        value = self.take(1)
        self.expect(value in (b"0", b"1"), f"{value!r} instead of a boolean")

    def shape(self, version, what):
        found = self.integer()
        self.expect(found == version, f"version {found} of {what}")
        shape = self.integers(4)
        self.expect(min(shape) >= 0, f"{what} of shape {shape}")
        return shape

    def tensor(self):
        shape = self.shape(2, "a tensor")
        values = np.frombuffer(self.take(4 * int(np.prod(shape, dtype=object))), "<f4").reshape(shape)
        self.expect(np.isfinite(values).all(), "numbers that are not finite in the tensor")
        return values

    def parts(self):
        """A flat tensor, and how it is divided into two: gives a function that reads the division's shapes."""
        flat = self.tensor().ravel()

        def divide():
            first, second = (self.shape(1, "a view") for _ in range(2))
            sizes = [int(np.prod(shape, dtype=object)) for shape in (first, second)]
            self.expect(sum(sizes) == flat.size, f"views of {sizes} elements of a tensor of {flat.size}")
            return flat[: sizes[0]].reshape(first), flat[sizes[0] :]

        return divide


def _read(stream):
    version = stream.integer()
    stream.expect(version == 1, f"version {version} of the loss")
    loss = DlibLayer(stream.text(), {"margin": stream.number(), "threshold": stream.number()})
    stream.expect(loss.kind == "loss_metric_2", f"the loss {loss.kind!r}")
    # Nesting is read from the outside in, layer content from the inside out.
    nesting = []
    while not nesting or nesting[-1] != _INNERMOST_LAYER:
        nesting.append(stream.integer())
        stream.expect(nesting[-1] in (_TAG_OR_SKIP, _LAYER, _INNERMOST_LAYER), f"the template {nesting[-1]}")
    layers = [DlibLayer(stream.text(), {"mean": stream.numbers(3), "size": stream.integers(2)})]
    stream.expect(layers[0].kind == "input_rgb_image_sized", f"the input {layers[0].kind!r}")
    for template in reversed(nesting):
        if template == _TAG_OR_SKIP:
            layers.append(DlibLayer("tag"))
            continue
        layers.append(_read_layer(stream))
        for _ in range(3):  # set up, gradient stale, output wanted
            stream.boolean()
        for _ in range(3):  # gradients and the last output, empty in a released network
            stream.expect(stream.tensor().size == 0, "a training state")
        if template == _INNERMOST_LAYER:
            stream.expect(stream.integer() == 1, "an input of several samples")
    stream.expect(stream.position == len(stream.content), "bytes left over")
    return [*layers, loss]


def _read_layer(stream):
    kind = stream.text()
    if kind == "con_4":
        divide = stream.parts()
        filters = stream.integer()
        settings = {name: stream.integers(2) for name in ("kernel", "stride", "padding")}
        kernel, bias = divide()
        stream.numbers(4)  # learning-rate and weight-decay factors
        stream.expect(kernel.shape[0] == bias.size == filters, f"{kernel.shape} for {filters} filters")
        stream.expect(kernel.shape[2:] == settings["kernel"], f"{kernel.shape} for a kernel {settings['kernel']}")
        return DlibLayer(kind, settings, {"kernel": kernel, "bias": bias})
    if kind == "affine_":
        divide = stream.parts()
        scale, shift = divide()
        mode = stream.integer()
        stream.expect(mode == 0 and scale.size == shift.size, "an affine layer that is not one per channel")
        return DlibLayer(kind, {}, {"scale": scale.ravel(), "shift": shift})
    if kind == "fc_2":
        outputs, inputs = stream.integers(2)
        divide = stream.parts()
        kernel, bias = divide()
        stream.integer()  # whether there is a bias, which its size also tells
        stream.numbers(4)
        stream.expect(kernel.size == inputs * outputs and bias.size == 0, f"{kernel.shape} for {outputs} outputs")
        return DlibLayer(kind, {}, {"kernel": kernel.reshape(inputs, outputs)})
    if kind in ("max_pool_2", "avg_pool_2"):
        return DlibLayer(kind, {name: stream.integers(2) for name in ("kernel", "stride", "padding")})
    stream.expect(kind in ("relu_", "add_prev_"), f"the layer {kind!r}")
    return DlibLayer(kind)
