"""What all stages share: geometry, images, records, files and the weight registry. No networks."""
