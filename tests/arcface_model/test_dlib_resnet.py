"""dlib's file is read to its last byte or refused, and its network gives the numbers that dlib gives."""

import numpy as np
import pytest

from facedancer.arcface_model import dlib_resnet
from facedancer.arcface_model.conversion import convert_dlib_resnet
from facedancer.arcface_model.dlib_file import read_dlib_network
from facedancer.arcface_model.dlib_resnet import ZeroPadTo, build_dlib_resnet
from facedancer.core.console import UserError
from facedancer.core.keras_h5 import load_by_layer_name, read_keras_h5


class Writer:
    """Writes networks as dlib does."""

    def __init__(self, seed=0):
        self.generator = np.random.default_rng(seed)
        self.parts = []

    def integers(self, *values):
        for value in values:
            magnitude = abs(value).to_bytes(max(1, (abs(value).bit_length() + 7) // 8), "little")
            self.parts.append(bytes([len(magnitude) | (0x80 if value < 0 else 0)]) + magnitude)

    def number(self, value):
        mantissa, exponent = np.frexp(value)
        self.integers(int(mantissa * 2**24), int(exponent) - 24)

    def text(self, text):
        self.integers(len(text))
        self.parts.append(text.encode())

    def tensor(self, *shape):
        values = self.generator.normal(0, 0.05, shape).astype("<f4")
        self.integers(2, *shape)
        self.parts.append(values.tobytes())
        return values.ravel()

    def views(self, *shapes):
        for shape in shapes:
            self.integers(1, *shape)

    def convolution(self, filters, channels, size, stride, padding):
        self.text("con_4")
        count = filters * channels * size * size
        values = self.tensor(count + filters, 1, 1, 1)
        self.integers(filters, size, size, stride, stride, padding, padding)
        self.views((filters, channels, size, size), (1, filters, 1, 1))
        for factor in (1.0, 1.0, 1.0, 0.0):
            self.number(factor)
        return values[:count].reshape(filters, channels, size, size), values[count:]

    def affine(self, channels):
        self.text("affine_")
        values = self.tensor(2 * channels, 1, 1, 1)
        self.views((1, channels, 1, 1), (1, channels, 1, 1))
        self.integers(0)
        return values[:channels], values[channels:]

    def pool(self, kind, size, stride):
        self.text(kind)
        self.integers(size, size, stride, stride, 0, 0)

    def dense(self, inputs, outputs):
        self.text("fc_2")
        self.integers(outputs, inputs)
        values = self.tensor(inputs, outputs, 1, 1)
        self.views((inputs, outputs, 1, 1), (0, 0, 0, 0))
        self.integers(1)
        for factor in (1.0, 1.0, 1.0, 0.0):
            self.number(factor)
        return values.reshape(inputs, outputs)

    def network(self, layers, mean=dlib_resnet.MEAN_RGB):
        """Writes a network; `layers` are functions of the writer, None a tag. Returns bytes and what they returned."""
        self.integers(1)
        self.text("loss_metric_2")
        self.number(0.04)
        self.number(0.6)
        for layer in layers[::-1]:
            self.integers(1 if layer is None else 3 if layer is layers[0] else 2)
        self.text("input_rgb_image_sized")
        for value in mean:
            self.number(value)
        self.integers(150, 150)
        written = []
        for layer in layers:
            if layer is not None:
                written.append(layer(self))
                self.parts.append(b"100")
                for _ in range(3):
                    self.tensor(0, 0, 0, 0)
                if layer is layers[0]:
                    self.integers(1)
        return b"".join(self.parts), written


def small_network():
    return Writer().network(
        [
            lambda w: w.convolution(4, 3, 7, 2, 0),
            lambda w: w.affine(4),
            lambda w: w.text("relu_"),
            lambda w: w.pool("max_pool_2", 3, 2),
            None,
            lambda w: w.text("add_prev_"),
            lambda w: w.pool("avg_pool_2", 0, 1),
            lambda w: w.dense(4, 5),
        ]
    )


def face_resnet(**changes):
    """The whole face ResNet with made-up weights; a change replaces the stride or the filters of the first layer."""
    stem = {"filters": 32, "stride": 2, **changes}
    layers = [
        lambda w: w.convolution(stem["filters"], 3, 7, stem["stride"], 0),
        lambda w: w.affine(stem["filters"]),
        lambda w: w.text("relu_"),
        lambda w: w.pool("max_pool_2", 3, 2),
    ]
    channels = 32
    for _, filters, halves in dlib_resnet.unit_names():
        first = (2, 0) if halves else (1, 1)
        layers += [
            None,
            lambda w, f=filters, c=channels, first=first: w.convolution(f, c, 3, *first),
            lambda w, f=filters: w.affine(f),
            lambda w: w.text("relu_"),
            lambda w, f=filters: w.convolution(f, f, 3, 1, 1),
            lambda w, f=filters: w.affine(f),
            *([None, None, lambda w: w.pool("avg_pool_2", 2, 2)] if halves else []),
            lambda w: w.text("add_prev_"),
            lambda w: w.text("relu_"),
        ]
        channels = filters
    layers += [lambda w: w.pool("avg_pool_2", 0, 1), lambda w: w.dense(256, 128)]
    return Writer().network(layers)


def test_reads_what_was_written():
    content, written = small_network()
    layers = read_dlib_network(content)
    assert [layer.kind for layer in layers] == [
        "input_rgb_image_sized", "con_4", "affine_", "relu_", "max_pool_2", "tag", "add_prev_", "avg_pool_2", "fc_2",
        "loss_metric_2",
    ]  # fmt: skip
    np.testing.assert_allclose(layers[0].settings["mean"], dlib_resnet.MEAN_RGB, rtol=1e-6)
    assert layers[1].settings == {"kernel": (7, 7), "stride": (2, 2), "padding": (0, 0)}
    np.testing.assert_array_equal(layers[1].arrays["kernel"], written[0][0])
    np.testing.assert_array_equal(layers[1].arrays["bias"], written[0][1])
    np.testing.assert_array_equal(layers[2].arrays["scale"], written[1][0])
    np.testing.assert_array_equal(layers[2].arrays["shift"], written[1][1])
    np.testing.assert_array_equal(layers[8].arrays["kernel"], written[6])


def test_refuses_damage():
    content, _ = small_network()
    for length in range(0, len(content), 11):
        with pytest.raises(UserError, match="not dlib's face recognition network"):
            read_dlib_network(content[:length])
    for damaged, reason in (
        (content + b"x", "left over"),
        (content.replace(b"relu_", b"sig__"), "the layer 'sig__'"),
        (content.replace(b"loss_metric_2", b"loss_metric_3"), "the loss"),
        (b"\x01\x02" + content[2:], "version 2 of the loss"),
        (b"<!DOCTYPE html><html></html>", "no integer"),
        (b"", "ends early"),
    ):
        with pytest.raises(UserError, match=reason):
            read_dlib_network(damaged)


def test_conversion_folds_and_takes_everything(tmp_path):
    content, written = face_resnet()
    path = tmp_path / "converted.h5"
    convert_dlib_resnet(content, path)
    stored = read_keras_h5(path).weights
    assert list(stored) == [*dlib_resnet.convolution_names(), "embedding"]
    pairs = [item for item in written if item is not None]
    names = dlib_resnet.convolution_names()
    for name, (kernel, bias), (scale, shift) in zip(names, pairs[:-1:2], pairs[1:-1:2], strict=True):
        found_kernel, found_bias = stored[name].values()
        wanted = kernel.transpose(2, 3, 1, 0) * scale
        np.testing.assert_allclose(found_kernel, wanted, rtol=1e-5, atol=1e-9, err_msg=name)
        np.testing.assert_allclose(found_bias, bias * scale + shift, rtol=1e-5, atol=1e-7, err_msg=name)
    np.testing.assert_array_equal(*stored["embedding"].values(), pairs[-1])
    assert load_by_layer_name(build_dlib_resnet(), path).count_params() == 5_607_488


def test_conversion_refuses_another_network(tmp_path):
    for content in (small_network()[0], face_resnet(stride=1)[0]):
        with pytest.raises(UserError, match="is not the face ResNet"):
            convert_dlib_resnet(content, tmp_path / "converted.h5")
    with pytest.raises(UserError, match="stem_conv"):
        convert_dlib_resnet(face_resnet(filters=16)[0], tmp_path / "converted.h5")
    assert not (tmp_path / "converted.h5").exists()


def test_gives_the_reference_numbers(embedded, waves):
    """The numbers are those of the sketch that was compared with dlib itself on 240 crops (at most 4.5e-7 apart)."""
    model = load_by_layer_name(build_dlib_resnet(), embedded("dlib_resnet"))
    embeddings = np.asarray(model(waves(2, 150).astype(np.float32))["embedding"])
    expected = [
        [-0.0545513, 0.1069538, 0.028244, -0.0084946, -0.068268, -0.0227421],
        [-0.0753046, 0.0979695, 0.0753055, -0.0443474, -0.0706159, -0.0359536],
    ]
    np.testing.assert_allclose(embeddings[:, :6], expected, atol=2e-6)


def test_zero_padding(reloaded, input_gradient, tmp_path):
    inputs = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    found = reloaded(ZeroPadTo(4, 6, 7), inputs, tmp_path / "padded.keras")
    np.testing.assert_array_equal(found[:, :3, :4, :5], inputs)
    assert found.shape == (2, 4, 6, 7) and np.abs(found).sum() == pytest.approx(np.abs(inputs).sum(), rel=1e-6)
    np.testing.assert_allclose(input_gradient(ZeroPadTo(4, 6, 7), inputs), 2 * inputs)
