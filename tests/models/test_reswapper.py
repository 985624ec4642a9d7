"""Inswapper's generator and its files: the originals' numbers, and what is no such file."""

import json
import pickle
import re
import shutil
import types
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from facedancer.core.alignment import align_matrix, warp_to_aligned
from facedancer.core.console import UserError
from facedancer.models import inswapper_files, load_swapper, reswapper
from facedancer.models.families import card_of, move_embedding
from facedancer.models.reswapper import Config, build_discriminator, build_generator, inswapper_crop, inswapper_crop_of

FIXTURES = Path(__file__).resolve().parents[3] / "shared" / "fixtures"
TINY = Config(image_size=144, embedding_dim=6, widths=(2, 3, 4, 5), blocks=2)
CROP = inswapper_crop(1)


@pytest.fixture(scope="module")
def fixtures():
    """The folder of files in the originals' format; tests that use it skip without it."""
    if not FIXTURES.is_dir():
        pytest.skip("needs ../shared/fixtures, which is not in the repository")
    return FIXTURES / "reswapper"


@pytest.fixture(scope="module")
def originals(fixtures, tmp_path_factory):
    """A folder of the originals' files under the originals' names."""
    folder = tmp_path_factory.mktemp("originals")
    shutil.copy(fixtures / "reswapper-1019500_small.pth", folder / "reswapper-1019500.pth")
    shutil.copy(fixtures / "reswapper-1019500_small.pth", folder / "reswapper_256-1567500.pth")
    shutil.copy(fixtures / "reswapper-1019500_small.onnx", folder / "inswapper_128.onnx")
    shutil.copy(fixtures / "reswapper_dynamic_small.onnx", folder / "dynamic.onnx")
    return folder


@pytest.fixture(scope="module")
def tiny():
    """A generator with weights that tell every tensor from every other."""
    generator, draw = build_generator(TINY), np.random.default_rng(5)
    generator.set_weights([draw.normal(0.1, 0.4, array.shape) for array in generator.get_weights()])
    return generator


def signed(pictures):
    return pictures.transpose(0, 2, 3, 1) * 2 - 1


def unit(pictures):
    return (np.asarray(pictures).transpose(0, 3, 1, 2) + 1) / 2


def core_of(generator, height, width):
    """The network inside a generator, of pictures of any size and projected embeddings."""
    config = replace(TINY, widths=tuple(generator.get_layer(f"encoder_conv{i}").filters for i in range(4)), blocks=6)
    target, projected = keras.Input((height, width, 3)), keras.Input(generator.input_shape[1][1:])
    core = keras.Model([target, projected], reswapper._swap(target, projected, config))
    for layer in core.layers:
        if layer.weights:
            layer.set_weights(generator.get_layer(layer.name).get_weights())
    return core


def assert_near(found, expected):
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


# The network


def test_the_generator_has_the_originals_parameters_and_numbers(fixtures):
    counts = json.loads((FIXTURES / "families_parameter_counts.json").read_text())
    generator = build_generator(Config(image_size=64, inswapper_crop=False))
    trained = sum(int(np.prod(weight.shape)) for weight in generator.trainable_weights)
    assert trained == counts["reswapper StyleTransferModel"] == 138_292_739
    described = json.loads((fixtures / "tensors_model.json").read_text())["tensors"]
    tensors = {}
    for name, shape, *_ in described:
        draw = np.random.RandomState(zlib.crc32(f"0:{name}".encode()))
        n = draw.standard_normal(shape).astype(np.float32)
        tensors[name] = n * np.float32(1.2 / np.prod(shape[1:]) ** 0.5) if len(shape) > 1 else np.float32(0.1) * n
    tensors["decoderPart2.0.weight"] *= np.float32(0.3)
    assert list(inswapper_files.torch_tensors(generator)) == list(tensors)
    inswapper_files.give_tensors(generator, tensors)
    with np.load(fixtures / "model_full_recipe_io.npz") as io:
        taps = {
            "at_target_encoder": "encoder_activation3",
            "normalised_conv1": "block0_norm0",
            "at_style_blocks.0": "block0_add",
            "at_style_blocks.5": "block5_add",
        }
        tapped = [generator.get_layer(name).output for name in taps.values()]
        *features, swapped = keras.Model(generator.inputs, [*tapped, generator.output])(
            [signed(io["target"]), io["source"]]
        )
        assert_near(unit(swapped), io["output"])
        for name, found in zip(taps, features, strict=True):
            assert_near(np.asarray(found).transpose(0, 3, 1, 2)[:, ::32], io[name])


@pytest.mark.parametrize("name", ["model_small_io", "model_small_odd_size_io"])
def test_the_published_weights_give_the_same_pictures_at_any_size(fixtures, originals, name):
    with np.load(fixtures / f"{name}.npz") as io:
        core = core_of(load_swapper(originals / "reswapper-1019500.pth"), *io["target"].shape[2:])
        assert_near(unit(core([signed(io["target"]), io["source"]])), io["output"])


def test_an_inswapper_gives_the_same_pictures_and_leaves_what_lies_around(fixtures, originals):
    swapper = load_swapper(originals / "inswapper_128.onnx")
    with np.load(fixtures / "onnx_io.npz") as io:
        faces = np.random.default_rng(0).uniform(-1, 1, (1, 144, 144, 3)).astype(np.float32)
        inside = np.s_[:, CROP.top : CROP.top + 128, CROP.left : CROP.left + 128]
        faces[inside] = signed(io["target"])
        swapped = swapper.predict_on_batch({"target": faces, "source_embedding": io["embedding"]})
        assert_near(unit(swapped[inside]), io["output"])
        swapped[inside] = faces[inside]
        assert (swapped == faces).all()
        project = keras.Model(swapper.inputs[1], swapper.get_layer("projected_embedding").output)
        assert_near(project(io["embedding"]).numpy(), io["latent"])


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_the_crop_is_the_originals(fixtures, scale):
    """Its pixels are pixels of our aligned face: ReSwapper's matrices, but for a shift by whole numbers."""
    crop = inswapper_crop(scale)
    with np.load(fixtures / "alignment_and_blend_io.npz") as io:
        matrix = align_matrix(io["landmarks"], crop.image_size, crop.shrink_factor)
        matrix[:, 2] -= crop.left, crop.top
        assert np.abs(matrix - io[f"matrix_{crop.size}"]).max() < 1e-3
    assert inswapper_crop_of(crop.image_size) == crop
    assert inswapper_crop_of(143) is None and inswapper_crop_of(1) is None


def test_all_files_of_one_network_hold_the_same(originals):
    networks = [
        load_swapper(originals / name) for name in ("reswapper-1019500.pth", "inswapper_128.onnx", "dynamic.onnx")
    ]
    for other in networks[1:]:
        for a, b in zip(networks[0].get_weights(), other.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
    assert load_swapper(originals / "reswapper_256-1567500.pth").input_shape[0] == (None, 287, 287, 3)
    card = card_of(originals / "inswapper_128.onnx", 144, 512)
    assert (card.family, card.identity_encoder) == ("reswapper", "insightface_r50")
    assert card.shrink_factor == pytest.approx(112 / 144)


def test_the_discriminator_judges_every_face_by_one_number():
    discriminator = build_discriminator(replace(TINY, discriminator_widths=(2, 3)))
    assert discriminator(np.zeros((2, 144, 144, 3), np.float32)).shape == (2, 1)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"image_size": 128}, "144, 287"),
        ({"image_size": 130, "inswapper_crop": False}, "halved"),
        ({"widths": (1, 2, 3)}, "3 widths"),
        ({"blocks": 0}, "--blocks"),
    ],
)
def test_bad_shapes_are_refused(changes, named):
    with pytest.raises(UserError, match=named):
        replace(TINY, **changes)


# Files written


def test_a_written_file_is_an_inswapper(tiny, tmp_path):
    """Names, order and shapes of its ends, `emap` last, the same pictures; and it is read again, exactly."""
    (path,) = reswapper.save_published(tiny, tmp_path / "x")
    assert path.name == "x_inswapper.onnx"
    model = onnx.load(path)
    emap = model.graph.initializer[-1]
    assert emap.name == "emap"
    session = onnxruntime.InferenceSession(path)
    ends = [(end.name, end.shape) for end in (*session.get_inputs(), *session.get_outputs())]
    assert ends == [("target", [1, 3, 128, 128]), ("source", [1, 6]), ("output", [1, 3, 128, 128])]
    draw = np.random.default_rng(1)
    faces, embedding = draw.uniform(-1, 1, (1, 144, 144, 3)).astype(np.float32), draw.normal(size=(1, 6))
    projected = embedding / np.linalg.norm(embedding) @ numpy_helper.to_array(emap)
    projected = (projected / np.linalg.norm(projected)).astype(np.float32)
    inside = faces[:, CROP.top : CROP.top + 128, CROP.left : CROP.left + 128]
    (found,) = session.run(None, {"target": unit(inside), "source": projected})
    expected = tiny([faces, embedding.astype(np.float32)])[:, CROP.top : CROP.top + 128, CROP.left : CROP.left + 128]
    assert_near(found, unit(expected))
    for a, b in zip(load_swapper(path).get_weights(), tiny.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_network_of_another_crop_is_not_written_as_an_inswapper(tmp_path):
    generator = build_generator(replace(TINY, image_size=32, inswapper_crop=False))
    assert reswapper.save_published(generator, tmp_path / "x") == []
    assert not list(tmp_path.iterdir())


def test_insightface_loads_it(fixtures, originals, tmp_path):
    """Its own `INSwapper`, where it is installed, on its own recorded picture."""
    inswapper = pytest.importorskip("insightface.model_zoo.inswapper", reason="needs insightface")
    (path,) = reswapper.save_published(load_swapper(originals / "inswapper_128.onnx"), tmp_path / "x")
    with np.load(fixtures / "inswapper_pasteback_io.npz") as io:
        target, source = (
            types.SimpleNamespace(kps=io["landmarks"]), types.SimpleNamespace(normed_embedding=io["normed_embedding"])
        )  # fmt: skip
        swapper = inswapper.INSwapper(str(path))
        merged = swapper.get(io["image_bgr"], target, source)
        assert np.abs(merged.astype(int) - io["merged_bgr"]).max() <= 1
        swapped, matrix = swapper.get(io["image_bgr"], target, source, paste_back=False)
        assert np.abs(matrix - io["matrix"]).max() < 1e-3
        # And ours, on the same picture, gives the same face.
        frame_to_aligned = align_matrix(io["landmarks"], 144, CROP.shrink_factor)
        aligned = warp_to_aligned(io["image_bgr"][..., ::-1], frame_to_aligned, 144)
        ours = load_swapper(path)([aligned[None] / np.float32(127.5) - 1, io["normed_embedding"][None]])[0]
        ours = np.asarray((ours[CROP.top :, CROP.left : CROP.left + 128] + 1) * 127.5)
        assert np.abs(ours[..., ::-1] - swapped).mean() < 1


# Files that are no such


def state_dict_file(path, tensors):
    """Writes a `.pth` as PyTorch does: an archive of a pickle and the numbers."""

    class Storage:
        def __init__(self, key, array):
            self.key, self.array = key, array

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            if isinstance(value, Storage):
                return ("storage", FloatStorage, value.key, "cpu", value.array.size)
            return None

        def reducer_override(self, value):
            if isinstance(value, np.ndarray):
                key = str(len(stored))
                stored[key] = np.ascontiguousarray(value)
                strides = tuple(step // 4 for step in stored[key].strides)
                return rebuild, (Storage(key, stored[key]), 0, value.shape, strides, False, {})
            return NotImplemented

    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    FloatStorage = type("FloatStorage", (), {"__module__": "torch"})

    def rebuild():
        """Stands for PyTorch's, by its name."""

    rebuild.__module__, rebuild.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    torch.FloatStorage, utils._rebuild_tensor_v2 = FloatStorage, rebuild
    stored = {}
    with pytest.MonkeyPatch.context() as patch, zipfile.ZipFile(path, "w") as archive:
        patch.setitem(__import__("sys").modules, "torch", torch)
        patch.setitem(__import__("sys").modules, "torch._utils", utils)
        with archive.open("archive/data.pkl", "w") as file:
            Pickler(file, 2).dump(tensors)
        for key, array in stored.items():
            archive.writestr(f"archive/data/{key}", array.tobytes())


@pytest.fixture
def saved(tiny, tmp_path):
    """Function that writes the tiny network as a `.pth`, with `emap.npy`, after a change of its tensors."""

    def save(change=lambda tensors: None, emap=True):
        tensors = inswapper_files.torch_tensors(tiny)
        change(tensors)
        state_dict_file(tmp_path / "reswapper-1.pth", tensors)
        if emap:
            np.save(tmp_path / "emap.npy", tiny.get_layer("projected_embedding").get_weights()[0])
        return tmp_path / "reswapper-1.pth"

    return save


def test_a_pth_is_read_with_the_names_of_older_versions(saved, tiny, fixtures):
    older = {
        f"latent_encoder.{name}": np.zeros(shape, np.float32)
        for name, shape in json.loads((fixtures / "tensors_seed_latent_encoder.json").read_text())
    }
    for a, b in zip(load_swapper(saved(lambda x: x.update(older))).get_weights(), tiny.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.pop("style_blocks.1.conv2.bias"), "lacks style_blocks.1.conv2.bias"),
        (lambda x: x.pop("target_encoder.4.weight"), "lacks target_encoder.4.weight"),
        (lambda x: x.update({"latent_encoder.1.weight": x["decoder.0.bias"]}), "has unknown latent_encoder.1.weight"),
        (lambda x: x.update({"decoder.0.bias": x["decoder.0.bias"][:2]}), r"decoder.0.bias has the shape \(2,\)"),
        (lambda x: x.update({"target_encoder.0.weight": x["decoder.0.bias"]}), "expected 4 dimensions"),
    ],
)
def test_a_pth_with_other_tensors_is_refused_and_the_tensor_named(saved, change, message):
    with pytest.raises(UserError, match=message):
        load_swapper(saved(change))


def test_a_pth_with_code_or_without_emap_is_refused(saved, tmp_path):
    with pytest.raises(UserError, match=r"needs the matrix emap beside it, as emap.npy or in inswapper_128.onnx"):
        load_swapper(saved(emap=False))
    np.save(tmp_path / "emap.npy", np.eye(5))
    with pytest.raises(UserError, match="emap has the shape"):
        load_swapper(saved(emap=False))
    np.save(tmp_path / "emap.npy", np.array([print]), allow_pickle=True)
    with pytest.raises(UserError, match=r"emap\.npy: not a NumPy array"):
        load_swapper(saved(emap=False))
    (tmp_path / "reswapper-2.pth").write_bytes(pickle.dumps({"target_encoder.0.weight": print}))
    with pytest.raises(UserError, match="refused, it"):
        load_swapper(tmp_path / "reswapper-2.pth")


def nodes_of(graph, kind):
    return [node for node in graph.node if node.op_type == kind]


def set_attribute(node, **values):
    kept = [attribute for attribute in node.attribute if attribute.name not in values]
    del node.attribute[:]
    node.attribute.extend([*kept, *(onnx.helper.make_attribute(key, value) for key, value in values.items())])


def set_constant(graph, name, value):
    (node,) = [node for node in nodes_of(graph, "Constant") if node.output[0] == name]
    set_attribute(node, value=numpy_helper.from_array(value))


def exchange_inputs(node):
    node.input[0], node.input[1] = node.input[1], node.input[0]


DAMAGES = {
    "another slope": (lambda g: set_attribute(nodes_of(g, "LeakyRelu")[0], alpha=0.1), "before encoder_conv1"),
    "zeros around": (lambda g: set_attribute(nodes_of(g, "Pad")[1], mode="constant"), "before block0_conv0"),
    "another epsilon": (lambda g: set_constant(g, "epsilon", np.float32(1e-5)), "before block0_conv1"),
    "scale and offset exchanged": (
        lambda g: nodes_of(g, "Split")[0].output.reverse(),
        "before block0_conv1",
    ),
    "no residual": (lambda g: exchange_inputs_of_sum(g), "before block1_conv0"),
    "another doubling": (lambda g: set_attribute(nodes_of(g, "Resize")[0], mode="nearest"), "bilinearly"),
    "corners aligned": (
        lambda g: set_attribute(nodes_of(g, "Resize")[0], coordinate_transformation_mode="align_corners"),
        "half-pixel",
    ),
    "another stride": (lambda g: set_attribute(nodes_of(g, "Conv")[2], strides=[1, 1]), "encoder_conv2 has strides"),
    "another range": (lambda g: set_constant(g, "two", np.float32(1)), "before output"),
    "a layer more": (lambda g: g.node.append(nodes_of(g, "Conv")[0]), "number of convolutions"),
    "weights left over": (
        lambda g: g.initializer.insert(0, numpy_helper.from_array(np.zeros((2, 2), np.float32), "more")),
        "has more, which belongs to no layer",
    ),
    "one input": (lambda g: g.input.pop(), "1 inputs"),
}


def exchange_inputs_of_sum(graph):
    (node,) = [node for node in graph.node if node.output[0] == "style_blocks.0/sum"]
    node.input[0] = node.input[1]


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_an_onnx_file_that_computes_otherwise_is_refused(tiny, tmp_path, damage, message):
    """Also where all tensors fit: a wrong picture would be worse than none."""
    path = tmp_path / "x.onnx"
    inswapper_files.write_onnx(tiny, path)
    model = onnx.load(path)
    damage(model.graph)
    onnx.save(model, path)
    with pytest.raises(UserError, match=re.escape(str(path)) + ".*" + message):
        load_swapper(path)


def test_what_is_no_onnx_file_is_refused(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"no such thing")
    with pytest.raises(UserError, match="not an ONNX file"):
        load_swapper(tmp_path / "x.onnx")
    with pytest.raises(UserError, match="No such file"):
        load_swapper(tmp_path / "y.onnx")


def test_an_attribute_is_added_to_the_projected_embedding(tiny, tmp_path):
    """The network meets the direction of `projected + steps · direction`, whatever `emap` is."""
    (path,) = reswapper.save_published(tiny, tmp_path / "x")
    draw = np.random.default_rng(2)
    embedding, direction = draw.normal(size=6).astype(np.float32), draw.normal(size=6)
    project = keras.Model(tiny.inputs[1], tiny.get_layer("projected_embedding").output)
    before = np.asarray(project(embedding[None]))[0]
    for steps in (0.0, 1.5, -2.0):
        moved = move_embedding(path, embedding, direction, steps)
        expected = before + steps * direction / np.linalg.norm(direction)
        np.testing.assert_allclose(project(moved[None])[0], expected / np.linalg.norm(expected), atol=1e-4)
        assert np.linalg.norm(moved) == pytest.approx(np.linalg.norm(embedding), rel=1e-5)
