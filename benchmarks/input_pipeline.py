"""Pictures per second of the input pipeline, beside what the cores reach decoding the same pictures from memory.

    python benchmarks/input_pipeline.py --data_dir 'shards/celeba_train_*-of-*.records'

Decoding alone is TensorFlow's own decoder, called by one thread a core on encoded pictures in memory: no reading, no
pairs, no batches. Both take turns, so that other work on the machine hits them alike.
"""

import argparse
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from facedancer.core.console import say
from facedancer.core.images import decode_image
from facedancer.core.records import find_shards, read_records


def build_parser():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data_dir", required=True, help="glob of shards")
    parser.add_argument(
        "--image_size", type=int, default=128, help="the size of the shards' pictures measures decoding"
    )
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--pictures", type=int, default=2000, help="of a round")
    parser.add_argument("--rounds", type=int, default=5)
    return parser


def main():
    args = build_parser().parse_args()
    import tensorflow as tf

    from facedancer.dataset.input_pipeline import build_dataset
    from facedancer.dataset.pairing import StreamOptions
    from facedancer.dataset.record_loader import iterate_batches

    tf.config.set_visible_devices([], "GPU")
    encoded = []
    for path in find_shards(args.data_dir):
        encoded += [record.face for record in read_records(path)]
    encoded = (encoded * (args.pictures // len(encoded) + 1))[: args.pictures]
    cores = len(os.sched_getaffinity(0))
    pool = ThreadPoolExecutor(cores)
    steps = args.pictures // (2 * args.batch_size)

    def decoding(decode):
        def run():
            parts = np.array_split(np.arange(len(encoded)), cores)
            list(pool.map(lambda part: [decode(encoded[index]) for index in part], parts))
            return len(encoded)

        return run

    def batches(stream):
        next(stream)

        def run():
            for _ in range(steps):
                next(stream)
            return steps * 2 * args.batch_size

        return run

    def decode(content):
        return tf.io.decode_image(content, channels=3, expand_animations=False)

    options = StreamOptions(args.batch_size, args.image_size)
    loader = iterate_batches(args.data_dir, options, processes=cores)
    runs = {
        "decoding alone, TensorFlow": decoding(decode),
        "input_pipeline": batches(iter(build_dataset(args.data_dir, options))),
        "decoding alone, Pillow": decoding(decode_image),
        "record_loader": batches(loader),
    }
    rates = {name: [] for name in runs}
    for _ in range(args.rounds + 1):
        for name, run in runs.items():
            started = time.perf_counter()
            count = run()
            rates[name].append(count / (time.perf_counter() - started))
            time.sleep(
                0.3
            )  # queues fill again, so that they take no time from the next; they hold a hundredth of a round
    say(f"{cores} cores, {args.image_size} pixels, {np.mean([len(x) for x in encoded]) / 1024:.0f} KiB a picture")
    for name, values in rates.items():
        say(f"{name:28}{np.median(values[1:]):8.0f} pictures/s")
    for reader, alone in (
        ("input_pipeline", "decoding alone, TensorFlow"),
        ("record_loader", "decoding alone, Pillow"),
    ):
        ratio = np.median(np.array(rates[reader][1:]) / np.array(rates[alone][1:]))
        say(f"{reader} / {alone}: {ratio:.2f}")
    loader.close()


if __name__ == "__main__":
    main()
