"""Carry out a search or training, new or resumed: from options to the last epoch.

A resumed run differs from a new one in where its settings and its state come
from, and in the checks that its checkpoint needs (`resume.py`).
"""

import shlex
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import torch
from rich.console import Console

from darts_cli import config_file
from darts_cli.commands import plan
from darts_cli.commands.build import build_state
from darts_cli.commands.checkpoint_checks import check_position
from darts_cli.commands.plan import Plan
from darts_cli.commands.resume import Saved
from darts_cli.commands.run_spec import RunSpec, absolute_data, naming, run_metadata
from darts_cli.commands.settings import given_settings
from darts_cli.commands.tensorboard import TensorBoardWriter, check_installed
from darts_cli.config import Config
from darts_cli.engine import artifacts
from darts_cli.engine.artifacts import RunContext, versions
from darts_cli.engine.loop import fit
from darts_cli.engine.probe import take
from darts_cli.engine.state import State
from darts_cli.engine.task import Data, DatasetInfo, Loaders
from darts_cli.errors import ConfigError, DataError
from darts_cli.genotype.file import dump
from darts_cli.options import RunOptions, check_resumable
from darts_cli.run.directory import Run
from darts_cli.run.files import write_text
from darts_cli.runtime import devices
from darts_cli.runtime.determinism import deterministically
from darts_cli.runtime.interruption import exit_on_signal
from darts_cli.runtime.memory import MemoryMeter
from darts_cli.runtime.ranks import Ranks, launched_by_torchrun, process_group
from darts_cli.terminal.console import error_console
from darts_cli.terminal.reporter import Mode, Reporter
from darts_cli.viz.style import colour


@dataclass(frozen=True, slots=True)
class _Launch:
    """A run that begins or is resumed, and where it is computed."""

    spec: RunSpec
    path: Path
    """Directory of the run."""
    options: RunOptions
    device: torch.device
    ranks: Ranks
    saved: Saved | None = None
    """Checkpoint of a resumed run."""

    @property
    def info(self) -> DatasetInfo | None:
        """Dataset info of a resumed run, to which its data is held."""
        return self.saved.metadata["facts"] if self.saved is not None else None


def start(spec: RunSpec, options: RunOptions) -> None:
    """Carry out a new run, or print its plan.

    Raises:
        DartsError: for whatever a user can mend.
        Interrupted: if a signal came.
    """
    with exit_on_signal("nothing was begun"):
        device = choose_device(options.gpu, options.device)
        located = replace(spec, config=_with_absolute_paths(spec))
        with process_group(device) as ranks:
            path = Path(ranks.broadcast(str(options.out or _default_path(spec))))
            _carry_out(
                _Launch(spec=located, path=path, options=options, device=device, ranks=ranks)
            )


def resume(words: str, options: RunOptions) -> None:
    """Carry out the rest of a run under its own settings.

    Args:
        words: The command that the run must be of, as `RunSpec.words` has it.
        options: What the user said.

    Raises:
        DartsError: for whatever a user can mend.
        Interrupted: if a signal came.
    """
    check_resumable(options)
    with exit_on_signal("the run is where it was"):
        if options.resume is None:
            raise ConfigError("--resume: expected the directory of a run")
        run = Run.open(options.resume)
        device = choose_device(options.gpu, options.device)
        with process_group(device) as ranks:
            writes = ranks.is_main and not (options.dry_run or options.probe)
            with run.locked() if writes else nullcontext():
                saved = Saved.read(run, words)
                spec = _with_overrides(saved, options)
                _carry_out(_Launch(spec, run.path, options, device, ranks, saved))


def _carry_out(launch: _Launch) -> None:
    """Load the data, build the state, and train; or print what that would take."""
    spec, saved, options, ranks = launch.spec, launch.saved, launch.options, launch.ranks
    _check_options(spec.config, options, ranks)
    with deterministically(spec.config.compute.deterministic):
        if options.dry_run and not options.probe:
            _print_outline(launch)
            return
        if saved is None and ranks.is_main:
            Run.check_new(launch.path)
        with ranks.local_main_first():
            data = _load(launch)
            loaders = open_loaders(spec, data, ranks)
            if saved is not None:
                saved.check_content(data)
        # Before anything is written: settings or data that are of no use leave nothing behind.
        info = launch.info or data.describe()
        planned = _plan(launch, info, data.counts)
        state = build_state(spec, info, launch.device, ranks)
        if saved is not None:
            with naming(saved.file):
                state.load_state_dict(saved.tensors, saved.metadata)
            check_position(spec, state, loaders, data.counts, saved.file)
        if options.probe:
            with devices.memory_errors():
                probe = take(state, loaders, spec.config, MemoryMeter(launch.device))
            if ranks.is_main:
                plan.print_json(planned, probe)
            return
        _run(launch, planned, state, data, loaders)


def _run(launch: _Launch, planned: Plan, state: State, data: Data, loaders: Loaders) -> None:
    """Train to the last epoch or step in the run's directory, and print where that is.

    Raises:
        DartsError: as `fit` does, or if a device has too little memory, or the disk is full.
        Interrupted: if a signal came.
    """
    spec, saved, ranks, path = launch.spec, launch.saved, launch.ranks, launch.path
    with ExitStack() as stack:
        if saved is not None:
            saved.rewind(state, ranks)
        elif ranks.is_main:
            stack.enter_context(Run.create(path).locked())
        context = _open_context(launch, data, loaders)
        if saved is not None and spec != saved.spec:
            # First of all, since a run that is killed resumes as its checkpoint says.
            artifacts.save(state, context)
        if ranks.is_main:
            _write_settings(launch, planned)
        with devices.memory_errors():
            finished = fit(state, context)
        if not finished:
            done = state.position.total
            context.reporter.say(
                f"stopped after {done} step{'' if done == 1 else 's'}, state saved; "
                f"go on with: {context.resume_command}",
                always=True,
            )
        if ranks.is_main:
            print(path)


def choose_device(gpu: int | None, name: str | None) -> torch.device:
    """Return the device that was asked for, or the best one there is: see `devices.choose`."""
    place = launched_by_torchrun()
    return devices.choose(gpu, name, local_rank=place.local_rank if place is not None else None)


def _with_absolute_paths(spec: RunSpec) -> Config:
    """Name data by absolute paths, so that a run can be resumed from any folder."""
    data = spec.config.data
    # A path that begins with ~ is the same from everywhere.
    root = data.root if data.root.startswith("~") else str(Path(data.root).resolve())
    return replace(
        spec.config, data=replace(data, name=absolute_data(data.name, spec.task), root=root)
    )


def _default_path(spec: RunSpec) -> Path:
    what = spec.config.space if spec.genotype is None else spec.genotype.name
    data, now = Path(spec.config.data.name).name, datetime.now().astimezone()
    return Path("runs") / f"{spec.command}-{what}-{data}-{now:%Y%m%d-%H%M%S}"


def _with_overrides(saved: Saved, options: RunOptions) -> RunSpec:
    """Return what is resumed, with the settings that flags change.

    Raises:
        ConfigError: if one of them is not possible.
    """
    before, done = saved.spec.config, saved.metadata["position"]["epoch"]
    config = config_file.override(before, given_settings(options, before), "--resume")
    if options.epochs is not None and options.epochs < done:
        raise ConfigError(
            f"--epochs {options.epochs}: the run has done {done} already, expected {done} or more"
        )
    return replace(saved.spec, config=config)


def _check_options(config: Config, options: RunOptions, ranks: Ranks) -> None:
    """Check what can be checked before any data is read.

    Raises:
        ConfigError: if options do not go together.
    """
    if options.tensorboard:
        check_installed()
    compute, parts, size = config.compute, config.compute.accumulate, config.data.batch_size
    # BatchNorm needs two examples in every micro-batch.
    needed = 2 * parts * ranks.size
    if parts * ranks.size > 1 and size < needed:
        raise ConfigError(
            f"--batch-size {size}: expected {needed} or more, two examples for each of "
            f"{parts} part{'' if parts == 1 else 's'} on each of {ranks.size} "
            f"process{'' if ranks.size == 1 else 'es'}; use a larger one, or fewer of them"
        )
    # Under these torch differentiates plain formulas, which keep all activations.
    others = {
        f"--precision {compute.precision}": compute.precision in {"bf16", "fp16"},
        "--compile": compute.compile,
        "--sync-batchnorm": compute.sync_batchnorm and ranks.size > 1,
    }
    for name, given in others.items():
        if compute.memory == "save" and given:
            raise ConfigError(
                f"--memory save: found {name}, with which nothing is saved; "
                "leave one of them out, or use --accumulate N for less memory"
            )


def _plan(launch: _Launch, info: DatasetInfo, counts: Mapping[str, int]) -> Plan:
    """Return what a run will take.

    Raises:
        ConfigError: if the strategy is unknown, or memory cannot be saved.
    """
    spec, ranks = launch.spec, launch.ranks
    size = plan.measure(spec.task, spec.config, info, spec.genotype, ranks=ranks)
    return Plan(spec, info, counts, launch.device, launch.path, size, ranks)


def _print_outline(launch: _Launch) -> None:
    """Print the plan, reading as little of the data as that takes."""
    spec, ranks = launch.spec, launch.ranks
    if launch.saved is not None:
        with ranks.local_main_first():
            data = _load(launch)
            launch.saved.check_content(data)
        info, counts = launch.saved.metadata["facts"], data.counts
    elif ranks.is_main:
        info, counts = spec.task.outline(spec.config, search=spec.search)
    else:
        return
    planned = _plan(launch, info, counts)
    if ranks.is_main:
        plan.print_json(planned)


def _load(launch: _Launch) -> Data:
    spec = launch.spec
    data = spec.task.load(
        spec.config, launch.device, search=spec.search, info=launch.info, ranks=launch.ranks
    )
    if launch.saved is not None:
        launch.saved.check_counts(data)
    return data


def open_loaders(spec: RunSpec, data: Data, ranks: Ranks) -> Loaders:
    """Return the loaders of a run.

    Raises:
        DataError: if there is not one batch for every rank.
    """
    seed = spec.config.seed
    loaders = data.search_loaders(seed) if spec.search else data.train_loaders(seed)
    for loader in (loaders.train, loaders.arch):
        if loader is not None and not loader.steps(0):
            raise DataError(
                f"{spec.config.data.name}: found too little for one batch, expected two examples "
                f"or more for each of {ranks.size} processes; use more data or fewer of them"
            )
    return loaders


def _write_settings(launch: _Launch, planned: Plan) -> None:
    """Show the plan, and write the run's settings and the genotype that is trained.

    Raises:
        WriteError: if the disk is full or the directory cannot be written.
    """
    spec, run = launch.spec, Run(launch.path)
    if not launch.options.quiet:
        plan.show(planned)
    notes = {"command": spec.command, "versions": versions()}
    write_text(run.config, config_file.dump(spec.config, notes))
    if launch.saved is None and spec.genotype is not None:
        write_text(run.genotype, dump(spec.genotype))


def _open_context(launch: _Launch, data: Data, loaders: Loaders) -> RunContext:
    """Return what `fit` works with."""
    spec, options, ranks, run = launch.spec, launch.options, launch.ranks, Run(launch.path)
    info, space = data.describe(), spec.task.space
    unit = spec.task.describe(spec.config, info).unit
    seconds, steps = options.checkpoint_interval()
    # Rank 0 alone speaks.
    console, log = (error_console(), run.log) if ranks.is_main else (Console(quiet=True), None)
    mode = Mode.QUIET if options.quiet else Mode.PLAIN if options.no_live else Mode.LIVE
    program, place = "darts", launched_by_torchrun()
    if place is not None and ranks.size > 1:
        # Starts as many processes on this machine.
        program = f"torchrun --nproc-per-node {place.local_size} -m darts_cli"
    callbacks = []
    if options.tensorboard and ranks.is_main:
        first = len(run.read_metrics()) + 1
        callbacks = [TensorBoardWriter(run.path, space, spec.genotype, first=first)]
    return RunContext(
        config=spec.config,
        space=space,
        loaders=loaders,
        run=run,
        reporter=Reporter(console, log, unit, mode=mode, colour=colour),
        metadata=run_metadata(spec, info, data.counts, data.fingerprints),
        checkpoint_seconds=seconds,
        checkpoint_steps=steps,
        max_steps=options.max_steps,
        callbacks=callbacks,
        resume_command=f"{program} {spec.words} --resume {shlex.quote(str(run.path))}",
        device_status=devices.status(launch.device),
    )
