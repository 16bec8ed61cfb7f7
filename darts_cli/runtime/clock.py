"""What the time says between two steps: whether a checkpoint is due, and whether steps are slow."""

import time

_SLOW_SECONDS = 5.0
"""Steps that take longer are interrupted by a second Ctrl-C: before each, the state is copied."""


class Clock:
    """Counts from the last checkpoint."""

    def __init__(self, seconds: float, steps: int | None) -> None:
        """Start counting.

        Args:
            seconds: Time between checkpoints.
            steps: Steps between them, in place of time; None: by time.
        """
        self.between_seconds = seconds
        self.between_steps = steps
        self.slow = True
        """Whether the last step was; nobody knows of the first."""
        self.saved()

    def saved(self) -> None:
        """Count from here."""
        self.steps = 0
        self.saved_at = self.ticked_at = time.monotonic()

    def tick(self) -> bool:
        """After a step: whether it is time for a checkpoint."""
        now = time.monotonic()
        self.slow = now - self.ticked_at > _SLOW_SECONDS
        self.ticked_at = now
        self.steps += 1
        if self.between_steps is not None:
            return self.steps >= self.between_steps
        return now - self.saved_at >= self.between_seconds
