"""The run directory: its files, its lock, and its metrics."""

import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import product
from pathlib import Path
from typing import Any

from darts_cli.errors import CheckpointError, ConfigError, RunError, system_errors
from darts_cli.run.files import HALVES, WriteError, write_text
from darts_cli.schema import MAX_EPOCHS, Rule, check

# Bytes of a file of metrics; eight thousand epochs are four million.
_METRICS_LIMIT = 2**24

# The end of an error about a directory that cannot be made.
_ANOTHER = "; choose another directory"

_EPOCH = Rule(
    f"a number from 1 to {MAX_EPOCHS:,}",
    lambda value: type(value) is int and 1 <= value <= MAX_EPOCHS,
)


class Run:
    """The directory with all files of a search or training."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.metrics = path / "metrics.jsonl"
        self.alphas = path / "alphas"
        self.genotype = path / "genotype.yaml"
        self.last = path / "last.safetensors"
        self.previous = path / "previous.safetensors"
        """The newest checkpoint but one, in case the newest is damaged."""
        self.damaged = path / "damaged.safetensors"
        """A newest checkpoint that could not be read, after a run resumed from the previous one."""
        self.best = path / "best.safetensors"
        self.epoch_start = path / "begun.safetensors"
        """The state at the start of the epoch, to roll back to before there is a best one."""
        self.log = path / "log.txt"
        self.lock = path / ".lock"

    @classmethod
    def create(cls, path: Path) -> "Run":
        """Make a directory, or take an empty one or one whose run was killed at its start.

        Raises:
            ConfigError: as `check_new` does, or if it cannot be made.
        """
        cls.check_new(path)
        run = cls(path)
        with system_errors(ConfigError, f"--out {path}", "made", _ANOTHER):
            path.mkdir(parents=True, exist_ok=True)
            run.alphas.mkdir(exist_ok=True)
        return run

    @classmethod
    def check_new(cls, path: Path) -> None:
        """Check that a run may be made in a directory.

        Raises:
            ConfigError: if it holds something already; nothing is overwritten.
        """
        run = cls(path)
        with system_errors(ConfigError, f"--out {path}", "made", _ANOTHER):
            if path.exists() and not path.is_dir():
                raise ConfigError(f"--out {path}: found a file, expected a new directory")
            if path.is_dir() and any(path.iterdir()) and not run._has_only_begun():
                what = "already holds a run" if run.config.exists() else "is not empty"
                raise ConfigError(
                    f"--out {path}: {what}, expected a new directory; "
                    f"choose another, or go on with a run by --resume {path}"
                )

    def _has_only_begun(self) -> bool:
        """Return whether a run began here and was killed before its first checkpoint."""
        first = {self.config, self.genotype, self.log, self.lock, self.alphas}
        entries = [*self.path.iterdir(), *self.alphas.glob("*")]
        # A run makes its lock right after the folder for alphas.
        return (self.lock.exists() or entries == [self.alphas]) and all(
            # A name that starts with a dot is that of a temporary file.
            entry in first or entry.name.startswith(".")
            for entry in entries
        )

    @classmethod
    def open(cls, path: Path) -> "Run":
        """Return an existing run.

        Raises:
            CheckpointError: if the directory is missing or holds no run.
        """
        run = cls(path)
        with system_errors(CheckpointError, path, "read", ", expected a run"):
            if not path.is_dir():
                raise CheckpointError(f"{path}: no such directory, expected a run")
            if not run.config.is_file():
                raise CheckpointError(f"{path}: found no config.yaml in it, expected a run")
        return run

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the directory inside the block, and remove half-written files of a dead process.

        The system releases the lock of a process however it ends.

        Raises:
            RunError: if another process writes here.
            WriteError: if the directory cannot be written.
        """
        with system_errors(WriteError, self.lock, "written"):
            handle = os.open(self.lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            self._take(handle)
            yield
        finally:
            os.close(handle)

    def _take(self, handle: int) -> None:
        try:
            # Not `flock`, whose lock the worker processes of a data loader would inherit.
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in {errno.EACCES, errno.EAGAIN}:
                # A network file system without locks: run without one.
                return
            owner = os.pread(handle, 200, 0).decode(errors="replace").strip() or "another one"
            raise RunError(
                f"{self.path}: in use by process {owner}; stop that one, or wait until it has ended"
            ) from None
        # On a full disk the lock holds, but does not say which process has it.
        with suppress(OSError):
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        for folder, pattern in product((self.path, self.alphas), HALVES):
            for half in folder.glob(pattern):
                if half.is_file():
                    half.unlink(missing_ok=True)

    def put_previous_first(self) -> None:
        """Make the previous checkpoint the newest one, and keep the unreadable one as `damaged`.

        Raises:
            WriteError: if the directory cannot be written.
        """
        with system_errors(WriteError, self.last, "written"):
            if self.last.exists():
                self.last.replace(self.damaged)
            self.previous.replace(self.last)

    def alphas_of(self, epoch: int) -> Path:
        """Return the file with the alphas after `epoch`, counted from 1."""
        return self.alphas / f"epoch-{epoch:04d}.safetensors"

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """Append a record as one line, and sync the file.

        Raises:
            WriteError: if the disk is full or the file cannot be written.
        """
        with (
            system_errors(WriteError, self.metrics, "written"),
            self.metrics.open("a", encoding="utf-8") as file,
        ):
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def read_metrics(self) -> list[dict[str, Any]]:
        """Read all whole lines; a last one that a kill cut short is left out.

        Raises:
            CheckpointError: if another line is no JSON object, a line is of no epoch, or the file
                cannot be read or is too large.
        """
        with system_errors(CheckpointError, self.metrics, "read", "; check its permissions"):
            if not self.metrics.is_file():
                return []
            if self.metrics.stat().st_size > _METRICS_LIMIT:
                raise CheckpointError(
                    f"{self.metrics}: too large for metrics ({_METRICS_LIMIT:,} bytes at most)"
                )
            lines = self.metrics.read_text(encoding="utf-8", errors="replace").splitlines()
        records = []
        for number, line in enumerate(lines, start=1):
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                record = None
            if isinstance(record, dict):
                records.append(record)
            elif number < len(lines):
                raise CheckpointError(f"{self.metrics}, line {number}: expected a JSON object")
            else:
                break
            where = f"{self.metrics}, line {number}"
            check(record, {"epoch": _EPOCH}, CheckpointError, where=where)
        return records

    def keep_metrics(self, epochs: int) -> None:
        """Drop the lines of epochs after `epochs`, which a resumed run writes again.

        Raises:
            CheckpointError: as `read_metrics` does.
            WriteError: if the disk is full or the file cannot be written.
        """
        records = [record for record in self.read_metrics() if record["epoch"] <= epochs]
        write_text(self.metrics, "".join(json.dumps(record) + "\n" for record in records))
