"""The benchmark: what it counts, and that it measures what it says."""

import json

import keras
import numpy as np
import pytest
from drawn_faces import draw_face
from keras import layers

from facedancer.commands import benchmark as benchmark_command
from facedancer.core.card import ExportCard, write_card
from facedancer.core.weights import get_weights
from facedancer.models.facedancer import PRESETS, Config, build_generator


def test_products_are_counted():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, 2, padding="same")(inputs)
    outputs = layers.Dense(5)(layers.Flatten()(x))
    assert benchmark_command.count_products(keras.Model(inputs, outputs)) == 2 * (4 * 4 * 4 * 27 + 64 * 5)
    paper = build_generator(PRESETS["facedancer"])
    assert benchmark_command.count_products(paper) == pytest.approx(57.7e9, rel=0.005)


@pytest.mark.parametrize(("flag", "number"), [("--frames", "0"), ("--heights", "361"), ("--heights", "0")])
def test_a_video_that_cannot_be_is_refused(capsys, flag, number):
    assert benchmark_command.main([flag, number]) == 2
    assert capsys.readouterr().err.startswith(f"error: {flag} {number}: give ")


def test_a_video_is_measured(tmp_path, monkeypatch, capsys):
    get_weights("dlib_resnet")
    config = Config(
        image_size=32, embedding_dim=128, mapping_depth=1, mapping_size=8, widths=(4, 8), up_types=("affa", "concat"),
        discriminator_widths=(4, 8),
    )  # fmt: skip
    build_generator(config).save(tmp_path / "facedancer_0.h5")
    write_card(tmp_path, ExportCard("facedancer", image_size=32, embedding_dim=128, identity_encoder="dlib_resnet"))
    face = np.pad(draw_face(1, 160), ((0, 0), (64, 60), (0, 0)))
    monkeypatch.setattr(benchmark_command, "render_frames", lambda count: [face] * count)
    monkeypatch.setattr(benchmark_command, "_MATRIX", 256)
    path = str(tmp_path / "facedancer_0.h5")
    assert benchmark_command.main(["--facedancer_path", path, "--heights", "160", "--frames", "9"]) == 0
    (line,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert line["height"] == 160 and line["faces"] == 9 and 0 < line["not_network"] < 1
    assert set(line["stages_alone"]) == {"decode", "detect", "network", "blend", "encode"}
    # All together is no faster than the slowest stage alone, but for what a busy machine does between the two.
    assert 0 < line["frames_per_second"] < 2 * min(line["stages_alone"].values())
    assert line["of_peak"] == pytest.approx(line["network_gflops"] / line["matrix_product_gflops"], abs=0.6)
