"""Resumes from a checkpoint: which one, what may have changed since, and what it lacks."""

import json

from facedancer.core.console import UserError, say
from facedancer.core.flags import flags_of
from facedancer.models.families import DEFAULT_FAMILY
from facedancer.train.checkpoints import AVERAGE

# Flags besides the networks' own that determine the networks and the space of their embeddings.
NETWORK_FLAGS = {"family", "preset", "z_id_size", "arcface_path", "shrink_factor", "freeze"}
# Flags that a resumed run may change.
FREE_FLAGS = {
    "load", "export", "num_steps", "num_epochs", "finetune", "log_name", "run_dir", "log_dir", "chkp_dir", "result_dir",
    "export_dir", "save_every", "keep", "eval_every", "log_every", "wandb", "profile", "dry_run", "device_id",
}  # fmt: skip


def find_start(config, checkpoints, data):
    """Returns `(number, step)` of the checkpoint to resume from, `(None, 0)` for a new run.

    Raises:
        UserError: if it is damaged, or its networks were configured differently, with the differences.
    """
    numbers = checkpoints.numbers()
    number = config.load if config.load is not None else numbers[-1] if numbers else None
    if number is None:
        return None, 0
    step, trained = checkpoints.read_state(number)
    checkpoints.verify(number)
    if trained is None:  # the original's, which do not record their configuration
        return number, step
    now = json.loads(json.dumps(config.to_json()))
    trained = {"family": DEFAULT_FAMILY, **trained}
    changed = {
        name: f"--{name} is {value}, was {trained[name]}"
        for name, value in now.items()
        if name in trained and value != trained[name] and name not in FREE_FLAGS
    }
    fixed = NETWORK_FLAGS | {item.name for item in flags_of(config.network)}
    if others := [text for name, text in changed.items() if name in fixed]:
        raise UserError(
            f"{checkpoints.folder} holds a run with other networks: {'; '.join(others)}; use another --log_name"
        )
    for text in changed.values():
        say(f"changed since step {step}: {text}")
    if checkpoints.read_data(number) not in (None, data):
        say(f"changed since step {step}: the shards of --data_dir")
    return number, step


def restore(checkpoints, number, step, session):
    """Restores a session from a checkpoint, if there is one, and reports what it lacks.

    Args:
        checkpoints: `Checkpoints`.
        number, step: from `find_start`; a number of None does nothing.
        session: `Session`.

    Raises:
        UserError: if the checkpoint does not fit the session's networks.
    """
    if number is None:
        return
    averages = {name for name in session.networks if name.endswith(AVERAGE)}
    may_lack = averages | {"discriminator"}
    networks = {
        name: network
        for name, network in session.networks.items()
        if name not in may_lack or checkpoints.has(number, name)
    }
    checkpoints.load_networks(number, networks)
    if "discriminator" in session.networks.keys() - networks:
        say(f"checkpoint {number} has no discriminator: a new one is trained")
    for name in sorted(averages - networks.keys()):
        began = name.removesuffix(AVERAGE)
        say(f"checkpoint {number} has no moving average of the {began}: it starts as a copy of it")
        session.networks[name].set_weights(session.networks[began].get_weights())
    optimizers = session.optimizers
    if "discriminator" not in networks:
        optimizers = {"generator": optimizers["generator"]}
    if not checkpoints.load_optimizers(number, networks, optimizers):
        say(f"checkpoint {number} has no optimizers, like all of the original's: they start anew")
        for optimizer in session.optimizers.values():  # the learning rate continues
            optimizer.iterations.assign(step)
