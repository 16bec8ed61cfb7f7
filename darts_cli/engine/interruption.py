"""Signals that ask a run to stop: it finishes its step, saves, and leaves."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_EXIT_STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 0}
"""SIGUSR1 is what schedulers warn with before a time limit: stopping then is no failure."""


class StopRequest:
    """Which signal came, if any."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    @property
    def number(self) -> int:
        """The signal's; 0 if none came."""
        return int(self.signal) if self.signal is not None else 0

    def note(self, number: int) -> None:
        """A signal came, to this process or to another of the run."""
        self.signal = signal.Signals(number)

    @property
    def exit_status(self) -> int:
        """What the process leaves with after stopping."""
        return _EXIT_STATUS[self.signal] if self.signal is not None else 0


@contextmanager
def listening() -> Iterator[StopRequest]:
    """Turn the first signal into a request; a second Ctrl-C interrupts at once."""
    request = StopRequest()

    def note(number: int, _frame: FrameType | None) -> None:
        if request.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        request.note(number)

    before = {number: signal.signal(number, note) for number in _EXIT_STATUS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
