"""A run that goes on: its newest checkpoint, whether the data is still the same, and the rest."""

import os
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from darts_cli.commands import plan
from darts_cli.commands.building import build_state
from darts_cli.commands.checkpoint_checks import (
    check_hidden,
    check_position,
    check_size,
    naming,
)
from darts_cli.commands.options import Options, change_execution, refuse_changes
from darts_cli.commands.reading import read_epoch, read_records
from darts_cli.commands.run_spec import (
    RunSpec,
    check_fingerprints,
    read_spec,
    with_own_root,
)
from darts_cli.commands.running import (
    carry_out,
    check_memory,
    check_parts,
    choose_device,
    open_context,
    open_loaders,
    print_probe,
    write_settings,
)
from darts_cli.engine import artifacts
from darts_cli.engine.state import State
from darts_cli.engine.task import Data
from darts_cli.errors import CheckpointError, ConfigError, DataError
from darts_cli.run import checkpoint
from darts_cli.run.directory import Run
from darts_cli.runtime.determinism import deterministically
from darts_cli.runtime.interruption import exit_on_signal
from darts_cli.runtime.ranks import Ranks, process_group
from darts_cli.terminal.console import error_console


def resume(words: str, options: Options) -> None:
    """Go on with a run under its own settings.

    Args:
        words: The command that it has to be of, as `RunSpec.words` has it.
        options: Those that a run may be resumed with.

    Raises:
        DartsError: for whatever a user can mend.
        Interrupted: if a signal came.
    """
    refuse_changes(options)
    if options.resume is None:
        raise ConfigError("--resume: expected the directory of a run")
    with exit_on_signal("the run is where it was"):
        run = Run.open(options.resume)
        device = choose_device(options)
        with process_group(device) as ranks, deterministically(options.deterministic):
            writes = ranks.is_main and not (options.dry_run or options.probe)
            with run.locked() if writes else nullcontext():
                _resume(words, options, run, device, ranks)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Saved:
    """The checkpoint that a run goes on from."""

    file: Path
    tensors: dict[str, Tensor]
    metadata: dict[str, Any]
    damage: CheckpointError | None
    """Of a newer one, in whose place this is."""


def _resume(words: str, options: Options, run: Run, device: torch.device, ranks: Ranks) -> None:
    saved = _read_newest(run)
    known = _read_spec(words, saved, run)
    spec = _change(known, options, done=saved.metadata["position"]["epoch"])
    check_parts(spec.config, ranks)
    check_memory(spec.config, options, ranks)
    outline = options.dry_run and not options.probe
    with ranks.local_main_first():
        data = _load(spec, saved.metadata, device, ranks)
        loaders = None if outline else open_loaders(spec, data, ranks)
        check_fingerprints(spec, data, saved.metadata, "go on with that data, or start a new run")
    info, save = saved.metadata["facts"], options.save_memory
    planned = plan.make(
        spec, info, data.counts, device=device, path=run.path, save_memory=save, ranks=ranks
    )
    if loaders is None:
        if ranks.is_main:
            plan.print_json(planned)
        return
    state = build_state(spec, info, device, ranks, options)
    with naming(saved.file):
        state.restore(saved.tensors, saved.metadata)
    check_position(spec, state, loaders, data.counts, saved.file)
    if options.probe:
        print_probe(planned, state, loaders, ranks)
        return
    _check_past(run, spec, state.position.epoch)
    _go_back(run, state, saved.damage, ranks)
    context = open_context(spec, run, data, loaders, device, options, ranks)
    if spec != known:
        # Before all else, since a run that is killed goes on as its checkpoint says.
        artifacts.save(state, context)
    write_settings(run, spec, planned, options, ranks)
    carry_out(state, context)


def _read_spec(words: str, saved: _Saved, run: Run) -> RunSpec:
    """What the run is about, by its checkpoint, which is held against what it claims."""
    spec = read_spec(saved.metadata, saved.file)
    if spec.words != words:
        raise ConfigError(
            f"{run.path}: found a run of darts {spec.words}, expected one of darts {words}"
        )
    check_size(spec, saved.metadata["facts"], saved.tensors, saved.file)
    check_hidden(spec, saved.tensors, saved.metadata, saved.file)
    return replace(spec, config=with_own_root(spec.config, run.path))


def _change(spec: RunSpec, options: Options, *, done: int) -> RunSpec:
    """The same with what may be given anew: how it is computed, and for how many epochs."""
    spec = replace(spec, config=change_execution(spec.config, options))
    if options.epochs is None:
        return spec
    if options.epochs < done:
        raise ConfigError(
            f"--epochs {options.epochs}: the run has done {done} already, expected {done} or more"
        )
    return replace(spec, config=replace(spec.config, epochs=options.epochs))


def _load(spec: RunSpec, metadata: Mapping[str, Any], device: torch.device, ranks: Ranks) -> Data:
    info = metadata["facts"]
    data = spec.task.load(spec.config, device, search=spec.search, info=info, ranks=ranks)
    _check_counts(spec, data, metadata["counts"])
    return data


def _go_back(run: Run, state: State, damage: CheckpointError | None, ranks: Ranks) -> None:
    """Leave in the run's files what the checkpoint knows of; the first rank does."""
    # Before one of them writes, all have read.
    ranks.barrier()
    if not ranks.is_main:
        return
    if damage is not None:
        run.put_previous_first()
        _tell(damage, run, state)
    run.keep_metrics(state.position.epoch)


def _read_newest(run: Run) -> _Saved:
    """The newest checkpoint, or the one before it.

    Raises:
        CheckpointError: of the newest one, if neither can be read, or it must not be.
    """
    if not (run.last.exists() or run.previous.exists()):
        raise CheckpointError(
            f"{run.path}: found no checkpoint in it yet; start that run again with --out {run.path}"
        )
    if run.last.exists() and not os.access(run.last, os.R_OK):
        # Not damaged: the one before must not take its place.
        raise CheckpointError(
            f"{run.last}: cannot be read (Permission denied); see that you may read it"
        )
    try:
        return _read(run.last, None)
    except CheckpointError as error:
        try:
            return _read(run.previous, error)
        except CheckpointError:
            raise error from None


def _read(file: Path, damage: CheckpointError | None) -> _Saved:
    tensors, metadata = checkpoint.read(file)
    return _Saved(file=file, tensors=tensors, metadata=metadata, damage=damage)


def _tell(damage: CheckpointError, run: Run, state: State) -> None:
    where = f"epoch {state.position.epoch + 1}, step {state.position.step}"
    error_console().print(
        f"{str(damage).removesuffix(': use another checkpoint')}; kept as {run.damaged.name}, "
        f"and gone on from the checkpoint before it: {where}",
        soft_wrap=True,
        markup=False,
    )


def _check_past(run: Run, spec: RunSpec, epochs: int) -> None:
    """Make sure that what a run goes on from can be read: its lines, and its newest alphas.

    Raises:
        CheckpointError: if not; it would go on as if they had never been.
    """
    space = spec.task.space
    read_records(run, space)
    file = run.alphas_of(epochs)
    if spec.search and file.is_file():
        read_epoch(run, space, file)


def _check_counts(spec: RunSpec, data: Data, expected: Mapping[str, int]) -> None:
    """Make sure that the data is as large as it was when the run began.

    Raises:
        DataError: if it is not; the run would go on as if nothing had happened.
    """
    unit = spec.task.describe(spec.config, data.describe()).unit
    counts = data.counts
    for split, number in expected.items():
        found = counts.get(split, 0)
        if found != number:
            raise DataError(
                f"{spec.config.data.name}: found {found:,} {split} {unit}s, expected the "
                f"{number:,} that the run began with; give it that data, or start a new run"
            )
