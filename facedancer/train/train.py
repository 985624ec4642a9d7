"""Trains a face-swap model on shards of aligned faces, and exports it.

    python train/train.py --preset lite --data_dir 'shards/celeba_train_*-of-*.records' \\
        --eval_dir 'shards/celeba_val_*-of-*.records' --log_name first --num_steps 2000 --export
    tensorboard --logdir runs

The same command resumes where it stopped. `--load STEP` resumes from another checkpoint; `--load STEP --export` exports
it. KERAS_BACKEND=tensorflow (the default), jax or torch selects the backend.
"""

import contextlib
import json
import time
from dataclasses import replace

from facedancer.core.console import command, say
from facedancer.core.files import only_writer, write_json
from facedancer.core.records import count_records, find_shards
from facedancer.train.config import parse_config
from facedancer.train.engines import open_engine

VALIDATION_BATCHES = 8


@command
def main(argv=None):
    config = parse_config(argv)
    engine = open_engine(config)
    say(f"engine: {engine.name}, {engine.device}")
    if config.export and config.load is not None:
        from facedancer.train.export import export

        export(config, config.load, engine)
        return 0
    if config.dry_run:
        from facedancer.train.dry_run import dry_run

        dry_run(config, engine)
        return 0
    step, received = train(config, engine)
    if received is not None:
        without = "" if config.load is None else f" without --load {config.load}"  # which would go back to that step
        say(f"stopped by {received.name} at step {step}; run the same command{without} to resume")
        return 128 + received
    if config.export and engine.is_chief:
        from facedancer.train.export import export

        export(config, step, engine)
    return 0


def train(config, engine):
    """Trains as configured, from the start or from a checkpoint.

    Returns:
        `(step, signal)`: the last step, and the signal that ended training; None if training finished.

    Raises:
        UserError: if shards, weights or checkpoints are missing, if they or the flags do not fit, if a loss is not
            finite any more, or if another command is training into the same folders.
    """
    from facedancer.train.data_checks import check_data, with_people

    shards = find_shards(config.data_dir)
    count = count_records(shards)
    config = with_people(config)
    check_data(config, engine.worker)
    with contextlib.ExitStack() as locks:
        if engine.is_chief:  # of several workers, only one writes
            for folder in config.training_folders():
                locks.enter_context(only_writer(folder))
        return _train_alone(config, engine, shards, count)


def _train_alone(config, engine, shards, count):
    """Does the work of `train`, with the run's folders locked."""
    from facedancer.train import callbacks
    from facedancer.train.checkpoints import Checkpoints
    from facedancer.train.provenance import describe
    from facedancer.train.resume import find_start, restore
    from facedancer.train.session import build_session

    num_steps = config.steps_in_all(count)
    provenance = describe(shards, count)
    checkpoints = Checkpoints(config.folder("checkpoints"), config.keep, config.family)
    number, start_step = find_start(config, checkpoints, provenance["data"])
    if num_steps <= start_step:
        say(f"nothing left to train: the run has {num_steps} steps, and checkpoint {number} is at {start_step}")
        return start_step, None

    session = build_session(config, engine, num_steps)
    restore(checkpoints, number, start_step, session)
    previews = preview_batches(config, engine)
    stream = engine.stream(config.data_dir, replace(config.stream_options(), start_step=start_step))

    if engine.is_chief:
        if config.load is not None:
            checkpoints.set_aside(number)
        write_json(config.folder("") / "config.json", {"config": config.to_json(), **provenance})
    log = open_log(config, engine)
    losses = callbacks.LossLog(log, session.learning_rate, start_step, num_steps, config.batch_size, config.log_every)
    stop = callbacks.StopOnSignal()
    steps = [losses, stop]
    if engine.is_chief:
        steps += chief_callbacks(config, engine, session, checkpoints, provenance, previews, log, losses, start_step)

    sizes = [
        f"{network.count_params():,} parameters in the {name}" for name, network in session.trainer.networks.items()
    ]
    say(
        f"{count} faces, {count / config.batch_size:.0f} steps an epoch; steps {start_step} to {num_steps};"
        f" {', '.join(sizes)}"
    )
    started = time.perf_counter()
    try:
        with engine.data_errors(config.data_dir):
            session.trainer.fit(
                stream,
                steps_per_epoch=num_steps - start_step,
                shuffle=False,  # the stream is already shuffled
                verbose=0,
                callbacks=callbacks.StepCallbacks(steps, session.trainer),
            )
    finally:
        stop.restore()
        log.close()
    seconds = time.perf_counter() - started
    say("\n".join(losses.summary()))
    say(
        f"{losses.step - start_step} steps in {seconds:.0f} s, {losses.images_per_second():.2f} images/s;"
        f" checkpoints in {checkpoints.folder}, logs in {config.folder('logs')}, swap grids in"
        f" {config.folder('results')}"
    )
    if checkpoints.best()[0] is not None:
        say("best by validation: step {}, score {:.4f}".format(*checkpoints.best()))
    return losses.step, stop.received


def preview_batches(config, engine):
    """Returns name -> list of batches to show in image grids; "validation" also gives the metrics."""
    options = config.stream_options()
    people = options.people

    def first(number, pattern, turn=0, augment=False):
        turns = people and replace(people, turn=turn)
        return engine.first_batches(number, pattern, replace(options, shuffle=True, augment=augment, people=turns))

    previews = {"train": first(1, config.data_dir)}
    if people:
        previews["people"] = first(len(people.names), config.data_dir, turn=1, augment=True)
    if config.eval_dir:
        previews["validation"] = first(VALIDATION_BATCHES, config.eval_dir)
    return previews


def open_log(config, engine):
    """Opens the logs as configured, and writes the configuration to them; workers other than the chief have none."""
    from facedancer.train.logs import Logs, TensorBoardLog, WandbLog

    logs = []
    if engine.is_chief:
        if config.wandb:
            logs.append(WandbLog(config.folder("logs"), config.log_name))
        logs.append(TensorBoardLog(config.folder("logs")))
    log = Logs(logs)
    values = {name: value for name, value in config.to_json().items() if value is not None}
    log.text("configuration", f"```json\n{json.dumps(values, indent=2)}\n```", 0)
    log.settings({name: " ".join(map(str, x)) if isinstance(x, tuple) else x for name, x in values.items()})
    return log


def chief_callbacks(config, engine, session, checkpoints, provenance, previews, log, losses, start_step):
    """Builds the callbacks that write files."""
    from facedancer.train import callbacks
    from facedancer.train.validation import SwapValidator

    def synchronize():
        engine.synchronize(session.trainer)

    def save(step):
        synchronize()
        checkpoints.save(step, session.networks, session.optimizers, config.to_json(), **provenance)

    saving = callbacks.SaveCheckpoints(save, losses, start_step, config.save_every)
    people = getattr(config.stream_options().people, "names", ())
    validator = SwapValidator(session.swapper, session.encoder, session.expression, people, session.face_shapes)
    found = [
        saving,
        callbacks.Validate(
            validator, previews, log, config.folder("results"), synchronize, checkpoints, saving, start_step,
            config.eval_every,
        ),
    ]  # fmt: skip
    if config.profile:
        found.append(callbacks.Profile(engine, config.folder("logs"), start_step, config.profile))
    return found
