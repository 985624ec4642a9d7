"""Training: configuration, the only train step, losses, objectives, checkpoints, export."""
