"""`facedancer weights convert` on files in the published formats, and on files that are none."""

import shutil
from dataclasses import replace

import keras
import numpy as np
import pytest

import facedancer.models
from facedancer.commands.weights import convert, main
from facedancer.core.card import ExportCard, read_card, write_card
from facedancer.core.console import UserError
from facedancer.core.fetching import sha256_of
from facedancer.core.keras_h5 import save_keras_h5
from facedancer.models import load_swapper
from facedancer.models.facedancer import Config, build_generator
from facedancer.models.families import card_of, decoders_of
from facedancer.models.keras2 import save_keras2_h5

TINY = Config(
    image_size=32,
    embedding_dim=8,
    mapping_depth=1,
    mapping_size=8,
    widths=(4, 8, 8),
    up_types=("no_skip", "affa", "concat"),
    discriminator_widths=(4, 8, 8),
)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A generator in the published format."""
    path = tmp_path_factory.mktemp("published") / "theirs.h5"
    generator = build_generator(TINY)
    save_keras2_h5(generator, path)
    return path, generator


@pytest.fixture(scope="module")
def fixtures(repository):
    folder = repository.parent / "shared" / "fixtures" / "published_format"
    if not folder.is_dir():
        pytest.skip("needs ../shared/fixtures/published_format, which is not in the repository")
    return folder


def test_a_swapper_becomes_ours_and_theirs_again(published, tmp_path, capsys):
    path, generator = published
    ours, theirs = tmp_path / "ours.h5", tmp_path / "again.h5"
    assert main(["convert", str(path), "--output", str(ours)]) == 0
    assert f"{generator.count_params():,} parameters, all used" in capsys.readouterr().out
    assert main(["convert", str(ours), "--keras2", "--output", str(theirs)]) == 0
    rng = np.random.default_rng(0)
    inputs = [rng.uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32), rng.normal(size=(2, 8)).astype(np.float32)]
    expected = generator.predict_on_batch(inputs)
    for model in (keras.models.load_model(ours), facedancer.models.load_swapper(theirs)):
        assert np.abs(model.predict_on_batch(inputs) - expected).max() < 1e-5


def test_the_output_is_named_after_the_file(published, tmp_path):
    path = tmp_path / "net.h5"
    shutil.copy(published[0], path)
    convert(path, None, keras2=False)
    convert(path, None, keras2=True)
    files = sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*.*"))
    assert files == ["net.h5", "net_keras2.h5", "net_keras3/card.json", "net_keras3/net_keras3.h5"]
    assert read_card(tmp_path / "net_keras3/net_keras3.h5").family == "facedancer"


FAMILIES = {
    "simswap 224": ("simswap/latest_net_G_small.pth", "latest_net_G.pth", 0.9),
    "simswap 512": ("simswap/550000_net_G_small.pth", "550000_net_G.pth", 0.78),
    "simswap training": ("simswap/10000_net_G_small.pth", "10000_net_G.pth", 0.9),
    "reswapper": ("reswapper/reswapper-1019500_small.pth", "reswapper-1019500.pth", 112 / 144),
    "inswapper": ("reswapper/reswapper-1019500_small.onnx", "inswapper_128.onnx", 112 / 144),
    "hififace": ("hififace/hififace_opensouce_299999_small.ckpt", "hififace_opensouce_299999.ckpt", 1.0),
    "autoencoder": ("autoencoder/seed/*coder*.pth", "encoder.pth", None),
    "AE64": ("autoencoder/AE64/*.pth", "encoder.pth", None),
    "AE128": ("autoencoder/AE128/*.pth", "encoder.pth", None),
}


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_published_file_of_any_family_becomes_ours_with_its_card(fixtures, tmp_path, kind):
    """The converted file swaps bit for bit as the published one; in half precision, as that with rounded weights."""
    stored, name, shrink_factor = FAMILIES[kind]
    found = sorted(fixtures.parent.glob(stored))
    for file in found:
        shutil.copy(file, tmp_path / (name if len(found) == 1 else file.name))
    shutil.copy(fixtures.parent / "reswapper/reswapper-1019500_small.onnx", tmp_path / "inswapper_128.onnx")  # emap
    path = tmp_path / name
    theirs = load_swapper(path)
    rng = np.random.default_rng(0)
    inputs = [rng.uniform(-1, 1, (1, *tensor.shape[1:])).astype(np.float32) for tensor in theirs.inputs]
    size, dim = theirs.inputs[0].shape[1], dict((i.name, i.shape[1]) for i in theirs.inputs).get("source_embedding")
    expected_card = card_of(path, size, dim)
    if shrink_factor:
        assert expected_card.shrink_factor == pytest.approx(shrink_factor)
    convert(path, None, keras2=False)
    convert(path, None, keras2=False, half=True)
    for half, ending in enumerate(("keras3", "half")):
        converted = tmp_path / f"{path.stem}_{ending}" / f"{path.stem}_{ending}.h5"
        if half:
            theirs.set_weights([weight.astype(np.float16).astype(np.float32) for weight in theirs.get_weights()])
        expected, found = (keras.tree.flatten(model(inputs)) for model in (theirs, load_swapper(converted)))
        for a, b in zip(expected, found, strict=True):
            np.testing.assert_array_equal(a, b)
        card = read_card(converted)
        assert card.files == {converted.name: {"sha256": sha256_of(converted)}}
        assert replace(card, files={}, network={}) == expected_card and card.network
        if expected_card.decoders:
            assert decoders_of(converted) == decoders_of(path)


def test_a_card_is_not_written_beside_another_network(published, tmp_path):
    shutil.copy(published[0], tmp_path / "net.h5")
    with pytest.raises(UserError, match=r"its card.json would apply to net.h5 as well"):
        convert(tmp_path / "net.h5", tmp_path / "ours.h5", keras2=False)
    assert [file.name for file in tmp_path.iterdir()] == ["net.h5"]


def test_another_family_has_no_form_for_the_originals_scripts(fixtures, tmp_path):
    path = tmp_path / "latest_net_G.pth"
    shutil.copy(fixtures.parent / "simswap/latest_net_G_small.pth", path)
    with pytest.raises(UserError, match="--keras2 is for FaceDancer, this is of the family simswap"):
        convert(path, None, keras2=True)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_published_encoders_of_other_formats_are_checked_and_used_as_they_are(fixtures, capsys):
    convert(fixtures.parent / "simswap/arcface_checkpoint_small.tar", None, keras2=False)
    assert "an identity encoder, whole, and used as it is" in capsys.readouterr().out


def test_half_has_half_the_size_the_same_network_and_its_card(tmp_path):
    """Float16 costs nothing that is seen, and is loaded as any file."""
    config = Config(32, 16, 1, 32, (64, 64, 64), ("no_skip", "affa", "concat"), (4,))
    network = build_generator(config)
    save_keras_h5(network, tmp_path / "a/net.h5")
    write_card(tmp_path / "a", ExportCard("facedancer", 32, 16, licence="ours"))
    half = tmp_path / "b/half.h5"
    convert(tmp_path / "a/net.h5", half, keras2=False, half=True)
    assert half.stat().st_size < 0.65 * (tmp_path / "a/net.h5").stat().st_size
    for a, b in zip(network.get_weights(), load_swapper(half).get_weights(), strict=True):
        assert np.abs(a - b).max() <= 1e-3 * max(np.abs(a).max(), 1e-3)
    card = read_card(half)
    assert card.licence == "ours" and card.files == {"half.h5": {"sha256": sha256_of(half)}}
    network.get_layer("mapping_dense0").set_weights([np.full((16, 32), 1e6), np.zeros(32)])
    save_keras_h5(network, tmp_path / "a/net.h5")
    with pytest.raises(UserError, match="numbers beyond the range of float16"):
        convert(tmp_path / "a/net.h5", tmp_path / "c/half.h5", keras2=False, half=True)
    assert not (tmp_path / "c").exists()


def test_detector_and_encoder_are_checked_and_used_as_they_are(fixtures, capsys):
    convert(fixtures / "retinaface_res50.h5", None, keras2=False)
    assert "face detector, whole, and used as it is: --retina_path" in capsys.readouterr().out
    convert(fixtures / "arcface_res50.h5", None, keras2=False)
    assert "embeddings of 512" in capsys.readouterr().out
    with pytest.raises(UserError, match="only swappers are converted"):
        convert(fixtures / "arcface_res50.h5", None, keras2=True)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("page.h5", b"<!doctype html><title>Sign in</title>"),
        ("pickle.onnx", b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x05hello\x94."),
        ("empty.h5", b""),
        ("absent.h5", None),
    ],
)
def test_what_is_no_network_is_refused_in_one_line(tmp_path, capsys, name, content):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    assert main(["convert", str(path)]) == 2
    said = capsys.readouterr().err
    assert name in said and said.count("\n") == 1
    assert len(list(tmp_path.iterdir())) == (content is not None)


def test_the_file_itself_is_not_overwritten(published):
    with pytest.raises(UserError, match="is the file itself"):
        convert(published[0], published[0], keras2=False)
