"""Steps that are being done: how far they are, how fast, and how long they will take."""

import time


class Stage:
    """Some steps: of a run, of an epoch, or of its evaluation. A step costs it two additions."""

    def __init__(self, label: str, unit: str, *, step: int, steps: int) -> None:
        self.label = label
        self.unit = unit
        """What is counted, in the plural."""
        self.step = self._first_step = step
        self.steps = steps
        self._count = 0
        self._first_at = time.monotonic()

    def advance(self, count: int) -> None:
        """A step is done, with so many of what is counted."""
        self.step += 1
        self._count += count

    @property
    def elapsed(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._first_at

    @property
    def rate(self) -> str:
        """`843.1 images/s`."""
        elapsed = self.elapsed
        return f"{self._count / elapsed if elapsed > 0 else 0.0:,.1f} {self.unit}/s"

    @property
    def left(self) -> float | None:
        """Seconds to the end; None before the first step."""
        done = self.step - self._first_step
        return (self.steps - self.step) * self.elapsed / done if done else None
