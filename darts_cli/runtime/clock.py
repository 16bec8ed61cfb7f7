"""Time between steps: whether a checkpoint is due, and whether steps are slow."""

import time

# A second Ctrl-C interrupts steps that take longer than this. The state is copied before each of
# them, which would cost too much of a short step.
_SLOW_SECONDS = 5.0


class Clock:
    """Time and steps since the last checkpoint."""

    def __init__(self, seconds: float, steps: int | None) -> None:
        """Start counting.

        Args:
            seconds: Time between checkpoints, in seconds.
            steps: Steps between checkpoints; None: go by `seconds`.
        """
        self.between_seconds = seconds
        self.between_steps = steps
        self.slow = True
        """Whether the last step was slow; True before the first step, whose time is unknown."""
        self.saved()

    def saved(self) -> None:
        """Restart the count after a checkpoint was saved."""
        self.steps = 0
        self.saved_at = self.ticked_at = time.monotonic()

    def tick(self) -> bool:
        """Count a step, and return whether a checkpoint is due."""
        now = time.monotonic()
        self.slow = now - self.ticked_at > _SLOW_SECONDS
        self.ticked_at = now
        self.steps += 1
        if self.between_steps is not None:
            return self.steps >= self.between_steps
        return now - self.saved_at >= self.between_seconds
