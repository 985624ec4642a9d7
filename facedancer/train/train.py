"""Trains a face swapper on shards of aligned faces, and exports it.

    python train/train.py --preset lite --data_dir 'shards/celeba_train_*-of-*.records' \\
        --eval_dir 'shards/celeba_val_*-of-*.records' --log_name first --num_steps 2000 --export
    tensorboard --logdir logs/runs

`--load STEP` goes on from a checkpoint, `--load STEP --export` exports it.
"""

import contextlib
import itertools
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from facedancer.core.alignment import estimate_similarity, landmark_template, scale_of
from facedancer.core.console import UserError, command, say
from facedancer.core.devices import select_device
from facedancer.core.files import make_folder
from facedancer.core.images import ImageError, decode_image
from facedancer.core.records import count_records, find_shards, read_records
from facedancer.train.config import TrainConfig, parse_config

FAMILY = "facedancer"
VALIDATION_BATCHES = 8


@command
def main(argv=None):
    config = parse_config(argv)
    say(f"device: {select_device(config.device_id)}")
    if config.export and config.load is not None:
        export(config, config.load)
        return
    step = train(config)
    if config.export:
        export(config, step)


def train(config):
    """Trains as configured, from the beginning or from `config.load`; returns the last step.

    Raises:
        UserError: for shards, weights, checkpoints or flags that are not there or do not fit, and for a loss that is no
            number any more.
    """
    import keras
    import tensorflow as tf

    from facedancer.arcface_model import ExpressionEmbedder, IdentityEncoder
    from facedancer.dataset.input_pipeline import build_dataset
    from facedancer.train import callbacks
    from facedancer.train.checkpoints import Checkpoints
    from facedancer.train.trainer import SwapTrainer
    from facedancer.train.validation import SwapValidator

    config = with_network_shape(config)
    checkpoints = Checkpoints(Path(config.chkp_dir) / config.log_name)
    if config.load is None and checkpoints.numbers():
        last = checkpoints.numbers()[-1]
        raise UserError(
            f"{checkpoints.folder} holds a run up to step {last}; go on with --load {last}, or take another --log_name"
        )
    start_step = 0 if config.load is None else checkpoints.read_state(config.load)[0]
    count = count_records(find_shards(config.data_dir))
    check_alignment(config)
    num_steps = config.num_steps or config.num_epochs * count // config.batch_size
    if num_steps <= start_step:
        raise UserError(
            f"nothing to do: {num_steps} steps are asked for, and checkpoint {config.load} has {start_step}"
        )

    keras.utils.set_random_seed(config.seed)
    # TensorFlow's fusion of convolution and activation fails on this graph, with an error for each, and gains nothing.
    tf.config.optimizer.set_experimental_options({"remapping": False})
    identity = IdentityEncoder(config.arcface_path)
    encoder = identity.build_model(config.image_size, config.shrink_factor)
    expression = ExpressionEmbedder(config.eval_model_expface).build_model(config.image_size, config.shrink_factor)
    networks = build_networks(config, identity)
    trainer = SwapTrainer(networks, build_objective(config, encoder, identity.ifsr_margins))
    optimizers = {name: build_optimizer(config) for name in networks}
    trainer.compile(optimizers["generator"], optimizers["discriminator"], jit_compile=False)
    if config.load is not None:
        checkpoints.load_networks(config.load, networks)
        if not checkpoints.load_optimizers(config.load, optimizers):
            say(f"checkpoint {config.load} holds no optimizers, as the original's do not: they begin anew")
            for optimizer in optimizers.values():  # the learning rate goes on
                optimizer.iterations.assign(start_step)

    def batches(pattern, **options):
        return build_dataset(pattern, config.batch_size, config.image_size, same_ratio=config.same_ratio, **options)

    def first_batches(pattern, number):
        stream = batches(pattern, seed=config.seed, augment=False, repeat=False)
        with record_errors(pattern):
            return list(itertools.islice(stream.as_numpy_iterator(), number))

    shown = {"train": first_batches(config.data_dir, 1)}
    if config.eval_dir:
        shown["validation"] = first_batches(config.eval_dir, VALIDATION_BATCHES)
    dataset = batches(config.data_dir, shuffle=config.shuffle, seed=config.seed, start_step=start_step)

    log_folder = Path(config.log_dir) / config.log_name
    make_folder(log_folder)
    writer = tf.summary.create_file_writer(str(log_folder))
    losses = callbacks.LossLog(writer, start_step, num_steps, config.batch_size, config.log_every)
    validate = callbacks.Validate(
        SwapValidator(networks["generator"], encoder, expression),
        shown,
        writer,
        Path(config.result_dir) / config.log_name,
        start_step,
        config.eval_every,
    )

    def save(step):
        checkpoints.save(step, networks, optimizers, asdict(config))

    say(
        f"{count} faces, {count / config.batch_size:.0f} steps an epoch; steps {start_step} to {num_steps};"
        f" {networks['generator'].count_params():,} parameters in the generator,"
        f" {networks['discriminator'].count_params():,} in the discriminator"
    )
    started = time.perf_counter()
    with record_errors(config.data_dir):
        trainer.fit(
            dataset,
            steps_per_epoch=num_steps - start_step,
            shuffle=False,  # the dataset does
            verbose=0,
            callbacks=[
                callbacks.StopOnNaN(start_step),
                losses,
                callbacks.SaveCheckpoints(save, start_step, config.save_every),
                validate,
            ],
        )
    seconds = time.perf_counter() - started
    say("\n".join(losses.summary()))
    say(
        f"{num_steps - start_step} steps in {seconds:.0f} s, {losses.images_per_second(losses.seconds):.2f} images/s;"
        f" checkpoints in {checkpoints.folder}, logs in {log_folder}, swap grids in {validate.folder}"
    )
    return num_steps


def export(config, step):
    """Exports the generator of a checkpoint, as the checkpoint's own configuration says it was built.

    Raises:
        UserError: if there is no checkpoint of that step.
    """
    from facedancer.arcface_model import IdentityEncoder
    from facedancer.models.facedancer import build_swapper
    from facedancer.train.checkpoints import Checkpoints
    from facedancer.train.export import export_swapper

    checkpoints = Checkpoints(Path(config.chkp_dir) / config.log_name)
    _, trained = checkpoints.read_state(step)
    # The original's checkpoints do not say how they were made; the flags do.
    trained = TrainConfig.from_json(trained) if trained else with_network_shape(config)
    networks = build_networks(trained, IdentityEncoder(trained.arcface_path))
    checkpoints.load_networks(step, networks)
    paths = export_swapper(
        build_swapper(networks),
        Path(config.export_dir) / config.log_name,
        family=FAMILY,
        step=step,
        shrink_factor=trained.shrink_factor,
        identity_encoder=trained.arcface_path,
        training=asdict(trained),
        licence="that of the training data and of the weights trained with; see NOTICE",
    )
    say(f"exported {', '.join(map(str, paths))}")


def with_network_shape(config):
    """Fills in what the flags leave to the preset's networks (`models.facedancer.PRESETS`)."""
    from facedancer.models.facedancer import PRESETS

    shape = PRESETS[config.preset]
    names = ("image_size", "mapping_depth", "mapping_size", "up_types")
    return replace(config, **{name: getattr(shape, name) for name in names if getattr(config, name) is None})


def build_networks(config, identity_encoder):
    """Builds generator and discriminator for an identity encoder's embeddings."""
    from facedancer.models import facedancer

    if config.z_id_size not in (None, identity_encoder.dim):
        raise UserError(
            f"--z_id_size {config.z_id_size}, but {config.arcface_path} gives embeddings of {identity_encoder.dim}"
        )
    return facedancer.build_networks(
        replace(
            facedancer.PRESETS[config.preset],
            image_size=config.image_size,
            embedding_dim=identity_encoder.dim,
            mapping_depth=config.mapping_depth,
            mapping_size=config.mapping_size,
            up_types=config.up_types,
        )
    )


def build_objective(config, encoder, ifsr_margins):
    """Builds the objective: losses, and the frozen networks that they look through.

    Args:
        encoder: frozen model of identity, faces [-1, 1] -> {"embedding", tap: features}.
        ifsr_margins: tap -> margin, the encoder's own.
    """
    import keras

    from facedancer.arcface_model.perceptual import build_perceptual_network
    from facedancer.train.objectives import facedancer

    blocks = config.ifsr_blocks or tuple(ifsr_margins)
    if unknown := [name for name in blocks if name not in encoder.output]:
        raise UserError(
            f"--ifsr_blocks: {unknown[0]} is no tap of {config.arcface_path}; it has {', '.join(ifsr_margins)}"
        )
    margins = config.ifsr_margin or tuple(ifsr_margins[name] for name in blocks)
    if len(margins) != len(blocks):
        raise UserError(f"{len(margins)} --ifsr_margin for {len(blocks)} taps")

    perceptual = build_perceptual_network(config.perceptual_network, config.image_size)
    if config.p_blocks:
        levels = len(perceptual.outputs)
        if not all(1 <= level <= levels for level in config.p_blocks):
            raise UserError(f"--p_blocks are numbers from 1 to {levels}, not {' '.join(map(str, config.p_blocks))}")
        perceptual = keras.Model(perceptual.input, [perceptual.outputs[level - 1] for level in config.p_blocks])
    return facedancer.FaceDancerObjective(
        encoder,
        perceptual,
        facedancer.PERCEPTUAL_SCALES[config.perceptual_network],
        dict(zip(blocks, margins, strict=True)),
        config,
    )


def build_optimizer(config):
    """Adam(0, 0.99) whose learning rate falls by `lr_decay` every 100,000 steps, continuously."""
    import keras

    schedule = keras.optimizers.schedules.ExponentialDecay(config.lr, 100_000, config.lr_decay)
    return keras.optimizers.Adam(schedule, beta_1=0.0, beta_2=0.99)


@contextlib.contextmanager
def record_errors(pattern):
    """Turns what TensorFlow says of damaged records into one line for people."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.DataLossError as error:
        raise UserError(f"{pattern}: a damaged record ({error.message}); make the shards again") from None
    except tf.errors.InvalidArgumentError as error:
        if "decode_image" not in error.message:
            raise
        raise UserError(f"{pattern}: the face of a record is no picture; make the shards again") from None


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
