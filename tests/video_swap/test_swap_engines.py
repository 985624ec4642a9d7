"""Engines: one network, the same results, whatever runs it."""

import importlib.util

import keras
import numpy as np
import pytest

from facedancer.core.console import UserError
from facedancer.models import load_swapper
from facedancer.models.facedancer import PRESETS, Config, build_generator
from facedancer.video_swap import engines
from facedancer.video_swap.engines import converted, load_engine

TOLERANCE = 2 / 127.5  # two of 255 levels


def needs(package):
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"needs {package}")


def write_export(path, seed=0):
    keras.utils.set_random_seed(seed)
    config = Config(
        image_size=32, embedding_dim=6, mapping_depth=1, mapping_size=8, widths=(8, 16),
        up_types=("affa", "concat"), discriminator_widths=(4, 8),
    )  # fmt: skip
    build_generator(config).save(path)


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    path = tmp_path_factory.mktemp("engines") / "facedancer_0.h5"
    write_export(path)
    return path


@pytest.fixture(scope="module")
def inputs():
    draw = np.random.default_rng(0)
    return {
        "target": draw.uniform(-1, 1, (3, 32, 32, 3)).astype(np.float32),
        "source_embedding": draw.normal(size=(3, 6)).astype(np.float32),
    }


OTHERS = [pytest.param(name, marks=needs(name)) for name in ("onnxruntime", "openvino")]


@pytest.mark.parametrize("name", ["keras", *OTHERS])
def test_the_same_results(export, inputs, name):
    engine = load_engine(export, name)
    assert (engine.image_size, engine.embedding_dim) == (32, 6) and engine.batch_size >= 1
    expected = load_swapper(export).predict_on_batch(inputs)
    for count in (3, 1):
        found = engine.predict_on_batch({name: values[:count] for name, values in inputs.items()})
        assert found.shape == (count, 32, 32, 3) and found.dtype == np.float32
        assert np.abs(found - expected[:count]).max() < TOLERANCE


@pytest.mark.campaign
@pytest.mark.parametrize("preset", ["lite", "facedancer"])
@pytest.mark.parametrize("name", OTHERS)
def test_the_same_results_at_full_size(tmp_path, preset, name):
    keras.utils.set_random_seed(0)
    path, config = tmp_path / "facedancer_0.h5", PRESETS[preset]
    build_generator(config).save(path)
    draw = np.random.default_rng(0)
    inputs = {
        "target": draw.uniform(-1, 1, (2, config.image_size, config.image_size, 3)).astype(np.float32),
        "source_embedding": draw.normal(size=(2, config.embedding_dim)).astype(np.float32),
    }
    expected, found = (load_engine(path, engine).predict_on_batch(inputs) for engine in ("keras", name))
    assert np.abs(found - expected).max() < TOLERANCE


def test_bfloat16_is_near(export, inputs):
    expected, found = (
        load_engine(export, "keras", precision).predict_on_batch(inputs) for precision in engines.PRECISIONS
    )
    assert found.dtype == np.float32
    assert 0 < np.abs(found - expected).mean() < TOLERANCE


def test_the_conversion_is_kept_until_the_export_is_another(tmp_path, monkeypatch):
    monkeypatch.setenv("FACEDANCER_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("facedancer.models.onnx_export.save_onnx", lambda model, path: path.write_bytes(b"converted"))
    path = tmp_path / "facedancer_0.h5"
    write_export(path)
    first = converted(path)
    written = first.stat().st_mtime_ns
    assert converted(path) == first and first.stat().st_mtime_ns == written
    write_export(path, seed=1)
    second = converted(path)
    assert second != first and not first.exists()
    assert list(second.parent.iterdir()) == [second]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["facedancer_0.h5", "home"]
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / path.name
    write_export(other, seed=1)
    assert converted(other) != second and second.exists()


def test_what_cannot_be_had_is_said(export, monkeypatch):
    with pytest.raises(UserError, match="bfloat16 take --engine keras"):
        load_engine(export, "onnxruntime", "bfloat16")
    with monkeypatch.context() as patch:
        patch.setattr(engines.importlib, "import_module", lambda name: exec("raise ModuleNotFoundError"))
        with pytest.raises(UserError, match=r"pip install 'facedancer\[openvino\]'"):
            load_engine(export, "openvino")
    with pytest.raises(UserError, match=r"absent\.h5"):
        load_engine(export.with_name("absent.h5"))


@pytest.mark.parametrize(
    ("name", "device", "is_video", "is_installed", "expected"),
    [
        ("auto", "CPU", True, True, "openvino"),
        ("auto", "CPU", True, False, "keras"),
        ("auto", "CPU", False, True, "keras"),
        ("auto", "GPU 0 (any)", True, True, "keras"),
        ("onnxruntime", "CPU", True, True, "onnxruntime"),
    ],
)
def test_videos_on_a_processor_take_the_fastest_engine(name, device, is_video, is_installed, expected, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: object() if is_installed else None)
    assert engines.choose_engine(name, device, is_video) == expected
