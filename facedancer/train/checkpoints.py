"""Checkpoints: `<folder>/{gen,dis,ema,state}`, the original's layout with the rest of a run's state added.

    gen/gen.json, gen/gen_<step>.h5     architecture and weights of the generator; dis/ likewise the discriminator,
                                        ema/ the generator's moving average
    state/<step>.npz                    both optimizers, and the networks' random states
    state/<step>.json                   step, configuration, data, checksums of the above; written last, so a checkpoint
                                        that has it is complete
    best.json                           step and score of the best by validation

The original's own checkpoints load as well. Their number is not the step, which is in `state/<number>.json`, and they
hold no optimizers.
"""

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from keras import ops

from facedancer.core.console import UserError
from facedancer.core.files import atomic_path, write_atomic, write_json
from facedancer.core.keras_h5 import load_by_layer_name, save_keras_h5
from facedancer.core.schemas import Count, Name, path_inside, read_json
from facedancer.models.families import DEFAULT_FAMILY, find_family

# Suffix of the name of a network's moving average.
AVERAGE = "_average"
# The original's file names for these networks; files of others are named after the network.
_SHORT = {"generator": "gen", "discriminator": "dis", f"generator{AVERAGE}": "ema"}


class _State(msgspec.Struct, frozen=True):
    """`state/<number>.json`: `step` of ours, `iteration` of the original's."""

    step: Count | None = None
    iteration: Count | None = None
    config: dict[str, Any] | None = None
    data: Any = None
    files: dict[Name, str] = {}


class _Best(msgspec.Struct, frozen=True):
    step: Count
    score: Annotated[float, msgspec.Meta(ge=-1e9, le=1e9)]


class _Architecture(msgspec.Struct, frozen=True):
    config: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: folder of the checkpoints.
        keep: number of recent checkpoints that `save` keeps; None for all.
        family: family of the networks.
    """

    def __init__(self, folder, keep=None, family=DEFAULT_FAMILY):
        self.folder = Path(folder)
        self.keep = keep
        self._family = find_family(family)

    def numbers(self):
        """Returns the numbers of all complete checkpoints, ascending; for ours these are steps."""
        return sorted(int(path.stem) for path in self.folder.glob("state/*.json") if path.stem.isdigit())

    def save(self, step, networks, optimizers, config, **more):
        """Writes a checkpoint and removes old ones.

        Args:
            step: training steps done.
            networks: dictionary of models.
            optimizers: dictionary of built optimizers.
            config: JSON-able configuration of the run.
            more: JSON-able, stored with it.

        Raises:
            UserError: if a weight is not finite; earlier checkpoints are left unchanged.
        """
        for name, network in networks.items():
            for variable in network.weights:
                if not np.isfinite(ops.convert_to_numpy(variable)).all():
                    raise UserError(
                        f"{name}: weight {variable.path} is not finite at step {step}; the last good checkpoint is"
                        f" {self.numbers()[-1:] or 'none'}: lower --lr"
                    )
        paths = [self.folder / "state" / f"{step}.npz"]
        for name, network in networks.items():
            write_atomic(self._architecture(name), network.to_json())
            paths.append(self._weights(name, step))
            save_keras_h5(network, paths[-1])
        state = {key: ops.convert_to_numpy(variable) for key, variable in _state(networks, optimizers).items()}
        with atomic_path(paths[0]) as temporary:
            np.savez(temporary, **state)
        files = {path.relative_to(self.folder).as_posix(): _checksum(path) for path in paths}
        values = {"step": step, "config": config, **more, "files": files}
        write_json(self.folder / "state" / f"{step}.json", values)
        self._remove_old()

    def read_state(self, number):
        """Returns `(step, config)` of a checkpoint; None for the original's, which have no configuration.

        Raises:
            UserError: if there is none of that number, or its state is damaged.
        """
        state = self._read(number)
        step = state.iteration if state.step is None else state.step
        if step is None:
            raise UserError(f"{self._path(number)}: not the state of a checkpoint: it has no step")
        return step, state.config

    def read_data(self, number):
        """Returns the record of the training data stored with a checkpoint, or None."""
        return self._read(number).data

    def verify(self, number):
        """Compares the files of a checkpoint with their checksums.

        Raises:
            UserError: if one is missing or changed; the message says what to do.
        """
        for name, checksum in self._read(number).files.items():
            path = path_inside(self.folder, name, self._path(number))
            if not path.is_file() or _checksum(path) != checksum:
                what = "damaged" if path.is_file() else "missing"
                others = [step for step in self.numbers() if step != number]
                advice = f"resume from an earlier one with --load {others[-1]}" if others else "start again"
                raise UserError(f"{path}: {what}, checkpoint {number} cannot be used; {advice}")

    def has(self, number, name):
        """Whether a checkpoint holds the network `name`."""
        return self._weights(name, number).is_file()

    def load_networks(self, number, networks):
        """Loads a checkpoint's weights, ours or the original's, into networks.

        Raises:
            UserError: if a file is missing, damaged, or of another architecture.
        """
        read = getattr(self._family, "read_network", None)  # only families whose original has checkpoints have it
        for name, network in networks.items():
            path, architecture = self._weights(name, number), self._architecture(name)
            stored = read(name, path, architecture) if read else None
            config = stored.get_config() if stored else _read_architecture(architecture)
            ours = network.get_config() if stored else json.loads(network.to_json())["config"]
            if _without_training(config) != _without_training(ours):
                raise UserError(
                    f"{path}: a {name} of another size or kind than this run's; its {architecture.name} says which"
                )
            if stored:
                network.set_weights(stored.get_weights())
            else:
                load_by_layer_name(network, path)

    def load_optimizers(self, number, networks, optimizers):
        """Loads a checkpoint's optimizer states and random states into built optimizers and networks.

        State of a discriminator that these lack is ignored.

        Returns:
            Whether the checkpoint has any; the original's have none.

        Raises:
            UserError: if the state is damaged or of another network.
        """
        path = self.folder / "state" / f"{number}.npz"
        if not path.is_file() and self.read_state(number)[1] is None:
            return False
        try:
            with np.load(path, allow_pickle=False) as stored:
                state = _state(networks, optimizers)
                unused = () if "discriminator" in optimizers else ("discriminator/", "random/discriminator/")
                kept = {key for key in stored if not key.startswith(unused)} if unused else set(stored)
                if left := kept ^ set(state):
                    raise KeyError(f"{min(left)} is on one side only")
                for key, variable in state.items():
                    variable.assign(stored[key])
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise UserError(f"{path}: not the optimizer state of this run's networks ({error})") from None
        return True

    def set_aside(self, number):
        """Renames the checkpoints after `number`, so that they no longer count: the run will continue differently."""
        for later in self.numbers():
            if later > number:
                path = self._path(later)
                path.replace(path.with_suffix(".json.set_aside"))

    def best(self):
        """Returns `(step, score)` of the best checkpoint by validation, or `(None, -inf)`."""
        path = self.folder / "best.json"
        try:
            best = read_json(path, _Best)
            return (best.step, best.score) if best.step in self.numbers() else (None, -np.inf)
        except FileNotFoundError:
            return None, -np.inf
        except UserError as error:
            raise UserError(f"{error}; not what a run writes, remove it") from None

    def mark_best(self, step, score):
        """Marks a checkpoint as the best; it is kept however old it gets."""
        write_json(self.folder / "best.json", {"step": step, "score": score})
        self._remove_old()

    def _remove_old(self):
        ours = [number for number in self.numbers() if self._read(number).files]
        for number in ours[: -self.keep] if self.keep else []:
            if number != self.best()[0]:
                files = [path_inside(self.folder, name, self._path(number)) for name in self._read(number).files]
                self._path(number).unlink()  # first, as the other files do not count without it
                for path in files:
                    path.unlink(missing_ok=True)

    def _architecture(self, name):
        short = _SHORT.get(name, name)
        return self.folder / short / f"{short}.json"

    def _weights(self, name, number):
        short = _SHORT.get(name, name)
        return self.folder / short / f"{short}_{number}.h5"

    def _path(self, number):
        return self.folder / "state" / f"{number}.json"

    def _read(self, number):
        path = self._path(number)
        if not path.is_file():
            known = ", ".join(map(str, self.numbers())) or "none"
            raise UserError(f"{self.folder} has no checkpoint {number}; there are: {known}")
        try:
            return read_json(path, _State)
        except UserError as error:
            raise UserError(f"{error}; not the state of a checkpoint") from None


def _state(networks, optimizers):
    """Returns key -> variable for `state/<step>.npz`."""
    state = {
        f"{name}/{index}": variable
        for name, optimizer in optimizers.items()
        for index, variable in enumerate(optimizer.variables)
    }
    for name, network in networks.items():
        weights = {id(variable) for variable in network.weights}
        random = [variable for variable in network.variables if id(variable) not in weights]
        state |= {f"random/{name}/{index}": variable for index, variable in enumerate(random)}
    return state


def _read_architecture(path):
    try:
        return read_json(path, _Architecture).config
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; weights alone need the architecture's JSON beside them") from None
    except UserError as error:
        raise UserError(f"{error}; not the JSON of a model's architecture") from None


def _without_training(config):
    """Returns a network's configuration without precision and frozen flags, which do not change its shapes."""
    if isinstance(config, dict):
        return {key: _without_training(value) for key, value in config.items() if key not in ("dtype", "trainable")}
    if isinstance(config, list | tuple):
        return [_without_training(value) for value in config]
    return config


def _checksum(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
