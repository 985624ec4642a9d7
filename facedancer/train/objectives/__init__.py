"""One module a family: what it trains on, as losses over named tensors."""
