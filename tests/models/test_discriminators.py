"""Discriminators: the patches of SimSwap's first training, tensor for tensor, and the one on projected features."""

from pathlib import Path

import keras
import numpy as np
import pytest

from facedancer.core.console import UserError
from facedancer.core.torch_file import read_torch_state_dict
from facedancer.core.torch_weights import give_torch_weights
from facedancer.models.discriminators import FEATURE_WIDTHS, SpectralConv2D, build_patch_pair, build_projected
from facedancer.train import autodiff, losses

FIXTURES = Path(__file__).resolve().parents[3] / "shared" / "fixtures" / "simswap"
NAMES = ("down1", "down2", "down3", "down4", "conv1", "conv2")


def nhwc(array):
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1))


def near(found, expected):
    return np.abs(np.asarray(found) - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.fixture
def pair():
    """The two discriminators with the weights of their files."""
    if not FIXTURES.is_dir():
        pytest.skip("needs ../shared/fixtures/simswap, which is not in the repository")
    model, state, places = build_patch_pair(128, 4), {}, {}
    for scale in range(2):
        found = read_torch_state_dict(FIXTURES / f"latest_net_D{scale + 1}_small.pth")
        state |= {f"{scale}.{name}": array for name, array in found.items()}
        places |= {f"scale{scale}_conv{index}": f"{scale}.{name}.0" for index, name in enumerate(NAMES)}
        places |= {f"scale{scale}_norm{index}": f"{scale}.{NAMES[index]}.1" for index in range(1, 5)}
    give_torch_weights(model, places, state, "the fixtures")
    return model


@pytest.fixture
def stored():
    return np.load(FIXTURES / "legacy_discriminator_and_losses.npz")


def test_number_of_parameters():
    trained = sum(int(np.prod(variable.shape)) for variable in build_patch_pair(224).trainable_variables)
    assert trained == 2 * 6_962_369
    projected = build_projected(256)
    assert sum(int(np.prod(variable.shape)) for variable in projected.trainable_variables) == 10_331_328
    assert projected.output_shape == (None, 100)


def test_patches_give_what_the_originals_gave(pair, stored):
    assert near(pair.get_layer("halved")(nhwc(stored["real"])), nhwc(stored["real_halved"]))
    for kind in ("real", "fake"):
        for scale, maps in enumerate(pair.predict_on_batch(nhwc(stored[kind])), 1):
            if kind == "fake":
                assert near(maps[-1], nhwc(stored[f"D{scale}_fake_last"]))
                continue
            for index, found in enumerate(maps):
                assert near(found, nhwc(stored[f"D{scale}_real_{index}"]))


def test_patches_are_trained_as_the_originals_were(pair):
    stored = np.load(FIXTURES / "legacy_discriminator_training.npz")
    (maps, _) = pair(nhwc(stored["real"]), training=True)
    assert near(maps[0], nhwc(stored["first"])) and near(maps[-1], nhwc(stored["last"]))
    norm = pair.get_layer("scale0_norm1")
    assert near(norm.moving_mean, stored["running_mean_down2_after"])
    # The variance of the batch, where PyTorch keeps it times n / (n - 1): n is 2 * 32 * 32.
    assert np.abs(norm.moving_variance - stored["running_var_down2_after"]).max() < 2e-4


@pytest.mark.parametrize(
    ("mode", "short"), [("hinge", "hinge"), ("least_squares", "ls"), ("original", "original"), ("wasserstein", "w")]
)
def test_adversarial_losses(pair, stored, mode, short):
    real, fake = ([maps[-1] for maps in pair(nhwc(stored[kind]))] for kind in ("real", "fake"))
    found = {
        "D_real": np.mean([losses.judging(mode, logits, is_real=True) for logits in real]),
        "D_fake": np.mean([losses.judging(mode, logits, is_real=False) for logits in fake]),
        "G": np.mean([losses.deceiving(mode, logits) for logits in fake]),
    }
    for name, value in found.items():
        assert value == pytest.approx(float(stored[f"{short}_{name}"][0]), rel=1e-4), name


def test_feature_matching(pair, stored):
    real, fake = pair(nhwc(stored["real"])), pair(nhwc(stored["fake"]))
    found = 10 * np.mean([losses.feature_matching(a, b) for a, b in zip(fake, real, strict=True)])
    assert found == pytest.approx(float(stored["feature_matching_all_layers"]), rel=1e-4)


def test_penalties_of_the_gradient(pair, stored):
    """WGAN's penalty with its gradient in a kernel, a second derivative, and R1."""
    share = stored["alpha"][:, None, None, None]
    real, fake = (keras.ops.convert_to_tensor(nhwc(stored[kind])) for kind in ("real", "fake"))

    def penalty(aside):
        gradient = autodiff.input_gradient(lambda x: pair(x)[0][-1], share * real + (1 - share) * fake)
        return {"penalty": losses.unit_gradient_penalty(gradient)}, None

    kernel = pair.get_layer("scale0_conv0").kernel
    found, _, (gradient,) = autodiff.value_and_gradients(penalty, [kernel])
    assert float(found["penalty"]) == pytest.approx(float(stored["gradient_penalty"]), rel=1e-4)
    assert near(gradient.numpy().transpose(3, 2, 0, 1), stored["gradient_penalty_grad_down1"])
    r1 = losses.gradient_penalty(autodiff.input_gradient(lambda x: pair(x)[0][-1], real))
    assert float(r1) == pytest.approx(stored["squared_gradient_per_item"].mean(), rel=1e-4)


def test_a_spectral_convolution_has_a_norm_of_one():
    keras.utils.set_random_seed(0)
    layer = SpectralConv2D(6, 3, use_bias=False)
    x = np.random.default_rng(0).normal(size=(1, 8, 8, 4)).astype(np.float32)
    for _ in range(100):
        trained = layer(x, training=True)
    largest = np.linalg.svd(layer.kernel.numpy().reshape(-1, 6))[1][0]
    plain = keras.ops.conv(x, layer.kernel / largest, padding="valid")
    for found in (trained, layer(x)):
        np.testing.assert_allclose(found, plain, rtol=1e-3, atol=1e-4)


def test_projections_are_never_trained_and_all_features_count():
    discriminator = build_projected(128, 4)
    fixed = [layer for layer in discriminator.layers if "mix" in layer.name and layer.weights]
    assert len(fixed) == 8 and not any(layer.trainable_variables for layer in fixed)
    rng = np.random.default_rng(0)
    features = [rng.normal(size=(2, 128 // 4 >> i, 128 // 4 >> i, c)) for i, c in enumerate(FEATURE_WIDTHS)]
    before = discriminator.predict_on_batch(features)
    for index in range(4):
        changed = [x + (i == index) for i, x in enumerate(features)]
        assert np.abs(discriminator.predict_on_batch(changed) - before).max() > 1e-4


def test_small_faces_are_refused():
    for size in (64, 136):
        with pytest.raises(UserError, match="multiples of 32, at least 128 pixels"):
            build_projected(size)
    with pytest.raises(UserError, match="at least 32 pixels"):
        build_patch_pair(16)


def test_hinge_and_identity_as_the_originals():
    if not FIXTURES.is_dir():
        pytest.skip("needs ../shared/fixtures/simswap, which is not in the repository")
    stored = np.load(FIXTURES / "small_losses.npz")
    logits = stored["logits"]
    assert float(losses.judging("hinge", logits, is_real=False)) == pytest.approx(float(stored["hinge_D_fake"]))
    assert float(losses.judging("hinge", logits, is_real=True)) == pytest.approx(float(stored["hinge_D_real"]))
    assert float(losses.deceiving("hinge", logits)) == pytest.approx(float(stored["hinge_G"]))
    np.testing.assert_allclose(losses.cosine_distance(stored["a"], stored["b"]), stored["identity_per_item"], rtol=1e-5)


@pytest.mark.parametrize(("build", "size"), [(build_patch_pair, 32), (build_projected, 128)])
def test_discriminators_survive_saving_and_half_precision(tmp_path, build, size):
    keras.utils.set_random_seed(0)
    discriminator, rng = build(size, 4), np.random.default_rng(0)
    inputs = [rng.uniform(size=(2, *x.shape[1:])).astype(np.float32) for x in discriminator.inputs]
    given = inputs if len(inputs) > 1 else inputs[0]
    discriminator(given, training=True)  # so that the norms of kernels are found
    expected = keras.tree.flatten(discriminator(given))
    discriminator.save(tmp_path / "x.keras")
    restored = keras.models.load_model(tmp_path / "x.keras")
    for found, wanted in zip(keras.tree.flatten(restored(given)), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        mixed = build(size, 4)
    finally:
        keras.config.set_dtype_policy("float32")
    mixed.set_weights(discriminator.get_weights())
    found = keras.tree.flatten(mixed(given))[-1]
    assert found.dtype == "float32"
    np.testing.assert_allclose(found, expected[-1], atol=0.1 * np.abs(expected[-1]).max())
