"""The command `facedancer <verb>`: every stage by name, with the same flags as its script."""

import importlib
import sys

VERBS = {
    "synthesize": ("facedancer.synthetic.synthesize", "renders people who do not exist, with exact truth"),
    "synthesize_video": ("facedancer.synthetic.synthesize_video", "renders a video of such people, with the true swap"),
    "crop_align": ("facedancer.dataset.crop_align", "images -> aligned faces"),
    "dataset_sharding": ("facedancer.dataset.dataset_sharding", "aligned faces -> shards of records"),
    "triplets": ("facedancer.dataset.triplets", "aligned portraits -> shards with exact truth"),
    "train": ("facedancer.train.train", "shards -> a trained, exported swap model"),
    "swap_image": ("facedancer.video_swap.swap_image", "swaps faces in an image"),
    "swap_video": ("facedancer.video_swap.multi_face_single_source", "swaps faces in a video"),
    "swap_grid": ("facedancer.video_swap.swap_grid", "swaps all pairs of a folder's images into one grid"),
    "interpolate": ("facedancer.video_swap.interpolate", "animates a swap between two sources"),
    "batch": ("facedancer.video_swap.batch", "runs many swap jobs from a file"),
    "benchmark": ("facedancer.commands.benchmark", "measures the speed of video swapping on this machine"),
    "evaluate": ("facedancer.evaluate.evaluate", "compares swap models side by side"),
    "ifsr_calibrate": ("facedancer.evaluate.ifsr_calibrate", "measures IFSR margins from a model's swaps"),
    "weights": ("facedancer.commands.weights", "lists, fetches, verifies and converts weights"),
    "demo": ("facedancer.commands.demo", "the whole pipeline, from photographs to a swapped video"),
}


def main(argv=None):
    """Runs one verb; returns its exit status."""
    words = sys.argv[1:] if argv is None else argv
    if not words or words[0] in ("-h", "--help"):
        print("usage: facedancer VERB [flags]; facedancer VERB --help\n")
        for verb, (_, what) in VERBS.items():
            print(f"  {verb:18}{what}")
        return 0 if words else 2
    if words[0] not in VERBS:
        print(f"error: no verb {words[0]!r}; there are {', '.join(VERBS)}", file=sys.stderr)
        return 2
    return importlib.import_module(VERBS[words[0]][0]).main(words[1:])
