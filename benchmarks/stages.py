"""Speed of every stage, as a person sees it: whole commands, start included, on pictures and a video of yours.

    python benchmarks/stages.py --data_dir photographs --vid_path video.mp4

Prints one row a stage. The training runs 60 steps of preset `lite`; its rate is the median step's.
"""

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from facedancer.core.console import PARTLY_DONE
from facedancer.core.files import list_files
from facedancer.core.images import IMAGE_SUFFIXES

STEPS = 60


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data_dir", type=Path, required=True, help="photographs, a subfolder for each person")
    parser.add_argument("--vid_path", type=Path, required=True)
    args = parser.parse_args()
    photographs = [path for path in list_files(args.data_dir) if path.suffix.lower() in IMAGE_SUFFIXES]
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {len(photographs)} pictures"
    )
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder)
        seconds, _ = timed("crop_align", data_dir=args.data_dir, target_dir=run / "aligned", im_size=256)
        row("crop_align, 256 px", len(photographs) / seconds, "pictures/s")
        seconds, said = timed("dataset_sharding", data_dir=run / "aligned", target_dir=run / "shards", data_name="x")
        row("dataset_sharding", int(re.search(r"wrote (\d+)", said)[1]) / seconds, "pictures/s")
        places = {name: run / name for name in ("chkp_dir", "log_dir", "result_dir", "export_dir")}
        training = {"preset": "lite", "data_dir": run / "shards" / "x_train_*", "log_name": "x", **places}
        _, said = timed("train", **training, num_steps=STEPS)
        row("train lite, 128 px, batch 8", float(re.search(r"([\d.]+) images/s", said)[1]), "images/s")
        timed("train", **training, load=STEPS, export=True)
        model = places["export_dir"] / "x" / f"facedancer_{STEPS}.h5"
        swap = {"vid_path": args.vid_path, "swap_source": photographs[0], "output": run / "swapped.mp4"}
        _, said = timed("swap_video", facedancer_path=model, **swap)
        row("swap_video with lite", float(re.search(r"([\d.]+) frames/s", said)[1]), "frames/s")


def timed(verb, **flags):
    """Runs `facedancer <verb>`; returns its seconds and what it printed."""
    words = [str(word) for name, value in flags.items() for word in (f"--{name}", value)]
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "facedancer", verb, *words], capture_output=True, text=True)
    if done.returncode not in (0, PARTLY_DONE):
        sys.exit(done.stderr)
    return time.perf_counter() - started, done.stdout


def row(stage, rate, unit):
    print(f"{stage:30}{rate:10.1f} {unit}")


if __name__ == "__main__":
    main()
