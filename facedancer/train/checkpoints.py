"""Checkpoints: `<chkp_dir>/<log_name>/{gen,dis,state}`, the original's layout with the optimizers' state added.

gen/gen.json, gen/gen_<step>.h5     architecture and weights of the generator; dis/ likewise the discriminator
state/<step>.npz                    both optimizers
state/<step>.json                   step and configuration; written last, so that its presence means a whole checkpoint
"""

import json
import zipfile
from pathlib import Path

import numpy as np
from keras import ops

from facedancer.core.console import UserError
from facedancer.core.files import atomic_path, write_atomic, write_json
from facedancer.core.keras_h5 import load_by_layer_name, save_keras_h5

SHORT_NAMES = {"generator": "gen", "discriminator": "dis"}


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: `<chkp_dir>/<log_name>`.
    """

    def __init__(self, folder):
        self.folder = Path(folder)

    def steps(self):
        """Returns the steps of all whole checkpoints, ascending."""
        return sorted(int(path.stem) for path in self.folder.glob("state/*.json") if path.stem.isdigit())

    def save(self, step, networks, optimizers, config):
        """Writes a checkpoint.

        Args:
            step: training steps done.
            networks: dictionary of models.
            optimizers: dictionary of built optimizers.
            config: JSON-able configuration of the run.
        """
        for name, network in networks.items():
            short = SHORT_NAMES[name]
            write_atomic(self.folder / short / f"{short}.json", network.to_json())
            save_keras_h5(network, self.folder / short / f"{short}_{step}.h5")
        state = {
            f"{name}/{index}": ops.convert_to_numpy(variable)
            for name, optimizer in optimizers.items()
            for index, variable in enumerate(optimizer.variables)
        }
        with atomic_path(self.folder / "state" / f"{step}.npz") as temporary:
            np.savez(temporary, **state)
        write_json(self.folder / "state" / f"{step}.json", {"step": step, "config": config})

    def require(self, step):
        """Raises `UserError` if there is no whole checkpoint of that step."""
        if step not in self.steps():
            known = ", ".join(map(str, self.steps())) or "none"
            raise UserError(f"{self.folder} has no checkpoint of step {step}; there are: {known}")

    def load_networks(self, step, networks):
        """Gives networks the weights of a checkpoint. Raises `UserError` if they are of another architecture."""
        self.require(step)
        for name, network in networks.items():
            short = SHORT_NAMES[name]
            load_by_layer_name(network, self.folder / short / f"{short}_{step}.h5")

    def load_optimizers(self, step, optimizers):
        """Gives built optimizers the state of a checkpoint. Raises `UserError` if it does not fit."""
        path = self.folder / "state" / f"{step}.npz"
        try:
            with np.load(path, allow_pickle=False) as stored:
                for name, optimizer in optimizers.items():
                    arrays = [stored[f"{name}/{index}"] for index in range(len(optimizer.variables))]
                    for variable, array in zip(optimizer.variables, arrays, strict=True):
                        variable.assign(array)
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise UserError(f"{path}: not the optimizer state of this configuration ({error})") from None

    def read_config(self, step):
        """Returns the configuration that a checkpoint was written with."""
        self.require(step)
        return json.loads((self.folder / "state" / f"{step}.json").read_text(encoding="utf-8"))["config"]
