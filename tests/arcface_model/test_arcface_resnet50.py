"""ArcFace-Res50 files load completely or are refused, and give their own outputs."""

import copy
import json
from importlib import resources

import h5py
import numpy as np
import pytest

from facedancer.arcface_model.arcface_resnet50 import IFSR_TAPS, build_arcface_resnet50, load_arcface_resnet50
from facedancer.arcface_model.encoder import IdentityEncoder
from facedancer.core.console import UserError
from facedancer.core.keras_h5 import KerasH5


@pytest.fixture(scope="module")
def stored():
    """What a file of this layout holds, with weights that tell every tensor from every other."""
    model, generator = build_arcface_resnet50(), np.random.default_rng(0)
    head = {"head_bn": "batch_normalization_4", "head_dense": "dense_1", "embedding": "batch_normalization_5"}
    weights = {"resnet50": {}, "OutputLayer": {}}
    for layer in model.layers:
        for weight in layer.weights:
            array = generator.uniform(0.5, 1.5, 1).astype(np.float32) * np.ones(weight.shape, np.float32)
            if layer.name in head:
                weights["OutputLayer"][f"{head[layer.name]}/{weight.name}:0"] = array
            else:
                weights["resnet50"][f"{layer.name}/{weight.name}:0"] = array
    return KerasH5("ArcFace-Res50.h5", None, weights)


def test_takes_every_weight_by_name(stored):
    model = load_arcface_resnet50(stored)
    for layer in model.layers:
        for weight in layer.weights:
            if layer.name.startswith("conv"):
                wanted = stored.weights["resnet50"][f"{layer.name}/{weight.name}:0"]
                np.testing.assert_array_equal(weight, wanted)
    for name, wanted in (("head_bn", "batch_normalization_4"), ("embedding", "batch_normalization_5")):
        for weight in model.get_layer(name).weights:
            np.testing.assert_array_equal(weight, stored.weights["OutputLayer"][f"{wanted}/{weight.name}:0"])
    assert not model.trainable_weights


def test_refuses_what_does_not_match(stored, monkeypatch):
    built = build_arcface_resnet50()  # once: a refused file gives it no weights that matter
    monkeypatch.setattr("facedancer.arcface_model.arcface_resnet50.build_arcface_resnet50", lambda: built)

    def changed(change):
        other = copy.copy(stored)
        other.weights = {name: dict(group) for name, group in stored.weights.items()}
        change(other.weights)
        return other

    def reshape(weights):
        weights["resnet50"]["conv3_block1_0_conv/kernel:0"] = np.zeros((1, 1, 256, 511), np.float32)

    def rename(weights):
        weights["resnet50"]["conv9_conv/kernel:0"] = weights["resnet50"].pop("conv1_conv/kernel:0")

    cases = [
        (lambda w: w["resnet50"].pop("conv4_block2_2_bn/moving_mean:0"), "lacks weights conv4_block2_2_bn/moving_mean"),
        (lambda w: w["resnet50"].update({"extra/kernel:0": np.zeros(3)}), "has unknown weights extra/kernel"),
        (rename, "lacks weights conv1_conv/kernel"),
        (reshape, r"conv3_block1_0_conv/kernel has shape \(1, 1, 256, 511\), expected \(1, 1, 256, 512\)"),
        (lambda w: w["OutputLayer"].pop("dense_1/bias:0"), "lacks weights head_dense/bias"),
        (lambda w: w["OutputLayer"].update({"dense_2/kernel:0": np.zeros(3)}), "its OutputLayer has the layers"),
        (lambda w: w.update({"other": {}}), "has unknown layers other"),
    ]
    for change, reason in cases:
        with pytest.raises(UserError, match=rf"^ArcFace-Res50\.h5: {reason}"):
            load_arcface_resnet50(changed(change))


def test_refuses_other_files(tmp_path, waves):
    path = tmp_path / "weights.h5"
    for content in (b"<!DOCTYPE html><title>Sign in</title>", b"", b"\x89HDF\r\n\x1a\n" + bytes(100)):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"weights\.h5: not a whole HDF5 file"):
            IdentityEncoder(path)
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"dense"]
        file.create_group("dense").attrs["weight_names"] = []
    with pytest.raises(UserError, match=r"weights\.h5: no identity encoder that is known"):
        IdentityEncoder(path)
    with pytest.raises(UserError, match=r"absent\.h5"):
        IdentityEncoder(tmp_path / "absent.h5")


@pytest.mark.parametrize("style", ["arcface_res50", "arcface_res50_keras28"])
def test_gives_the_published_outputs(published, style):
    encoder = IdentityEncoder(published / f"{style}.h5")
    example = np.load(published / "arcface_res50_io.npz")
    signed = example["input_0"] * 2 - 1
    outputs = encoder.build_model(112)(signed)
    embedding = np.asarray(outputs["embedding"])
    assert np.abs(embedding - example["output"]).max() < 1e-4 * np.abs(example["output"]).max()
    assert (encoder.name, encoder.dim) == ("arcface_res50", 512)
    assert list(outputs) == ["embedding", *IFSR_TAPS] == ["embedding", *encoder.ifsr_margins]
    assert outputs["conv4_block6_out"].shape == (1, 7, 7, 1024) and outputs["conv2_block3_out"].shape[1:] == (
        28,
        28,
        256,
    )


def test_margins_are_those_of_the_paper_s_code():
    margins = json.loads((resources.files("facedancer.arcface_model") / "ifsr_margins.json").read_text())
    assert tuple(margins["arcface_res50"]) == IFSR_TAPS and len(IFSR_TAPS) == 11
    assert sum(margins["arcface_res50"].values()) == pytest.approx(0.888137)
