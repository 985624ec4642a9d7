"""What every stage shares: geometry, pictures, records, files and the registry of weights. No networks."""
