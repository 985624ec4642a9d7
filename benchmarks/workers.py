"""Images per second of two workers, each on a core of its own, beside one worker on one core.

    python benchmarks/workers.py --data_dir 'shards/faces_train_*-of-*.records'

Each worker trains preset `lite` with the same number of pairs a step, through `--strategy multiworker` on loopback; the
rate is that of the median step. One and two take turns, so that other work on the machine hits them alike. Linux.
"""

import argparse
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile

STEPS = 40


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data_dir", required=True, help="glob of at least two shards")
    parser.add_argument("--batch_size", type=int, default=16, help="pairs of a worker (default %(default)s)")
    parser.add_argument("--image_size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    rounds = [(images_per_second(1, args), images_per_second(2, args)) for _ in range(args.rounds)]
    for one, two in rounds:
        print(f"one worker {one:.2f} images/s, two {two:.2f}: {two / one:.2f} times")
    print(f"median: {statistics.median(two / one for one, two in rounds):.2f} times")


def images_per_second(count, args):
    """Trains a few steps with so many workers; returns the pairs a second of all together."""
    cores = sorted(os.sched_getaffinity(0))[:count]
    if len(cores) < count:
        sys.exit(f"{count} workers need {count} cores")
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in cores]
    addresses = [f"127.0.0.1:{server.getsockname()[1]}" for server in sockets]
    for server in sockets:
        server.close()
    flags = {
        "preset": "lite", "data_dir": args.data_dir, "image_size": args.image_size, "num_steps": STEPS,
        "batch_size": args.batch_size * count, "strategy": "multiworker" if count > 1 else "single",
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", "import sys; from facedancer.cli import main; sys.exit(main())", "train"]
        command += [word for name, value in flags.items() for word in (f"--{name}", str(value))]
        workers = []
        for index, core in enumerate(cores):
            cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            own = {"TF_CONFIG": json.dumps(cluster)} if count > 1 else {}
            workers.append(
                subprocess.Popen(
                    ["taskset", "-c", str(core), *command, "--run_dir", folder],
                    env={**os.environ, "CUDA_VISIBLE_DEVICES": "", **own},
                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                )
            )  # fmt: skip
        said = [worker.communicate()[0] for worker in workers]
    for worker, words in zip(workers, said, strict=True):
        if worker.returncode:
            sys.exit(words[-3000:])
    return float(re.search(r"([\d.]+) images/s", said[0])[1])


if __name__ == "__main__":
    main()
