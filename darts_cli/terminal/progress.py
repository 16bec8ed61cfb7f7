"""The progress of steps: how many are done, how fast they are, and the time left."""

import time


class StageProgress:
    """The steps of a run, of an epoch, or of an evaluation. A step costs two additions."""

    def __init__(self, label: str, unit: str, *, step: int, steps: int) -> None:
        """Start the clock.

        Args:
            label: Name of the stage.
            unit: Unit of what steps count, in the plural: `images`, `words`, `batches`.
            step: Steps that are done already.
            steps: Steps in all.
        """
        self.label = label
        self.unit = unit
        self.step = self._first_step = step
        self.steps = steps
        self._count = 0
        self._started_at = time.monotonic()

    def advance(self, count: int) -> None:
        """Count a step, and the `count` examples in it."""
        self.step += 1
        self._count += count

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started_at

    @property
    def rate(self) -> str:
        """Average speed since the start, such as `843.1 images/s`."""
        elapsed = self.elapsed
        return f"{self._count / elapsed if elapsed > 0 else 0.0:,.1f} {self.unit}/s"

    @property
    def left(self) -> float | None:
        """Seconds to the end at the average speed; None before the first step."""
        done = self.step - self._first_step
        return (self.steps - self.step) * self.elapsed / done if done else None
