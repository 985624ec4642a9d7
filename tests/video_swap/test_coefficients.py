"""Swapping with 3D coefficients of source and target: the swapper, mixes of sources, the commands, the evaluation."""

import sys
from dataclasses import asdict
from pathlib import Path

import keras
import numpy as np
import pytest
from drawn_faces import draw_face
from small_videos import SIZE, KnownFaces, MeanColor, moving_frames, read_clip, similarity, write_clip

from facedancer.arcface_model import face_shapes
from facedancer.core.card import ExportCard, write_card
from facedancer.core.console import UserError
from facedancer.core.images import read_image, to_signed, write_image
from facedancer.core.pictures import load_picture
from facedancer.core.weights import get_weights
from facedancer.evaluate.swappers import Swapper, read_model_card
from facedancer.models import load_swapper
from facedancer.models.hififace import Config, build_generator, build_swapper
from facedancer.video_swap import FaceSwapper, interpolate, multi_face_single_source, swap_image
from facedancer.video_swap.sources import MIXES, Source, load_source, mix_sources, save_source
from facedancer.video_swap.swapper import PlacedFace

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "train"))
from tiny_networks import COEFFICIENTS, SHAPE, build_shapes_model, to_landmarks
from tiny_run import draw_weights

pytestmark = pytest.mark.usefixtures("networks_loaded_once")

FIXTURES = Path(__file__).resolve().parents[3] / "shared" / "fixtures" / "hififace"


class Corners:
    """Coefficients that are the colors of two corners."""

    dim, name = 6, "corners"

    def __call__(self, faces):
        return np.float32(np.concatenate([faces[:, 0, 0], faces[:, -1, -1]], axis=1) / 255)


class Recorder:
    """A network that gives the target back and remembers what it was given."""

    def predict_on_batch(self, inputs):
        self.inputs = inputs
        return inputs["target"]


def test_each_face_is_given_its_sources_coefficients_and_its_own():
    model, shapes = Recorder(), Corners()
    matrices = similarity(0.8, 0.2, (40, 40)), similarity(1.2, -0.3, (110, 60))
    swapper = FaceSwapper(model, KnownFaces(*matrices), MeanColor(), SIZE, shapes=shapes, pixel_boost=2)
    rng = np.random.default_rng(0)
    sources = [swapper.source(rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8), is_aligned=True) for _ in range(2)]
    frame = moving_frames(1, 160, 120)[0]
    frame[0, 0, 0] = 2  # faces, for the stand-in of the detector
    faces = swapper.detector.detect([frame])[0]
    placed = [PlacedFace(face.landmarks, source.given) for face, source in zip(faces, sources, strict=True)]
    swapper.swap_placed([frame], [placed])
    inputs = model.inputs
    assert {name: len(values) for name, values in inputs.items()} == dict.fromkeys(inputs, 8)
    numbers = [0 if np.array_equal(row, sources[0].embedding) else 1 for row in inputs["source_embedding"]]
    assert sorted(numbers) == [0] * 4 + [1] * 4
    for row, number in enumerate(numbers):
        np.testing.assert_array_equal(inputs["source_coefficients"][row], sources[number].coefficients)
    pictures = np.uint8(np.rint((inputs["target"] + 1) * 127.5))
    np.testing.assert_array_equal(inputs["target_coefficients"], shapes(pictures))


def made_source(seed):
    rng = np.random.default_rng(seed)
    return Source(rng.normal(size=4).astype(np.float32), None, coefficients=rng.normal(size=6).astype(np.float32))


@pytest.mark.parametrize("kind", MIXES)
def test_mixes_end_at_their_sources(kind):
    a, b = made_source(0), made_source(1)
    np.testing.assert_allclose(mix_sources(kind, 1.0, a, b).given, a.given, rtol=1e-5)
    expected = (a if kind == "3d" else b).embedding, (a if kind == "identity" else b).coefficients
    np.testing.assert_allclose(mix_sources(kind, 0.0, a, b).given, np.concatenate(expected), rtol=1e-5)


@pytest.mark.parametrize("kind", MIXES)
@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_sources_are_mixed_as_the_original_mixes_them(kind, share):
    if not FIXTURES.is_dir():
        pytest.skip("needs ../shared/fixtures/hififace, which is not in the repository")
    stored = np.load(FIXTURES / "identity_vector_small_io.npz")
    a, b = (
        Source(2 * stored[f"v_{name}"][0], None, coefficients=stored[f"c_{name}"][0]) for name in ("source", "source2")
    )
    mixed = mix_sources(kind, share, a, b)
    expected = stored[f"{kind}_{share}"][0]
    np.testing.assert_allclose(mixed.coefficients[:80], expected[:80], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(mixed.embedding / np.linalg.norm(mixed.embedding), expected[257:], atol=1e-5)


def test_what_has_no_coefficients_cannot_mix_them():
    a, b = (Source(np.float32([1, number]), None) for number in (0, 1))
    np.testing.assert_allclose(
        mix_sources("all", 0.5, a, b).given[0], mix_sources("all", 0.5, b, a).given[0], rtol=1e-6
    )
    with pytest.raises(UserError, match="takes no coefficients"):
        mix_sources("3d", 0.5, a, b)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An export, a picture and a video of two people, and a picture of one of them."""
    folder = tmp_path_factory.mktemp("coefficients")
    for name in ("retinaface_mobilenet025", "dlib_resnet"):
        get_weights(name)
    config = Config(
        image_size=32, face_shapes="tiny", embedding_dim=128, coefficients_dim=COEFFICIENTS, shape_dim=SHAPE,
        widths=(4, 8, 8, 8), up_widths=(8, 4, 4), adain_base=1.0,
    )  # fmt: skip
    swapper = build_swapper({"generator": draw_weights(build_generator(config), 1)})
    swapper.save(folder / "tiny.h5")
    card = ExportCard(
        "hififace", 32, 128, 0.9, identity_encoder="dlib_resnet", network=asdict(config), needs="coefficients",
        face_shapes="tiny",
    )  # fmt: skip
    write_card(folder, card)
    two = np.concatenate([draw_face(1, 160), draw_face(2, 160)], axis=1)
    write_image(folder / "two.png", two)
    write_image(folder / "person.png", draw_face(2, 160, variation=1))
    write_image(folder / "source.png", draw_face(5, 160))
    write_clip(folder / "video.mp4", np.stack([two] * 3), sound=0)
    return folder


@pytest.fixture
def tiny_shapes(monkeypatch):
    """Has a tiny encoder of drawn weights stand in for all encoders of face shapes."""
    keras.config.set_dtype_policy("float32")
    shapes = face_shapes.FaceShapes(draw_weights(build_shapes_model(), 5), SHAPE, to_landmarks)
    monkeypatch.setattr(face_shapes, "load_face_shapes", lambda name, *_: shapes)
    return shapes


def test_a_picture_is_swapped_as_its_parts_say(folder, tiny_shapes, tmp_path, capsys):
    """The commands give what encoders and network give by hand; a saved source stands for its picture."""
    flags = ["--facedancer_path", str(folder / "tiny.h5"), "--img_path", str(folder / "two.png")]
    source, saved = str(folder / "source.png"), str(tmp_path / "saved.npz")
    outputs = [str(tmp_path / f"{number}.png") for number in range(3)]
    words = ["--swap_source", source, "--save_embedding", saved, "--output", outputs[0]]
    assert swap_image.main([*flags, *words]) == 0, capsys.readouterr()
    assert swap_image.main([*flags, "--swap_source", saved, "--output", outputs[1]]) == 0, capsys.readouterr()
    words = ["--swap_source", source, "--engine", "onnxruntime", "--output", outputs[2]]
    assert swap_image.main([*flags, *words]) == 0, capsys.readouterr()
    first, again, other = (read_image(path) for path in outputs)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first.astype(int) - other).max() <= 2
    image = read_image(folder / "two.png")
    assert (first != image).any(axis=(0, 2))[:160].any() and (first != image).any(axis=(0, 2))[160:].any()

    swapper = FaceSwapper.from_export(folder / "tiny.h5")
    assert np.abs(swapper.swap(image, read_image(source)).astype(int) - first).max() <= 2
    network = swapper.model
    swapper.model = Recorder()
    swapper.swap(image, read_image(source))
    inputs = swapper.model.inputs
    seen = np.uint8(np.rint((inputs["target"] + 1) * 127.5))
    np.testing.assert_allclose(inputs["target_coefficients"], tiny_shapes(seen), atol=1e-5)
    assert np.abs(inputs["source_coefficients"] - inputs["target_coefficients"]).max() > 0.01
    expected = load_swapper(folder / "tiny.h5").predict_on_batch(inputs)
    np.testing.assert_allclose(network.predict_on_batch(inputs), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kind", ["all", "3d"])
def test_interpolation_of_shapes(folder, tiny_shapes, tmp_path, capsys, kind):
    """It ends at the single swap of the first source, and `all` begins at that of the second one."""
    flags = ["--facedancer_path", str(folder / "tiny.h5"), "--img_path", str(folder / "two.png")]
    sources = [str(folder / name) for name in ("source.png", "person.png")]
    words = ["--swap_source", sources[0], "--swap_source2", sources[1], "--interpolation", kind]
    output = tmp_path / "between.apng"
    assert interpolate.main([*flags, *words, "--output", str(output)]) == 0, capsys.readouterr()
    frames = [frame.colors.astype(int) for frame in load_picture(output).frames]
    singles = []
    for number, source in enumerate(sources):
        path = str(tmp_path / f"{number}.png")
        assert swap_image.main([*flags, "--swap_source", source, "--output", path]) == 0
        singles.append(read_image(path).astype(int))
    assert len(frames) == 21 and np.abs(frames[-1] - singles[0]).max() <= 1
    assert (np.abs(frames[0] - singles[1]).max() <= 1) == (kind == "all")
    assert np.abs(frames[0] - frames[-1]).max() > 1


def test_a_saved_source_without_coefficients_is_refused(folder, tiny_shapes, tmp_path):
    swapper = FaceSwapper.from_export(folder / "tiny.h5")
    source = swapper.source(read_image(folder / "source.png"))
    save_source(tmp_path / "old.npz", Source(source.embedding, source.face), swapper)
    with pytest.raises(UserError, match="holds no 10 coefficients of tiny_shapes, which this swapper takes"):
        load_source(swapper, [tmp_path / "old.npz"])


def test_a_video_with_a_source_for_one_of_two(folder, tiny_shapes, tmp_path, capsys):
    flags = ["--facedancer_path", str(folder / "tiny.h5"), "--vid_path", str(folder / "video.mp4")]
    pair = f"{folder / 'person.png'}={folder / 'source.png'}"
    output = str(tmp_path / "out.mp4")
    assert multi_face_single_source.main([*flags, "--map", pair, "--output", output]) == 0, capsys.readouterr()
    assert "3 frames, 3 faces swapped" in capsys.readouterr().out
    before, after = (read_clip(path)[0].astype(int) for path in (folder / "video.mp4", output))
    changed = np.abs(after - before).mean((0, 1, 3))
    assert changed[160:].mean() > 5 * changed[:160].mean()


def test_the_evaluation_gives_it_both_coefficients(folder, tiny_shapes):
    class Case:
        target, source = draw_face(1, 32), draw_face(5, 32)

    path = folder / "tiny.h5"
    swapper = Swapper(path, read_model_card(path))
    found = swapper([Case, Case])
    signed = to_signed(np.stack([Case.target, Case.source]))
    coefficients = np.asarray(tiny_shapes.coefficients(signed))
    embedding = swapper._encoder(Case.source[None])
    expected = load_swapper(path).predict_on_batch([signed[:1], embedding, coefficients[1:], coefficients[:1]])
    assert np.abs(found[0] - np.clip((expected[0] + 1) * 127.5, 0, 255)).max() <= 1
    np.testing.assert_array_equal(found[0], found[1])
