"""Standard streams that cannot be written, such as files on a full disk."""

import os
import sys
from contextlib import suppress
from typing import Any, TextIO

from darts_cli.errors import DartsError


class OutputError(DartsError):
    """Results that cannot be printed; without a message where nobody reads them any more."""

    exit_status = 1


class CheckedStdout:
    """Standard output, which fails in one way wherever something is printed."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        """None: a process may be started without one."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text.

        Raises:
            OutputError: if it cannot be written.
        """
        if self._stream is None:
            raise _lost("it is closed")
        try:
            return self._stream.write(text)
        except OSError as error:
            raise _lost_by(error) from None

    def flush(self) -> None:
        """Have it written now.

        Raises:
            OutputError: if it cannot be.
        """
        try:
            if self._stream is not None:
                self._stream.flush()
        except OSError as error:
            raise _lost_by(error) from None


class BestEffortStderr:
    """Standard error; what cannot be written there is left out, and ends no run."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text if that is possible."""
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Have it written now if that is possible."""
        with suppress(OSError):
            self._stream.flush()


def give_up_unwritten() -> None:
    """Forget what could not be written: Python would try again as it ends, and fail by that."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _lost_by(error: OSError) -> OutputError:
    # Whoever reads through a pipe has seen enough of it.
    return OutputError() if isinstance(error, BrokenPipeError) else _lost(str(error.strerror))


def _lost(why: str) -> OutputError:
    return OutputError(f"standard output: cannot be written ({why}); free some space or open it")
