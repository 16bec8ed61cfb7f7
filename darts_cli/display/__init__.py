"""A run as it happens, on a terminal: plain values become lines, and lines stay in their place."""
