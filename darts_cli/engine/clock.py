"""What the time says between two steps: whether a checkpoint is due, and whether steps are slow."""

import time

from darts_cli.engine.artifacts import RunContext

_SLOW_SECONDS = 5.0
"""Steps that take longer are interrupted by a second Ctrl-C: before each, the state is copied."""


class Clock:
    """Counts from the last checkpoint."""

    def __init__(self, context: RunContext) -> None:
        self.context = context
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
        if self.context.checkpoint_steps is not None:
            return self.steps >= self.context.checkpoint_steps
        return now - self.saved_at >= self.context.checkpoint_seconds
