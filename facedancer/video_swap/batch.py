"""Runs many swap jobs, one after another; finished jobs are skipped.

Each line of the job file is a JSON object whose keys are the flags of `swap_video`, or of `swap_image` if it has
`img_path`: {"facedancer_path": "model.h5", "vid_path": "a.mp4", "swap_source": ["b.jpg"], "output": "c.mp4"}. Reports
are JSON lines on standard output and in `<jobs>.done.jsonl`, from which a second run knows what is left to do.
"""

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from facedancer.core.console import UserError, command
from facedancer.core.files import Journal, only_writer
from facedancer.core.schemas import Job, JobDone, read_json_lines
from facedancer.video_swap.common import NOTHING_SWAPPED, PARTLY_SWAPPED


def build_parser():
    parser = argparse.ArgumentParser(
        prog="facedancer batch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Exit status: 0 all done, 2 the job file or every job's input is invalid, 3 nothing was swapped, 4 some"
        " jobs failed.",
    )
    parser.add_argument("jobs", metavar="FILE", help="job file, one JSON object per line")
    return parser


@command
def main(argv=None):
    args = build_parser().parse_args(argv)
    path = Path(args.jobs)
    jobs = _read_jobs(path)
    done_path = path.with_name(f"{path.name}.done.jsonl")
    with only_writer(path.parent, f".{path.name}.lock", done_path), Journal(done_path, kind=JobDone) as journal:
        done = {entry.job: entry for entry in journal.entries if entry.status == 0}
        statuses = []
        for number, job in jobs:
            name = json.dumps(job, sort_keys=True)
            if name in done and Path(done[name].output).exists():
                statuses.append(0)
                print(json.dumps({"line": number, "status": 0, "output": done[name].output, "done": "before"}))
                continue
            report = _run(job)
            journal.append({"job": name, **report})
            print(json.dumps({"line": number, **report}, ensure_ascii=False), flush=True)
            statuses.append(report["status"])
    return _overall(statuses)


def _read_jobs(path):
    """Returns the `(line number, job)` list of a job file, without empty lines."""
    jobs, lines_of = [], {}
    try:
        lines = list(read_json_lines(path, Job))
    except FileNotFoundError:
        raise UserError(f"cannot read the jobs {path}: there is no such file") from None
    for number, job in lines:
        if "output" not in job or ("vid_path" in job) == ("img_path" in job):
            raise UserError(f"{path}, line {number}: not a JSON object with output, and vid_path or img_path")
        if not all(_is_word(word) for word in _flags(job)):
            raise UserError(f"{path}, line {number}: holds an escaped character that no flag can have")
        output = os.path.abspath(str(job["output"]))
        if lines_of.setdefault(output, number) != number:
            raise UserError(f"{path}, line {number}: its output is that of line {lines_of[output]}, {output}")
        jobs.append((number, job))
    if not jobs:
        raise UserError(f"{path} holds no jobs")
    return jobs


def _flags(job):
    """Returns a command line's words, such that no value can be mistaken for a flag."""
    flags = []
    for name, value in job.items():
        if isinstance(value, list):
            # Flags with several values take files, whose names may start with a dash.
            flags += [f"--{name}", *(f"./{item}" if str(item).startswith("-") else str(item) for item in value)]
        else:
            flags.append(f"--{name}={value}")
    return flags


def _is_word(text):
    """Returns whether a text can be a process argument: null characters and lone surrogates cannot."""
    with contextlib.suppress(UnicodeEncodeError):
        return b"\0" not in os.fsencode(text)
    return False


def _run(job):
    """Runs one job in a separate process, isolated from its failures; returns its report."""
    verb = "swap_video" if "vid_path" in job else "swap_image"
    started = time.perf_counter()
    words = [sys.executable, "-m", "facedancer", verb, *_flags(job)]
    ended = subprocess.run(words, capture_output=True, text=True, errors="backslashreplace")
    said = [line for line in io.StringIO(ended.stdout if ended.returncode in (0, PARTLY_SWAPPED) else ended.stderr)]
    return {
        "status": ended.returncode,
        "output": str(job["output"]),
        "seconds": round(time.perf_counter() - started, 1),
        "message": said[-1].strip() if said else "",
    }


def _overall(statuses):
    if not any(statuses):
        return 0
    if 0 in statuses or PARTLY_SWAPPED in statuses:
        return PARTLY_SWAPPED
    return NOTHING_SWAPPED if NOTHING_SWAPPED in statuses else 2
