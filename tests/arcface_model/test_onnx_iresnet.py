"""InsightFace's ONNX files, as graphs of that structure made here, become the same network in Keras, or are refused."""

import pickle

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from facedancer.arcface_model.encoder import IdentityEncoder
from facedancer.arcface_model.iresnet import build_iresnet, ifsr_taps
from facedancer.arcface_model.onnx_iresnet import load_iresnet
from facedancer.core.console import UserError

UNITS, WIDTHS, DIM = (2, 1, 3, 1), (3, 4, 5, 6), 7


class GraphMaker:
    """Writes an IResNet as PyTorch exports it: eval mode, batch normalization behind convolutions folded or not."""

    def __init__(self, folded, seed=0):
        self.folded, self.generator = folded, np.random.default_rng(seed)
        self.nodes, self.constants = [], []

    def constant(self, *shape, low=-0.4, high=0.4):
        name = f"weight_{len(self.constants)}"
        values = self.generator.uniform(low, high, shape).astype(np.float32)
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def node(self, kind, *inputs, **attributes):
        output = f"tensor_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], name=f"{kind}_{len(self.nodes)}", **attributes))
        return output

    def batch_normalization(self, x, channels):
        names = [self.constant(channels), self.constant(channels), self.constant(channels)]
        variance = self.constant(channels, low=0.5, high=2.0)
        return self.node("BatchNormalization", x, *names, variance, epsilon=2e-5)

    def convolution(self, x, inputs, outputs, size, stride):
        names = [self.constant(outputs, inputs, size, size)]
        if self.folded:
            names.append(self.constant(outputs))
        settings = {"kernel_shape": [size, size], "strides": [stride, stride], "pads": [size // 2] * 4, "group": 1}
        x = self.node("Conv", x, *names, dilations=[1, 1], **settings)
        return x if self.folded else self.batch_normalization(x, outputs)

    def prelu(self, x, channels):
        return self.node("PRelu", x, self.constant(channels, 1, 1))

    def model(self, units=UNITS, widths=WIDTHS, dim=DIM):
        x, channels = self.prelu(self.convolution("input.1", 3, widths[0], 3, 1), widths[0]), widths[0]
        for count, width in zip(units, widths, strict=True):
            for unit in range(count):
                stride = 2 if unit == 0 else 1
                y = self.batch_normalization(x, channels)
                y = self.prelu(self.convolution(y, channels, width, 3, 1), width)
                y = self.convolution(y, width, width, 3, stride)
                x = self.node("Add", y, self.convolution(x, channels, width, 1, stride) if stride == 2 else x)
                channels = width
        x = self.node("Flatten", self.batch_normalization(x, channels), axis=1)
        x = self.node("Gemm", x, self.constant(dim, channels * 49), self.constant(dim), transB=1, alpha=1.0, beta=1.0)
        x = self.batch_normalization(x, dim)
        return self.finish(x, dim)

    def finish(self, output, dim=DIM, size=112):
        inputs = [helper.make_tensor_value_info("input.1", TensorProto.FLOAT, ["batch", 3, size, size])]
        outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", dim])]
        graph = helper.make_graph(self.nodes, "torch-jit-export", inputs, outputs, self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


@pytest.mark.parametrize("folded", [True, False])
def test_gives_what_onnxruntime_gives(folded, tmp_path, input_gradient):
    runtime = pytest.importorskip("onnxruntime")
    path = tmp_path / "w600k.onnx"
    onnx.save(GraphMaker(folded).model(), path)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    pictures = np.random.default_rng(1).uniform(-1, 1, (2, 112, 112, 3)).astype(np.float32)
    (expected,) = session.run(None, {"input.1": pictures.transpose(0, 3, 1, 2)})
    model, units = load_iresnet(path)
    assert units == UNITS
    found = np.asarray(model(pictures)["embedding"])
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
    assert np.ptp(expected) > 0.1
    gradient = input_gradient(model, pictures)
    assert np.isfinite(gradient).all() and (np.abs(gradient).sum((1, 2, 3)) > 0).all()


def test_serves_as_identity_encoder(tmp_path, waves):
    path = tmp_path / "glint.onnx"
    onnx.save(GraphMaker(True).model(), path)
    encoder = IdentityEncoder(path)
    assert (encoder.name, encoder.dim) == ("arcface_iresnet16", DIM)
    faces = waves(3, 112)
    model, _ = load_iresnet(path)
    direct = np.asarray(model(faces / np.float32(127.5) - 1)["embedding"])
    np.testing.assert_allclose(encoder(faces), direct, atol=1e-5)
    outputs = encoder.build_model(64)(faces[:, ::2, ::2][:, :56, :56].repeat(2, 1).repeat(2, 2)[:, :64, :64] / 255)
    assert list(outputs) == ["embedding", *ifsr_taps(UNITS)] == ["embedding", *encoder.ifsr_margins]


def test_taps_of_the_published_depths():
    assert build_iresnet((3, 4, 14, 3), (2, 2, 2, 2), 3).name == "arcface_iresnet50"
    for units in ((3, 4, 14, 3), (3, 13, 30, 3)):
        taps = ifsr_taps(units)
        assert len(taps) == len(set(taps)) == 11
        assert taps[0] == f"layer3_unit{units[2] - 1}_out" and taps[-1] == f"layer1_unit{units[0] - 1}_out"
        places = [tuple(int(part[-2:].strip("tr")) for part in tap.split("_")[:2]) for tap in taps]
        assert places == sorted(places, reverse=True)


def test_resolves_copies_and_dropout(tmp_path):
    """PyTorch exports equal constants as an Identity of one, and training exports keep the dropout."""
    maker = GraphMaker(True)
    plain = maker.model()
    onnx.save(plain, tmp_path / "plain.onnx")
    changed = onnx.ModelProto()
    changed.CopyFrom(plain)
    nodes = changed.graph.node
    slope = next(node for node in nodes if node.op_type == "PRelu")
    copied = helper.make_node("Identity", [slope.input[1]], ["copied"])
    slope.input[1] = "copied"
    flatten = next(node for node in nodes if node.op_type == "Flatten")
    dropout = helper.make_node("Dropout", [flatten.input[0]], ["dropped"])
    flatten.input[0] = "dropped"
    ordered = [copied, *(list(nodes)[: list(nodes).index(flatten)]), dropout]
    ordered += list(nodes)[list(nodes).index(flatten) :]
    del nodes[:]
    nodes.extend(ordered)
    onnx.save(changed, tmp_path / "changed.onnx")
    pictures = np.random.default_rng(1).uniform(-1, 1, (1, 112, 112, 3)).astype(np.float32)
    outputs = [load_iresnet(tmp_path / f"{name}.onnx")[0](pictures)["embedding"] for name in ("plain", "changed")]
    np.testing.assert_array_equal(*outputs)


def changed_graph(change):
    model = GraphMaker(True).model()
    change(model.graph)
    return model


def first(graph, kind):
    return next(node for node in graph.node if node.op_type == kind)


def replace_attribute(node, name, value):
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


def external(graph):
    graph.initializer[0].data_location = TensorProto.EXTERNAL


def circle(graph):
    """The second node takes what the last one gives."""
    graph.node[1].input[0] = graph.node[-1].output[0]


def relu_for_prelu(graph):
    node = first(graph, "PRelu")
    node.op_type = "Relu"
    del node.input[1:]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda graph: graph.node.remove(first(graph, "Add")), "where one Add is expected"),
        (relu_for_prelu, "Relu where one PRelu is expected"),
        (lambda graph: graph.node.append(helper.make_node("Relu", ["nowhere"], ["x"])), "nodes left over: Relu"),
        (lambda graph: replace_attribute(first(graph, "Conv"), "strides", [2, 2]), "stem_conv has strides"),
        (lambda graph: replace_attribute(first(graph, "Conv"), "group", 3), "stem_conv has group 3"),
        (lambda graph: replace_attribute(first(graph, "Gemm"), "transB", 0), "its dense layer is"),
        (lambda graph: graph.initializer.pop(0), "instead of one each|is not a constant"),
        (external, "is stored in another file"),
        (lambda graph: first(graph, "Conv").input.__delitem__(slice(1, None)), "input 1 of Conv .* is not a constant"),
        (lambda graph: first(graph, "PRelu").input.pop(), "input 1 of PRelu .* is not a constant"),
        (lambda graph: first(graph, "Add").output.pop(), "without an output"),
        (lambda graph: setattr(graph.initializer[0], "data_type", TensorProto.INT64), "does not hold floating-point"),
        (lambda graph: setattr(graph.initializer[0], "data_type", TensorProto.STRING), "does not hold floating-point"),
        (lambda graph: setattr(graph.initializer[0], "raw_data", b"abc"), "is damaged"),
        (lambda graph: graph.initializer[0].dims.append(10**9), "has the shape"),
        (lambda graph: graph.initializer[0].dims.__setitem__(0, 10**12), "used too often|is damaged"),
        (circle, "where one Conv is expected|where one PRelu is expected"),
        (lambda graph: graph.node.extend([first(graph, "Add")] * 6000), "nodes"),
        (lambda graph: setattr(graph.output[0], "name", graph.node[3].output[0]), "its output is not the embedding"),
    ],
)
def test_refuses_other_graphs(change, reason, tmp_path):
    path = tmp_path / "other.onnx"
    path.write_bytes(changed_graph(change).SerializeToString())
    with pytest.raises(UserError, match=rf"other\.onnx: not an InsightFace ArcFace network .*({reason})"):
        load_iresnet(path)


def test_refuses_wrong_shapes(tmp_path):
    path = tmp_path / "other.onnx"
    for units, widths in (((1, 1, 1), (3, 4, 5)), ((1, 1, 1, 1, 1), (3, 4, 5, 6, 7))):
        maker = GraphMaker(True)
        path.write_bytes(maker.model(units, widths).SerializeToString())
        with pytest.raises(UserError, match="stages of"):
            load_iresnet(path)
    maker = GraphMaker(True)
    path.write_bytes(maker.finish(maker.convolution("input.1", 3, 4, 3, 1), size=96).SerializeToString())
    with pytest.raises(UserError, match=r"an input of shape \[3, 96, 96\]"):
        load_iresnet(path)


def test_refuses_what_is_no_onnx_file(tmp_path):
    path = tmp_path / "weights.onnx"
    whole = GraphMaker(True).model().SerializeToString()
    touched = tmp_path / "touched"

    class Evil:
        def __reduce__(self):
            import os

            return os.mkdir, (str(touched),)

    for content in (
        whole[: len(whole) // 2],
        pickle.dumps(Evil()),
        b"<!DOCTYPE html><title>x</title>",
        b"",
        b"\x89HDF",
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"weights\.onnx: not an "):
            load_iresnet(path)
    assert not touched.exists()
    with pytest.raises(UserError, match=r"absent\.onnx"):
        load_iresnet(tmp_path / "absent.onnx")
