"""From photographs to batches: aligned faces, their shards, and the stream that training reads."""
