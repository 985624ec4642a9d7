"""Flags: the original's names and defaults, presets, and refusals."""

import json

import pytest

from facedancer.core.console import UserError
from facedancer.models.facedancer import PRESETS
from facedancer.train.config import TrainConfig, parse_config


def test_defaults_are_the_originals():
    config = parse_config(["--data_dir", "x"])
    assert (config.batch_size, config.image_size, config.num_epochs) == (10, 256, 500)
    assert (config.lr, config.lr_decay) == (1e-4, 0.97)
    weights, network = config.weights, config.network
    assert (weights.r_lambda, weights.p_lambda, weights.i_lambda, weights.c_lambda) == (5, 0.2, 10, 1)
    assert (weights.ifsr_lambda, weights.ifsr_scale, config.same_ratio) == (1, 1.2, 0.2)
    assert (network.mapping_depth, network.mapping_size) == (4, 512)
    assert network.up_types == ("no_skip", "no_skip", "affa", "affa", "affa", "concat")
    assert config.shuffle and not config.export and config.load is None and config.log_name == "facedancer"


def test_help_says_the_presets_shapes(capsys):
    with pytest.raises(SystemExit):
        parse_config(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    full, lite = PRESETS["facedancer"], PRESETS["lite"]
    for name in ("image_size", "mapping_depth", "mapping_size"):
        assert f"the preset's: {getattr(full, name)}, lite {getattr(lite, name)}" in said
    assert f"the preset's: {' '.join(full.up_types)}, lite {' '.join(lite.up_types)}" in said


def test_booleans_are_booleans_and_lists_are_lists():
    words = "--data_dir x --export False --shuffle no --ifsr_margin .1 .2 --ifsr_blocks a b --preset lite --up_types"
    up_types = ("affa", "add", "concat", "no_skip")
    config = parse_config([*words.split(), *up_types])
    assert config.export is False and config.shuffle is False
    assert config.weights.ifsr_margin == (0.1, 0.2) and config.weights.ifsr_blocks == ("a", "b")
    assert config.network.up_types == up_types
    assert parse_config(["--data_dir", "x", "--export"]).export is True


def test_flags_come_before_the_preset_and_the_preset_before_defaults():
    def resolve(words):
        return parse_config(["--data_dir", "x", *words.split()])

    assert (resolve("--preset lite").image_size, resolve("--preset lite").batch_size) == (128, 8)
    assert resolve("--preset lite --image_size 64").image_size == 64
    # A flag with the default's value is still the person's.
    assert resolve("--preset lite --batch_size 10").batch_size == 10


def test_a_configuration_of_before_families_is_read():
    """Its flags lie side by side, and none says the family."""
    flags = {"data_dir": "x", "preset": "lite", "image_size": 128, "r_lambda": 9.0, "load": None}
    config = TrainConfig.from_json(flags)
    assert (config.family, config.preset, config.batch_size) == ("facedancer", "lite", 8)
    assert config.weights.r_lambda == 9.0 and config.network == PRESETS["lite"]
    with pytest.raises(UserError, match="unknown in a configuration: lambda"):
        TrainConfig.from_json({"data_dir": "x", "lambda": 1.0})


@pytest.mark.parametrize("words", [["--family", "nobody"], ["--preset", "nothing"]])
def test_an_unknown_family_or_preset_is_refused(words):
    with pytest.raises((UserError, SystemExit)):
        parse_config(["--data_dir", "x", *words])


def test_configuration_survives_json():
    config = parse_config(["--data_dir", "x", "--ifsr_margin", ".1", "--load", "3"])
    assert TrainConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize(
    "words",
    ["--batch_size 0", "--num_steps 0", "--same_ratio 0", "--shrink_factor 2", "--lr nan", "--log_name ../x",
     "--shift 0.4", "--ifsr_margin .1 .2 --ifsr_blocks a"],
)  # fmt: skip
def test_values_out_of_range_are_refused(words):
    with pytest.raises(UserError):
        parse_config(["--data_dir", "x", *words.split()])


def test_a_word_that_is_no_boolean_is_refused(capsys):
    with pytest.raises(SystemExit):
        parse_config(["--data_dir", "x", "--export", "maybe"])
    assert "expected true or false" in capsys.readouterr().err
