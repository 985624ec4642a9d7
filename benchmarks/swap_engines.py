"""Speed of the swap engines, in turns: `python benchmarks/swap_engines.py lite runs/first/exports/facedancer_20000.h5`.

For each model and engine: seconds to load, then wall and processor time per face, in batches as videos have them, and
the largest difference from Keras' result in gray levels; at the end, what a matrix product reaches. With
ONEDNN_MAX_CPU_ISA=AVX2 in the environment, Keras and OpenVINO, which both compute with oneDNN, do without AVX-512.
"""

import argparse
import importlib.util
import sys
import time

import numpy as np

from facedancer.core.console import command, say
from facedancer.core.devices import select_device
from facedancer.core.weights import find_weights

_SIDE = 2048


@command
def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("models", nargs="+", type=find_weights, metavar="MODEL", help="exported swap models")
    parser.add_argument("--rounds", type=int, default=12, help="batches per engine (default: %(default)s)")
    args = parser.parse_args(argv)
    select_device(-1)
    from facedancer.video_swap.engines import ENGINES, load_engine

    for path in args.models:
        engines, seconds = {}, {}
        for name in ENGINES:
            if importlib.util.find_spec(name):
                start = time.perf_counter()
                engines[name] = load_engine(path, name)
                seconds[name] = time.perf_counter() - start
        draw, first = np.random.default_rng(0), engines["keras"]
        inputs = {
            "target": draw.uniform(-1, 1, (first.batch_size, first.image_size, first.image_size, 3)),
            "source_embedding": draw.normal(size=(first.batch_size, first.embedding_dim)),
        }
        inputs = {name: np.float32(values) for name, values in inputs.items()}
        results = {name: engine.predict_on_batch(inputs) for name, engine in engines.items()}
        times = {name: [] for name in engines}
        for _ in range(args.rounds):
            for name, engine in engines.items():
                before = time.perf_counter(), time.process_time()
                engine.predict_on_batch(inputs)
                times[name].append((time.perf_counter() - before[0], time.process_time() - before[1]))
        for name, found in times.items():
            wall, processor = 1000 * np.median(found, axis=0) / first.batch_size
            apart = 127.5 * np.abs(results[name] - results["keras"]).max()
            say(
                f"{path.stem:24} {name:12} load {seconds[name]:4.1f} s, per face {wall:6.1f} ms, of the processor"
                f" {processor:6.1f} ms; differs by at most {apart:.4f} gray levels"
            )
    say(f"matrix multiplication: {_matrix_rate():.0f} GFLOP/s")


def _matrix_rate():
    """Returns the billions of operations per second of a matrix product in float32."""
    import tensorflow as tf

    matrix = tf.random.normal((_SIDE, _SIDE))
    tf.matmul(matrix, matrix).numpy()
    start = time.perf_counter()
    for _ in range(6):
        product = tf.matmul(matrix, matrix)
    product.numpy()
    return 6 * 2 * _SIDE**3 / (time.perf_counter() - start) / 1e9


if __name__ == "__main__":
    sys.exit(main())
