"""Read a run directory and the files in it: alphas, genotype, metrics, settings."""

from pathlib import Path
from typing import Any

from darts_cli import config_file
from darts_cli.commands.run_spec import naming
from darts_cli.engine.artifacts import checked_alphas, origin
from darts_cli.errors import CheckpointError
from darts_cli.genotype.file import load
from darts_cli.genotype.types import Alphas, Genotype
from darts_cli.run import checkpoint
from darts_cli.run.directory import Run
from darts_cli.run.history import History
from darts_cli.run.signals import SearchSnapshot, misfit, take_snapshot
from darts_cli.schema import EPOCH, MAX_EPOCHS, Rule, check, is_count, is_name, one_of
from darts_cli.space import SearchSpace
from darts_cli.spaces import SPACES
from darts_cli.terminal.console import error_console

# What a file with alphas has to say of itself, for the origin of a genotype.
_ALPHAS_METADATA = {
    "config.space": one_of(SPACES),
    "config.seed": Rule("0 to 2^63 - 1", is_count),
    "config.alphas.order": Rule("first or second", lambda value: value in ("first", "second")),
    "config.alphas.strategy": Rule("a strategy's name", is_name),
    "config.data.name": Rule("a name", is_name),
    "position.epoch": EPOCH,
}

# What the settings of a run have to say for its history.
_SETTINGS = {
    "command": Rule("search or train", lambda value: value in ("search", "train")),
    "space": one_of(SPACES),
    "epochs": Rule(f"1 to {MAX_EPOCHS:,}", lambda value: EPOCH.is_valid(value) and value > 0),
}


def show_note(text: str) -> None:
    """Print a line about a file on standard error."""
    error_console().print(text, soft_wrap=True, markup=False)


def find_checkpoint(source: Path) -> Path:
    """Return the checkpoint of a run to use: of a training the best one, else the newest.

    Args:
        source: The directory of a run, or a checkpoint, which is returned.

    Raises:
        CheckpointError: if there is none yet.
    """
    if source.is_file():
        return source
    run = Run.open(source)
    if run.best.is_file() and checkpoint.read_metadata(run.best).get("kind") == "train":
        return run.best
    if run.last.is_file():
        return run.last
    raise CheckpointError(f"{run.path}: found no checkpoint in it yet, let the run save one")


def read_alphas(file: Path) -> tuple[SearchSpace, Alphas, dict[str, Any]]:
    """Read the alphas of a search from a checkpoint or a file of `alphas/`, with its metadata.

    Raises:
        CheckpointError: if there are none, or those of another space, or metadata is missing.
    """
    tensors, metadata = checkpoint.read(file)
    if not any(name.startswith("alphas.") for name in tensors):
        raise CheckpointError(f"{file}: found no alphas in it, expected a checkpoint of a search")
    check(metadata, _ALPHAS_METADATA, CheckpointError, where=file)
    space = SPACES[metadata["config"]["space"]]
    with naming(file):
        alphas = checked_alphas(tensors, space)
    return space, {cell: alpha.tolist() for cell, alpha in alphas.items()}, metadata


def read_history(path: Path) -> History:
    """Read the history of a run.

    Raises:
        CheckpointError: if it is no run, or a file in it is damaged.
        ConfigError: if its settings cannot be read.
        GenotypeError: if its genotype cannot be read.
    """
    run = Run.open(path)
    settings = config_file.read(run.config, notes=True)
    check(settings, _SETTINGS, CheckpointError, where=run.config)
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
    """Read the metrics of a run.

    Raises:
        CheckpointError: if a line is damaged, or its signals cannot be.
    """
    records = run.read_metrics()
    for number, record in enumerate(records, start=1):
        if found := misfit(record, space):
            raise CheckpointError(f"{run.metrics}, line {number}: {found}; remove that line")
    return records


def read_epoch(run: Run, space: SearchSpace, file: Path) -> tuple[int, Alphas, dict[str, Any]]:
    """Read a file of a run's `alphas/`: the epoch, the alphas, the metadata.

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
        name, before = run.path.resolve().name, snapshots[-1] if snapshots else None
        label, facts = f"{name}-epoch-{epoch}", origin(metadata, name, epoch)
        snapshots.append(
            take_snapshot(space, alphas, epoch=epoch, name=label, before=before, origin=facts)
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
