"""The run directory: what lies where."""

import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from darts_cli.errors import CheckpointError, ConfigError, RunError
from darts_cli.run.files import HALVES, WriteError, write_text
from darts_cli.schema import MAX_EPOCHS, Rule, check

# Bytes of a file of metrics; eight thousand epochs are four million.
_METRICS_LIMIT = 2**24

_EPOCH = Rule(
    f"a number from 1 to {MAX_EPOCHS:,}",
    lambda value: type(value) is int and 1 <= value <= MAX_EPOCHS,
)


class Run:
    """A directory that holds all that a search or training leaves behind."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.metrics = path / "metrics.jsonl"
        self.alphas = path / "alphas"
        self.genotype = path / "genotype.yaml"
        self.last = path / "last.safetensors"
        self.previous = path / "previous.safetensors"
        """The newest checkpoint but one, should something happen to the newest."""
        self.damaged = path / "damaged.safetensors"
        """A newest checkpoint that could not be read, once a run has gone on from the previous."""
        self.best = path / "best.safetensors"
        self.epoch_start = path / "begun.safetensors"
        """As the epoch began, where there is no best one and a divergence leads back."""
        self.log = path / "log.txt"
        self.lock = path / ".lock"

    @classmethod
    def create(cls, path: Path) -> "Run":
        """Make a new directory, or take an empty one, or one whose run was killed as it began.

        Raises:
            ConfigError: as `check_new` does, or if it cannot be made.
        """
        cls.check_new(path)
        run = cls(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            run.alphas.mkdir(exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"--out {path}: cannot be made ({error.strerror}); choose another directory"
            ) from None
        return run

    @classmethod
    def check_new(cls, path: Path) -> None:
        """Make sure that a run may be made here.

        Raises:
            ConfigError: if something is there already; nothing is overwritten.
        """
        try:
            if path.exists() and not path.is_dir():
                raise ConfigError(f"--out {path}: found a file, expected a new directory")
            run = cls(path)
            if path.is_dir() and any(path.iterdir()) and not run._has_only_begun():
                what = "already holds a run" if run.config.exists() else "is not empty"
                raise ConfigError(
                    f"--out {path}: {what}, expected a new directory; "
                    f"choose another, or go on with a run by --resume {path}"
                )
        except OSError as error:
            raise ConfigError(
                f"--out {path}: cannot be made ({error.strerror}); choose another directory"
            ) from None

    def _has_only_begun(self) -> bool:
        """Whether a run began here and was killed before its first checkpoint."""
        first = {self.config, self.genotype, self.log, self.lock, self.alphas}
        entries = [*self.path.iterdir(), *self.alphas.glob("*")]
        # The lock is made right after the folder for alphas.
        return (self.lock.exists() or entries == [self.alphas]) and all(
            # What starts with a dot was to become one of these, or the checkpoint.
            entry in first or entry.name.startswith(".")
            for entry in entries
        )

    @classmethod
    def open(cls, path: Path) -> "Run":
        """An existing run.

        Raises:
            CheckpointError: if the directory is missing or holds no run.
        """
        run = cls(path)
        try:
            if not path.is_dir():
                raise CheckpointError(f"{path}: no such directory, expected a run")
            if not run.config.is_file():
                raise CheckpointError(f"{path}: found no config.yaml in it, expected a run")
        except OSError as error:
            raise CheckpointError(
                f"{path}: cannot be read ({error.strerror}), expected a run"
            ) from None
        return run

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the one process that writes here while this lasts; remove what a dead one left half.

        However a process ends, the system lets go of what it held: a dead one keeps nobody out.

        Raises:
            RunError: if another process writes here.
            WriteError: if the directory cannot be written.
        """
        try:
            handle = os.open(self.lock, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise WriteError(f"{self.lock}: cannot be written ({error.strerror})") from None
        try:
            self._take(handle)
            yield
        finally:
            os.close(handle)

    def _take(self, handle: int) -> None:
        try:
            # Not `flock`: processes that read images for a run inherit what that holds.
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in {errno.EACCES, errno.EAGAIN}:
                # A network's file system without locks: better none than no run.
                return
            owner = os.pread(handle, 200, 0).decode(errors="replace").strip() or "another one"
            raise RunError(
                f"{self.path}: in use by process {owner}; stop that one, or wait until it has ended"
            ) from None
        # On a full disk others are kept out, and not told by whom.
        with suppress(OSError):
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        for folder in (self.path, self.alphas):
            for half in (path for pattern in HALVES for path in folder.glob(pattern)):
                if half.is_file():
                    half.unlink(missing_ok=True)

    def put_previous_first(self) -> None:
        """Let the previous checkpoint be the newest; what could not be read is kept aside.

        Raises:
            WriteError: if the directory cannot be written.
        """
        try:
            if self.last.exists():
                self.last.replace(self.damaged)
            self.previous.replace(self.last)
        except OSError as error:
            raise WriteError(f"{self.last}: cannot be written ({error.strerror})") from None

    def alphas_of(self, epoch: int) -> Path:
        """The file with the alphas after `epoch`, counted from 1."""
        return self.alphas / f"epoch-{epoch:04d}.safetensors"

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """Add one line, on the disk when this returns.

        Raises:
            WriteError: if the disk is full or the file cannot be written.
        """
        try:
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise WriteError(f"{self.metrics}: cannot be written ({error.strerror})") from None

    def read_metrics(self) -> list[dict[str, Any]]:
        """All whole lines; a last one that a kill cut short is left out.

        Raises:
            CheckpointError: if another line is no JSON object, a line is of no epoch, or the file
                cannot be read or is too large.
        """
        try:
            if not self.metrics.is_file():
                return []
            if self.metrics.stat().st_size > _METRICS_LIMIT:
                raise CheckpointError(
                    f"{self.metrics}: too large for metrics ({_METRICS_LIMIT:,} bytes at most)"
                )
            lines = self.metrics.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError as error:
            raise CheckpointError(
                f"{self.metrics}: cannot be read ({error.strerror}); check its permissions"
            ) from None
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
