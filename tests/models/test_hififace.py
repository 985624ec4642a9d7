"""HifiFace's networks: the graph of the published weights, and their files."""

import json
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from torch_recipe import last, made_weights, relative

from facedancer.core.console import UserError
from facedancer.core.torch_file import read_torch_state_dict
from facedancer.core.torch_weights import give_torch_weights
from facedancer.models.discriminators import build_patch_scales
from facedancer.models.hififace import (
    Config,
    build_generator,
    load_torch_discriminator,
    load_torch_generator,
    published_card,
    publishes,
    read_published,
    torch_discriminator_places,
    torch_places,
)

FIXTURES = Path(__file__).resolve().parents[3] / "shared" / "fixtures" / "hififace"
CHECKPOINT = "hififace_opensouce_299999_small.ckpt"
# What the original calls what a layer of ours gives.
BETWEEN = {
    "encoder_conv": "at_encoder.conv_first",
    "encoder0_add": "at_encoder.block_list.0",
    "encoder1_add": "z_enc",
    "encoder6_add": "x_enc",
    "decoder0_adain0": "at_decoder.block_list.0.adain1",
    "decoder0_add": "at_decoder.block_list.0",
    "decoder4_add": "z_dec",
    "fusion_skip_add": "at_sff_module.sigma",
    "fusion_mask_add": "at_sff_module.low_mask_predict",
    "fusion_block_add": "at_sff_module.z_fuse_block",
    "up3_add": "at_sff_module.f_up.net",
}
# By 0.03, so that masks of the full size are not all 1.
SCALED = ("sff_module.low_mask_predict.", "sff_module.f_up.net.3.")
INPUTS = ["target", "source_embedding", "source_coefficients", "target_coefficients"]
OUTPUTS = {"swapped": "image", "swapped_low": "image_low", "mask": "mask", "mask_low": "mask_low"}


@pytest.fixture(scope="session")
def fixtures():
    """The folder of small files in the published format; tests that use it skip without it."""
    if not FIXTURES.is_dir():
        pytest.skip("needs ../shared/fixtures/hififace, which is not in the repository")
    return FIXTURES


@pytest.fixture
def float64():
    """So that no difference is rounding."""
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy("float32")


def ends_of(generator):
    """What the original's generator takes, target and identity vector; ours makes the latter itself."""
    return [generator.inputs[0], generator.get_layer("identity").output]


def check_outputs(generator, stored, step=1):
    """Compares all outputs, and what lies between, with the original's; those of every `step`-th channel."""
    between = {name: generator.get_layer(name).output for name in BETWEEN}
    whole = keras.Model(ends_of(generator), {**between, **generator.output})
    found = whole([last(stored["target"]) * 2 - 1, stored["v_sid"]])
    for name, original in BETWEEN.items():
        channels = found[name] if found[name].shape[-1] < 16 else found[name][..., ::step]
        assert relative(channels, last(stored[original])) < 1e-4, name
    for name, original in OUTPUTS.items():
        wanted = last(stored[original])
        assert relative((found[name] + 1) / 2 if "swapped" in name else found[name], wanted) < 1e-4, name


def test_a_published_generator_gives_what_the_original_gave(fixtures, float64):
    generator = load_torch_generator(fixtures / CHECKPOINT, 64, height=96)
    check_outputs(generator, np.load(fixtures / "generator_small_io.npz"))


def test_the_generator_of_full_size(fixtures):
    described = json.loads((fixtures / "tensors_generator.json").read_text())
    generator = build_generator(Config(image_size=64))
    counts = json.loads((fixtures.parent / "families_parameter_counts.json").read_text())
    for part in ("encoder", "decoder"):
        own = sum(layer.count_params() for layer in generator.layers if layer.name.startswith(part))
        assert own == counts[f"hififace {part}"]
    assert generator.count_params() == counts["hififace generator without its frozen encoders"] == 57_596_438
    give_torch_weights(generator, torch_places(Config(image_size=64)), made_weights(described, SCALED), "made")
    check_outputs(generator, np.load(fixtures / "generator_full_recipe_io.npz"), step=16)


def test_gradients_are_the_originals(fixtures, float64):
    stored = np.load(fixtures / "generator_small_gradient.npz")
    generator = load_torch_generator(fixtures / CHECKPOINT, 64)
    target = tf.constant(last(stored["target"]), tf.float64)
    identity = tf.constant(stored["v_sid"], tf.float64)
    first, adain = generator.get_layer("encoder_conv"), generator.get_layer("decoder2_adain1")
    weights = [first.kernel.value, adain.scale.kernel.value, generator.get_layer("fusion_mask_conv0").kernel.value]
    with tf.GradientTape() as tape:
        tape.watch([target, identity])
        outputs = keras.Model(ends_of(generator), generator.output)([target * 2 - 1, identity])
        loss = 0.0
        for name in OUTPUTS:
            output = tf.transpose(tf.cast(outputs[name], tf.float64), (0, 3, 1, 2))
            output = (output + 1) / 2 if "swapped" in name else output
            loss += tf.reduce_sum(tf.reshape(output, (-1,)) * np.linspace(-1, 1, tf.size(output)))
    of_target, of_identity, kernel, scale, mask = (
        np.asarray(gradient) for gradient in tape.gradient(loss, [target, identity, *weights])
    )
    assert relative(loss, stored["scalar"]) < 1e-4
    assert relative(of_target, last(stored["grad_target"])) < 1e-4
    assert relative(of_identity, stored["grad_v_sid"]) < 1e-4
    assert relative(kernel.transpose(3, 2, 0, 1), stored["grad_encoder_conv_first"]) < 1e-4
    assert relative(scale.T, stored["grad_adain"]) < 1e-4
    assert relative(mask.transpose(3, 2, 0, 1), stored["grad_mask_low"]) < 1e-4


def test_the_discriminator(fixtures):
    stored = np.load(fixtures / "discriminator_small_io.npz")
    discriminator = load_torch_discriminator(fixtures / CHECKPOINT, 64)
    for picture in ("real", "fake"):
        for scale, outputs in enumerate(discriminator(last(stored[picture]))):
            assert relative(outputs[-1], last(stored[f"{picture}_logits_{scale}"])) < 1e-4


def test_the_discriminator_of_full_size(fixtures):
    described = json.loads((fixtures / "tensors_discriminator.json").read_text())
    stored = np.load(fixtures / "discriminator_full_recipe_io.npz")
    discriminator = build_patch_scales(64)
    assert sum(int(np.prod(variable.shape)) for variable in discriminator.trainable_variables) == 8_299_587
    give_torch_weights(discriminator, torch_discriminator_places(3), made_weights(described), "made")
    for scale, outputs in enumerate(discriminator(last(stored["image"]))):
        assert relative(outputs[-1], last(stored[f"logits_{scale}"])) < 1e-4


def test_the_discriminators_features(fixtures):
    """Another of the original's classes, whose tensors have other names."""
    stored = np.load(fixtures / "discriminator_features_small_io.npz")
    path = fixtures / "discriminator_features_small.pth"
    discriminator = build_patch_scales(64, 4)
    places = {}
    for layer in discriminator.layers:
        if layer.weights:
            scale, kind = layer.name.split("_")
            places[layer.name] = f"{scale}_layer{kind[-1]}.{int(kind.startswith('norm'))}"
    swapped = {"scale0": "scale2", "scale1": "scale1", "scale2": "scale0"}
    places = {name: swapped[place[:6]] + place[6:] for name, place in places.items()}
    give_torch_weights(discriminator, places, read_torch_state_dict(path), path)
    for scale, outputs in enumerate(discriminator(last(stored["image"]))):
        for index, features in enumerate(outputs):
            assert relative(features, last(stored[f"scale{scale}_feature{index}"])) < 1e-4


def test_the_identity_vector_is_made_of_what_the_encoders_give(fixtures):
    """The source's shape, all else the target's, and the source's embedding, whose length does not matter."""
    stored = np.load(fixtures / "identity_vector_small_io.npz")
    dim = stored["v_source"].shape[1]
    generator = build_generator(Config(image_size=64, embedding_dim=dim, widths=(4, 4, 4, 4), up_widths=(4, 4, 4)))
    made = keras.Model(generator.inputs[1:], generator.get_layer("identity").output)
    found = made([5 * stored["v_source"], stored["c_source"], stored["c_target"]])
    assert relative(found, stored["all_1.0"]) < 1e-4


def test_a_published_checkpoint_is_a_swapper(fixtures):
    """Its inputs are what the encoders give; its card says that it holds both of them."""
    stored = np.load(fixtures / "generator_small_io.npz")
    path = fixtures / CHECKPOINT
    assert publishes(path) and publishes("hififace_opensouce_299999.ckpt") and not publishes("arcface.ckpt")
    swapper = read_published(path)
    dims = [tensor.shape[1] for tensor in swapper.inputs]
    assert [tensor.name for tensor in swapper.inputs] == INPUTS and dims[0] == 256 and dims[2:] == [257, 257]
    assert dims[1] + 257 == stored["v_sid"].shape[1] and list(swapper.output.shape) == [None, 256, 256, 3]
    card = published_card(256, dims[1])
    assert (card.needs, card.identity_encoder, card.face_shapes) == ("coefficients", *2 * ["hififace_299999"])


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
        (b"generator.encoder.conv_first.weight", b"generator.encoder.conv_worst.weight", "lacks"),
        (b"generator.decoder.block_list.0.adain1.mean_", b"generator.decoder.block_list.0.adain1.near_", "lacks decod"),
        (b"generator.sff_module.sigma.side_path.0.bias", b"generator.sff_module.sigma.side_path.0.more", "lacks sff_m"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_one_line(fixtures, tmp_path, old, new, said):
    path = rewritten(fixtures / CHECKPOINT, tmp_path, lambda content: content.replace(old, new))
    with pytest.raises(UserError, match=said) as error:
        load_torch_generator(path, 64)
    assert "\n" not in str(error.value)


def test_left_over_and_misshapen_tensors_are_named(fixtures):
    state = made_weights(json.loads((fixtures / "tensors_discriminator.json").read_text()))
    discriminator = build_patch_scales(64)
    with pytest.raises(UserError, match=r"has layer3\.0\.weight, which a discriminator does not have"):
        give_torch_weights(discriminator, torch_discriminator_places(3), {**state, "layer3.0.weight": 0}, "made")
    state["layer1.2.weight"] = state["layer1.2.weight"][:7]
    with pytest.raises(UserError, match=r"layer1\.2 has weights of shapes"):
        give_torch_weights(discriminator, torch_discriminator_places(3), state, "made")


def test_a_file_of_something_else(fixtures):
    with pytest.raises(UserError, match="holds no state_dict"):
        load_torch_generator(fixtures / "epoch_20_small.pth")


@pytest.mark.parametrize("widths", [(4, 8, 8), (4, 8, 8, 8)])
def test_shapes_that_cannot_be_built(widths):
    with pytest.raises(UserError):
        Config(image_size=36, widths=widths)
