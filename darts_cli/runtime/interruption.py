"""Signals that stop a run: it finishes its step, saves a checkpoint, and exits.

A second Ctrl-C aborts the current operation where nothing is lost by that.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from darts_cli.errors import Interrupted

# 128 plus the signal's number, as shells report it. Schedulers send SIGUSR1 before a time limit:
# stopping then is no failure.
_EXIT_STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 0}


class StopRequest:
    """The request of a signal to stop, if one was received."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.interrupt_now = False
        """Whether a second Ctrl-C may abort the current operation."""

    @property
    def number(self) -> int:
        """Number of the signal; 0 if none was received."""
        return int(self.signal) if self.signal is not None else 0

    def record(self, number: int) -> None:
        """Record a signal that this process, or another rank of the run, received."""
        self.signal = signal.Signals(number)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let a second Ctrl-C raise `KeyboardInterrupt` inside the block."""
        self.interrupt_now = True
        try:
            yield
        finally:
            self.interrupt_now = False

    def raise_if_requested(self) -> None:
        """Abort the current operation if a signal was received.

        Raises:
            KeyboardInterrupt: if one was, whichever it was.
        """
        if self.signal is not None:
            raise KeyboardInterrupt

    @property
    def exit_status(self) -> int:
        """Exit status of the process after stopping; 0 if no signal was received."""
        return _EXIT_STATUS[self.signal] if self.signal is not None else 0


@contextmanager
def _handlers(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Install a handler of all signals inside the block."""
    previous = {number: signal.signal(number, handler) for number in _EXIT_STATUS}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


@contextmanager
def graceful_signals() -> Iterator[StopRequest]:
    """Turn the first signal into a `StopRequest`; a second Ctrl-C aborts where that is allowed.

    The previous handlers are back after the block.
    """
    request = StopRequest()

    def record_signal(number: int, _frame: FrameType | None) -> None:
        second = request.signal is not None
        request.record(number)
        if second and number == signal.SIGINT and request.interrupt_now:
            # Only once: no further Ctrl-C may interrupt the checkpoint that is saved next.
            request.interrupt_now = False
            raise KeyboardInterrupt

    with _handlers(record_signal):
        yield request


@contextmanager
def exit_on_signal(where: str) -> Iterator[None]:
    """Exit at once on a signal inside the block, except inside `graceful_signals`.

    For what comes before and after the steps of a run, where nothing is lost by that.

    Args:
        where: Where the run is, for the message.

    Raises:
        Interrupted: if a signal was received.
    """
    request = StopRequest()

    def raise_at_once(number: int, _frame: FrameType | None) -> None:
        request.record(number)
        # A KeyboardInterrupt, since libraries catch subclasses of Exception as their own errors.
        raise KeyboardInterrupt

    try:
        with _handlers(raise_at_once):
            yield
    except KeyboardInterrupt as interrupt:
        if request.signal is None:
            raise
        if isinstance(interrupt.__context__, Interrupted):
            # The signal arrived while the run already exited: its first reason counts.
            raise interrupt.__context__ from None
        raise Interrupted(
            f"stopped by {request.signal.name}; {where}", request.exit_status
        ) from None
