"""HifiFace's objective: which losses there are, what each asks for, and what the networks learn by them."""

import numpy as np
import pytest
from keras import ops
from tiny_networks import SHAPE, SIZE, TINY_SHAPES, build_encoder, build_perceptual, build_shapes_model, to_landmarks
from tiny_run import draw_weights

from facedancer.arcface_model.face_shapes import FaceShapes
from facedancer.core.console import UserError
from facedancer.dataset.augment import prepare_batch
from facedancer.models.hififace import Config, build_networks
from facedancer.train import losses
from facedancer.train.objectives.hififace import HifiFaceObjective, Weights

NONE = {f"lambda_{name}": 0.0 for name in ("gan", "shape", "id", "mask", "rec", "cyc", "lpips")}


@pytest.fixture(scope="module")
def parts():
    """Networks, encoder, shapes and perceptual network, all tiny and drawn."""
    networks = build_networks(Config(image_size=SIZE, embedding_dim=8, **TINY_SHAPES["hififace"]))
    networks = {name: draw_weights(network, 1) for name, network in networks.items()}
    shapes = FaceShapes(draw_weights(build_shapes_model(), 5), SHAPE, to_landmarks)
    return networks, draw_weights(build_encoder(), 2), shapes, draw_weights(build_perceptual(), 3)


@pytest.fixture
def found(parts, batch):
    """Function of weights that returns an objective's outputs and losses of one prepared batch, and that batch."""
    batch = prepare_batch(batch)

    def find(**weights):
        networks, *frozen = parts
        objective = HifiFaceObjective(*frozen, Weights(**{**NONE, "perceptual_network": "mobilenet_v2", **weights}))
        outputs = objective.forward(networks, batch, training=True)
        named = networks if weights.get("lambda_gan") else {"generator": networks["generator"]}
        return outputs, objective.generator_losses(named, batch, outputs, training=True), batch

    return find


def test_all_losses_and_none(found):
    assert found()[1] == {}
    names = ["shape", "identity", "mask", "reconstruction", "cycle", "perceptual", "adversarial"]
    assert list(found(**dict.fromkeys(NONE, 1.0))[1]) == names


def test_shape_is_asked_of_both_sizes(parts, found):
    """By the landmarks of the source's first coefficients and the target's others."""
    _, _, shapes, _ = parts
    outputs, given, batch = found(lambda_shape=0.5)
    target, source = (np.asarray(shapes.coefficients(batch[name])) for name in ("target", "source"))
    np.testing.assert_allclose(outputs["source_coefficients"], source, rtol=1e-4, atol=1e-5)
    wanted = to_landmarks(np.concatenate([source[:, :SHAPE], target[:, SHAPE:]], axis=1))
    low = ops.image.resize(outputs["swapped_low"], (SIZE, SIZE), interpolation="bilinear")
    apart = [np.abs(wanted - to_landmarks(shapes.coefficients(faces))).mean() for faces in (outputs["swapped"], low)]
    np.testing.assert_allclose(given["shape"], 0.5 * sum(apart), rtol=1e-4)


def test_masks_are_compared_with_the_records(found):
    outputs, given, batch = found(lambda_mask=2.0)
    apart = [np.abs(np.asarray(batch["mask"]) - outputs["mask"]).mean(), np.abs(1 - outputs["mask_low"]).mean()]
    np.testing.assert_allclose(given["mask"], 2 * sum(apart), rtol=1e-4)


def test_the_cycle_puts_the_targets_identity_back(parts, found):
    networks, encoder, shapes, _ = parts
    outputs, given, batch = found(lambda_cyc=3.0)
    inputs = [outputs["swapped"], encoder(batch["target"])["embedding"]]
    inputs += [shapes.coefficients(batch["target"]), shapes.coefficients(outputs["swapped"])]
    back = networks["generator"](inputs, training=True)["swapped"]
    np.testing.assert_allclose(given["cycle"], 3 * np.abs(batch["target"] - back).mean() / 2, rtol=1e-4)


def test_the_discriminators_of_all_scales_judge(parts, found):
    networks, *frozen = parts
    outputs, given, batch = found(lambda_gan=1.0)
    fake = [scale[-1] for scale in networks["discriminator"](outputs["swapped"], training=True)]
    np.testing.assert_allclose(given["adversarial"], -sum(np.mean(scale) for scale in fake) / 2, rtol=1e-3)
    objective = HifiFaceObjective(*frozen, Weights())
    judged, logits = objective.discriminator_losses(networks, batch, outputs["swapped"], training=True, step=0)
    real = [scale[-1] for scale in networks["discriminator"](batch["target"], training=True)]
    hinge = sum(
        np.maximum(0, 1 - np.asarray(a)).mean() + np.maximum(0, 1 + np.asarray(b)).mean()
        for a, b in zip(real, fake, strict=True)
    )
    np.testing.assert_allclose(judged["discriminator"], hinge / 2, rtol=1e-3)
    assert logits.shape == (4, sum(int(np.prod(scale.shape[1:])) for scale in fake))


def test_perceptual_distance():
    rng = np.random.default_rng(0)
    maps = [[rng.normal(size=(2, 4, 4, 3)).astype(np.float32) for _ in range(2)] for _ in range(2)]
    unit = [[x / np.linalg.norm(x, axis=-1, keepdims=True) for x in one] for one in maps]
    expected = sum(((a - b) ** 2).sum(-1).mean() for a, b in zip(*unit, strict=True))
    np.testing.assert_allclose(losses.perceptual_distance(*maps), expected, rtol=1e-5)
    doubled = [2 * x for x in maps[0]]
    assert float(losses.perceptual_distance(maps[0], doubled)) == pytest.approx(0, abs=1e-6)


def test_what_a_run_cannot_do_without():
    assert Weights().needs == {"masks": "--lambda_mask"}
    assert Weights(lambda_mask=0).needs == {}
    assert Weights(**NONE).needs == {"truth": "--lambda_id and --lambda_shape are 0"}
    with pytest.raises(UserError, match="--lambda_cyc must not be negative"):
        Weights(lambda_cyc=-1)
