"""Standard streams that may fail, such as files on a full disk."""

import os
import sys
from contextlib import suppress
from typing import Any, TextIO

from darts_cli.errors import FailureError


class OutputError(FailureError):
    """Results that cannot be printed; without a message if the reader of a pipe has gone."""


class _Wrapper:
    """A standard stream, whose other attributes are those of the stream itself."""

    def __init__(self, stream: TextIO | None) -> None:
        # A process may be started without one.
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class CheckedStdout(_Wrapper):
    """Standard output, whose failures are an `OutputError` wherever something is printed."""

    def write(self, text: str) -> int:
        """Write a text.

        Raises:
            OutputError: if it cannot be written.
        """
        if self._stream is None:
            raise _lost(OSError(None, "it is closed"))
        try:
            return self._stream.write(text)
        except OSError as error:
            raise _lost(error) from None

    def flush(self) -> None:
        """Flush the stream.

        Raises:
            OutputError: if it cannot be written.
        """
        try:
            if self._stream is not None:
                self._stream.flush()
        except OSError as error:
            raise _lost(error) from None


class BestEffortStderr(_Wrapper):
    """Standard error; what cannot be written there is dropped, so that it stops no run."""

    def write(self, text: str) -> int:
        """Write a text if that is possible; return its length."""
        with suppress(OSError):
            if self._stream is not None:
                self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream if that is possible."""
        with suppress(OSError):
            if self._stream is not None:
                self._stream.flush()


def give_up_unwritten() -> None:
    """Discard what could not be written: Python would flush it again at exit, and fail then."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _lost(error: OSError) -> OutputError:
    # The reader of a pipe has closed it: it has read what it wanted.
    if isinstance(error, BrokenPipeError):
        return OutputError()
    return OutputError(
        f"standard output: cannot be written ({error.strerror}); free some space or open it"
    )
