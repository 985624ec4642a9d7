"""Training: configuration, the single train step, losses, objectives, checkpoints, export."""
