"""Checkpoints: `<chkp_dir>/<log_name>/{gen,dis,state}`, the original's layout with the optimizers' state added.

    gen/gen.json, gen/gen_<step>.h5     architecture and weights of the generator; dis/ likewise the discriminator
    state/<step>.npz                    both optimizers
    state/<step>.json                   step and configuration; written last: where it is, the checkpoint is whole

The original's own checkpoints load as well: their number is not the step, which `state/<number>.json` says, and they
hold no optimizers.
"""

import json
import zipfile
from pathlib import Path

import numpy as np
from keras import ops

from facedancer.core.console import UserError
from facedancer.core.files import atomic_path, write_atomic, write_json
from facedancer.core.keras_h5 import save_keras_h5
from facedancer.models.published import load_discriminator, load_generator

_NETWORKS = {"generator": ("gen", load_generator), "discriminator": ("dis", load_discriminator)}


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: `<chkp_dir>/<log_name>`.
    """

    def __init__(self, folder):
        self.folder = Path(folder)

    def numbers(self):
        """Returns the numbers of all whole checkpoints, ascending; of ours these are steps."""
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
            short, _ = _NETWORKS[name]
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

    def read_state(self, number):
        """Returns `(step, config)` of a checkpoint; the original's have no configuration, None.

        Raises:
            UserError: if there is none of that number, or its state is damaged.
        """
        if number not in self.numbers():
            known = ", ".join(map(str, self.numbers())) or "none"
            raise UserError(f"{self.folder} has no checkpoint {number}; there are: {known}")
        path = self.folder / "state" / f"{number}.json"
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
            return int(state["step"] if "step" in state else state["iteration"]), state.get("config")
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"{path}: not the state of a checkpoint") from None

    def load_networks(self, number, networks):
        """Gives networks the weights of a checkpoint, of ours or of the original.

        Raises:
            UserError: if a file is missing, damaged, or of another architecture.
        """
        for name, network in networks.items():
            short, load = _NETWORKS[name]
            path = self.folder / short / f"{short}_{number}.h5"
            stored = load(path, architecture=self.folder / short / f"{short}.json")
            if stored.get_config() != network.get_config():
                raise UserError(
                    f"{path}: a {name} of another size or kind than this run's; its {short}.json says which"
                )
            network.set_weights(stored.get_weights())

    def load_optimizers(self, number, optimizers):
        """Gives built optimizers the state of a checkpoint.

        Returns:
            Whether it has any; the original's have none.

        Raises:
            UserError: if the state is damaged or of another network.
        """
        path = self.folder / "state" / f"{number}.npz"
        if not path.is_file() and self.read_state(number)[1] is None:
            return False
        try:
            with np.load(path, allow_pickle=False) as stored:
                for name, optimizer in optimizers.items():
                    for index, variable in enumerate(optimizer.variables):
                        variable.assign(stored[f"{name}/{index}"])
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise UserError(f"{path}: not the optimizer state of this run's networks ({error})") from None
        return True
