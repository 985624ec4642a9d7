"""Settings that `lite` presets share: they learn from exact truth, in hours on two CPU cores (see docs/training.md)."""

LITE = {
    "arcface_path": "dlib_resnet",
    "batch_size": 8,
    "lr": 5e-4,
    "beta_1": 0.9,
    "warmup": 200,
    "save_every": 500,
    "eval_every": 200,
}
