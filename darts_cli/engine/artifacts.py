"""What a run works with, and the files that it leaves behind."""

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


@dataclass(frozen=True, kw_only=True, slots=True)
class RunContext:
    """What `fit` works with and does not change."""

    config: Config
    space: SearchSpace
    loaders: Loaders
    run: Run
    reporter: Reporter
    metadata: Mapping[str, Any]
    """What every checkpoint carries besides the state: settings, facts about the data, genotype."""
    checkpoint_seconds: float = 600.0
    """Time between checkpoints inside an epoch."""
    checkpoint_steps: int | None = None
    """Steps between them, in the place of time."""
    max_steps: int | None = None
    """Steps in all after which the run stops, its state saved."""
    listeners: Sequence[Callable[[Mapping[str, Any], SearchSnapshot | None], None]] = ()
    """Told of every epoch's line of metrics, and of a search after it, where they are written."""
    resume_command: str = ""
    """What to type to go on after a stop."""
    device_status: Callable[[], Sequence[str]] = tuple
    """The device's name, its memory and how busy it is; as much of that as is known."""


def save(state: State, context: RunContext, path: Path | None = None) -> None:
    """Write a checkpoint; all ranks call it, and the first one writes.

    Args:
        state: What is written.
        context: Of the run.
        path: Where to; None: it is the newest checkpoint, and the one before is kept.

    Raises:
        DivergenceError: if a number in it is not finite; the files stay as they were.
        WriteError: if the disk is full or the folder cannot be written.
    """
    state.check_finite()
    tensors = state.tensors()
    run, ranks = context.run, state.execution.ranks
    with together(ranks):
        if not ranks.is_main:
            return
        metadata = {**context.metadata, **state.metadata()}
        previous = run.previous if path is None else None
        checkpoint.write(path or run.last, tensors, metadata, previous=previous)


def advise(error: DivergenceError, context: RunContext) -> DivergenceError:
    """The same with the last checkpoint before, and what to try."""
    run, config = context.run, context.config
    try:
        position = checkpoint.read_metadata(run.last)["position"]
        last = (
            f"; the last good checkpoint is {run.last} (epoch {position['epoch'] + 1}, "
            f"step {position['step']})"
        )
    except CheckpointError:
        # Of several processes not all may see it.
        last = ""
    advice = f"start a new run with an --lr below {config.weights.lr:g}"
    if config.compute.precision != "fp32":
        advice = f"go on with {context.resume_command} --precision fp32, or {advice}"
    return DivergenceError(f"{error}{last}; {advice}")


@contextmanager
def together(ranks: Ranks) -> Iterator[None]:
    """A block in which the first rank writes: what it cannot write fails for all of them.

    Raises:
        WriteError: if there was one.
    """
    found: WriteError | None = None
    try:
        yield
    except WriteError as error:
        found = error
    except ConfigError as error:
        # The folder of a file is gone, which is no setting's fault.
        found = WriteError(str(error))
    (failed,) = ranks.all_reduce_max(found is not None)
    if failed:
        raise found or unwritten_elsewhere()


def unwritten_elsewhere() -> WriteError:
    """What the other ranks say of a file that the first one cannot write."""
    return WriteError("the first process of this run cannot write: see what it says")


def rescue(state: State, context: RunContext, error: WriteError) -> WriteError:
    """Write the state wherever there is a place for it; all ranks call it.

    Args:
        state: As it was when something could not be written.
        context: Of the run.
        error: What went wrong.

    Returns:
        The same with where the state is, if it could be written.
    """
    state.check_finite()
    tensors, metadata = state.tensors(), {**context.metadata, **state.metadata()}
    if not state.execution.ranks.is_main:
        return error
    run, done = context.run, state.position.total
    what = f"{str(error).split('; ')[0]}; the state after step {done} is"
    name = f"{run.path.resolve().name}-step-{done}.safetensors"
    others = (run.path.resolve().parent, Path.cwd(), Path(tempfile.gettempdir()))
    for path in (run.last, *(folder / name for folder in others)):
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


def write_architecture(state: State, context: RunContext) -> SearchSnapshot:
    """Write the alphas after the epochs done, and the genotype that they stand for.

    Returns:
        What they look like, beside those of the epoch before, which the first rank knows.

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
    is_main = state.execution.ranks.is_main
    snapshot = take_snapshot(
        context.space,
        _as_lists(alphas),
        epoch=epoch,
        name=f"{run.path.name}-epoch-{epoch}",
        before=read_snapshot(context, epoch - 1) if is_main else None,
        origin=origin(metadata, run.path.name, epoch),
    )
    if is_main:
        named = {f"alphas.{cell}": alpha for cell, alpha in alphas.items()}
        checkpoint.write(run.alphas_of(epoch), named, metadata)
        write_text(run.genotype, dump(snapshot.genotype))
    return snapshot


def _as_lists(alphas: Mapping[str, Tensor]) -> Alphas:
    return {cell: alpha.tolist() for cell, alpha in alphas.items()}


def read_snapshot(context: RunContext, epoch: int) -> SearchSnapshot | None:
    """An epoch of this run by its files; None if there is none, or nothing is left of it.

    By files, not by what this process remembers: a resumed run tells the same as one never
    stopped, and one that was killed behind its genotype's file compares with the right one.
    """
    run, space = context.run, context.space
    try:
        tensors, _ = checkpoint.read(run.alphas_of(epoch))
        alphas = _as_lists(checked_alphas(tensors, space))
        last = next(line for line in reversed(run.read_metrics()) if line["epoch"] == epoch)
    except (CheckpointError, LookupError, StopIteration):
        return None
    signals = Signals.from_record(last, space)
    snapshot = take_snapshot(space, alphas, epoch=epoch, name="", before=None)
    # A run that an older version began says nothing of them.
    return replace(snapshot, signals=signals) if signals is not None else snapshot


def checked_alphas(tensors: Mapping[str, Tensor], space: SearchSpace) -> dict[str, Tensor]:
    """The alphas of each cell in a checkpoint.

    Raises:
        CheckpointError: if they are not those of the space, or no finite numbers.
    """
    shape, alphas = [len(space.edges), len(space.primitives)], {}
    for cell in space.cells:
        name = f"alphas.{cell}"
        alpha = tensors.get(name)
        if alpha is None or list(alpha.shape) != shape:
            found = "none" if alpha is None else f"shape {list(alpha.shape)}"
            raise CheckpointError(f"{name}: found {found}, expected alphas of shape {shape}")
        if not alpha.is_floating_point():
            raise CheckpointError(f"{name}: found {alpha.dtype}, expected floating point numbers")
        if not alpha.isfinite().all():
            raise CheckpointError(
                f"{name}: found numbers that are not finite, expected finite ones"
            )
        alphas[cell] = alpha
    return alphas


def origin(metadata: Mapping[str, Any], run: str, epoch: int) -> dict[str, Any]:
    """Where a derived genotype comes from, for its file."""
    config = metadata["config"]
    return {
        "run": run,
        "epoch": epoch,
        "seed": config["seed"],
        "order": config["alphas"]["order"],
        "strategy": config["alphas"]["strategy"],
        # By name: where it lies on one machine is nobody else's business.
        "data": Path(config["data"]["name"]).name,
        "date": datetime.now(UTC).date().isoformat(),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Of darts and of what its numbers depend on."""
    return {
        "darts": __version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }
