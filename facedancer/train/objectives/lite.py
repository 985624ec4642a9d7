"""What `lite` presets share: they learn from the exact truth, in hours on two CPU cores (docs/training.md has what was
tried)."""

LITE = {
    "arcface_path": "dlib_resnet",
    "batch_size": 8,
    "lr": 5e-4,
    "beta_1": 0.9,
    "warmup": 200,
    "save_every": 500,
    "eval_every": 200,
}
