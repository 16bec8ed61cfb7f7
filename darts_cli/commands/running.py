"""What new and resumed runs share: checks, settings, streams, the session, the run itself."""

import shlex
from typing import Any

import torch
from rich.console import Console

from darts_cli import config_file
from darts_cli.commands import plan
from darts_cli.commands.options import Options
from darts_cli.commands.plan import Plan
from darts_cli.commands.run_spec import RunSpec
from darts_cli.commands.tensorboard import TensorBoardWriter
from darts_cli.config import Config
from darts_cli.engine.artifacts import RunContext, versions
from darts_cli.engine.loop import fit
from darts_cli.engine.probe import take
from darts_cli.engine.state import State
from darts_cli.engine.task import Data, Loaders
from darts_cli.errors import ConfigError, DataError
from darts_cli.genotype.file import dump
from darts_cli.run.directory import Run
from darts_cli.run.files import write_text
from darts_cli.runtime import devices
from darts_cli.runtime.memory import MemoryMeter
from darts_cli.runtime.ranks import Ranks, launched_by_torchrun
from darts_cli.terminal.console import error_console
from darts_cli.terminal.reporter import Mode, Reporter
from darts_cli.viz.style import colour


def choose_device(options: Options) -> torch.device:
    """The device that was asked for, or the best one there is: see `devices.choose`."""
    place = launched_by_torchrun()
    return devices.choose(
        options.gpu, options.device, local_rank=place.local_rank if place is not None else None
    )


def check_parts(config: Config, ranks: Ranks) -> None:
    """Make sure that every part of a batch has two examples.

    Raises:
        ConfigError: if it has not.
    """
    parts, size = config.compute.accumulate, config.data.batch_size
    needed = 2 * parts * ranks.size
    if parts * ranks.size > 1 and size < needed:
        raise ConfigError(
            f"--batch-size {size}: expected {needed} or more, two examples for each of "
            f"{parts} part{'' if parts == 1 else 's'} on each of {ranks.size} "
            f"process{'' if ranks.size == 1 else 'es'}; use a larger one, or fewer of them"
        )


def check_memory(config: Config, options: Options, ranks: Ranks) -> None:
    """Make sure that memory is saved where that was asked for.

    Raises:
        ConfigError: if it would not be: by formulas that torch differentiates nothing is.
    """
    compute = config.compute
    others = {
        f"--precision {compute.precision}": compute.precision in {"bf16", "fp16"},
        "--compile": options.compile,
        "--sync-batchnorm": compute.sync_batchnorm and ranks.size > 1,
    }
    for flag, given in others.items():
        if options.save_memory and given:
            raise ConfigError(
                f"--memory save: found {flag}, with which nothing is saved; "
                "leave one of them out, or use --accumulate N for less memory"
            )


def write_settings(run: Run, spec: RunSpec, planned: Plan, options: Options, ranks: Ranks) -> None:
    """Show the plan and write `config.yaml`; the first rank does.

    Raises:
        WriteError: if the disk is full or the directory cannot be written.
    """
    if ranks.is_main:
        if not options.quiet:
            plan.show(planned)
        write_text(run.config, config_file.dump(spec.config, _notes(spec)))


def print_probe(planned: Plan, state: State, loaders: Loaders, ranks: Ranks) -> None:
    """Take a few steps, and print the plan with what they tell; all ranks take part.

    Raises:
        DeviceMemoryError: if a step does not fit.
    """
    memory = MemoryMeter(planned.device)
    with devices.memory_errors():
        probe = take(state, loaders, planned.spec.config, memory)
    if ranks.is_main:
        plan.print_json(planned, probe)


def open_loaders(spec: RunSpec, data: Data, ranks: Ranks) -> Loaders:
    """What a run reads.

    Raises:
        DataError: if there is not a batch of it for every process.
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


def open_context(
    spec: RunSpec,
    run: Run,
    data: Data,
    loaders: Loaders,
    device: torch.device,
    options: Options,
    ranks: Ranks,
) -> RunContext:
    """What `fit` works with."""
    info = data.describe()
    unit = spec.task.describe(spec.config, info).unit
    seconds, steps = options.checkpoint_interval()
    # One of the processes speaks.
    console, log = (error_console(), run.log) if ranks.is_main else (Console(quiet=True), None)
    return RunContext(
        config=spec.config,
        space=spec.task.space,
        loaders=loaders,
        run=run,
        reporter=Reporter(console, log, unit, mode=_mode(options), colour=colour),
        metadata={
            "kind": spec.command,
            "config": config_file.as_mapping(spec.config),
            "facts": info,
            "counts": dict(data.counts),
            "fingerprints": dict(data.fingerprints),
            "genotype": dump(spec.genotype) if spec.genotype is not None else None,
            "versions": versions(),
        },
        checkpoint_seconds=seconds,
        checkpoint_steps=steps,
        max_steps=options.max_steps,
        listeners=[_open_tensorboard(spec, run)] if options.tensorboard and ranks.is_main else [],
        resume_command=f"{_program(ranks)} {spec.words} --resume {shlex.quote(str(run.path))}",
        device_status=devices.status(device),
    )


def _open_tensorboard(spec: RunSpec, run: Run) -> TensorBoardWriter:
    return TensorBoardWriter(
        run.path, spec.task.space, spec.genotype, first=len(run.read_metrics()) + 1
    )


def _mode(options: Options) -> Mode:
    if options.quiet:
        return Mode.QUIET
    return Mode.PLAIN if options.no_live else Mode.LIVE


def _program(ranks: Ranks) -> str:
    """What starts as many processes on this machine."""
    place = launched_by_torchrun()
    if place is None or ranks.size == 1:
        return "darts"
    return f"torchrun --nproc-per-node {place.local_size} -m darts_cli"


def carry_out(state: State, context: RunContext) -> None:
    """Train to the last epoch or step, and print where the run is.

    Raises:
        DartsError: as `fit` does, or if a device has too little memory.
        Interrupted: if a signal came.
    """
    with devices.memory_errors():
        finished = fit(state, context)
    if not finished:
        done = state.position.total
        context.reporter.say(
            f"stopped after {done} step{'' if done == 1 else 's'}, state saved; "
            f"go on with: {context.resume_command}",
            always=True,
        )
    if state.execution.ranks.is_main:
        print(context.run.path)


def _notes(spec: RunSpec) -> dict[str, Any]:
    return {"command": spec.command, "versions": versions()}
