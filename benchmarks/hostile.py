"""A campaign of hostile inputs: mutated files of five kinds go through the readers, and what happens is counted.

    python benchmarks/hostile.py --count 2000                              # of each kind
    python benchmarks/hostile.py --kind weights --seed 3 --count 500 --keep failing

Each input ends as one of: clean, a `UserError` or `ImageError` of one line; accepted; traceback, any other exception,
or the two readers of records disagree; memory, more than the limit above rest, with all child processes; hang, longer
than the time limit, in seconds of the processor, or six times as long by the clock. A worker reads one input after the
other and is started anew where it was killed. Linux.
"""

import argparse
import json
import os
import select
import subprocess
import sys
import tempfile
import time
import traceback
import types
from collections import Counter
from pathlib import Path

from facedancer.core.console import UserError

CLASSES = ("clean", "accepted", "traceback", "memory", "hang")
KINDS = ("pictures", "records", "json", "weights", "videos")
SECONDS, BYTES = 20.0, 10**9
SLOWED = 6


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--kind", choices=KINDS, action="append", help="by default all")
    parser.add_argument("--count", type=int, default=200, help="inputs of each kind (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first input (default: %(default)s)")
    parser.add_argument(
        "--keep", type=Path, default=Path("hostile"), help="folder for failing inputs (default: %(default)s)"
    )
    args = parser.parse_args(argv)
    print(
        "| kind | inputs | " + " | ".join(CLASSES) + " | most above rest | slowest |\n" + "| --- " * 9 + "|", flush=True
    )
    failed = 0
    for kind in args.kind or KINDS:
        found = run_campaign(kind, args.count, args.seed, args.keep, args.first)
        counts = " | ".join(f"{found.counts[name]:,}" for name in CLASSES)
        print(f"| {kind} | {args.count:,} | {counts} | {found.most / 1e6:.0f} MB | {found.slowest:.1f} s |", flush=True)
        failed += sum(found.counts[name] for name in CLASSES[2:])
    return int(failed > 0)


class Found:
    """What a campaign found: inputs by class, the most bytes above rest, the seconds of the slowest input."""

    def __init__(self):
        self.counts, self.most, self.slowest = Counter(), 0, 0.0


def run_campaign(kind, count, seed, keep, first=0):
    """Lets a worker read so many inputs of a kind, from number `first` on.

    Args:
        keep: folder where inputs that fail are kept, each with what was said beside it.

    Returns:
        `Found`.
    """
    from hostile_inputs import Mutator

    mutator, found = Mutator(kind, seed), Found()
    with tempfile.TemporaryDirectory() as folder:
        worker = Worker(kind, folder)
        try:
            for number in range(first, first + count):
                name, content = mutator.draw(number)
                path = Path(folder, name)
                path.write_bytes(content)
                result, said, most, seconds = worker.read(path)
                path.unlink(missing_ok=True)
                found.counts[result] += 1
                found.most, found.slowest = max(found.most, most), max(found.slowest, seconds)
                if result not in CLASSES[:2]:
                    keep.mkdir(parents=True, exist_ok=True)
                    stem = f"{kind}-{seed}-{number}-{result}"
                    (keep / f"{stem}-{name}").write_bytes(content)
                    (keep / f"{stem}.txt").write_text(said)
        finally:
            worker.stop()
    return found


class Worker:
    """A process that reads inputs of one kind, watched."""

    def __init__(self, kind, folder):
        self._kind, self._folder, self._process = kind, folder, None

    def read(self, path):
        """Returns `(class, what was said, bytes above rest, seconds)` of one input."""
        if self._process is None:
            self._start()
        started, busy, most = time.monotonic(), _busy(self._process.pid), 0
        self._process.stdin.write(f"{path}\n".encode())
        self._process.stdin.flush()
        while True:
            is_there = select.select([self._process.stdout], [], [], 0.02)[0]
            # Other work on the machine does not count, waiting for ever does.
            seconds = max(_busy(self._process.pid) - busy, (time.monotonic() - started) / SLOWED)
            most = max(most, _memory(self._process.pid) - self._rest)
            if is_there:
                line = self._process.stdout.readline()
                if not line:
                    self.stop()
                    return "traceback", "the process crashed", most, seconds
                result, said = json.loads(line)
                if most > BYTES:
                    result, said = "memory", f"{most:,} bytes above rest\n{said}"
                return result, said, most, seconds
            if most > BYTES or seconds > SECONDS:
                self.stop()
                return (
                    "memory" if most > BYTES else "hang",
                    f"{most:,} bytes above rest after {seconds:.1f} s",
                    most,
                    seconds,
                )

    def _start(self):
        words = [sys.executable, __file__, "--work", self._kind, self._folder]
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "2"}
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment,
                                         stderr=subprocess.DEVNULL, bufsize=0)  # fmt: skip
        self._process.stdout.readline()  # ready
        self._rest = _memory(self._process.pid)

    def stop(self):
        if self._process is not None:
            for pid in [*_children(self._process.pid), self._process.pid]:
                with open(os.devnull, "wb") as nowhere:
                    subprocess.run(["kill", "-9", str(pid)], stderr=nowhere, check=False)
            self._process.wait()
            self._process = None


def _children(pid):
    """Returns the ids of a process's children and theirs."""
    try:
        found = [
            int(word)
            for task in os.listdir(f"/proc/{pid}/task")
            for word in Path(f"/proc/{pid}/task/{task}/children").read_text().split()
        ]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [*found, *(below for child in found for below in _children(child))]


def _busy(pid):
    """Returns the seconds that a process has kept processors busy, with those of its children that ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _memory(pid):
    """Returns the bytes that a process and its children hold."""
    pages = 0
    for one in [pid, *_children(pid)]:
        try:
            pages += int(Path(f"/proc/{one}/statm").read_text().split()[1])
        except (FileNotFoundError, ProcessLookupError, IndexError):
            continue
    return pages * os.sysconf("SC_PAGESIZE")


# ------------------------------------------------------------------------------------------------- in the worker


def work(kind, folder):
    """Reads the files that are named on the standard input, a line each; answers with class and text."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    read = READERS[kind](Path(folder))

    def answer(*values):
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    answer("ready")
    for line in sys.stdin:
        path = Path(line.rstrip("\n"))
        answer(*outcome_of(read, path))


def outcome_of(read, path):
    """Returns `(class, what was said)` of reading an input."""
    try:
        return "accepted", str(read(path))
    except clean_errors() as error:
        text = str(error)
        return "traceback" if "\n" in text or not text else "clean", text
    except SystemExit as error:  # a parser of flags
        return "clean" if error.code in (0, 2) else "traceback", str(error)
    except Exception:  # the very thing that is looked for
        return "traceback", traceback.format_exc()


def clean_errors():
    from facedancer.core.images import ImageError

    return UserError, ImageError


def _read_pictures(folder):
    from facedancer.core.images import read_image
    from facedancer.core.pictures import load_picture

    def read(path):
        results = [_outcome(read_image, path), _outcome(load_picture, path)]
        if isinstance(results[0], Exception):
            raise results[0]
        return results[0].shape

    return read


def _outcome(read, *given):
    """Returns what a reader gives, or its clean error."""
    try:
        return read(*given)
    except clean_errors() as error:
        return error


def _read_records(folder):
    from facedancer.core.records import count_records
    from facedancer.dataset.input_pipeline import build_dataset, damage_named
    from facedancer.dataset.pairing import StreamOptions
    from facedancer.dataset.record_loader import iterate_batches

    options = StreamOptions(2, 16, repeat=False, shuffle=False, augment=False)

    # Built once: it reads the file anew whenever it is iterated over, and building it takes a second.
    place, built = folder / "shard", []

    def with_tensorflow(path):
        place.write_bytes(path.read_bytes())
        count_records([place])
        built[:] = built or [build_dataset(str(place), options)]
        try:
            with damage_named(str(place)):
                return [len(batch["is_same"]) for batch in built[0].as_numpy_iterator()]
        finally:
            place.unlink()

    def without(path):
        return [len(batch["is_same"]) for batch in iterate_batches(str(path), options, processes=0)]

    def read(path):
        results = [_outcome(with_tensorflow, path), _outcome(without, path)]
        failed = [result for result in results if isinstance(result, Exception)]
        if len(failed) == 1 or (not failed and results[0] != results[1]):
            raise AssertionError(f"the readers disagree: {results}")
        if failed:
            raise failed[0]
        return results[0]

    return read


def _read_json(folder):
    import numpy as np

    from facedancer.core.card import read_card
    from facedancer.core.images import write_image
    from facedancer.core.schemas import read_json_lines
    from facedancer.dataset import dataset_sharding
    from facedancer.dataset.true_pairs import read_pairs
    from facedancer.evaluate.cases import read_list
    from facedancer.models.published import load_generator
    from facedancer.train.checkpoints import Checkpoints
    from facedancer.train.config import parse_config
    from facedancer.train.objectives.facedancer import read_margins
    from facedancer.video_swap.batch import _read_jobs
    from facedancer.video_swap.tracking import KeptFrames, SeenFrame

    world = folder / "world"
    for who in "ab":
        for number in (1, 2):
            write_image(world / who / f"{number}.png", np.full((16, 16, 3), 90 * number, np.uint8))

    def moved(path, name):
        place = world / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(path.read_bytes())
        return place

    def whole(name):
        from hostile_inputs import whole_json, write_json

        (world / name).write_bytes(write_json(name, whole_json()[name]))

    def shard(path):
        moved(path, path.name)
        with tempfile.TemporaryDirectory() as target:
            status = dataset_sharding.main(["--data_dir", str(world), "--target_dir", target])
        return _status(status)

    def pairs(path):
        for name in ("portraits.jsonl", "swaps.jsonl"):
            whole(name)
        moved(path, path.name)
        return len(read_pairs(world))

    def checkpoint(path):
        (world / "state").mkdir(exist_ok=True)
        whole_state = world / "state" / "1.json"
        whole_state.write_text('{"step": 1}')
        moved(path, "best.json" if path.name == "best.json" else "state/1.json")
        checkpoints = Checkpoints(world)
        found = [_outcome(checkpoints.best), _outcome(checkpoints.read_state, 1), _outcome(checkpoints.verify, 1)]
        if failed := [one for one in found if isinstance(one, Exception)]:
            raise failed[0]
        return found

    def architecture(path):
        return load_generator(folder / "gen_1.h5", path)

    def seen(path):
        return [SeenFrame.from_json(kept) for _, line in read_json_lines(path, KeptFrames) for kept in line.frames]

    readers = {
        "manifest.jsonl": shard,
        "pairs.jsonl": lambda path: read_list(moved(path, "pairs.jsonl")),
        "portraits.jsonl": pairs,
        "swaps.jsonl": pairs,
        "card.json": lambda path: read_card(path.parent / "a.h5"),
        "settings.json": shard,
        "jobs.jsonl": _read_jobs,
        "1.json": checkpoint,
        "best.json": checkpoint,
        "gen.json": architecture,
        "margins.json": lambda path: read_margins(path, "tiny", ["tap0", "tap1"]),
        "config.json": lambda path: parse_config(["--config", str(path), "--data_dir", "x"]),
        "seen.jsonl": seen,
    }
    from hostile_weights import whole_weights

    (folder / "gen_1.h5").write_bytes(whole_weights()["ours.h5"])
    return lambda path: readers[path.name](path)


def _status(status):
    if status == 2:
        raise UserError("exit status 2")
    return status


def _read_weights(folder):
    import keras
    import numpy as np

    from facedancer.arcface_model.onnx_iresnet import load_iresnet
    from facedancer.core import hdf5
    from facedancer.core.mat_file import read_mat
    from facedancer.core.torch_file import read_torch_state_dict
    from facedancer.models import load_swapper
    from facedancer.retinaface.conversion import load_retinaface
    from facedancer.video_swap.onnx_network import OnnxNetwork
    from facedancer.video_swap.sources import load_source, read_direction

    hdf5.PATIENCE = 6

    def onnx_file(path):
        found = [_outcome(load_iresnet, path), _outcome(OnnxNetwork, str(path))]
        if isinstance(found[1], OnnxNetwork):
            side = min(found[1].size, 128)
            found.append(_outcome(found[1], np.zeros((1, side, side, 3), np.float32)))
        if failed := [one for one in found if isinstance(one, Exception)]:
            raise failed[0]
        return found

    def keras_file(path):
        keras.backend.clear_session()
        found = [_outcome(load_swapper, path)]
        if path.suffix == ".h5":
            found.append(_outcome(load_retinaface, path))
        if isinstance(found[0], Exception):
            raise found[0]
        return found[0].count_params()

    encoder = types.SimpleNamespace(name="encoder", dim=6)
    swapper = types.SimpleNamespace(encoder=encoder, shapes=None)
    readers = {
        ".h5": keras_file,
        ".keras": keras_file,
        ".onnx": onnx_file,
        ".npz": lambda path: load_source(swapper, [path]),
        ".npy": lambda path: read_direction(path, 6),
        ".mat": lambda path: read_mat(path, ["mean"]),
    }

    def pytorch(path):
        return {name: float(np.sum(array)) for name, array in read_torch_state_dict(path).items()}

    return lambda path: readers.get(path.suffix, pytorch)(path)


def _read_videos(folder):
    from facedancer.media.probe import probe_video
    from facedancer.media.read import read_frames

    def read(path):
        count = 0
        for frame in read_frames(probe_video(path)):
            frame.reduced(16, 12)
            count += 1
            if count == 64:
                break
        return count

    return read


def _read_itself(folder):
    """What the campaign looks for, to see that it finds it: the file's name says what happens."""
    memory = []

    def read(path):
        match path.name:
            case "clean":
                raise UserError("one line")
            case "traceback":
                raise KeyError(path)
            case "memory":
                memory.append(b"x" * (400 * 10**6))
                time.sleep(60)
            case "hang":
                time.sleep(60)
            case "crash":
                os.abort()

    return read


READERS = {
    "pictures": _read_pictures,
    "records": _read_records,
    "json": _read_json,
    "weights": _read_weights,
    "videos": _read_videos,
    "itself": _read_itself,
}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(*sys.argv[2:])
    else:
        sys.exit(main())
