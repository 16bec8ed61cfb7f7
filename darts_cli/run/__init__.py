"""A run on disk: its directory, checkpoints and metrics, and what its history shows."""
