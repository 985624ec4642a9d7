"""Memory while a long video is swapped: it must not grow with the video's length.

    python benchmarks/long_video.py --facedancer_path exports/first/facedancer_20000.h5 --frames 10000

A small video of a rendered person is made, swapped, and the process's resident memory printed for every tenth of it, in
both passes, with the largest growth after the first tenth of each.
"""

import argparse
import os
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from facedancer.commands.benchmark import render_frames, write_film
from facedancer.media.encoding import choose_encoding
from facedancer.media.job import SegmentedVideo
from facedancer.media.probe import probe_video
from facedancer.video_swap import FaceSwapper, multi_face_single_source
from facedancer.video_swap.common import Plan
from facedancer.video_swap.sources import Source


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--facedancer_path", required=True, metavar="FILE")
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--height", type=int, default=144)
    args = parser.parse_args()
    swapper = FaceSwapper.from_export(args.facedancer_path)
    with tempfile.TemporaryDirectory() as folder:
        path, output = Path(folder, "long.mp4"), Path(folder, "out.mp4")
        write_film(path, render_frames(4), args.height, args.frames)
        video = probe_video(path)
        sampler = Sampler(output.parent / f".{output.name}.work")
        with SegmentedVideo(output, video, choose_encoding(output, video)) as writer:
            source = Source(np.random.default_rng(0).normal(size=swapper.encoder.dim).astype(np.float32), None)
            done = multi_face_single_source.swap_video(swapper, Plan([source]), writer)
        sampler.stop()
    print(f"{done.frames} frames, {done.faces} faces")
    for name, samples in sampler.samples.items():
        tenths = [np.mean(part) for part in np.array_split(samples, 10)]
        growth = max(tenths[1:]) / tenths[1] - 1
        print(name, "MiB:", *(f"{value:.0f}" for value in tenths), f"growth {growth:+.1%}")


class Sampler:
    """Takes the process's resident memory twice a second, by the pass that the work is in."""

    def __init__(self, work):
        self.samples = {"looked through": [], "swapped": []}
        self._work, self._stopped = work, threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self):
        """Ends the sampling."""
        self._stopped.set()
        self._thread.join()

    def _run(self):
        while not self._stopped.is_set():
            segments = list(self._work.glob("*.mkv"))
            self.samples["swapped" if segments else "looked through"].append(resident())
            time.sleep(0.5)


def resident():
    """Returns this process's resident memory in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main()
