"""Checkpoints: what is saved comes back, and a run that goes on ends where an unbroken one does."""

import json
from dataclasses import replace

import h5py
import numpy as np
import pytest
from tiny_networks import ASIDE, CONFIG

from facedancer.core.console import UserError
from facedancer.models.facedancer import build_networks
from facedancer.models.keras2 import save_keras2_h5
from facedancer.train.checkpoints import Checkpoints


def optimizers_of(trainer):
    return {"generator": trainer.optimizer, "discriminator": trainer.discriminator_optimizer}


def state(trainer):
    networks = [value for network in trainer.networks.values() for value in network.get_weights()]
    return networks + [v.numpy() for optimizer in optimizers_of(trainer).values() for v in optimizer.variables]


def fit(trainer, stream, steps):
    trainer.fit(stream, steps_per_epoch=steps, shuffle=False, verbose=0)


def test_resumed_equals_unbroken(make_trainer, stream, tmp_path):
    unbroken = make_trainer(**ASIDE)
    fit(unbroken, stream, 2)
    Checkpoints(tmp_path).save(2, unbroken.networks, optimizers_of(unbroken), {})
    fit(unbroken, stream, 1)

    resumed = make_trainer(**ASIDE)
    for network in resumed.networks.values():  # nothing of the fresh trainer may survive
        network.set_weights([value + 1 for value in network.get_weights()])
    Checkpoints(tmp_path).load_networks(2, resumed.networks)
    Checkpoints(tmp_path).load_optimizers(2, resumed.networks, optimizers_of(resumed))
    assert int(resumed.optimizer.iterations) == 2
    fit(resumed, stream, 1)
    for a, b in zip(state(unbroken), state(resumed), strict=True):
        assert np.allclose(a, b, atol=1e-5)


def test_layout_is_the_originals(make_trainer, tmp_path):
    trainer = make_trainer()
    Checkpoints(tmp_path).save(20, trainer.networks, optimizers_of(trainer), {"lr": 1e-4})
    found = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert found == [
        "dis/dis.json", "dis/dis_20.h5", "gen/gen.json", "gen/gen_20.h5", "state/20.json", "state/20.npz"
    ]  # fmt: skip
    assert json.loads((tmp_path / "gen/gen.json").read_text())["class_name"] == "Functional"
    assert Checkpoints(tmp_path).read_state(20) == (20, {"lr": 1e-4})
    assert Checkpoints(tmp_path).numbers() == [20]


def test_a_number_that_is_not_there_is_named(make_trainer, tmp_path):
    trainer = make_trainer()
    Checkpoints(tmp_path).save(20, trainer.networks, optimizers_of(trainer), {})
    with pytest.raises(UserError, match="no checkpoint 30; there are: 20"):
        Checkpoints(tmp_path).read_state(30)


def test_another_network_is_refused(make_trainer, tmp_path):
    trainer = make_trainer()
    Checkpoints(tmp_path).save(20, trainer.networks, optimizers_of(trainer), {})
    other = build_networks(replace(CONFIG, up_types=("no_skip", "add", "concat")))
    with pytest.raises(UserError, match=r"gen_20.h5: a generator of another size or kind"):
        Checkpoints(tmp_path).load_networks(20, other)


def test_training_goes_on_from_the_originals_checkpoint(make_trainer, tmp_path):
    """Its layout, its Keras 2 files, its numbering by ten thousands; the optimizers begin anew."""
    trainer = make_trainer()
    for short, network in zip(("gen", "dis"), trainer.networks.values(), strict=True):
        (tmp_path / short).mkdir()
        save_keras2_h5(network, tmp_path / short / f"{short}_3.h5")
        with h5py.File(tmp_path / short / f"{short}_3.h5") as file:
            (tmp_path / short / f"{short}.json").write_text(file.attrs["model_config"])
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "3.json").write_text('{"iteration": 31000, "epoch": 2}')

    checkpoints = Checkpoints(tmp_path)
    fresh = make_trainer()
    for network in fresh.networks.values():
        network.set_weights([value + 1 for value in network.get_weights()])
    assert checkpoints.read_state(3) == (31000, None)
    checkpoints.load_networks(3, fresh.networks)
    assert checkpoints.load_optimizers(3, fresh.networks, optimizers_of(fresh)) is False
    for name, network in fresh.networks.items():
        for a, b in zip(network.get_weights(), trainer.networks[name].get_weights(), strict=True):
            assert np.array_equal(a, b)


def test_a_checkpoint_is_not_there_before_it_is_whole(make_trainer, tmp_path):
    """Killed before its state is written, a checkpoint does not count."""
    trainer = make_trainer()
    Checkpoints(tmp_path).save(20, trainer.networks, optimizers_of(trainer), {})
    (tmp_path / "state" / "20.json").unlink()
    assert Checkpoints(tmp_path).numbers() == []


def test_truncated_files_are_named(make_trainer, tmp_path):
    trainer = make_trainer()
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(20, trainer.networks, optimizers_of(trainer), {})
    for path, load in (
        (tmp_path / "gen" / "gen_20.h5", lambda: checkpoints.load_networks(20, trainer.networks)),
        (
            tmp_path / "state" / "20.npz",
            lambda: checkpoints.load_optimizers(20, trainer.networks, optimizers_of(trainer)),
        ),
    ):
        path.write_bytes(path.read_bytes()[:-2000])
        with pytest.raises(UserError, match=path.name):
            load()


@pytest.mark.parametrize(
    "state",
    [
        "{}", "[]", "null", "{", "[" * 100_000, '{"step": -1}', '{"step": 1e999}', '{"step": "1"}',
        '{"step": 1, "files": []}', '{"step": 1, "files": {"../../kept": "00"}}', '{"step": 1, "config": 3}',
        '{"step": 1, "files": {"/kept": "00"}}',
    ],
)  # fmt: skip
def test_a_hostile_state_is_one_line(tmp_path, state):
    checkpoints = Checkpoints(tmp_path)
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "1.json").write_text(state)
    with pytest.raises(UserError) as caught:
        checkpoints.read_state(1)
        checkpoints.verify(1)
    assert "\n" not in str(caught.value) and "1.json" in str(caught.value)


@pytest.mark.parametrize("best", ["[]", '{"step": 1}', '{"step": 1, "score": NaN}', '{"step": 1e400, "score": 1}'])
def test_a_hostile_best_is_one_line(tmp_path, best):
    (tmp_path / "best.json").write_text(best)
    with pytest.raises(UserError, match=r"best\.json.*remove it"):
        Checkpoints(tmp_path).best()


def test_nothing_outside_the_folder_is_removed(tmp_path):
    """A checkpoint that is too old names its own files, and a hostile one those of others."""
    folder = tmp_path / "run"
    (folder / "state").mkdir(parents=True)
    (tmp_path / "kept").touch()
    for number in (1, 2):
        (folder / "state" / f"{number}.json").write_text(json.dumps({"step": number, "files": {"../kept": "00"}}))
    with pytest.raises(UserError, match="leads out of the folder"):
        Checkpoints(folder, keep=1).mark_best(2, 0.5)
    assert (tmp_path / "kept").is_file()
