"""The context of a run, and the files that it writes."""

import platform
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from darts_cli import __version__
from darts_cli.config import Config
from darts_cli.engine.state import State
from darts_cli.engine.task import Loaders
from darts_cli.errors import CheckpointError, ConfigError, DivergenceError
from darts_cli.genotype.file import dump
from darts_cli.genotype.types import Alphas
from darts_cli.run import checkpoint
from darts_cli.run.directory import Run
from darts_cli.run.files import WriteError, write_text
from darts_cli.run.signals import SearchSnapshot, Signals, take_snapshot
from darts_cli.runtime.ranks import Ranks
from darts_cli.space import SearchSpace
from darts_cli.terminal.reporter import Reporter

# Called with the record of an epoch, and with the snapshot of a search after it.
Callback = Callable[[Mapping[str, Any], SearchSnapshot | None], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunContext:
    """The inputs of `fit`, which it does not change."""

    config: Config
    space: SearchSpace
    loaders: Loaders
    run: Run
    reporter: Reporter
    metadata: Mapping[str, Any]
    """Values of checkpoints besides the state: settings, info about the data, the genotype."""
    checkpoint_seconds: float = 600.0
    """Seconds between checkpoints within an epoch."""
    checkpoint_steps: int | None = None
    """Steps between checkpoints, which replace the seconds; None: go by the seconds."""
    max_steps: int | None = None
    """Number of steps in all after which the run saves its state and stops; None: no limit."""
    callbacks: Sequence[Callback] = ()
    """Callbacks that run on rank 0 after each epoch."""
    resume_command: str = ""
    """Command that resumes the run after a stop."""
    device_status: Callable[[], Sequence[str]] = tuple
    """Function that returns the device's name, its memory and utilization, where known."""


def save(state: State, context: RunContext, path: Path | None = None) -> None:
    """Write a checkpoint; all ranks call it, and rank 0 writes.

    Args:
        state: The state to write.
        context: The run.
        path: The file; None: the newest checkpoint, and the one before it is kept.

    Raises:
        DivergenceError: if a number in it is not finite; the files stay as they were.
        WriteError: if the disk is full or the folder cannot be written.
    """
    state.check_finite()
    # Called on all ranks, since hidden states are gathered from them.
    tensors = state.state_dict()
    run, ranks = context.run, state.execution.ranks
    with write_together(ranks):
        if ranks.is_main:
            metadata = {**context.metadata, **state.metadata()}
            previous = run.previous if path is None else None
            checkpoint.write(path or run.last, tensors, metadata, previous=previous)


def advise(error: DivergenceError, context: RunContext) -> DivergenceError:
    """Add the last good checkpoint and what to try to an error."""
    run, config = context.run, context.config
    try:
        position = checkpoint.read_metadata(run.last)["position"]
        last = (
            f"; the last good checkpoint is {run.last} (epoch {position['epoch'] + 1}, "
            f"step {position['step']})"
        )
    except CheckpointError:
        # Not every rank of a run may see the file.
        last = ""
    advice = f"start a new run with an --lr below {config.weights.lr:g}"
    if config.compute.precision != "fp32":
        advice = f"go on with {context.resume_command} --precision fp32, or {advice}"
    return DivergenceError(f"{error}{last}; {advice}")


@contextmanager
def write_together(ranks: Ranks) -> Iterator[None]:
    """Let rank 0 write inside the block, and all ranks fail if it cannot.

    Raises:
        WriteError: if a file could not be written.
    """
    found: WriteError | None = None
    try:
        yield
    except (WriteError, ConfigError) as error:
        # A `ConfigError` if the folder of a file is gone, which is not the fault of a setting.
        found = error if isinstance(error, WriteError) else WriteError(str(error))
    (failed,) = ranks.all_reduce_max(found is not None)
    if failed:
        raise found or unwritten_elsewhere()


def unwritten_elsewhere() -> WriteError:
    """Return the error of the other ranks where rank 0 cannot write."""
    return WriteError("the first process of this run cannot write: see what it says")


def rescue(state: State, context: RunContext, error: WriteError) -> WriteError:
    """Write the state to the first place that has room; all ranks call it.

    Args:
        state: The state when a file could not be written.
        context: The run.
        error: The error of that file.

    Returns:
        The error with the place of the state, if it could be written.
    """
    state.check_finite()
    tensors, metadata = state.state_dict(), {**context.metadata, **state.metadata()}
    if not state.execution.ranks.is_main:
        return error
    run, done = context.run, state.position.total
    what = f"{error.located}; the state after step {done} is"
    name = f"{run.path.resolve().name}-step-{done}.safetensors"
    others = (run.path.resolve().parent, Path.cwd(), Path(tempfile.gettempdir()))
    for path in (run.last, *(folder / name for folder in others)):
        # Outside the run directory nothing is overwritten.
        if path != run.last and path.exists():
            continue
        try:
            previous = run.previous if path == run.last else None
            checkpoint.write(path, tensors, metadata, previous=previous)
        except (WriteError, ConfigError):
            continue
        if path == run.last:
            return WriteError(f"{what} saved; mend that and go on with: {context.resume_command}")
        return WriteError(
            f"{what} in {path}; make room, move it to {run.last}, and go on with: "
            f"{context.resume_command}"
        )
    return error


def write_architecture(
    state: State, context: RunContext, before: SearchSnapshot | None
) -> SearchSnapshot:
    """Write the alphas after the finished epochs, and the genotype derived from them.

    Args:
        state: A search.
        context: Its run.
        before: The snapshot of the epoch before; None if it is not known.

    Raises:
        ValueError: if there are no alphas.
        WriteError: if the disk is full or the folder cannot be written.
    """
    if state.architect is None:
        raise ValueError("a discrete network has no alphas")
    run, alphas, epoch = context.run, state.architect.alphas, state.position.epoch
    # Alphas do not depend on the data, whose vocabulary would be most of so small a file.
    kept = {name: value for name, value in context.metadata.items() if name != "facts"}
    metadata = {**kept, "kind": "alphas", "position": {"epoch": epoch}}
    snapshot = take_snapshot(
        context.space,
        _as_lists(alphas),
        epoch=epoch,
        name=f"{run.path.name}-epoch-{epoch}",
        before=before,
        origin=origin(metadata, run.path.name, epoch),
    )
    # [E, O] of each kind of cell
    named = {f"alphas.{cell}": alpha for cell, alpha in alphas.items()}
    checkpoint.write(run.alphas_of(epoch), named, metadata)
    write_text(run.genotype, dump(snapshot.genotype))
    return snapshot


def _as_lists(alphas: Mapping[str, Tensor]) -> Alphas:
    return {cell: alpha.tolist() for cell, alpha in alphas.items()}


def read_snapshot(
    context: RunContext, epoch: int, records: Sequence[Mapping[str, Any]]
) -> SearchSnapshot | None:
    """Read the snapshot of an epoch from the run's files.

    Args:
        context: The run.
        epoch: Number of the epoch, from 1.
        records: The run's metrics, which hold the signals.

    Returns:
        None if there is no such epoch, or its files are lost or damaged.
    """
    space = context.space
    record = next((line for line in reversed(records) if line["epoch"] == epoch), None)
    if record is None:
        return None
    try:
        tensors, _ = checkpoint.read(context.run.alphas_of(epoch))
        alphas = _as_lists(checked_alphas(tensors, space))
    except CheckpointError:
        return None
    signals = Signals.from_record(record, space)
    snapshot = take_snapshot(space, alphas, epoch=epoch, name="", before=None)
    # Records of a run that an older version began have no signals.
    return replace(snapshot, signals=signals) if signals is not None else snapshot


def checked_alphas(tensors: Mapping[str, Tensor], space: SearchSpace) -> dict[str, Tensor]:
    """Return the alphas of each kind of cell in a checkpoint, `[E, O]`.

    Raises:
        CheckpointError: if they are not those of the space, or not finite.
    """
    shape, alphas = [len(space.edges), len(space.primitives)], {}
    for cell in space.cells:
        name = f"alphas.{cell}"
        alpha = tensors.get(name)
        problem = ""
        if alpha is None or list(alpha.shape) != shape:
            found = "none" if alpha is None else f"shape {list(alpha.shape)}"
            problem = f"{found}, expected alphas of shape {shape}"
        elif not alpha.is_floating_point():
            problem = f"{alpha.dtype}, expected floating point numbers"
        elif not alpha.isfinite().all():
            problem = "numbers that are not finite, expected finite ones"
        if alpha is None or problem:
            raise CheckpointError(f"{name}: found {problem}")
        alphas[cell] = alpha
    return alphas


def origin(metadata: Mapping[str, Any], run: str, epoch: int) -> dict[str, Any]:
    """Return the origin of a derived genotype, for its file."""
    config, alphas = metadata["config"], metadata["config"]["alphas"]
    return {
        "run": run,
        "epoch": epoch,
        "seed": config["seed"],
        "order": alphas["order"],
        "strategy": alphas["strategy"],
        # The name alone: a path on one machine means nothing on another.
        "data": Path(config["data"]["name"]).name,
        "date": datetime.now(UTC).date().isoformat(),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Return the versions of darts, torch and Python."""
    return {
        "darts": __version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }
