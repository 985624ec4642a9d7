"""Measures how fast this machine swaps videos: each stage alone, all stages together, and how close the network gets
to peak performance. Prints one line of JSON per video size.

The video shows a rendered person. `--facedancer_path untrained` measures the paper's network without training, which
takes as long as a trained one.
"""

import argparse
import contextlib
import json
import resource
import sys
import tempfile
import time
from collections import defaultdict
from itertools import islice
from pathlib import Path

from facedancer.core.console import UserError, command, progress
from facedancer.core.devices import add_device_flag, select_device
from facedancer.core.weights import find_weights
from facedancer.retinaface import DEFAULT_SIDE
from facedancer.video_swap.engines import ENGINES, PRECISIONS

HEIGHTS = (360, 720, 1080, 2160)
_RENDERED = 8  # frames, played forward and backward
_BATCH = 8
_MATRIX = 2048


def build_parser():
    parser = argparse.ArgumentParser(prog="facedancer benchmark", description=__doc__)
    parser.add_argument(
        "--facedancer_path", default="lite", metavar="FILE",
        help="exported swap model, or `untrained` for the paper's network (default: lite, the included model)",
    )  # fmt: skip
    parser.add_argument("--engine", choices=ENGINES, default="keras", help="inference engine (default: keras)")
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="float32", help="precision of the inner layers (default: float32)"
    )
    parser.add_argument(
        "--heights", type=int, nargs="+", default=HEIGHTS, metavar="H", help="video heights (default: 360 to 2160)"
    )
    parser.add_argument("--frames", type=int, default=48, metavar="N", help="frames per video (default: 48)")
    add_device_flag(parser)
    return parser


@command
def main(argv=None):
    args = build_parser().parse_args(argv)
    if args.frames < 1:
        raise UserError(f"--frames {args.frames}: give at least 1")
    for height in args.heights:
        if not 32 <= height <= 4320 or height % 2:
            raise UserError(f"--heights {height}: give even numbers from 32 to 4320")
    print(f"device: {select_device(args.device_id)}", file=sys.stderr)
    from facedancer.models import load_swapper
    from facedancer.models.families import decoders_of
    from facedancer.models.folding import fold
    from facedancer.video_swap import FaceSwapper
    from facedancer.video_swap.sources import Source

    rendered = render_frames(_RENDERED)
    with tempfile.TemporaryDirectory() as folder:
        is_untrained = args.facedancer_path == "untrained"
        path = write_untrained(Path(folder)) if is_untrained else find_weights(args.facedancer_path)
        has_decoders = bool(decoders_of(path))
        model = load_swapper(path, 0 if has_decoders else None)
        work = {"network": count_products(model), "folded": count_products(fold(model))}
        del model
        swapper = FaceSwapper.from_export(path, engine=args.engine, precision=args.precision, det_size=DEFAULT_SIDE)
        swapper.model = TimedEngine(swapper.model)
        source = Source(None, None, 0) if has_decoders else swapper.source(rendered[0])
        for height in args.heights:
            video = Path(folder, f"{height}.mp4")
            write_film(video, rendered, height, args.frames)
            report = {"height": height, "frames": args.frames, "engine": args.engine, "precision": args.precision}
            report |= measure(swapper, source, video, Path(folder), work, args.precision)
            print(json.dumps(report), flush=True)


class TimedEngine:
    """Wraps an engine and counts its `seconds` and `faces`."""

    def __init__(self, engine):
        self._engine, self.seconds, self.faces = engine, 0.0, 0

    def predict_on_batch(self, inputs):
        """Calls the engine's own method; arguments and result are the same."""
        started = time.perf_counter()
        swapped = self._engine.predict_on_batch(inputs)
        self.seconds += time.perf_counter() - started
        self.faces += len(swapped)
        return swapped


def measure(swapper, source, path, folder, work, precision):
    """Measures one video.

    Args:
        swapper: `FaceSwapper` with a `TimedEngine`.
        source: `Source`.
        path: the video.
        folder: where results may be written.
        work: floating-point operations per face, of the network ("network") and of its folded form ("folded").
        precision: precision of the matrix multiplication that the network is compared with.

    Returns:
        A dictionary: frames per second of all stages together (both passes, stages in parallel) and of each stage
        alone; the share of the total time outside the network; GFLOP/s of the network and of a matrix multiplication;
        the process's peak memory so far in MiB.
    """
    from facedancer.media.encoding import choose_encoding
    from facedancer.media.job import SegmentedVideo
    from facedancer.media.probe import probe_video
    from facedancer.video_swap.common import Plan
    from facedancer.video_swap.multi_face_single_source import swap_video

    video = probe_video(path)
    output = folder / "swapped.mp4"
    encoding = choose_encoding(output, video)
    measure_stages(swapper, source, video, encoding, folder)  # once to build every graph
    stages = measure_stages(swapper, source, video, encoding, folder)
    peak = measure_matrix_product(precision)
    engine = swapper.model
    engine.seconds, engine.faces = 0.0, 0
    started = time.perf_counter()
    with SegmentedVideo(output, video, encoding) as writer:
        done = swap_video(swapper, Plan([source]), writer)
    seconds = time.perf_counter() - started
    alone = stages["network"] / done.frames
    return {
        "frames_per_second": round(done.frames / seconds, 2),
        "faces": done.faces,
        "stages_alone": {name: round(done.frames / value, 1) for name, value in stages.items()},
        "not_network": round(1 - engine.seconds / seconds, 3),
        "network_gflops": round(work["folded"] / alone / 1e9),
        "network_gflops_unfolded": round(work["network"] / alone / 1e9),
        "matrix_product_gflops": round(peak / 1e9),
        "of_peak": round(work["folded"] / alone / peak, 2),
        "memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def measure_stages(swapper, source, video, encoding, folder):
    """Returns `{stage: seconds}` for a video, with the stages run one after another."""
    from facedancer.media.read import read_frames
    from facedancer.media.segments import SegmentWriter
    from facedancer.video_swap.multi_face_single_source import swap_batches
    from facedancer.video_swap.swapper import PlacedFace
    from facedancer.video_swap.tracking import Watcher

    seconds = defaultdict(float)

    @contextlib.contextmanager
    def stage(name):
        started = time.perf_counter()
        yield
        seconds[name] += time.perf_counter() - started

    height, width = swapper.detector.working_size(video.height, video.width)
    watcher = Watcher(swapper.detector, scale=(video.width / width, video.height / height), settle=swapper.settle)
    writer = SegmentWriter(folder / "stages.mkv", encoding, video.rate)
    network = swapper.model.seconds
    frames = read_frames(video)
    while True:
        with stage("decode"):
            batch = list(islice(frames, _BATCH))
        if not batch:
            break
        with stage("detect"):
            seen = watcher.detect([frame.reduced(width, height) for frame in batch])
        placed = [[PlacedFace(points, source.given) for points in frame.landmarks] for frame in seen]
        with stage("blend"):
            swapped = [one for group in swap_batches(swapper, iter(batch), placed, whole=False) for one in group]
        with stage("encode"):
            for frame, part, result in swapped:
                writer.write(frame, result.image, result.regions, part)
    with stage("encode"):
        writer.finish()
    seconds["network"] = swapper.model.seconds - network
    seconds["blend"] -= seconds["network"]
    return dict(seconds)


def measure_matrix_product(precision):
    """Returns the floating-point operations per second of a large matrix multiplication, the best of several runs."""
    import tensorflow as tf

    factor = tf.cast(tf.random.normal((_MATRIX, _MATRIX)), precision)
    product = tf.function(tf.matmul, jit_compile=False)
    best = float("inf")
    for _ in range(12):
        started = time.perf_counter()
        product(factor, factor)[0, 0].numpy()
        best = min(best, time.perf_counter() - started)
    return 2 * _MATRIX**3 / best


def count_products(model):
    """Returns the floating-point operations of a model's convolutions and dense layers for one face."""
    from keras import layers

    total = 0
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D):
            height, width, filters = layer.output.shape[1:]
            total += (
                2 * height * width * filters * layer.kernel.shape[0] * layer.kernel.shape[1] * layer.kernel.shape[2]
            )
        elif isinstance(layer, layers.Dense):
            total += 2 * layer.kernel.shape[0] * layer.kernel.shape[1]
    return total


def render_frames(count):
    """Returns `count` frames (360, 640, 3) uint8 RGB of a rendered, talking person."""
    from facedancer.synthetic.synthesize_video import VideoSettings, render_frame

    settings = VideoSettings()
    return [render_frame(settings, None, index)[0].image for index in progress(range(count), desc="rendering")]


def write_film(path, rendered, height, count):
    """Writes a 16:9 video of `height` pixels and `count` frames: the rendered ones, forward and backward in turn."""
    import av
    import cv2

    width = height * 16 // 9 // 2 * 2
    order = [*range(len(rendered)), *range(len(rendered) - 2, 0, -1)]
    large = [cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC) for image in rendered]
    with av.open(path, "w") as film:
        stream = film.add_stream("libx264", rate=25, options={"crf": "18", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(count):
            film.mux(stream.encode(av.VideoFrame.from_ndarray(large[order[index % len(order)]], "rgb24")))
        film.mux(stream.encode(None))


def write_untrained(folder):
    """Writes an export of the paper's untrained network for the default identity encoder; returns its path."""
    from dataclasses import replace

    import keras

    from facedancer.core.card import ExportCard, write_card
    from facedancer.models.facedancer import PRESETS, build_generator

    keras.utils.set_random_seed(0)
    config = replace(PRESETS["facedancer"], embedding_dim=128)
    path = folder / "facedancer_0.h5"
    build_generator(config).save(path)
    write_card(
        folder,
        ExportCard("facedancer", image_size=config.image_size, embedding_dim=128, identity_encoder="dlib_resnet"),
    )
    return path
