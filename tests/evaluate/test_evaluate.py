"""Swappers measured: metrics behave, intervals cover, and the command says what it cannot do."""

import json

import cv2
import numpy as np
import pytest

from facedancer.core.card import ExportCard, write_card
from facedancer.core.console import UserError
from facedancer.core.images import encode_image, write_image
from facedancer.core.keras_h5 import save_keras_h5
from facedancer.core.records import FaceRecord, RecordWriter, shard_name
from facedancer.core.weights import get_weights
from facedancer.dataset.triplets import DRAWN
from facedancer.evaluate import evaluate as command
from facedancer.evaluate import metrics
from facedancer.evaluate.cases import Case, read_cases
from facedancer.evaluate.yardsticks import CopyPaste

SIZE = 32
pytestmark = pytest.mark.usefixtures("networks_loaded_once")


@pytest.fixture(scope="module", autouse=True)
def weights():
    for name in ("face_mesh", "dlib_resnet", "faceres", "retinaface_mobilenet025", "mobilenet_v2", "iris"):
        get_weights(name)


def field(seed):
    coarse = np.random.default_rng(seed).integers(20, 236, (5, 5, 3), dtype=np.uint8)
    return cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)


def by_color(faces):
    """Takes the middle's colors for an identity."""
    return np.float32(faces[:, 8:24, 8:24].mean((1, 2)) - 128)


@pytest.fixture(scope="module")
def cases():
    """Targets, other people as sources, and as the truth the target with the source's middle."""
    found = []
    for index in range(6):
        target, source = field(index), field(100 + index)
        truth = target.copy()
        truth[8:24, 8:24] = source[8:24, 8:24]
        found.append(Case(str(index), target, source, truth))
    return found


def measure(cases, swaps, own=None):
    own = np.stack([case.target for case in cases]) if own is None else own
    finder, features = lambda faces: [True] * len(faces), metrics.FeatureDistance(SIZE)
    rows = metrics.measure(cases, np.stack(swaps), own, by_color, 1.0, finder, features)
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def test_the_target_has_its_own_pose_and_the_truth_no_error(cases):
    left, true = (measure(cases, [getattr(case, name) for case in cases]) for name in ("target", "truth"))
    assert left["pose"] < 0.1 and left["expression"] == left["landmarks"] == left["self"] == 0
    assert left["gaze"] < 0.1 and true["features"] == 0 and left["features"] > 0.1
    assert left["expression_kept"] == 1 and left["nearer_to_source"] == 0 and left["error_ratio"] == 1
    assert true["error"] == true["error_ratio"] == 0 and true["nearer_to_source"] == true["rank_1"] == 1
    assert true["to_source"] == pytest.approx(1) and left["to_target"] == pytest.approx(1)
    assert true["psnr"] > left["psnr"]


def test_each_fault_moves_its_own_number(cases):
    true = measure(cases, [case.truth for case in cases])
    blurred = measure(cases, [cv2.GaussianBlur(case.truth, (0, 0), 2) for case in cases])
    assert blurred["error_ratio"] > 0.1 and blurred["psnr"] < true["psnr"] - 10
    assert blurred["features"] > 0.1
    assert blurred["ssim"] < true["ssim"] - 0.05 and true["ssim"] == pytest.approx(1)
    assert abs(blurred["to_source"] - true["to_source"]) < 0.1
    shifted = measure(cases, [np.roll(case.truth, 2, axis=1) for case in cases])
    assert shifted["error_ratio"] > 0.1 and shifted["ssim"] < true["ssim"] - 0.05
    assert abs(shifted["to_source"] - true["to_source"]) < 0.1
    bright = [case.truth.copy() for case in cases]
    for swap in bright:
        swap[:3] = np.minimum(swap[:3].astype(int) + 40, 255)
    bright = measure(cases, bright)
    assert bright["background"] > true["background"] + 0.005 and bright["error_ratio"] == 0
    others = [cases[(index + 1) % len(cases)].truth for index in range(len(cases))]
    assert measure(cases, others)["rank_1"] < 0.5
    own = np.stack([np.minimum(case.target.astype(int) + 10, 255) for case in cases]).astype(np.uint8)
    assert measure(cases, [case.truth for case in cases], own)["self"] == pytest.approx(10 / 255, rel=0.05)


def test_intervals_cover_the_mean_of_all():
    rng = np.random.default_rng(0)
    everybody = rng.gamma(2.0, 1.0, 4000)
    hits = 0
    for seed in range(100):
        rows = [{"value": value} for value in rng.choice(everybody, 60)]
        _, low, high = metrics.summarize(rows, seed, draws=400)["value"]
        hits += low <= everybody.mean() <= high
    assert 88 <= hits <= 99


def test_copy_and_paste_changes_the_face_and_not_the_border(cases):
    targets = np.stack([case.target for case in cases])
    swaps = CopyPaste(1.0)(cases)
    assert swaps.shape == targets.shape and swaps.dtype == np.uint8
    assert (swaps[:, 0] == targets[:, 0]).all() and (swaps != targets).any(axis=(1, 2, 3)).all()


def write_shard(folder):
    """Three triplets, one of a person's own face, and a record without truth."""
    with open(folder / shard_name("x", "val", 0, 1), "wb") as file:
        writer = RecordWriter(file)
        for index, name in enumerate(("a/0", "a/0", "b/0", "c/0", "c/0")):
            other = ("b/0", "a/1", "c/0", "a/0", "a/0")[index]
            target, source, truth = (encode_image(field(10 * index + part), ".png") for part in range(3))
            truth = None if index == 4 else truth
            writer.write(FaceRecord(target, None, name=name + DRAWN + other, source=source, truth=truth))
    return str(folder / "x_val_*")


def test_triplets_of_ones_own_face_are_no_cases(tmp_path):
    found = list(read_cases("triplets", write_shard(tmp_path), tmp_path, 10, SIZE, 1.0, 0))
    assert [case.name.rpartition("#")[2] for case in found] == ["0", "2", "3"]


def test_pairs_are_of_two_people_and_can_be_run_again(tmp_path):
    for person in range(3):
        for picture in range(2):
            write_image(tmp_path / f"faces/{person}/{picture}.png", field(10 * person + picture))
    found = list(read_cases("pairs", tmp_path / "faces", tmp_path, 8, SIZE, 1.0, 3))
    names = [case.name.split(" < ") for case in found]
    assert len(found) == 8 and all(target.split("/")[0] != source.split("/")[0] for target, source in names)
    (tmp_path / "pairs.jsonl").replace(tmp_path / "faces/pairs.jsonl")
    again = list(read_cases("pairs", tmp_path / "faces/pairs.jsonl", tmp_path, 8, SIZE, 1.0, 99))
    assert [case.name for case in again] == [case.name for case in found]
    (tmp_path / "bad.jsonl").write_text('{"target": 1}\n')
    with pytest.raises(UserError, match=r"line 1: .*a line of a list of pairs"):
        list(read_cases("pairs", tmp_path / "bad.jsonl", tmp_path, 8, SIZE, 1.0, 0))
    with pytest.raises(UserError, match="at least 2 people"):
        list(read_cases("pairs", tmp_path / "faces/0", tmp_path, 8, SIZE, 1.0, 0))


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    from facedancer.models.facedancer import Config, build_generator

    folder = tmp_path_factory.mktemp("export")
    config = Config(SIZE, 128, 1, 8, (8, 8, 8), ("no_skip", "affa", "concat"), (4, 8))
    save_keras_h5(build_generator(config), folder / "tiny.h5")
    write_card(folder, ExportCard("facedancer", SIZE, 128, identity_encoder="dlib_resnet"))
    return folder / "tiny.h5"


def test_the_command_measures_shows_and_goes_on(export, tmp_path, capsys, monkeypatch):
    data, out = write_shard(tmp_path), tmp_path / "report"
    words = ["--model", str(export), "--protocol", "triplets", "--data", data, "--output", str(out), "--count", "3"]
    assert command.main(words) == 0
    assert "copy and paste" in capsys.readouterr().out
    found = json.loads((out / "metrics.json").read_text())
    assert found["pairs"] == 3 and len(found["swappers"]) == 4
    assert found["swappers"]["the target, left as it is"]["error_ratio"] == [1, 1, 1]
    page = (out / "report.html").read_text()
    assert page.count("data:image/jpeg") == 3 and page.count("<svg") == 20 and "share of the target" in page
    assert "off by" in page and "InceptionV3" not in page

    # Again: the same numbers.
    assert command.main(words) == 0
    assert json.loads((out / "metrics.json").read_text()) == found
    capsys.readouterr()
    assert command.main([*words[:-1], "2"]) == 2
    assert "other settings" in capsys.readouterr().err
    assert command.main([*words, "--judge", "dlib_resnet"]) == 2
    assert "was trained with dlib_resnet" in capsys.readouterr().err


def test_margins_are_the_mean_distances_and_train_takes_them(export, tmp_path, capsys):
    from facedancer.arcface_model import IdentityEncoder
    from facedancer.evaluate import ifsr_calibrate
    from facedancer.train.objectives.facedancer import read_margins

    out = tmp_path / "margins.json"
    words = ["--model", str(export), "--protocol", "triplets", "--data", write_shard(tmp_path), "--output", str(out)]
    assert ifsr_calibrate.main(words) == 0
    assert "written to" in capsys.readouterr().out
    found = json.loads(out.read_text())
    encoder = IdentityEncoder("dlib_resnet")
    assert found["pairs"] == 3 and list(found["margins"]) == list(encoder.ifsr_margins)
    assert all(0 < margin < 1 for margin in found["margins"].values())
    assert read_margins(out, "dlib_resnet", encoder.ifsr_margins) == found["margins"]
    with pytest.raises(UserError, match="for dlib_resnet, but the run's identity encoder is arcface"):
        read_margins(out, "arcface", encoder.ifsr_margins)
    out.write_text("[1]")
    with pytest.raises(UserError, match="not what"):
        read_margins(out, "dlib_resnet", encoder.ifsr_margins)
