"""The run directory: what lies where."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from darts_cli.errors import CheckpointError, ConfigError
from darts_cli.files import WriteError, write_text


class Run:
    """A directory that holds all that a search or training leaves behind."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.metrics = path / "metrics.jsonl"
        self.alphas = path / "alphas"
        self.genotype = path / "genotype.yaml"
        self.last = path / "last.safetensors"
        self.best = path / "best.safetensors"
        self.log = path / "log.txt"

    @classmethod
    def create(cls, path: Path) -> "Run":
        """Make a new directory, or take an empty one.

        Raises:
            ConfigError: as `check_new` does, or if it cannot be made.
        """
        cls.check_new(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            (path / "alphas").mkdir()
        except OSError as error:
            raise ConfigError(
                f"--out {path}: cannot be made ({error.strerror}); choose another directory"
            ) from None
        return cls(path)

    @classmethod
    def check_new(cls, path: Path) -> None:
        """Make sure that a run may be made here.

        Raises:
            ConfigError: if something is there already; nothing is overwritten.
        """
        try:
            if path.exists() and not path.is_dir():
                raise ConfigError(f"--out {path}: found a file, expected a new directory")
            if path.is_dir() and any(path.iterdir()):
                what = "already holds a run" if cls(path).config.exists() else "is not empty"
                raise ConfigError(
                    f"--out {path}: {what}, expected a new directory; "
                    f"choose another, or go on with a run by --resume {path}"
                )
        except OSError as error:
            raise ConfigError(
                f"--out {path}: cannot be made ({error.strerror}); choose another directory"
            ) from None

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
            CheckpointError: if another line is no JSON object.
        """
        if not self.metrics.is_file():
            return []
        lines = self.metrics.read_text(encoding="utf-8", errors="replace").splitlines()
        records = []
        for number, line in enumerate(lines, start=1):
            try:
                record = json.loads(line)
            except ValueError:
                record = None
            if isinstance(record, dict):
                records.append(record)
            elif number < len(lines):
                raise CheckpointError(f"{self.metrics}, line {number}: expected a JSON object")
        return records

    def keep_metrics(self, epochs: int) -> None:
        """Drop the lines of epochs after `epochs`, which a resumed run writes again.

        Raises:
            CheckpointError: if a line is of no epoch.
            WriteError: if the disk is full or the file cannot be written.
        """
        records = self.read_metrics()
        for number, record in enumerate(records, start=1):
            if not isinstance(record.get("epoch"), int):
                raise CheckpointError(f"{self.metrics}, line {number}: expected an epoch's number")
        records = [record for record in records if record["epoch"] <= epochs]
        write_text(self.metrics, "".join(json.dumps(record) + "\n" for record in records))
