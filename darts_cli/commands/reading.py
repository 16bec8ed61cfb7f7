"""What a run directory and the files in it tell: alphas, genotypes, metrics, settings."""

import reprlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from darts_cli import config_file
from darts_cli.engine.artifacts import checked_alphas, origin
from darts_cli.errors import CheckpointError
from darts_cli.genotype.file import load
from darts_cli.genotype.types import Alphas, Genotype
from darts_cli.run import checkpoint
from darts_cli.run.directory import Run
from darts_cli.run.history import History
from darts_cli.run.signals import SearchSnapshot, misfit, take_snapshot
from darts_cli.space import SearchSpace
from darts_cli.spaces import SPACES

_MOST_EPOCHS = 100_000
"""As many as a run may have: see `Config`."""

_LONGEST_NAME = 4096
"""Letters of a name or path."""


def _is_name(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST_NAME


_SAID: dict[str, tuple[Callable[[Any], bool], str]] = {
    "config.space": (
        lambda value: _is_name(value) and value in SPACES,
        "one of " + ", ".join(SPACES),
    ),
    "config.seed": (lambda value: type(value) is int and 0 <= value < 2**63, "0 to 2^63 - 1"),
    "config.alphas.order": (lambda value: value in ("first", "second"), "first or second"),
    "config.alphas.strategy": (_is_name, "a strategy's name"),
    "config.data.name": (_is_name, "a name"),
    "position.epoch": (
        lambda value: type(value) is int and 0 <= value <= _MOST_EPOCHS,
        f"0 to {_MOST_EPOCHS:,}",
    ),
}
"""What a file with alphas has to say of itself, for a genotype to tell where it comes from."""

_SETTINGS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "command": (lambda value: value in ("search", "train"), "search or train"),
    "space": (lambda value: _is_name(value) and value in SPACES, "one of " + ", ".join(SPACES)),
    "epochs": (
        lambda value: type(value) is int and 1 <= value <= _MOST_EPOCHS,
        f"1 to {_MOST_EPOCHS:,}",
    ),
}
"""What the settings of a run have to say for its history to be told."""


def read_alphas(file: Path) -> tuple[SearchSpace, Alphas, dict[str, Any]]:
    """The alphas of a search in a checkpoint or a file of `alphas/`, with what it says of itself.

    Raises:
        CheckpointError: if there are none, or not those of its space, or it does not say enough.
    """
    tensors, metadata = checkpoint.read(file)
    if not any(name.startswith("alphas.") for name in tensors):
        raise CheckpointError(f"{file}: found no alphas in it, expected a checkpoint of a search")
    _check(metadata, _SAID, file)
    space = SPACES[metadata["config"]["space"]]
    try:
        alphas = checked_alphas(tensors, space)
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}; use another checkpoint") from None
    return space, {cell: alpha.tolist() for cell, alpha in alphas.items()}, metadata


def read_history(path: Path) -> History:
    """All that a run directory tells.

    Raises:
        CheckpointError: if it is no run, or a file in it is damaged.
        ConfigError: if its settings cannot be read.
        GenotypeError: if its genotype cannot be read.
    """
    run = Run.open(path)
    settings = config_file.read(run.config, notes=True)
    _check(settings, _SETTINGS, run.config)
    space = SPACES[settings["space"]]
    return History(
        path=path,
        command=settings["command"],
        space=space,
        settings=settings,
        records=read_records(run, space),
        snapshots=_read_snapshots(run, space),
        genotype=_read_genotype(run, space),
    )


def read_records(run: Run, space: SearchSpace) -> list[dict[str, Any]]:
    """The lines of a run's metrics.

    Raises:
        CheckpointError: if one is damaged, or says of the alphas what cannot be.
    """
    records = run.read_metrics()
    for number, record in enumerate(records, start=1):
        if found := misfit(record, space):
            raise CheckpointError(f"{run.metrics}, line {number}: {found}; remove that line")
    return records


def read_epoch(run: Run, space: SearchSpace, file: Path) -> tuple[int, Alphas, dict[str, Any]]:
    """The epoch that a file of a run's `alphas/` is of, its alphas, and what it says of itself.

    Raises:
        CheckpointError: if it is damaged, or of another space or epoch than it should be.
    """
    found, alphas, metadata = read_alphas(file)
    epoch = metadata["position"]["epoch"]
    if found != space:
        raise CheckpointError(
            f"{file}: config.space: found {found.name!r}, expected {space.name!r} as in "
            f"{run.config}; remove that file"
        )
    if epoch < 1 or run.alphas_of(epoch) != file:
        raise CheckpointError(
            f"{file}: position.epoch: found {epoch}, expected that of its name; remove that file"
        )
    return epoch, alphas, metadata


def _read_snapshots(run: Run, space: SearchSpace) -> list[SearchSnapshot]:
    snapshots: list[SearchSnapshot] = []
    for file in sorted(run.alphas.glob("epoch-*.safetensors")):
        epoch, alphas, metadata = read_epoch(run, space, file)
        snapshots.append(
            take_snapshot(
                space,
                alphas,
                epoch=epoch,
                name=f"{run.path.resolve().name}-epoch-{epoch}",
                before=snapshots[-1] if snapshots else None,
                origin=origin(metadata, run.path.resolve().name, epoch),
            )
        )
    return snapshots


def _read_genotype(run: Run, space: SearchSpace) -> Genotype | None:
    if not run.genotype.is_file():
        return None
    genotype = load(run.genotype, SPACES)
    if genotype.space != space.name:
        raise CheckpointError(
            f"{run.genotype}: space: found {genotype.space!r}, expected {space.name!r} as in "
            f"{run.config}"
        )
    return genotype


def _check(
    values: Mapping[str, Any],
    expected: Mapping[str, tuple[Callable[[Any], bool], str]],
    file: Path,
) -> None:
    """Make sure that nested values, by dotted name, are what they should be."""
    for name, (is_valid, what) in expected.items():
        value: Any = values
        for key in name.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        if not is_valid(value):
            raise CheckpointError(f"{file}: {name}: found {reprlib.repr(value)}, expected {what}")
