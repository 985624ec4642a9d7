"""Images per second of a train step, beside a plain step with every pass that the original makes.

    python benchmarks/train_step.py --preset facedancer --batch_size 2

Both take the same data, in turn, so that other work on the machine hits them alike. Frozen networks have the preset's
architecture and random weights, which take as long as trained ones. FLOP/s are given beside what one large matrix
product reaches in the same run.
"""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from facedancer.core.console import say
from facedancer.dataset.pairing import UNCHANGED, UNCHANGED_VIEW


def build_parser():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--preset", default="facedancer")
    parser.add_argument("--batch_size", type=int, default=2)
    parser.add_argument(
        "--rounds", type=int, default=5, help="of a step of the baseline and two of ours, with R1 and not"
    )
    parser.add_argument("--r1_every", type=int, default=16)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="of ours")
    parser.add_argument("--jit_compile", action="store_true", help="ours with XLA")
    parser.add_argument("--data_dir", help="glob of shards: also measure ours fed by the input pipeline")
    parser.add_argument("--device_id", type=int)
    return parser


def main():
    args = build_parser().parse_args()
    from facedancer.train.config import TrainConfig
    from facedancer.train.engines import open_engine

    config = TrainConfig.from_json(
        {"data_dir": args.data_dir or "none", "preset": args.preset, "batch_size": args.batch_size,
         "r1_every": args.r1_every, "precision": args.precision, "jit_compile": args.jit_compile,
         "device_id": args.device_id},
    )  # fmt: skip
    engine = open_engine(config)
    import keras

    plain = replace(config.weights, r1_every=1)
    original = replace(config, weights=plain, ema=0.0, precision="float32", jit_compile=False)
    ours = build_trainer(config, is_original=False)
    keras.config.set_dtype_policy("float32")
    baseline = build_trainer(original, is_original=True)
    batch = draw_batch(config)
    runs = {"original's step": (baseline, step_function(baseline, batch)), "ours": (ours, step_function(ours, batch))}

    for name, (_, step) in runs.items():
        step(), step()  # compiles
        say(f"{name}: compiled")

    def timed(name, iterations):
        trainer, step = runs[name]
        trainer.discriminator_optimizer.iterations.assign(iterations)  # decides whether R1 is taken
        started = time.perf_counter()
        step()
        return time.perf_counter() - started

    every = args.r1_every
    rounds = [(timed("original's step", 0), timed("ours", 1), timed("ours", 0)) for _ in range(args.rounds)]
    theirs, plain, penalized = np.array(rounds).T
    lazily = ((every - 1) * plain + penalized) / every
    seconds = {"original's step": theirs, "ours": lazily}
    say(f"{engine.device}; {args.preset}, {config.image_size} pixels, batch {args.batch_size}, {args.rounds} rounds")
    say(f"ours: {np.median(plain):.3f} s without R1, {np.median(penalized):.3f} s with, which is every {every}th step")
    peak = matrix_product_peak()
    for name, values in seconds.items():
        middle = np.median(values)
        line = f"{name:20}{args.batch_size / middle:8.3f} images/s  {middle:7.3f} s a step"
        if engine.name == "tensorflow":
            flops = engine.count_flops(runs[name][0], batch)  # of ours without R1
            line += f"  {flops / 1e9:8.1f} GFLOP, {flops / middle / 1e9:.1f} GFLOP/s: {flops / middle / peak:.0%}"
            line += f" of a matrix product's {peak / 1e9:.0f}"
        say(line)
    say(f"ours / original's step: {np.median(theirs / lazily):.2f} (median of rounds)")
    if engine.name == "tensorflow":
        forward_and_backward(ours, baseline, batch, args.rounds)
    if args.data_dir:
        share_of_waiting(engine, config, runs["ours"][0], args.rounds)


def build_trainer(config, is_original):
    """Builds a compiled trainer; the original's makes every pass that the original makes."""
    import keras

    from facedancer.arcface_model import arcface_resnet50, dlib_resnet, mobilenet_v2, perceptual
    from facedancer.arcface_model.face_window import FaceWindow
    from facedancer.arcface_model.frozen import frozen, without_batch_norms
    from facedancer.models import facedancer as family
    from facedancer.train.build import build_optimizer
    from facedancer.train.objectives.facedancer import FaceDancerObjective
    from facedancer.train.trainer import SwapTrainer

    size = config.image_size

    @frozen
    def build_encoder():
        network = arcface_resnet50 if config.arcface_path == "arcface_res50" else dlib_resnet
        builder = getattr(network, f"build_{network.__name__.rsplit('.', 1)[1]}")
        inputs = keras.Input((size, size, 3))
        found = builder()(FaceWindow(**vars(network.WINDOW), shrink_factor=1.0)(inputs))
        taps = {tap: found[tap] for tap in network.IFSR_TAPS}
        return keras.Model(inputs, {"embedding": found["embedding"], **taps})

    @frozen
    def build_perceptual():
        if config.weights.perceptual_network == "vgg16":
            return perceptual.build_vgg16(size)
        network = mobilenet_v2.build_mobilenet_v2(size)
        return network if is_original else without_batch_norms(network)

    class OriginalPasses(FaceDancerObjective):
        """Passes that ours saves.

        The embedder on source, target and swap, and once more on target and swap for the features of IFSR; the
        discriminator on the swap for the generator's loss; the perceptual network on all pairs.
        """

        def forward(self, networks, batch, training):
            source_embedding = self.encoder(batch["source"], training=False)["embedding"]
            target_embedding = self.encoder(batch["target"], training=False)["embedding"]
            target_features = {**self.encoder(batch["target"], training=False), "embedding": target_embedding}
            swapped = networks["generator"]([batch["target"], source_embedding], training=training)
            return {"target_features": target_features, "source_embedding": source_embedding, "swapped": swapped}

        def generator_losses(self, networks, batch, outputs, training):
            found = super().generator_losses(networks, batch, outputs, training)
            logits = networks["discriminator"](outputs["swapped"], training=training)
            found["adversarial"] = keras.ops.mean(keras.ops.softplus(-logits))
            # The pass above gave the features; this one, the identity.
            embedding = self.encoder(outputs["swapped"], training=False)["embedding"]
            from facedancer.train.losses import cosine_distance

            distance = keras.ops.mean(cosine_distance(embedding, outputs["source_embedding"]))
            return {**found, "identity": self.weights.i_lambda * distance}

    encoder, features = build_encoder(), build_perceptual()
    margins = {name: 0.1 for name in encoder.output if name != "embedding"}
    networks = family.build_networks(
        replace(family.PRESETS[config.preset], embedding_dim=encoder.output["embedding"].shape[-1])
    )
    if is_original:
        objective = OriginalPasses(encoder, features, 1.0, margins, config.weights, config.change_lambda, True)
    else:
        objective = FaceDancerObjective(encoder, features, 1.0, margins, config.weights, config.change_lambda)
    trainer = SwapTrainer(networks, objective, config.ema)
    if is_original:
        trainer.folded.networks = networks  # as they were written, nothing folded
    trainer.compile(build_optimizer(config, 1000), build_optimizer(config, 1000), jit_compile=config.jit_compile)
    return trainer


def draw_batch(config):
    """A batch as the input pipeline gives it: noise, the first pair of one identity, swaps known if they must be."""
    rng = np.random.default_rng(0)
    n, size = config.batch_size, config.image_size
    is_same = np.zeros(n, np.float32)
    is_same[0] = 1
    has_truth = 1 - is_same if "truth" in config.weights.needs else np.zeros(n, np.float32)
    pictures = {"target": 3, "source": 3, "truth": 3, "mask": 1}
    return {
        **{name: rng.integers(0, 256, (n, size, size, depth), np.uint8) for name, depth in pictures.items()},
        "is_same": is_same,
        "has_truth": has_truth,
        "colors": np.tile(np.float32(UNCHANGED), (n, 2, 1)),
        "views": np.tile(np.float32(UNCHANGED_VIEW), (n, 1)),
    }


def step_function(trainer, batch):
    """Returns a function that takes one step, as `fit` does, and waits for it."""
    import keras

    trainer.make_train_function()
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        iterator = iter(tf.data.Dataset.from_tensors(batch).repeat())
        return lambda: float(trainer.train_function(iterator)["identity"])
    return lambda: float(trainer.train_on_batch((batch,), return_dict=True)["identity"])


def forward_and_backward(ours, baseline, batch, rounds):
    """Says what the generator's gradients cost beside its output alone: three times, by arithmetic."""
    import tensorflow as tf

    from facedancer.core.images import to_signed
    from facedancer.models.folding import fold

    network = ours.networks["generator"]
    inputs = [to_signed(batch["target"]), np.zeros((len(batch["target"]), network.input[1].shape[-1]), np.float32)]
    folded = fold(network, network.layers[1].dtype_policy.name)

    def gradients(model):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.abs(model(inputs, training=True) - inputs[0]))
        return tape.gradient(loss, model.trainable_variables)

    passes = {
        "output": tf.function(lambda: folded(inputs, training=False)),
        "gradients, ours": tf.function(lambda: gradients(ours.folded.networks["generator"])),
        "gradients, original's": tf.function(lambda: gradients(baseline.networks["generator"])),
    }
    seconds = {name: [] for name in passes}
    for _ in range(rounds + 1):  # the first compiles
        for name, run in passes.items():
            started = time.process_time()
            run()
            seconds[name].append(time.process_time() - started)
    middle = {name: np.median(values[1:]) for name, values in seconds.items()}
    parts = [f"{name} {value * 1e3:.0f} ms ({value / middle['output']:.2f})" for name, value in middle.items()]
    say(f"generator alone, processor time: {', '.join(parts)}")


def share_of_waiting(engine, config, trainer, rounds):
    """Measures steps fed by the input pipeline beside steps fed with one batch that is there: the rest is waiting."""
    import tensorflow as tf

    stream = engine.stream(config.data_dir, replace(config.stream_options(), seed=0))
    fed = iter(stream)
    ready = iter(tf.data.Dataset.from_tensors(next(fed)).repeat())
    seconds = []
    for _ in range(rounds):
        for iterator in (fed, ready):
            started = time.perf_counter()
            for _ in range(4):
                losses = trainer.train_function(iterator)
            float(losses["identity"])
            seconds.append((time.perf_counter() - started) / 4)
    fed, ready = np.array(seconds).reshape(-1, 2).T
    share = np.median(1 - ready / fed)
    say(f"fed by the input pipeline: {np.median(fed):.3f} s a step, {max(0.0, share):.1%} of it waiting for data")


def matrix_product_peak():
    """FLOP/s of the best of a few large float32 matrix products on this device."""
    import keras
    from keras import ops

    size = 2048 if keras.config.backend() != "tensorflow" or not _has_gpu() else 8192
    a = keras.random.normal((size, size), dtype="float32")
    best = np.inf
    for _ in range(6):
        started = time.perf_counter()
        float(ops.matmul(a, a)[0, 0])
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def _has_gpu():
    import tensorflow as tf

    return bool(tf.config.list_logical_devices("GPU"))


if __name__ == "__main__":
    main()
