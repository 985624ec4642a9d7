"""Reports a run's configuration and the cost of its steps on this machine, and writes nothing."""

import json
import resource

import numpy as np

from facedancer.core.console import say
from facedancer.core.records import count_records, find_shards
from facedancer.train import callbacks
from facedancer.train.data_checks import check_data, with_people
from facedancer.train.logs import Logs
from facedancer.train.session import build_session


def dry_run(config, engine):
    """Prints a run's configuration, and the size, operations, memory and time of its steps on this machine.

    Args:
        config: `TrainConfig`.
        engine: `Engine`.

    Raises:
        UserError: if the data or the weights do not fit the run.
    """
    count = count_records(find_shards(config.data_dir))
    config = with_people(config)
    check_data(config)
    num_steps = config.steps_in_all(count)
    session = build_session(config, engine, num_steps)
    say(json.dumps(config.to_json(), indent=2))
    for name, network in session.networks.items():
        say(f"{name}: {network.count_params():,} parameters")

    warm_up, measured = config.weights.period + 1, 10
    clock = callbacks.LossLog(Logs([]), session.learning_rate, 0, warm_up + measured, config.batch_size, 1)
    options = config.stream_options()
    with engine.data_errors(config.data_dir):
        stream = engine.stream(config.data_dir, options)
        session.trainer.fit(
            stream, steps_per_epoch=warm_up + measured, shuffle=False, verbose=0,
            callbacks=callbacks.StepCallbacks([clock], session.trainer),
        )  # fmt: skip
        (batch,) = engine.first_batches(1, config.data_dir, options)
    engine.synchronize(session.trainer)
    seconds = float(np.mean(clock.seconds[-measured:]))
    flops = engine.count_flops(session.trainer, batch)
    variables = [*session.trainer.variables, *session.optimizers["generator"].variables]
    held = sum(int(np.prod(variable.shape)) * 4 for variable in variables)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    rare = ", without work that not every step does" if config.weights.period > 1 else ""
    say(f"operations: {flops / 1e9:.1f} GFLOP a step, {flops / seconds / 1e9:.1f} GFLOP/s{rare}")
    say(f"memory: {held / 2**20:.0f} MiB of weights and optimizers; this process took up to {peak / 2**20:.0f} MiB")
    say(
        f"time: {seconds:.3f} s a step, {config.batch_size / seconds:.2f} images/s;"
        f" {seconds * count / config.batch_size / 3600:.2f} h an epoch of {count} faces,"
        f" {seconds * num_steps / 3600:.1f} h for {num_steps} steps"
    )
