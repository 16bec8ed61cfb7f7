"""Image data: found, decoded once, augmented and read in batches."""
