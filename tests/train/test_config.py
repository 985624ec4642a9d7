"""Flags: the original's names and defaults, presets, and refusals."""

import json
from dataclasses import asdict

import pytest

from facedancer.core.console import UserError
from facedancer.models.facedancer import PRESETS
from facedancer.train.build import with_network_shape
from facedancer.train.config import TrainConfig, parse_config


def test_defaults_are_the_originals():
    config = with_network_shape(parse_config(["--data_dir", "x"]))
    assert (config.batch_size, config.image_size, config.num_epochs) == (10, 256, 500)
    assert (config.lr, config.lr_decay) == (1e-4, 0.97)
    assert (config.r_lambda, config.p_lambda, config.i_lambda, config.c_lambda) == (5, 0.2, 10, 1)
    assert (config.ifsr_lambda, config.ifsr_scale, config.same_ratio) == (1, 1.2, 0.2)
    assert (config.mapping_depth, config.mapping_size) == (4, 512)
    assert config.up_types == ("no_skip", "no_skip", "affa", "affa", "affa", "concat")
    assert config.shuffle and not config.export and config.load is None and config.log_name == "facedancer"


def test_help_says_the_presets_shapes(capsys):
    """The help, which loads no networks, repeats what `models.facedancer.PRESETS` holds."""
    with pytest.raises(SystemExit):
        parse_config(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    full, lite = PRESETS["facedancer"], PRESETS["lite"]
    for name in ("image_size", "mapping_depth", "mapping_size"):
        assert f"the preset's: {getattr(full, name)}, lite {getattr(lite, name)}" in said
    assert f"the preset's: {' '.join(full.up_types)}, lite {' '.join(lite.up_types)}" in said


def test_booleans_are_booleans_and_lists_are_lists():
    words = "--data_dir x --export False --shuffle no --ifsr_margin .1 .2 --ifsr_blocks a b --up_types affa add"
    config = parse_config(words.split())
    assert config.export is False and config.shuffle is False
    assert config.ifsr_margin == (0.1, 0.2) and config.ifsr_blocks == ("a", "b")
    assert config.up_types == ("affa", "add")
    assert parse_config(["--data_dir", "x", "--export"]).export is True


def test_flags_come_before_the_preset_and_the_preset_before_defaults():
    def resolve(words):
        return with_network_shape(parse_config(["--data_dir", "x", *words.split()]))

    assert (resolve("--preset lite").image_size, resolve("--preset lite").batch_size) == (128, 8)
    assert resolve("--preset lite --image_size 64").image_size == 64
    # A flag with the default's value is still the person's.
    assert resolve("--preset lite --batch_size 10").batch_size == 10


def test_configuration_survives_json():
    config = parse_config(["--data_dir", "x", "--ifsr_margin", ".1", "--load", "3"])
    assert TrainConfig.from_json(json.loads(json.dumps(asdict(config)))) == config


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
