"""From photographs to batches: aligned faces, shards, and the input stream of training."""
