"""Reads the original autoencoder's files: `encoder.pth`, and one `decoder<id>.pth` per person.

Both hold `{"state_dict", "epoch"}`, in PyTorch's old stream format or its zip format, and are read as plain data. The
tensors' shapes and names tell which of the original's three networks it is: the first, or the later AE64 or AE128.
Anything missing, left over or of the wrong shape is an error that names it. Axes are reordered from PyTorch's to ours,
and BGR to RGB.
"""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from facedancer.core.console import UserError
from facedancer.core.torch_file import read_torch_state_dict
from facedancer.core.weights_to_come import weights_to_come
from facedancer.models.autoencoder import Config, build_decoder, build_encoder

# Our layers -> the original's names: of the first network, and of the later ones.
_ENCODER = {
    "conv0": ("conv1.0", "encode_img.0"),
    "conv1": ("conv2.0", "encode_img.2"),
    "conv2": ("conv3.0", "encode_img.4"),
    "conv3": ("conv4.0", "encode_img.6"),
    "code": ("linear1", "linear.0"),
    "expand": ("linear2", "linear.1"),
    "upscale": ("upscale.0", "upscale.0"),
}
_DECODER = {
    "upscale0": ("upscale1.0", "decode_img.0.0"),
    "upscale1": ("upscale2.0", "decode_img.1.0"),
    "upscale2": ("upscale3.0", "decode_img.2.0"),
    "conv": ("conv", "decode_img.3"),
}


def decoders_at(path):
    """Returns the name of the decoder in a file, or the names of all decoders next to an `encoder.pth`, sorted."""
    path = Path(path)
    if path.name.startswith("decoder"):
        return (path.stem.removeprefix("decoder"),)
    return tuple(sorted(found.stem.removeprefix("decoder") for found in path.parent.glob("decoder*.pth")))


@weights_to_come()
def read_networks(path):
    """Reads an encoder and its decoders.

    Args:
        path: `encoder.pth`, for all decoders next to it; or one `decoder<id>.pth`, with the encoder next to it.

    Returns:
        The networks of `autoencoder.build_networks`, decoders in the order of `decoders_at`. The encoder has the
        `Config` as attribute `shapes`.

    Raises:
        UserError: if a file is missing or damaged, or does not fit the others.
    """
    folder, names = Path(path).parent, decoders_at(path)
    if not names:
        raise UserError(f"{path}: there is no decoder<id>.pth beside it")
    paths = [folder / "encoder.pth", *(folder / f"decoder{name}.pth" for name in names)]
    files = [_File(path, roles) for path, roles in zip(paths, [_ENCODER] + [_DECODER] * len(names), strict=True)]
    config = _infer(*files[:2])
    networks = {"encoder": build_encoder(config)}
    networks["encoder"].shapes = replace(config, people=names)
    networks |= {f"decoder{index}": build_decoder(config, index) for index in range(len(names))}
    for (name, network), file in zip(networks.items(), files, strict=True):
        for role in file.roles:
            file.give(network.get_layer(f"{name}_{role}"), role, config)
        file.check_left_over()
    return networks


class _File:
    """The tensors of a file, which are taken out one at a time."""

    def __init__(self, path, roles):
        self.path, self.roles = path, roles
        self.tensors = read_torch_state_dict(path, "state_dict")
        known = [{f"{names[era]}." for names in roles.values()} for era in range(2)]
        fitting = [sum(name.startswith(tuple(prefixes)) for name in self.tensors) for prefixes in known]
        self._era = int(np.argmax(fitting))

    def name(self, role, leaf="weight"):
        return f"{self.roles[role][self._era]}.{leaf}"

    def shape(self, role, leaf="weight"):
        """Returns a tensor's shape; raises `UserError` if it is missing."""
        name = self.name(role, leaf)
        if name not in self.tensors:
            raise UserError(f"{self.path}: lacks the tensor {name}")
        return self.tensors[name].shape

    def has(self, role, leaf):
        return self.name(role, leaf) in self.tensors

    def take(self, role, leaf, shape):
        """Takes a tensor out as float32; raises `UserError` if it is missing or of another shape."""
        found = self.shape(role, leaf)
        name = self.name(role, leaf)
        if found != tuple(shape):
            raise UserError(f"{self.path}: tensor {name} has the shape {found}, expected {tuple(shape)}")
        return np.asarray(self.tensors.pop(name), np.float32)

    def check_left_over(self):
        if self.tensors:
            raise UserError(f"{self.path}: has the tensor {min(self.tensors)}, which belongs to no layer")

    def give(self, layer, role, config):
        """Assigns a layer its weights, in our axis order."""
        shapes = [tuple(weight.shape) for weight in layer.weights]
        if len(shapes) == 3:  # depthwise, pointwise, bias
            rows, columns, channels, _ = shapes[0]
            depthwise = self.take(role, "depthwise.weight", (channels, 1, rows, columns)).transpose(2, 3, 0, 1)
            pointwise = self.take(role, "pointwise.weight", (*shapes[1][:1:-1], 1, 1)).transpose(2, 3, 1, 0)
            layer.set_weights([depthwise, pointwise, self.take(role, "pointwise.bias", shapes[2])])
            return
        kernel = self.take(role, "weight", shapes[0][::-1] if len(shapes[0]) == 2 else
                           (shapes[0][3], shapes[0][2], *shapes[0][:2]))  # fmt: skip
        bias = self.take(role, "bias", shapes[1])
        side = config.image_size // 16
        if role == "code":
            kernel = kernel.reshape(len(bias), -1, side, side).transpose(0, 2, 3, 1).reshape(len(bias), -1).T
        elif role == "expand":
            both = np.column_stack([kernel, bias]).reshape(-1, side, side, kernel.shape[1] + 1)
            both = both.transpose(1, 2, 0, 3).reshape(len(bias), -1)
            kernel, bias = both[:, :-1].T, both[:, -1]
        else:
            kernel = kernel.transpose(2, 3, 1, 0)
            if role == "conv0":
                kernel = kernel[:, :, ::-1]  # BGR -> RGB
            elif role == "conv":
                kernel, bias = kernel[..., ::-1], bias[::-1]
            elif role.startswith("upscale"):  # PyTorch's pixels vary fastest along channels, ours slowest
                kernel, bias = (
                    x.reshape(*x.shape[:-1], -1, 4).swapaxes(-1, -2).reshape(x.shape) for x in (kernel, bias)
                )
        layer.set_weights([kernel, bias])


def _infer(encoder, decoder):
    """Infers the `Config`; taking the tensors later shows whether all fit it."""
    code_dim, _ = encoder.shape("code")
    upscaled, code_width = encoder.shape("upscale")[:2]
    side = math.isqrt(encoder.shape("expand")[0] // code_width)
    widths = [decoder.shape(role)[0] // 4 for role in ("upscale0", "upscale1", "upscale2")]
    if side < 1:
        raise UserError(f"{encoder.path}: tensor {encoder.name('expand')} is too small for {code_width} channels")
    return Config(
        image_size=16 * side,
        init_dim=encoder.shape("conv0")[0],
        code_dim=code_dim,
        code_width=code_width,
        widths=(upscaled // 4, *widths),
        separable=encoder.has("conv1", "depthwise.weight"),
        coverage=1.0,
        original_crop=side % 4 == 0,
    )
