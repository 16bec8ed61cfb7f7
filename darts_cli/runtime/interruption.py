"""Signals that ask a run to stop: it finishes its step, saves, and leaves.

A second Ctrl-C ends what it is in the middle of, where that can be done without loss.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from darts_cli.errors import Interrupted

_EXIT_STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 0}
"""SIGUSR1 is what schedulers warn with before a time limit: stopping then is no failure."""


class StopRequest:
    """Which signal came, if any."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.interrupt_now = False
        """Whether a second Ctrl-C may interrupt what is done now."""

    @property
    def number(self) -> int:
        """The signal's; 0 if none came."""
        return int(self.signal) if self.signal is not None else 0

    def record(self, number: int) -> None:
        """A signal came, to this process or to another of the run."""
        self.signal = signal.Signals(number)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """A block that a second Ctrl-C ends by `KeyboardInterrupt`."""
        self.interrupt_now = True
        try:
            yield
        finally:
            self.interrupt_now = False

    def raise_if_requested(self) -> None:
        """End what is done now if a signal came.

        Raises:
            KeyboardInterrupt: whichever signal it was.
        """
        if self.signal is not None:
            raise KeyboardInterrupt

    @property
    def exit_status(self) -> int:
        """What the process leaves with after stopping."""
        return _EXIT_STATUS[self.signal] if self.signal is not None else 0


@contextmanager
def graceful_signals() -> Iterator[StopRequest]:
    """Turn the first signal into a request; a second Ctrl-C interrupts where that is allowed."""
    request = StopRequest()

    def record_signal(number: int, _frame: FrameType | None) -> None:
        second = request.signal is not None
        request.record(number)
        if second and number == signal.SIGINT and request.interrupt_now:
            # Once: nothing interrupts what is saved then.
            request.interrupt_now = False
            raise KeyboardInterrupt

    previous_handlers = {number: signal.signal(number, record_signal) for number in _EXIT_STATUS}
    try:
        yield request
    finally:
        for number, handler in previous_handlers.items():
            signal.signal(number, handler)


@contextmanager
def exit_on_signal(where: str) -> Iterator[None]:
    """A block that any signal ends at once, but where it is listened for: nothing is lost by that.

    Args:
        where: What the message says of the run.

    Raises:
        Interrupted: if a signal came.
    """
    request = StopRequest()

    def raise_at_once(number: int, _frame: FrameType | None) -> None:
        request.record(number)
        # What no library takes for an error of its own.
        raise KeyboardInterrupt

    previous_handlers = {number: signal.signal(number, raise_at_once) for number in _EXIT_STATUS}
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if request.signal is None:
            raise
        if isinstance(interrupt.__context__, Interrupted):
            # It came while the run left.
            raise interrupt.__context__ from None
        raise Interrupted(
            f"stopped by {request.signal.name}; {where}", request.exit_status
        ) from None
    finally:
        for number, handler in previous_handlers.items():
            signal.signal(number, handler)
