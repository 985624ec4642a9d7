"""SimSwap's networks: the graph of the published weights, and their files."""

import io
import json
import pickle
import shutil
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from facedancer.core.alignment import align_matrix, landmark_template, warp_to_aligned
from facedancer.core.console import UserError
from facedancer.core.images import to_signed
from facedancer.models import load_swapper
from facedancer.models.families import card_of, family_of
from facedancer.models.simswap import PRESETS, Config, build_generator, build_networks, load_torch_generator
from facedancer.train.build import load_swapper_weights
from facedancer.video_swap.engines import load_engine
from facedancer.video_swap.swapper import FaceSwapper, PlacedFace

FIXTURES = Path(__file__).resolve().parents[3] / "shared" / "fixtures" / "simswap"
FILES = {
    "G_224": "latest_net_G_small.pth",
    "G_512": "550000_net_G_small.pth",
    "G_train": "10000_net_G_small.pth",
    "G_train_deep": "10000_net_G_deep_small.pth",
}
SIZE = 64


@pytest.fixture(scope="session")
def fixtures():
    """The folder of small files in the published format; tests that use it skip without it."""
    if not FIXTURES.is_dir():
        pytest.skip("needs ../shared/fixtures/simswap, which is not in the repository")
    return FIXTURES


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (Config(pictures="unit"), 55_051_779),
        (PRESETS["simswap"], 55_051_779),
        (PRESETS["deep"], 59_773_443),
        (Config(pictures="unit", image_size=512, widths=PRESETS["512"].widths), 55_079_427),
    ],
)
def test_the_published_numbers_of_parameters(config, count):
    """PyTorch does not count the statistics of batch normalization."""
    generator = build_generator(config)
    assert sum(int(np.prod(variable.shape)) for variable in generator.trainable_variables) == count


def test_preset_lite_is_small():
    networks = build_networks(PRESETS["lite"])
    assert 4e6 < networks["generator"].count_params() < 6e6


@pytest.fixture(params=FILES)
def kind(request):
    return request.param


def ends_of(generator):
    """The range of its pictures: factor and offset from [-1, 1]."""
    layer = generator.get_layer("input_range")
    return np.asarray(layer.scale, np.float64), np.asarray(layer.offset, np.float64)


def relative(found, expected):
    return np.abs(np.asarray(found) - expected).max() / np.abs(expected).max()


def test_a_published_generator_gives_what_the_original_gave(fixtures, kind):
    stored = np.load(fixtures / f"{kind}_small_io.npz")
    generator = load_torch_generator(fixtures / FILES[kind], SIZE)
    scale, offset = ends_of(generator)
    target = (stored["target"].transpose(0, 2, 3, 1) - offset) / scale
    swapped = np.asarray(generator([target.astype(np.float32), stored["latent"]]))
    assert relative((swapped * scale + offset).transpose(0, 3, 1, 2), stored["output"]) < 1e-4


def test_a_training_step_is_the_originals(fixtures, kind):
    """Outputs by batch statistics, those statistics, and gradients; in float64, so that no difference is rounding."""
    stored = np.load(fixtures / f"{kind}_small_io.npz")
    keras.config.set_dtype_policy("float64")
    try:
        generator = load_torch_generator(fixtures / FILES[kind], SIZE)
    finally:
        keras.config.set_dtype_policy("float32")
    scale, offset = ends_of(generator)
    target = (stored["target"].transpose(0, 2, 3, 1) - offset) / scale
    first, style = generator.get_layer("encoder_64x64_conv"), generator.get_layer("identity0_adain0")
    weights = [first.kernel.value, style.scale.kernel.value, style.offset.kernel.value]
    with tf.GradientTape() as tape:
        swapped = generator([target, stored["latent"].astype(np.float64)], training=True)
        output = tf.transpose(tf.cast(swapped, tf.float64) * scale + offset, (0, 3, 1, 2))
        loss = tf.reduce_sum(tf.reshape(output, (-1,)) * np.linspace(-1, 1, tf.size(output)))
    kernel, *parts = tape.gradient(loss, weights)
    assert relative(output, stored["output_training"]) < 1e-4
    assert relative(kernel.numpy().transpose(3, 2, 0, 1), stored["grad_first"]) < 1e-4
    assert relative(np.concatenate([part.numpy().T for part in parts]), stored["grad_style"]) < 1e-4
    size = SIZE // (4 if kind == "G_512" else 2)
    norm = generator.get_layer(f"encoder_{size}x{size}_norm")
    assert relative(norm.moving_mean, stored["running_mean_after"]) < 1e-4
    assert relative(norm.moving_variance, stored["running_var_after"]) < 1e-4


@pytest.mark.parametrize(
    ("name", "size", "shrink_factor"),
    [("latest_net_G_small.pth", 224, 0.9), ("550000_net_G_small.pth", 512, 0.78), ("10000_net_G_small.pth", 224, 0.9)],
)
def test_a_published_file_is_known_by_its_name(fixtures, name, size, shrink_factor):
    path = fixtures / name
    assert family_of(path).__name__.endswith(".simswap")
    swapper = load_swapper(path)
    assert swapper.input_shape == [(None, size, size, 3), (None, 64)]
    card = card_of(path, size, 64)
    assert (card.shrink_factor, card.identity_encoder, card.needs) == (shrink_factor, "arcface_irse", "nothing")
    is_bounded = swapper.get_layer("swapped").__class__.__name__ == "Activation"
    assert is_bounded == ("10000" not in name)


def rewritten(path, folder, change):
    """A copy of an archive of PyTorch's with its `data.pkl` changed."""
    copy = folder / path.name
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(copy, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, change(content) if name.endswith("data.pkl") else content)
    return copy


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b"up1.1.bias", b"up1.1.bats", r"lacks up1\.1\.bias"),
        (b"down3.0.weight", b"down9.0.weight", r"lacks down3\.0\.weight|has down3|has down9"),
    ],
)
def test_missing_and_left_over_tensors_are_named(fixtures, tmp_path, old, new, said):
    path = rewritten(fixtures / "latest_net_G_small.pth", tmp_path, lambda content: content.replace(old, new))
    with pytest.raises(UserError, match=said):
        load_swapper(path)


def test_a_left_over_and_a_misshapen_tensor_are_named(fixtures, monkeypatch):
    from facedancer.models import simswap

    path = fixtures / "latest_net_G_small.pth"
    state = simswap.read_torch_state_dict(path)
    monkeypatch.setattr(simswap, "read_torch_state_dict", lambda _: {**state, "up9.1.bias": np.zeros(3)})
    with pytest.raises(UserError, match=r"has up9\.1\.bias"):
        load_swapper(path)
    wrong = {**state, "up2.1.weight": state["up2.1.weight"][:, :, :2]}
    monkeypatch.setattr(simswap, "read_torch_state_dict", lambda _: wrong)
    with pytest.raises(UserError, match=r"up2\.1 has weights of shapes"):
        load_swapper(path)


class _Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_with_code_is_refused(fixtures, tmp_path):
    trace = tmp_path / "ran"
    evil = io.BytesIO()
    pickle.dump({"first_layer.1.weight": _Evil(trace)}, evil, protocol=2)
    path = rewritten(fixtures / "latest_net_G_small.pth", tmp_path, lambda _: evil.getvalue())
    with pytest.raises(UserError, match="refused"):
        load_swapper(path)
    assert not trace.exists()


def test_another_file_of_that_name_is_refused(fixtures, tmp_path):
    path = tmp_path / "latest_net_G.pth"
    shutil.copyfile(fixtures / "79999_iter_small.pth", path)
    with pytest.raises(UserError, match="not a generator of SimSwap's"):
        load_swapper(path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"image_size": 100}, "halved"),
        ({"identity_blocks": 0}, "at least 1"),
        ({"discriminator": "x"}, "none is named"),
        ({"pictures": "x"}, "none is named"),
    ],
)
def test_bad_shapes_are_refused(changes, said):
    with pytest.raises(UserError, match=said):
        Config(**changes)


def test_a_card_says_what_network_an_export_is(tmp_path):
    (tmp_path / "card.json").write_text(
        json.dumps({"family": "simswap", "image_size": 32, "embedding_dim": 8, "network": {"nose": 1}})
    )
    (tmp_path / "x.h5").touch()
    with pytest.raises(UserError, match="its network is none of simswap"):
        load_swapper(tmp_path / "x.h5")


def test_a_published_generator_swaps_a_frame(fixtures, tmp_path):
    """The face alone changes, and as the network itself says."""
    path = tmp_path / "latest_net_G.pth"
    shutil.copyfile(fixtures / "latest_net_G_small.pth", path)
    model = load_engine(path)
    size, dim = model.image_size, model.embedding_dim
    card = card_of(path, size, dim)
    frame = np.random.default_rng(0).integers(0, 255, (300, 320, 3), np.uint8)
    landmarks = landmark_template(200, card.shrink_factor) + np.array([60, 50])
    embedding = np.random.default_rng(1).normal(size=dim).astype(np.float32)
    swapper = FaceSwapper(model, None, None, size, card.shrink_factor)
    (found,) = swapper.swap_placed([frame.copy()], [[PlacedFace(landmarks, embedding)]])
    assert not found.is_bad and len(found.regions) == 1
    changed = (found.image != frame).any(-1)
    assert changed[150, 160] and not changed[:, :40].any() and not changed[:40].any()
    face = warp_to_aligned(frame, align_matrix(landmarks, size, card.shrink_factor), size)
    expected = load_swapper(path).predict_on_batch([to_signed(face[None]), embedding[None]])
    predicted = model.predict_on_batch({"target": to_signed(face[None]), "source_embedding": embedding[None]})
    assert np.abs(predicted - expected).max() < 2 / 127.5


def test_a_generator_of_the_other_kind_is_no_beginning(fixtures):
    """Its tensors fit, and would give other pictures."""
    shapes = {"embedding_dim": 64, "widths": (4, 8, 16, 32)}
    for pictures, name in (("unit", "latest_net_G_small.pth"), ("imagenet", "10000_net_G_small.pth")):
        generator = build_generator(Config(pictures=pictures, **shapes))
        load_swapper_weights(fixtures / name, "simswap", generator)
        expected = load_swapper(fixtures / name)
        assert all(np.array_equal(a, b) for a, b in zip(generator.get_weights(), expected.get_weights(), strict=True))
    with pytest.raises(UserError, match="network of other layers"):
        load_swapper_weights(fixtures / "latest_net_G_small.pth", "simswap", generator)
