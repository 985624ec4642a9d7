"""Trains the occlusion network: `nice python -m facedancer.face_parts.train_occlusion --work runs/occlusion`.

Renders people into `--work` (resumable), trains, evaluates on held-out people, and writes `occlusion.h5` and
`occlusion.json` (settings and results) next to this module or to `--output`.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from facedancer.core.console import command, progress
from facedancer.core.devices import select_device
from facedancer.core.files import write_json
from facedancer.face_parts.occlusion_data import is_face, plain_example, random_example, render_crop
from facedancer.synthetic.truth import LABELS
from facedancer.synthetic.workers import render_many

# Numbers of rendered pictures, four per person; far from those of data sets and videos.
HELD_OUT_FIRST, TRAINING_FIRST = 32_000_000_000, 36_000_000_000


def train(crops, steps, batch, seed):
    """Returns the network, trained on examples from crops."""
    import keras

    from facedancer.core.images import to_signed
    from facedancer.face_parts.occlusion import build_occlusion_network

    keras.utils.set_random_seed(seed)
    model = build_occlusion_network()
    schedule = keras.optimizers.schedules.CosineDecay(0.0, steps, warmup_target=3e-3, warmup_steps=steps // 20)
    model.compile(keras.optimizers.Adam(schedule), _loss)
    random = np.random.default_rng(seed)
    order, losses = [], []
    for _ in progress(range(steps), unit="step"):
        examples = []
        while len(examples) < batch:
            order = order or random.permutation(len(crops)).tolist()
            examples.append(random_example(crops, order.pop(), random))
        images, shown = (np.stack(values) for values in zip(*examples, strict=True))
        losses.append(float(model.train_on_batch(to_signed(images), shown[..., None])))
        if len(losses) % 500 == 0:
            print(f"step {len(losses)}: loss {np.mean(losses[-500:]):.4f}", flush=True)
    return model


def _loss(shown, found):
    """Pixelwise cross-entropy plus Dice loss (Milletari et al., 2016), which gives thin occluders more weight."""
    import keras
    from keras import ops

    overlap = 2 * ops.sum(shown * found, (1, 2, 3)) + 1
    overlap = overlap / (ops.sum(ops.square(shown) + ops.square(found), (1, 2, 3)) + 1)
    return ops.mean(keras.losses.binary_crossentropy(shown, found)) + 0.5 * (1 - ops.mean(overlap))


def measure(model, crops, seed):
    """Evaluates the network on held-out crops.

    Returns:
        dict: `iou` of the face on crops as rendered; `iou_covered` with occluders, changed light and bad cameras;
        `shown`, for each label, the share of its pixels that the network classifies as face.
    """
    from facedancer.core.images import to_signed

    def overlap(found, shown):
        return round(float((found & shown).sum() / (found | shown).sum()), 4)

    plain = [plain_example(crop) for crop in crops]
    labels = np.stack([values for _, values in plain])
    found = model.predict(to_signed(np.stack([image for image, _ in plain])), verbose=0)[..., 0] > 0.5
    random = np.random.default_rng(seed)
    covered = [random_example(crops, index, random) for index in range(len(crops))]
    found_covered = model.predict(to_signed(np.stack([image for image, _ in covered])), verbose=0)[..., 0] > 0.5
    return {
        "pictures": len(crops),
        "iou": overlap(found, is_face(labels) > 0.5),
        "iou_covered": overlap(found_covered, np.stack([shown for _, shown in covered]) > 0.5),
        "shown": {
            name: round(float(found[labels == index].mean()), 3)
            for index, name in enumerate(LABELS)
            if (labels == index).any()
        },
    }


def build_parser():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--work", required=True, metavar="DIR", help="folder for rendered crops")
    parser.add_argument(
        "--pictures", type=int, default=3200, metavar="N", help="training images (default: %(default)s)"
    )
    parser.add_argument("--held_out", type=int, default=300, metavar="N", help="held-out images (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=5000, metavar="N", help="training steps (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=16, metavar="N", help="batch size (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="Z", help="random seed (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=1, metavar="W", help="rendering processes (default: 1)")
    parser.add_argument("--output", metavar="FILE", help="weights file to write (default: the package's)")
    return parser


@command
def main(argv=None):
    args = build_parser().parse_args(argv)
    held_out = render_many(render_crop, args.work, HELD_OUT_FIRST, args.held_out, args.workers)["crop"]
    crops = render_many(render_crop, args.work, TRAINING_FIRST, args.pictures, args.workers)["crop"]

    from facedancer.core.keras_h5 import save_keras_h5
    from facedancer.face_parts.occlusion import WEIGHTS_FILE

    print(f"device: {select_device()}")
    started = time.perf_counter()
    model = train(crops, args.steps, args.batch, args.seed)
    minutes = (time.perf_counter() - started) / 60
    output = Path(args.output or WEIGHTS_FILE)
    save_keras_h5(model, output)
    settings = {name: getattr(args, name) for name in ("pictures", "steps", "batch", "seed")}
    report = {"training": {**settings, "minutes": round(minutes, 1)}, "held_out": measure(model, held_out, args.seed)}
    write_json(output.with_suffix(".json"), report)
    print(report)


if __name__ == "__main__":
    raise SystemExit(main())
