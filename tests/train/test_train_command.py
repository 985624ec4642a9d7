"""`train.py` as a person runs it, on drawn faces, and what it says when something is wrong."""

import functools
import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from drawn_faces import draw_face
from tiny_run import FLAGS, run_eagerly, use_tiny_networks

from facedancer.core.alignment import landmark_template
from facedancer.core.card import read_card
from facedancer.core.files import only_writer
from facedancer.core.images import encode_image, read_image
from facedancer.core.records import FaceRecord, RecordWriter, shard_name
from facedancer.core.weights import get_weights
from facedancer.models.published import load_generator
from facedancer.train import train
from facedancer.train.train import main

SMALL = ["--preset", "lite", "--image_size", "32", "--batch_size", "2", "--eval_every", "2", "--log_every", "1"]
# The losses that do without a true swap, which lite leaves out.
SMALL += ["--a_lambda", "1", "--c_lambda", "1", "--ifsr_lambda", "1"]


@pytest.fixture(scope="module")
def weights():
    for name in ("dlib_resnet", "fer_expression", "mobilenet_v2"):
        get_weights(name)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Ten drawn faces of five people to train on, four of two others to validate on."""
    folder = tmp_path_factory.mktemp("shards")
    for data_type, people, each in (("train", range(5), 2), ("val", range(5, 7), 2)):
        with open(folder / shard_name("x", data_type, 0, 1), "wb") as file:
            writer = RecordWriter(file)
            for person in people:
                for variation in range(each):
                    face = encode_image(draw_face(person, 64, variation), ".png")
                    writer.write(FaceRecord(face, f"p{person}", landmark_template(64), f"p{person}/{variation}.png"))
    return folder


@pytest.fixture
def run(weights, networks_loaded_once, shards, tmp_path, monkeypatch):
    """Function that runs the command in an empty folder and returns its exit status."""
    monkeypatch.chdir(tmp_path)

    def run(*words, data_dir=shards / "x_train_*-of-*.records"):
        return main([*SMALL, "--data_dir", str(data_dir), *words])

    return run


def test_train_and_export(run, shards, tmp_path, capsys):
    words = ["--num_steps", "2", "--log_name", "t", "--c_lambda", "0"]  # a cycle is half of a step
    assert run(*words, "--eval_dir", str(shards / "x_val_*")) == 0
    said = capsys.readouterr().out
    assert "images/s" in said and "identity_to_source" in said and "reconstruction" in said
    assert read_image(tmp_path / "runs/t/results/train_00000002.png").shape == (3 * 32, 2 * 32, 3)
    assert (tmp_path / "runs/t/results/validation_00000002.png").is_file()
    (events,) = (tmp_path / "runs/t/logs").glob("events.*")
    tags = {"losses/identity", "learning_rate", "images_per_second", "validation/expression_distance", "swaps/train"}
    assert tags <= tags_of(events)

    # The checkpoint's configuration, not the command's flags, says what is exported.
    assert run("--log_name", "t", "--load", "2", "--export", "--mapping_depth", "1") == 0
    exported = tmp_path / "runs/t/exports/facedancer_2.h5"
    assert exported.is_file() and read_card(exported).identity_encoder == "dlib_resnet"
    assert exported.with_suffix(".onnx").is_file()


def tags_of(path):
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    return {value.tag for event in EventFileLoader(str(path)).Load() for value in event.summary.value}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--arcface_path", "nowhere.h5"], "nowhere.h5 is not there"),
        (["--arcface_path", "arcface_res50"], "ArcFace-Res50.h5 is not there; run"),
        (["--load", "7", "--log_name", "none"], "no checkpoint 7"),
        (["--device_id", "3"], "GPU 3"),
        (["--z_id_size", "512"], "gives embeddings of 128"),
        (["--shrink_factor", "0.7"], "faces look aligned with shrink factor 1.00"),
        (["--ifsr_blocks", "conv9"], "conv9 is not a tap"),
        (["--ifsr_margin", "0.1"], "1 --ifsr_margin for"),
        (["--p_blocks", "9"], "numbers from 1 to 5"),
        (["--up_types", "affa"], "1 blocks given"),
        (["--image_size", "50"], "image_size 50"),
        (["--a_lambda", "0", "--c_lambda", "0", "--ifsr_lambda", "0"], "no record has a true swap"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_and_nothing_is_written(run, tmp_path, capsys, words, message):
    assert run("--num_steps", "1", *words) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_a_glob_that_matches_nothing_and_a_truncated_record(run, shards, tmp_path, capsys):
    assert run("--num_steps", "1", data_dir=tmp_path / "no_*.records") == 2
    assert "no records match" in capsys.readouterr().err
    content = (shards / "x_train_00000-of-00000.records").read_bytes()
    (tmp_path / "cut.records").write_bytes(content[:-10])
    assert run("--num_steps", "1", data_dir=tmp_path / "cut.records") == 2
    assert "cut.records: truncated record" in capsys.readouterr().err


def test_a_damaged_record_stops_training_with_one_line(run, shards, tmp_path, capsys):
    content = bytearray((shards / "x_train_00000-of-00000.records").read_bytes())
    content[-40] ^= 0xFF  # within the last record, whose checksum then fails
    (tmp_path / "bad.records").write_bytes(content)
    assert run("--num_steps", "20", data_dir=tmp_path / "bad.records") == 2
    assert "damaged record" in capsys.readouterr().err


def test_a_record_that_holds_no_picture_stops_training_with_one_line(tiny, tmp_path, capsys):
    with open(tmp_path / "text.records", "wb") as file:
        writer = RecordWriter(file)
        for index in range(4):
            writer.write(FaceRecord(b"no picture at all", f"p{index}"))
    assert tiny("t", "--num_steps", "2", "--data_dir", str(tmp_path / "text.records")) == 2
    assert "no picture" in capsys.readouterr().err


@pytest.mark.parametrize(("flags", "said"), [([], "command to"), (["--load", "4"], "command without --load 4 to")])
def test_a_stopped_run_says_how_it_goes_on(monkeypatch, capsys, flags, said):
    monkeypatch.setattr(train, "train", lambda config, engine: (7, signal.SIGTERM))
    assert train.main(["--data_dir", "none", "--device_id", "-1", *flags]) == 128 + signal.SIGTERM
    assert f"stopped by SIGTERM at step 7; run the same {said} resume\n" in capsys.readouterr().out


def test_a_deterministic_run_is_without_onednn(repository):
    """Its gradients of `lite` differ from run to run; TensorFlow takes the setting only before it is imported."""
    lines = [
        "from facedancer.train.config import parse_config",
        "from facedancer.train.engines import open_engine",
        "open_engine(parse_config(['--data_dir', 'none', '--device_id', '-1', '--deterministic']))",
        "from tensorflow.python.framework.test_util import IsMklEnabled",
        "print(IsMklEnabled())",
    ]
    environment = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": "1"}
    words = [sys.executable, "-c", "\n".join(lines)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=repository, env=environment)
    assert done.stdout.splitlines()[-1:] == ["False"], done.stderr[-3000:]


def test_error_status_reaches_the_shell(repository, tmp_path):
    words = [sys.executable, repository / "train/train.py", "--data_dir", "none_*", "--preset", "lite"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and "no records match none_*" in done.stderr
    assert "Traceback" not in done.stderr


def run_tiny(shards, name, *words):
    common = ["--data_dir", str(shards / "x_train_*"), "--batch_size", "2", "--log_name", name, "--log_every", "1"]
    common += ["--c_lambda", "0", "--ifsr_lambda", "0"]  # the losses are others' matter, and cycles take half the time
    return main([*FLAGS, *common, *words])


@pytest.fixture
def tiny(shards, tmp_path, monkeypatch):
    """Function that runs the command with tiny networks; its first words are the run's name."""
    monkeypatch.chdir(tmp_path)
    use_tiny_networks(monkeypatch.setattr)
    run_eagerly(monkeypatch.setattr)
    return functools.partial(run_tiny, shards)


@pytest.fixture(scope="module")
def trained(shards, tmp_path_factory):
    """A folder with `t`, a run of nine steps that several tests look at or go on with."""
    folder = tmp_path_factory.mktemp("trained")
    words = ["--num_steps", "9", "--save_every", "1", "--keep", "2", "--eval_every", "4", "--r1_every", "3", "--export"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        use_tiny_networks(patch.setattr)
        run_eagerly(patch.setattr)
        assert run_tiny(shards, "t", *words, "--eval_dir", str(shards / "x_val_*")) == 0
    return folder


@pytest.fixture
def tiny_again(trained, tiny, tmp_path):
    """Function that runs the command with tiny networks where a copy of the run `t` lies."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return tiny


def test_a_run_goes_on_up_to_the_steps_asked_for_and_says_what_changed(tiny_again, tmp_path, capsys):
    assert tiny_again("t", "--num_steps", "9") == 0
    assert "nothing left to train" in capsys.readouterr().out
    assert tiny_again("t", "--num_steps", "10", "--lr", "0.5") == 0
    said = capsys.readouterr().out
    assert "changed since step 9: --lr is 0.5, was 0.0005" in said and "steps 9 to 10" in said
    generators = {path.name for path in (tmp_path / "runs/t/checkpoints/gen").iterdir()}
    assert {"gen.json", "gen_9.h5", "gen_10.h5"} <= generators


def test_a_second_training_into_the_same_place_is_refused(tiny_again, tmp_path, capsys):
    """Whichever of the folders it is; an export of a checkpoint that is there may be made meanwhile."""
    for place, words in (
        ("runs/t", []),
        ("logs/t", ["--log_dir", str(tmp_path / "logs")]),
        ("runs/t/results", ["--chkp_dir", "elsewhere"]),
        ("runs/t/exports", ["--load", "9", "--export"]),
    ):
        before = files_below(tmp_path)
        with only_writer(place):
            assert tiny_again("t", "--num_steps", "10", *words) == 2
        said = capsys.readouterr().err
        assert f"another command is writing {place}" in said.replace(f"{tmp_path}/", "") and str(os.getpid()) in said
        assert said.count("\n") == 1 and files_below(tmp_path) == before
    with only_writer("runs/t"):
        assert tiny_again("t", "--load", "9", "--export") == 0
    assert tiny_again("t", "--num_steps", "10", "--log_dir", str(tmp_path / "runs")) == 0


def files_below(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_another_network_is_refused(tiny_again, capsys):
    assert tiny_again("t", "--num_steps", "10", "--mapping_size", "4") == 2
    assert "--mapping_size is 4, was 8" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_refused_with_what_to_do(tiny_again, tmp_path, capsys):
    path = tmp_path / "runs/t/checkpoints/dis/dis_9.h5"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    state = tmp_path / "runs/t/checkpoints/state"
    earlier = {path.name for path in state.glob("*.json")} - {"9.json"}
    assert tiny_again("t", "--num_steps", "11") == 2
    assert (
        "dis_9.h5: damaged, checkpoint 9 cannot be used; resume from an earlier one with --load 8"
        in capsys.readouterr().err
    )
    assert tiny_again("t", "--num_steps", "10", "--load", "8") == 0
    steps = {path.name for path in state.glob("*.json*")}
    assert "8.json" in earlier and steps == {*earlier, "9.json.set_aside", "10.json"}


def test_only_the_last_checkpoints_and_the_best_are_kept(trained):
    checkpoints = trained / "runs/t/checkpoints"
    best = json.loads((checkpoints / "best.json").read_text())["step"]
    assert best in (4, 8, 9)
    kept = {8, 9, best}
    for short in ("gen", "dis", "ema"):
        assert {int(path.stem[4:]) for path in (checkpoints / short).glob("*.h5")} == kept
    assert {int(path.stem) for path in (checkpoints / "state").glob("*.npz")} == kept


def test_a_runs_folder_says_how_it_was_made_and_makes_it_again(tiny_again, tmp_path, capsys):
    made = json.loads((tmp_path / "runs/t/config.json").read_text())
    assert made["config"]["r1_every"] == 3 and made["data"]["faces"] == 10 and made["versions"]["keras"]
    words = ["--log_name", "again", "--export", "False", "--num_steps", "2"]
    assert main(["--config", "runs/t/config.json", *words]) == 0
    again = json.loads((tmp_path / "runs/again/config.json").read_text())
    others = {"log_name": "t", "export": True, "num_steps": 9}
    assert {**again["config"], **others} == made["config"] and again["data"] == made["data"]
    for words, message in (
        ('{"lrr": 1}', "no flag of facedancer is named lrr"),
        ('{"lr": "fast"}', 'lr is "fast", not float'),
        ('{"lr": []}', "lr is [], not one float"),
        ('{"freeze": "encoder"}', 'freeze is "encoder", not a list of str'),
        ('{"family": ["facedancer"]}', "no family of swap networks is named ['facedancer']"),
        ("[]", "not a JSON object"),
    ):
        (tmp_path / "wrong.json").write_text(words)
        assert main(["--config", "wrong.json", "--data_dir", "x"]) == 2
        assert message in capsys.readouterr().err


def test_a_dry_run_says_what_a_run_would_take_and_writes_nothing(tiny, tmp_path, capsys):
    assert tiny("t", "--num_steps", "100", "--dry_run", "--a_lambda", "0", "--ifsr_lambda", "1") == 0
    said = capsys.readouterr().out
    for word in ("generator: 5,884 parameters", "GFLOP a step", "MiB of weights", "s a step", "h an epoch of 10 faces"):
        assert word in said
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_fine_tuning_begins_with_an_export(tiny_again, tmp_path, capsys):
    exported = "runs/t/exports/facedancer_9.h5"
    assert tiny_again("second", "--num_steps", "1", "--finetune", exported, "--ema", "0", "--lr", "0") == 0
    first = load_generator(tmp_path / exported)
    second = load_generator(tmp_path / "runs/second/checkpoints/gen/gen_1.h5")
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        assert np.array_equal(a, b)
    assert tiny_again("third", "--num_steps", "1", "--finetune", exported, "--mapping_size", "4") == 2
    assert "another network" in capsys.readouterr().err


def test_hyperparameters_and_configuration_are_in_the_log(trained):
    (events,) = (trained / "runs/t/logs").glob("events.*")
    assert {"configuration", "_hparams_/session_start_info"} <= tags_of(events)


def test_a_discriminator_comes_and_goes(tiny, tmp_path, capsys):
    """A run that began without one takes one up, anew, and one that has one goes on without."""
    others = ("--ifsr_lambda", "1", "--ema", "0")
    assert tiny("d", "--num_steps", "1", "--a_lambda", "0", *others) == 0
    assert "discriminator" not in capsys.readouterr().out
    assert tiny("d", "--num_steps", "2", "--a_lambda", "1", *others) == 0
    said = capsys.readouterr().out
    assert (
        "checkpoint 1 has no discriminator: a new one is trained" in said and "parameters in the discriminator" in said
    )
    assert tiny("d", "--num_steps", "3", "--a_lambda", "0", *others) == 0
    assert (tmp_path / "runs/d/checkpoints/state/3.json").is_file()
