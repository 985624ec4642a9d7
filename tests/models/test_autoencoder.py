"""The autoencoder's networks against the original's, and its files read whole or not at all."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest

from facedancer.core.alignment import align_matrix, estimate_similarity, invert_affine, transform_points
from facedancer.core.console import UserError
from facedancer.models import autoencoder_files, load_swapper
from facedancer.models.autoencoder import PRESETS, Config, build_decoder, build_encoder, original_crop_of
from facedancer.models.families import card_of, decoders_of
from facedancer.synthetic.draws import draw_identity, draw_person
from facedancer.synthetic.render import render
from facedancer.synthetic.scenes import portrait_scene
from facedancer.train.objectives.autoencoder import AutoencoderObjective, Weights

FIXTURES = Path(__file__).resolve().parents[3] / "shared" / "fixtures"
FOLDER = FIXTURES / "autoencoder"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="needs ../shared/fixtures/autoencoder")


def ours(picture_bgr):
    """(n, 3, H, W) BGR in [0, 1] -> (n, H, W, 3) RGB in [-1, 1]."""
    return (picture_bgr[:, ::-1].transpose(0, 2, 3, 1) * 2 - 1).astype(np.float32)


def distance(found, expected):
    return np.abs(np.asarray(found) - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("kind", ["seed", "AE64", "AE128"])
def test_the_originals_files_give_the_originals_faces(kind):
    path, stored = FOLDER / kind / "encoder.pth", np.load(FOLDER / f"{kind}_small_io.npz")
    names = decoders_of(path)
    assert names == (("cage", "trump") if kind == "seed" else ("A",))
    encoded = autoencoder_files.read_networks(path)["encoder"].predict_on_batch(ours(stored["image_bgr"]))
    assert distance(encoded.transpose(0, 3, 1, 2), stored["encoded"]) < 1e-4
    for number, name in enumerate(names):
        swapper = load_swapper(path, number)
        crop = original_crop_of(stored["image_bgr"].shape[-1])
        rows, columns = slice(crop.top, crop.top + crop.size), slice(crop.left, crop.left + crop.size)
        aligned = np.full((len(stored["image_bgr"]), crop.image_size, crop.image_size, 3), 0.25, np.float32)
        aligned[:, rows, columns] = ours(stored["image_bgr"])
        swapped = swapper.predict_on_batch(aligned)
        swapped = swapped[0] if isinstance(swapped, list) else swapped
        faces = swapped[:, rows, columns].copy()
        swapped[:, rows, columns] = aligned[:, rows, columns]
        assert np.array_equal(swapped, aligned)  # the rest is as it was
        expected = stored[f"output_{name}" if kind == "seed" else "output_bgr"]
        inside = np.s_[:, crop.fade : -crop.fade, crop.fade : -crop.fade]
        assert distance(faces[inside] / 2 + 0.5, ours(expected)[inside] / 2 + 0.5) < 1e-4
        # At its border the square passes into the target.
        there = [np.abs((one - aligned[:, rows, columns])[:, :, 0]).max() for one in (faces, ours(expected))]
        assert there[0] < 0.02 * there[1]
    card = card_of(path, crop.image_size, None)
    assert (card.needs, card.decoders, card.embedding_dim) == ("decoder", names, None)


def test_the_originals_crop_on_our_aligned_face():
    """Its crop of a front view, found by 51 landmarks, is that of ours by five, within 3 pixels of 64."""
    mean_face = np.load(FOLDER / "alignment_io.npz")["mean51"]
    errors = []
    crop = original_crop_of(64)
    for number in range(4):
        face = render(draw_identity(number), draw_person(number), portrait_scene(number), size=64)
        five, sixty_eight = face.landmarks, face.landmarks_68
        aligned_to_frame = invert_affine(align_matrix(five, crop.image_size, crop.shrink_factor))
        offset = np.array([crop.left, crop.top])
        corners = np.array([[0, 0], [64, 0], [0, 64], [64, 64]]) + offset
        theirs = transform_points(estimate_similarity(sixty_eight[17:], mean_face * 64),
                                  transform_points(aligned_to_frame, corners))  # fmt: skip
        errors.append(np.linalg.norm(theirs + offset - corners, axis=1).mean())
    assert np.median(errors) < 3


def test_one_decoder_alone():
    path = FOLDER / "seed" / "decodertrump.pth"
    assert decoders_of(path) == ("trump",)
    assert len(load_swapper(path).outputs) == 1


def test_losses_gradient_and_one_step_are_the_originals():
    import tensorflow as tf

    stored = np.load(FOLDER / "seed_small_io.npz")
    networks = autoencoder_files.read_networks(FOLDER / "seed" / "decodertrump.pth")
    objective = AutoencoderObjective(Weights())
    batch = {
        "warped": tf.constant(ours(stored["image_bgr"])), "target": tf.constant(ours(stored["target_bgr"])),
        "people": tf.zeros((3, 2)),
    }  # fmt: skip
    variables = [variable for network in networks.values() for variable in network.trainable_variables]

    def losses():
        outputs = objective.forward(networks, batch, training=True)
        return objective.generator_losses(networks, batch, outputs, training=True)

    with tf.GradientTape() as tape:
        found = losses()
        loss = sum(found.values())
    gradients = tape.gradient(loss, [variable.value for variable in variables])
    assert float(found["reconstruction"]) == pytest.approx(float(stored["l1"]), rel=1e-4)
    assert float(found["edges"]) == pytest.approx(float(stored["edge_h"] + stored["edge_w"]), rel=1e-4)
    assert float(loss) == pytest.approx(float(stored["loss"]), rel=1e-4)
    code = next(g for g, v in zip(gradients, variables, strict=True) if "encoder_code/kernel" in v.path)
    side, theirs = 4, stored["grad_linear1"]
    theirs = theirs.reshape(len(theirs), -1, side, side).transpose(0, 2, 3, 1).reshape(len(theirs), -1).T
    assert distance(code, theirs) < 1e-4
    keras.optimizers.Adam(5e-5, beta_1=0.5, beta_2=0.999, epsilon=1e-8).apply(gradients, variables)
    assert float(sum(losses().values())) == pytest.approx(float(stored["loss_after_one_step"]), rel=1e-4)


COUNTS = {
    "autoencoder encoder init 32 code 1024": Config(init_dim=32),
    "autoencoder encoder init 128 code 1024": PRESETS["autoencoder"],
    "autoencoder encoder init 256 code 1024": PRESETS["ae64"],
    "AE128 (head) encoder init 128 code 2048": PRESETS["ae128"],
}


def test_sizes_are_the_originals():
    counts = json.loads((FIXTURES / "families_parameter_counts.json").read_text())
    with keras.StatelessScope(initialize_variables=False):  # shapes alone: 291 million parameters want no memory
        found = {name: build_encoder(config).count_params() for name, config in COUNTS.items()}
        decoders = [build_decoder(PRESETS[name], 0).count_params() for name in ("autoencoder", "ae64", "ae128")]
    assert found == {name: counts[name] for name in COUNTS}
    names = ("autoencoder decoder", "AE64 (head) decoder", "AE128 (head) decoder")
    assert decoders == [counts[name] for name in names]


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda tensors: tensors.pop("linear2.bias"), r"lacks the tensor linear2\.bias"),
        (lambda tensors: tensors.update(odd=np.zeros(3)), "has the tensor odd, which belongs to no layer"),
        (
            lambda tensors: tensors.update({"conv3.0.weight": np.zeros((3, 2, 5, 5))}),
            r"tensor conv3\.0\.weight has the shape \(3, 2, 5, 5\), expected \(32, 16, 5, 5\)",
        ),
    ],
)
def test_what_does_not_fit_is_named(monkeypatch, change, message):
    read = autoencoder_files.read_torch_state_dict

    def read_changed(path, entry):
        tensors = read(path, entry)
        if path.name == "encoder.pth":
            change(tensors)
        return tensors

    monkeypatch.setattr(autoencoder_files, "read_torch_state_dict", read_changed)
    with pytest.raises(UserError, match=message):
        load_swapper(FOLDER / "seed" / "encoder.pth")


def test_an_encoder_alone_shows_nobody(tmp_path):
    (tmp_path / "encoder.pth").write_bytes((FOLDER / "seed" / "encoder.pth").read_bytes())
    with pytest.raises(UserError, match=r"no decoder<id>\.pth beside it"):
        load_swapper(tmp_path / "encoder.pth")
