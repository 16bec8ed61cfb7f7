"""One story per command, read top to bottom."""
