"""Trains a face swapper on shards of aligned faces, and exports it.

    python train/train.py --preset lite --data_dir 'shards/celeba_train_*-of-*.records' \\
        --eval_dir 'shards/celeba_val_*-of-*.records' --log_name first --num_steps 2000 --export
    tensorboard --logdir runs

The same command goes on where it stopped. `--load STEP` goes on from another checkpoint, `--load STEP --export` exports
it. KERAS_BACKEND=tensorflow (the default), jax or torch picks the engine.
"""

import itertools
import json
import time
from dataclasses import asdict, dataclass, fields

import numpy as np

from facedancer.core.alignment import estimate_similarity, landmark_template, scale_of
from facedancer.core.console import UserError, command, say
from facedancer.core.files import write_json
from facedancer.core.images import ImageError, decode_image
from facedancer.core.records import count_records, find_shards, read_records
from facedancer.train.config import TrainConfig, parse_config
from facedancer.train.engines import open_engine

FAMILY = "facedancer"
VALIDATION_BATCHES = 8

# What decides the networks, and the space of the embeddings that they take.
NETWORK_FIELDS = {
    "preset", "image_size", "z_id_size", "mapping_depth", "mapping_size", "up_types", "arcface_path", "shrink_factor",
    "freeze",
}  # fmt: skip
# What a run may change without becoming another one.
FREE_FIELDS = {
    "load", "export", "num_steps", "num_epochs", "finetune", "log_name", "run_dir", "log_dir", "chkp_dir", "result_dir",
    "export_dir", "save_every", "keep", "eval_every", "log_every", "wandb", "profile", "dry_run", "device_id",
}  # fmt: skip


@command
def main(argv=None):
    config = parse_config(argv)
    engine = open_engine(config)
    from facedancer.train.build import with_network_shape

    config = with_network_shape(config)
    say(f"engine: {engine.name}, {engine.device}")
    if config.export and config.load is not None:
        export(config, config.load, engine)
        return 0
    if config.dry_run:
        dry_run(config, engine)
        return 0
    step, received = train(config, engine)
    if received is not None:
        say(f"stopped by {received.name} at step {step}; the same command goes on from there")
        return 128 + received
    if config.export and engine.is_chief:
        export(config, step, engine)
    return 0


@dataclass
class Session:
    """What is trained, and with what.

    Attributes:
        trainer: `SwapTrainer`, compiled.
        networks: dictionary of what is kept in checkpoints: the trainer's networks and averages.
        optimizers: dictionary of the same names as the trainer's networks.
        encoder, expression: frozen models for validation.
    """

    trainer: object
    networks: dict
    optimizers: dict
    encoder: object
    expression: object

    @property
    def swapper(self):
        """The generator that is validated and exported."""
        return self.trainer.averages.get("generator", self.networks["generator"])

    def learning_rate(self, step):
        optimizer = self.optimizers["generator"]
        # From the step, not the optimizer's own count: JAX lends its variables to the step that runs.
        return float(getattr(optimizer, "inner_optimizer", optimizer)._learning_rate(step))


def train(config, engine):
    """Trains as configured, from the beginning or from a checkpoint.

    Returns:
        `(step, signal)`: the last step, and the signal that ended training, None where it came to its end.

    Raises:
        UserError: for shards, weights, checkpoints or flags that are not there or do not fit, and for a loss that is no
            number any more.
    """
    from facedancer.train import callbacks
    from facedancer.train.checkpoints import Checkpoints
    from facedancer.train.provenance import describe

    shards = find_shards(config.data_dir)
    count = count_records(shards)
    check_alignment(config)
    check_truth(config)
    num_steps = steps_in_all(config, count)
    made_from = describe(shards, count)
    checkpoints = Checkpoints(config.folder("checkpoints"), config.keep)
    number, start_step = find_start(config, checkpoints, made_from["data"])
    if num_steps <= start_step:
        say(f"nothing left to train: {num_steps} steps are asked for, checkpoint {number} has {start_step}")
        return start_step, None

    session = build_session(config, engine, num_steps)
    restore(config, checkpoints, number, start_step, session)
    shown = batches_to_show(config, engine)
    stream = engine.stream(
        config.data_dir, config.batch_size, config.image_size, start_step=start_step, **stream_options(config)
    )

    if engine.is_chief:
        if config.load is not None:
            checkpoints.set_aside(number)
        write_json(config.folder("") / "config.json", {"config": asdict(config), **made_from})
    log = open_log(config, engine)
    losses = callbacks.LossLog(log, session.learning_rate, start_step, num_steps, config.batch_size, config.log_every)
    stop = callbacks.StopOnSignal()
    steps = [losses, stop]
    if engine.is_chief:
        steps += chief_callbacks(config, engine, session, checkpoints, made_from, shown, log, losses, start_step)

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
                shuffle=False,  # the stream is
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


def steps_in_all(config, count):
    """Returns the last step of a run on so many faces."""
    return config.num_steps or max(1, config.num_epochs * count // config.batch_size)


def find_start(config, checkpoints, data):
    """Returns `(number, step)` of the checkpoint to go on from, `(None, 0)` for a run that begins.

    Raises:
        UserError: if it is damaged, or of networks that are configured otherwise, with what differs.
    """
    numbers = checkpoints.numbers()
    number = config.load if config.load is not None else numbers[-1] if numbers else None
    if number is None:
        return None, 0
    step, trained = checkpoints.read_state(number)
    checkpoints.verify(number)
    if trained is None:  # the original's, which do not say how they were made
        return number, step
    now = json.loads(json.dumps(asdict(config)))
    changed = {
        item.name: f"--{item.name} is {now[item.name]}, was {trained.get(item.name)}"
        for item in fields(TrainConfig)
        if item.name in trained and now[item.name] != trained[item.name] and item.name not in FREE_FIELDS
    }
    if others := [text for name, text in changed.items() if name in NETWORK_FIELDS]:
        raise UserError(
            f"{checkpoints.folder} holds a run of another network: {'; '.join(others)}; take another --log_name"
        )
    for text in changed.values():
        say(f"changed since step {step}: {text}")
    if checkpoints.read_more(number, "data") not in (None, data):
        say(f"changed since step {step}: the shards of --data_dir")
    return number, step


def build_session(config, engine, num_steps):
    """Builds networks, objective, trainer and optimizers as configured."""
    from facedancer.arcface_model import ExpressionEmbedder, IdentityEncoder
    from facedancer.train import build
    from facedancer.train.checkpoints import AVERAGE
    from facedancer.train.trainer import SwapTrainer

    with engine.scope():
        identity = IdentityEncoder(config.arcface_path)
        encoder = identity.build_model(config.image_size, config.shrink_factor)
        seen_by = encoder
        if config.precision == "bfloat16":  # float16 would overflow in it
            seen_by = identity.build_model(config.image_size, config.shrink_factor, config.precision)
        expression = ExpressionEmbedder(config.eval_model_expface).build_model(config.image_size, config.shrink_factor)
        networks = build.build_networks(config, identity)
        if config.finetune:
            build.load_generator_weights(config.finetune, networks["generator"])
        margins = identity.ifsr_margins
        if config.ifsr_margins:
            margins = build.read_margins(config.ifsr_margins, identity.name, margins)
        objective = build.build_objective(config, seen_by, margins)
        trainer = SwapTrainer(networks, objective, config.ema, config.accumulate)
        optimizers = {name: build.build_optimizer(config, num_steps) for name in networks}
        trainer.compile(
            optimizers["generator"],
            optimizers.get("discriminator"),
            jit_compile=config.jit_compile or (engine.name == "jax"),
        )
    networks = dict(networks)
    if trainer.averages:
        networks[AVERAGE] = trainer.averages["generator"]
    return Session(trainer, networks, optimizers, encoder, expression)


def restore(config, checkpoints, number, step, session):
    """Gives a session the state of a checkpoint, and says what that lacks."""
    from facedancer.train.checkpoints import AVERAGE

    if number is None:
        return
    networks = {name: network for name, network in session.networks.items() if checkpoints.has(number, name)}
    networks |= {"generator": session.networks["generator"]}
    checkpoints.load_networks(number, networks)
    if "discriminator" in session.networks.keys() - networks:
        say(f"checkpoint {number} holds no discriminator: it begins anew")
    if AVERAGE in session.networks and AVERAGE not in networks:
        say(f"checkpoint {number} holds no moving average of the generator: it begins with the generator")
        session.networks[AVERAGE].set_weights(session.networks["generator"].get_weights())
    optimizers = {name: optimizer for name, optimizer in session.optimizers.items() if name in networks}
    if not checkpoints.load_optimizers(number, networks, optimizers):
        say(f"checkpoint {number} holds no optimizers, as the original's do not: they begin anew")
        for optimizer in session.optimizers.values():  # the learning rate goes on
            optimizer.iterations.assign(step)


def stream_options(config):
    """Options of the training stream, on every engine."""
    return {
        "same_ratio": config.same_ratio,
        "shuffle": config.shuffle,
        "seed": config.seed,
    }


def batches_to_show(config, engine):
    """Returns name -> list of batches that are swapped for people, the validation's also for numbers."""

    def first(number, pattern):
        return engine.first_batches(
            number, pattern, config.batch_size, config.image_size,
            same_ratio=config.same_ratio, seed=config.seed, augment=False,
        )  # fmt: skip

    shown = {"train": first(1, config.data_dir)}
    if config.eval_dir:
        shown["validation"] = first(VALIDATION_BATCHES, config.eval_dir)
    return shown


def open_log(config, engine):
    """Opens the logs as configured, and writes the configuration into them; nobody's for workers beside the chief."""
    from facedancer.train.logs import Logs, TensorBoardLog, WandbLog

    logs = []
    if engine.is_chief:
        if config.wandb:
            logs.append(WandbLog(config.folder("logs"), config.log_name))
        logs.append(TensorBoardLog(config.folder("logs")))
    log = Logs(logs)
    values = {name: value for name, value in asdict(config).items() if value is not None}
    log.text("configuration", f"```json\n{json.dumps(values, indent=2)}\n```", 0)
    log.settings({name: " ".join(x) if isinstance(x, tuple) else x for name, x in values.items()})
    return log


def chief_callbacks(config, engine, session, checkpoints, made_from, shown, log, losses, start_step):
    """Builds the callbacks that write files."""
    from facedancer.train import callbacks
    from facedancer.train.validation import SwapValidator

    def synchronize():
        engine.synchronize(session.trainer)

    def save(step):
        synchronize()
        checkpoints.save(step, session.networks, session.optimizers, asdict(config), **made_from)

    saving = callbacks.SaveCheckpoints(save, losses, start_step, config.save_every)
    validator = SwapValidator(session.swapper, session.encoder, session.expression)
    found = [
        saving,
        callbacks.Validate(
            validator, shown, log, config.folder("results"), synchronize, checkpoints, saving, start_step,
            config.eval_every,
        ),
    ]  # fmt: skip
    if config.profile:
        found.append(callbacks.Profile(engine, config.folder("logs"), start_step, config.profile))
    return found


def dry_run(config, engine):
    """Prints what a run would be: configuration, size, operations, memory, and the time that steps take here."""
    import resource

    from facedancer.train import callbacks
    from facedancer.train.logs import Logs

    count = count_records(find_shards(config.data_dir))
    check_alignment(config)
    check_truth(config)
    num_steps = steps_in_all(config, count)
    session = build_session(config, engine, num_steps)
    say(json.dumps(asdict(config), indent=2))
    for name, network in session.networks.items():
        say(f"{name}: {network.count_params():,} parameters")

    warm_up, measured = max(2, config.r1_every + 1), 10
    options = stream_options(config)
    clock = callbacks.LossLog(Logs([]), session.learning_rate, 0, warm_up + measured, config.batch_size, 1)
    with engine.data_errors(config.data_dir):
        stream = engine.stream(config.data_dir, config.batch_size, config.image_size, **options)
        session.trainer.fit(
            stream, steps_per_epoch=warm_up + measured, shuffle=False, verbose=0,
            callbacks=callbacks.StepCallbacks([clock], session.trainer),
        )  # fmt: skip
        (batch,) = engine.first_batches(1, config.data_dir, config.batch_size, config.image_size, **options)
    engine.synchronize(session.trainer)
    seconds = float(np.mean(clock.seconds[-measured:]))
    flops = engine.count_flops(session.trainer, batch)
    variables = [*session.trainer.variables, *session.optimizers["generator"].variables]
    held = sum(int(np.prod(variable.shape)) * 4 for variable in variables)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    say(f"operations: {flops / 1e9:.1f} GFLOP a step, {flops / seconds / 1e9:.1f} GFLOP/s, R1 not counted")
    say(f"memory: {held / 2**20:.0f} MiB of weights and optimizers; this process took up to {peak / 2**20:.0f} MiB")
    say(
        f"time: {seconds:.3f} s a step, {config.batch_size / seconds:.2f} images/s;"
        f" {seconds * count / config.batch_size / 3600:.2f} h an epoch of {count} faces,"
        f" {seconds * num_steps / 3600:.1f} h for {num_steps} steps"
    )


def export(config, step, engine):
    """Exports the generator of a checkpoint, as the checkpoint's own configuration says it was built.

    Raises:
        UserError: if there is no checkpoint of that step.
    """
    import keras

    from facedancer.arcface_model import IdentityEncoder
    from facedancer.models.facedancer import build_swapper
    from facedancer.train.build import build_networks
    from facedancer.train.checkpoints import AVERAGE, Checkpoints
    from facedancer.train.export import export_swapper

    checkpoints = Checkpoints(config.folder("checkpoints"))
    _, trained = checkpoints.read_state(step)
    checkpoints.verify(step)
    # The original's checkpoints do not say how they were made; the flags do.
    trained = TrainConfig.from_json(trained) if trained else config
    keras.config.set_dtype_policy("float32")
    networks = build_networks(trained, IdentityEncoder(trained.arcface_path))
    networks["generator"].trainable = True
    kept = AVERAGE if checkpoints.has(step, AVERAGE) else "generator"
    checkpoints.load_networks(step, {kept: networks["generator"]})
    paths = export_swapper(
        build_swapper(networks),
        config.folder("exports"),
        family=FAMILY,
        step=step,
        shrink_factor=trained.shrink_factor,
        identity_encoder=trained.arcface_path,
        training=asdict(trained),
        licence="that of the training data and of the weights trained with; see NOTICE",
        onnx=engine.name == "tensorflow",
    )
    if engine.name != "tensorflow":
        say("no ONNX file: Keras writes it on TensorFlow; export again there with --load")
    say(f"exported {', '.join(map(str, paths))}")


def check_alignment(config):
    """Compares the landmarks of the first records with `--shrink_factor`: a wrong one spoils a training in silence.

    Records without landmarks, such as the original's, are not checked.

    Raises:
        UserError: if the faces were aligned with another shrink factor, or are no pictures.
    """
    shard = find_shards(config.data_dir)[0]
    factors = []
    for record in itertools.islice(read_records(shard), 16):
        if record.landmarks is not None:
            try:
                size = decode_image(record.face).shape[0]
            except ImageError as error:
                raise UserError(f"{shard}: the face of record {record.name} is no picture ({error})") from None
            factors.append(scale_of(estimate_similarity(landmark_template(size), record.landmarks)))
    if factors and abs(np.median(factors) - config.shrink_factor) > 0.05:
        raise UserError(
            f"{shard}: faces look aligned with shrink factor {np.median(factors):.2f}, not {config.shrink_factor};"
            " pass the --shrink_factor that crop_align was given"
        )


def check_truth(config):
    """Refuses a training in which nothing teaches to swap: no true swaps, and no losses that do without.

    Raises:
        UserError: if it is one, with what to do.
    """
    if config.c_lambda or config.a_lambda or config.ifsr_lambda:
        return
    for shard in find_shards(config.data_dir):
        if next(read_records(shard)).source is not None:
            return
    raise UserError(
        f"{config.data_dir}: no record carries a true swap, and --a_lambda, --c_lambda and --ifsr_lambda are 0: nothing"
        " would teach to swap; make triplets of the pictures (`facedancer triplets`), or give those weights"
    )
