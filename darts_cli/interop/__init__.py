"""Files of others: torch checkpoints with the published parameter names, in both directions."""
