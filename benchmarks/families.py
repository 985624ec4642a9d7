"""Trains the `lite` preset of every family for the same time on the same data, evaluates all, and prints the table of
docs/families.md.

    facedancer synthesize --output people --identities 10 --per_identity 50 --size 192 --swaps 4 --seed 500
    python benchmarks/families.py --output runs/families --minutes 12 --data 'shards/portraits_train_*.records' \\
        'shards/rendered_train_*.records' --triplets 'shards/portraits_val_*.records' --rendered rendered_test \\
        --people people

The time is that of the processors, user and system, of the whole training command, start included, so that other work
on the machine does not matter. Then SIGTERM stops the training at a step. Run again to resume: a training goes on
exactly where it stopped, with more `--minutes` too; what is done is not done again. Needs Linux, which tells the time.

`--data` is of what takes any source's picture: triplets and rendered pairs. A family with one decoder per person trains
on the pictures of `--people`, aligned with a margin for its warps, and is measured with all others on their true swaps.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from facedancer.commands.benchmark import count_products
from facedancer.core.card import read_card
from facedancer.core.console import PARTLY_DONE, UserError, command, progress, say
from facedancer.core.files import make_folder, only_writer, write_atomic
from facedancer.core.records import find_shards
from facedancer.core.schemas import read_json
from facedancer.evaluate.tables import has_measure
from facedancer.models.families import FAMILIES, load_swapper
from facedancer.train.config import TrainConfig

# No training comes so far.
ENDLESS = 10_000_000
# What the decoders' faces are aligned with: their size, and the margin.
PEOPLE_SIZE, PEOPLE_SHRINK = 128, 0.7
# Columns: title, measure of the report, how it is shown.
MEASURES = {
    "error": ("error_ratio", "{:.2f}", 1),
    "nearer to source": ("nearer_to_source", "{:.0f}", 100),
    "rank 1": ("rank_1", "{:.0f}", 100),
    "self-swap": ("self", "{:.3f}", 1),
    "pose": ("pose", "{:.1f}", 1),
    "expression": ("expression", "{:.2f}", 1),
    "expression kept": ("expression_kept", "{:.0f}", 100),
}


def has_decoders(family):
    return "people" in TrainConfig.from_json({"family": family, "preset": "lite"}).weights.needs


def facedancer(verb, *words, done=(0,)):
    """Runs `facedancer <verb>`, and ends where it fails."""
    code = subprocess.run([sys.executable, "-m", "facedancer", verb, *map(str, words)]).returncode
    if code not in done:
        raise UserError(f"facedancer {verb} ended with status {code}")


def prepare_people(people, out):
    """Aligns the people's pictures with a margin, and shards them; returns the shards' glob."""
    aligned, shards = out / "people_aligned", out / "people_shards"
    if not any(shards.glob("people_train_*")):
        facedancer(
            "crop_align", "--data_dir", people / "pictures", "--target_dir", aligned, "--im_size", PEOPLE_SIZE,
            "--shrink_factor", PEOPLE_SHRINK, done=(0, PARTLY_DONE),
        )  # fmt: skip
        facedancer("dataset_sharding", "--data_dir", aligned, "--target_dir", shards, "--data_name", "people")
    return shards / "people_train_*"


def join_shards(globs, out):
    """Links the shards of several globs into one folder; returns its glob."""
    folder = out / "shards"
    make_folder(folder)
    for number, pattern in enumerate(globs):
        for path in find_shards(pattern):
            link = folder / f"{number}_{Path(path).name}"
            if not link.is_symlink():
                link.symlink_to(Path(path).resolve())
    return folder / "*.records"


def processor_seconds(pid):
    """Returns the processor time, user and system, of a process and its descendants, those that have ended included."""
    times, parents = {}, {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):  # it has ended since
            continue
        process = int(entry.parent.name)
        parents[process], times[process] = int(fields[1]), sum(map(int, fields[11:15]))
    family = {pid}
    while more := {process for process, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(times.get(process, 0) for process in family) / os.sysconf("SC_CLK_TCK")


def train(family, data, out, minutes, precision):
    """Trains a family until its processor time is used up, and exports it.

    Returns:
        `path` of the export, `steps`, `images`, `seconds` of the processors.
    """
    notes = out / f"{family}.json"
    known = read_json(notes, dict) if notes.is_file() else {"seconds": 0.0, "steps": 0}
    words = [
        "--family", family, "--preset", "lite", "--data_dir", data, "--run_dir", out / "runs", "--log_name", family,
        "--precision", precision, "--num_steps", ENDLESS, "--eval_every", ENDLESS,
    ]  # fmt: skip
    if known["seconds"] < 60 * minutes:
        known = _train_on(family, words, known, minutes, out)
        write_atomic(notes, json.dumps(known).encode())
    path = out / "runs" / family / "exports" / f"{family}_{known['steps']}.h5"
    if not path.is_file():
        facedancer("train", *words, "--load", known["steps"], "--export")
    batch_size = read_card(path).training["batch_size"]
    return {"path": path, "images": known["steps"] * batch_size, **known}


def _train_on(family, words, known, minutes, out):
    """Trains until the processor time is used up; returns the new `seconds` and `steps`."""
    before, log = known["seconds"], out / f"{family}.log"
    command = [sys.executable, "-m", "facedancer", "train", *map(str, words)]
    with open(log, "w") as file, progress(total=round(60 * minutes), desc=family, unit="s of processor") as bar:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
        used = 0.0
        try:
            while process.poll() is None:
                used = max(used, processor_seconds(process.pid))
                bar.update(round(before + used) - bar.n)
                if before + used >= 60 * minutes:
                    break
                time.sleep(1)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            while process.poll() is None:
                used = max(used, processor_seconds(process.pid))
                time.sleep(0.2)
            stopped = re.search(r"stopped by SIGTERM at step (\d+)", log.read_text())
            if stopped:
                found = {"seconds": before + used, "steps": int(stopped[1])}
                write_atomic(out / f"{family}.json", json.dumps(found).encode())
    if not stopped:
        raise UserError(f"the training of {family} did not end as asked: {log} says why")
    return found


def evaluate(trained, protocol, data, out, count):
    """Evaluates all models in one report; returns name of the swapper -> measures."""
    models = [run["path"] for run in trained.values()]
    facedancer(
        "evaluate", "--model", *models, "--protocol", protocol, "--data", data, "--output", out, "--count", count,
    )  # fmt: skip
    return read_json(out / "metrics.json", dict)["swappers"]


def training_table(trained):
    """Returns the Markdown of what was trained."""
    lines = [
        "| family | parameters | GFLOP a face | steps | images | images a processor second |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for family, run in trained.items():
        swapper = load_swapper(run["path"], 0 if read_card(run["path"]).decoders else None)
        lines.append(
            f"| {family} | {swapper.count_params() / 1e6:.1f} million | {count_products(swapper) / 1e9:.2f} |"
            f" {run['steps']:,} | {run['images']:,} | {run['images'] / run['seconds']:.1f} |"
        )
    return "\n".join(lines)


def measures_table(found, trained):
    """Returns the Markdown of a report's measures, a line for each swapper."""
    names = {f"exports/{run['path'].stem}": family for family, run in trained.items()}
    columns = {title: shown for title, shown in MEASURES.items() if has_measure(found, shown[0])}
    lines = ["| | " + " | ".join(columns) + " |", "| --- " * (len(columns) + 1) + "|"]
    for swapper, measures in found.items():
        cells = []
        for name, form, times in columns.values():
            value, low, high = (form.format(times * number) for number in measures[name])
            cells.append(f"{value} ({low} to {high})")
        lines.append(f"| {names.get(swapper, swapper)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


@command
def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="output folder; run again to resume")
    parser.add_argument("--minutes", type=float, default=12.0, help="processor time a family (default: %(default)s)")
    parser.add_argument("--precision", default="float32", help="of the trainings (default: %(default)s)")
    parser.add_argument("--data", nargs="+", required=True, metavar="GLOB", help="training shards, 128 pixels")
    parser.add_argument("--triplets", required=True, metavar="GLOB", help="triplets of people who are not in --data")
    parser.add_argument("--rendered", required=True, metavar="DIR", help="rendered true swaps of such people")
    parser.add_argument(
        "--people", type=Path, required=True, metavar="DIR", help="rendered people, and their true swaps"
    )
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=[*FAMILIES], help="by default all")
    parser.add_argument("--count", type=int, default=200, help="pairs of each protocol (default: %(default)s)")
    args = parser.parse_args(argv)
    # A training must not outlive this command, and its time must be noted.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with only_writer(args.output):
        trained = {}
        for family in args.families:
            data = (
                prepare_people(args.people, args.output)
                if has_decoders(family)
                else join_shards(args.data, args.output)
            )
            trained[family] = train(family, data, args.output, args.minutes, args.precision)
        with_source = {family: run for family, run in trained.items() if not has_decoders(family)}
        parts = [training_table(trained)]
        for protocol, data, some in (
            ("triplets", args.triplets, with_source),
            ("synthetic", args.rendered, with_source),
            ("synthetic", args.people, trained),
        ):
            report = args.output / f"report_{'people' if some is trained else protocol}"
            found = evaluate(some, protocol, data, report, args.count)
            parts += [report.name, measures_table(found, some)]
        text = "\n\n".join(parts)
        write_atomic(args.output / "table.md", (text + "\n").encode())
        say(text)


if __name__ == "__main__":
    sys.exit(main())
