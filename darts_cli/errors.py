"""Errors that a user can mend: each is one line, shown without a traceback."""

from collections.abc import Iterator
from contextlib import contextmanager


class DartsError(Exception):
    """An error with a remedy: where, what was found and expected, what to do.

    The command line prints it as one line and exits with `exit_status`: 2 for bad
    input, 1 for a failure while running.

    Attributes:
        where: What it is about, such as a file; empty where the problem says it.
        problem: What was found and what was expected.
        remedy: What to do; empty where the problem says it.
    """

    exit_status = 2

    def __init__(self, problem: str = "", *, where: object = "", remedy: str = "") -> None:
        self.where, self.problem, self.remedy = str(where), problem, remedy
        super().__init__(problem)

    def __str__(self) -> str:
        return self.located + (f"; {self.remedy}" if self.remedy else "")

    @property
    def located(self) -> str:
        """Where and what, without the remedy."""
        return f"{self.where}: {self.problem}" if self.where else self.problem


class ConfigError(DartsError):
    """A setting, flag or configuration file that cannot be used."""


class GenotypeError(DartsError):
    """A genotype that is malformed or does not exist."""


class RunError(DartsError):
    """A run directory that another process is writing to."""


class DataError(DartsError):
    """Data that is missing, unreadable, or has the wrong shape."""


class CheckpointError(DartsError):
    """A run directory or checkpoint that is missing, damaged, or belongs to another run."""


# The remedy for a checkpoint that cannot be used.
ANOTHER = "use another checkpoint"


class DeviceError(DartsError):
    """A device that one rank of a run lacks, although others may have theirs."""


class FailureError(DartsError):
    """A failure while running, of something other than the input."""

    exit_status = 1


class DivergenceError(FailureError):
    """A loss that is no longer a finite number."""


class DeviceMemoryError(FailureError):
    """A device with too little memory for a step."""


class DeterminismError(FailureError):
    """An operation without a deterministic algorithm, under `--deterministic`."""


class WorkerError(FailureError):
    """A worker process of a data loader that was lost."""


class RankError(FailureError):
    """Another rank of the run that was lost."""


class Interrupted(Exception):  # noqa: N818 - not an error: the run was asked to stop and did
    """A signal asked the run to stop; its state is saved.

    Attributes:
        exit_status: 128 plus the signal's number, or 0 for a scheduler's warning.
    """

    def __init__(self, message: str, exit_status: int) -> None:
        super().__init__(message)
        self.exit_status = exit_status


@contextmanager
def system_errors(
    kind: type[DartsError], where: object, action: str, advice: str = ""
) -> Iterator[None]:
    """Turn an `OSError` inside the block into an error of one line.

    Args:
        kind: Class of the error.
        where: File or flag that the error names.
        action: What cannot be done with it, such as `read`.
        advice: End of the line, after the reason.

    Raises:
        DartsError: of that class.
    """
    try:
        yield
    except OSError as error:
        raise kind(f"cannot be {action} ({error.strerror}){advice}", where=where) from None
