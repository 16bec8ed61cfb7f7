"""The story that `search` and `train` share: plan, load, build, fit, say where the result is."""

import shlex
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from darts_cli import checkpoint, config_file
from darts_cli.commands import plan
from darts_cli.commands.building import build_state
from darts_cli.commands.job import Job, read_job
from darts_cli.commands.options import Options, change_computation, refuse_changes
from darts_cli.commands.plan import Plan
from darts_cli.config import Config
from darts_cli.engine import devices
from darts_cli.engine.artifacts import Session, versions
from darts_cli.engine.footprint import Footprint
from darts_cli.engine.loop import fit
from darts_cli.engine.probe import take
from darts_cli.engine.ranks import Ranks, joined, started
from darts_cli.engine.state import State
from darts_cli.engine.task import Data, Streams
from darts_cli.errors import CheckpointError, ConfigError, DataError
from darts_cli.files import write_text
from darts_cli.genotype import dump
from darts_cli.progress import Reporter, error_console
from darts_cli.run import Run


def start(job: Job, options: Options) -> None:
    """Carry out a new run, or print its plan.

    Raises:
        DartsError: for whatever a user can mend.
    """
    device = _choose_device(options)
    job = replace(job, config=_locate(job))
    with joined(device) as ranks:
        _check_parts(job.config, ranks)
        _check_memory(job.config, options, ranks)
        path = Path(ranks.tell(str(options.out or _default_path(job))))
        if options.dry_run and not options.probe:
            _print_outline(job, options, device, path, ranks)
        else:
            _start(job, options, device, path, ranks)


def _print_outline(
    job: Job, options: Options, device: torch.device, path: Path, ranks: Ranks
) -> None:
    if not ranks.leads:
        return
    facts, counts = job.domain.outline(job.config, search=job.search)
    save = options.save_memory
    plan.print_json(
        plan.make(job, facts, counts, device=device, path=path, save_memory=save, ranks=ranks)
    )


def _start(job: Job, options: Options, device: torch.device, path: Path, ranks: Ranks) -> None:
    save = options.save_memory
    if ranks.leads:
        Run.check_new(path)
    with ranks.first_of_machine():
        data = job.domain.load(job.config, device, search=job.search, ranks=ranks)
        streams = _streams(job, data, ranks)
    # Before anything is written: settings or images that are no use leave nothing behind.
    facts = data.describe()
    planned = plan.make(
        job, facts, data.counts, device=device, path=path, save_memory=save, ranks=ranks
    )
    state = build_state(job, facts, device, ranks, options)
    if options.probe:
        _print_probe(planned, state, streams, ranks)
        return
    run = Run.create(path) if ranks.leads else Run(path)
    with run.locked() if ranks.leads else nullcontext():
        _write_settings(run, job, planned, ranks)
        if job.genotype is not None and ranks.leads:
            write_text(run.genotype, dump(job.genotype))
        _carry_out(state, _open_session(job, run, data, streams, device, options, ranks))


def _print_probe(planned: Plan, state: State, streams: Streams, ranks: Ranks) -> None:
    footprint = Footprint(planned.device)
    with devices.one_line_out_of_memory():
        probe = take(state, streams, planned.job.config, footprint)
    if ranks.leads:
        plan.print_json(planned, probe)


def _choose_device(options: Options) -> torch.device:
    place = started()
    return devices.choose(
        options.gpu, options.device, local_rank=place.local_rank if place is not None else None
    )


def _check_parts(config: Config, ranks: Ranks) -> None:
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


def _check_memory(config: Config, options: Options, ranks: Ranks) -> None:
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


def _write_settings(run: Run, job: Job, planned: Plan, ranks: Ranks) -> None:
    if ranks.leads:
        plan.show(planned)
        write_text(run.config, config_file.dump(job.config, _notes(job)))


def _locate(job: Job) -> Config:
    """The settings with data by absolute paths, so that a run goes on from anywhere."""
    config = job.config
    name, root = config.data.name, config.data.root
    folder = Path(name).expanduser()
    if name not in job.domain.data_names and folder.is_dir():
        name = str(folder.resolve())
    # What begins with ~ is the same from everywhere.
    if not root.startswith("~"):
        root = str(Path(root).resolve())
    return replace(config, data=replace(config.data, name=name, root=root))


def resume(words: str, options: Options) -> None:
    """Go on with a run under its own settings.

    Args:
        words: The command that it has to be of, as `Job.words` has it.
        options: Those that a run may be resumed with.

    Raises:
        DartsError: for whatever a user can mend.
    """
    refuse_changes(options)
    if options.resume is None:
        raise ConfigError("--resume: expected the directory of a run")
    run = Run.open(options.resume)
    device = _choose_device(options)
    with joined(device) as ranks:
        writes = ranks.leads and not (options.dry_run or options.probe)
        with run.locked() if writes else nullcontext():
            _resume(words, options, run, device, ranks)


def _resume(words: str, options: Options, run: Run, device: torch.device, ranks: Ranks) -> None:
    tensors, metadata, damage = _read_newest(run)
    job = read_job(metadata, run.last if damage is None else run.previous)
    if job.words != words:
        raise ConfigError(
            f"{run.path}: found a run of darts {job.words}, expected one of darts {words}"
        )
    job = replace(job, config=change_computation(job.config, options))
    _check_parts(job.config, ranks)
    _check_memory(job.config, options, ranks)
    if options.epochs is not None:
        job = _extend(job, options.epochs, done=metadata["position"]["epoch"])
    facts, save = metadata["facts"], options.save_memory
    outline = options.dry_run and not options.probe
    with ranks.first_of_machine():
        data = job.domain.load(job.config, device, search=job.search, facts=facts, ranks=ranks)
        _check_counts(job, data, metadata["counts"])
        streams = None if outline else _streams(job, data, ranks)
    planned = plan.make(
        job, facts, data.counts, device=device, path=run.path, save_memory=save, ranks=ranks
    )
    if streams is None:
        if ranks.leads:
            plan.print_json(planned)
        return
    state = build_state(job, facts, device, ranks, options)
    state.restore(tensors, metadata)
    if options.probe:
        _print_probe(planned, state, streams, ranks)
        return
    # Before one of them writes, all have read.
    ranks.wait()
    if damage is not None and ranks.leads:
        run.put_previous_first()
        error_console().print(
            f"{str(damage).removesuffix(': use another checkpoint')}; kept as {run.damaged.name}, "
            f"and gone on from the checkpoint before it: {_name(state)}",
            soft_wrap=True,
            markup=False,
        )
    _write_settings(run, job, planned, ranks)
    if ranks.leads:
        run.keep_metrics(state.position.epoch)
    session = _open_session(job, run, data, streams, device, options, ranks)
    _carry_out(state, session)


def _read_newest(run: Run) -> tuple[dict[str, Tensor], dict[str, Any], CheckpointError | None]:
    """The newest checkpoint, or the one before it, and then why.

    Raises:
        CheckpointError: of the newest one, if neither can be read.
    """
    if not (run.last.exists() or run.previous.exists()):
        raise CheckpointError(
            f"{run.path}: found no checkpoint in it yet; start that run again with --out {run.path}"
        )
    try:
        return *checkpoint.read(run.last), None
    except CheckpointError as error:
        try:
            return *checkpoint.read(run.previous), error
        except CheckpointError:
            raise error from None


def _name(state: State) -> str:
    return f"epoch {state.position.epoch + 1}, step {state.position.step}"


def _check_counts(job: Job, data: Data, expected: Mapping[str, int]) -> None:
    """Make sure that the data is as large as it was when the run began.

    Raises:
        DataError: if it is not; the run would go on as if nothing had happened.
    """
    unit = job.domain.describe(job.config, data.describe()).unit
    counts = data.counts
    for split, number in expected.items():
        found = counts.get(split, 0)
        if found != number:
            raise DataError(
                f"{job.config.data.name}: found {found:,} {split} {unit}s, expected the "
                f"{number:,} that the run began with; give it that data, or start a new run"
            )


def _extend(job: Job, epochs: int, *, done: int) -> Job:
    """The same run with another number of epochs."""
    if epochs < done:
        raise ConfigError(
            f"--epochs {epochs}: the run has done {done} already, expected {done} or more"
        )
    return replace(job, config=replace(job.config, epochs=epochs))


def _streams(job: Job, data: Data, ranks: Ranks) -> Streams:
    """What a run reads.

    Raises:
        DataError: if there is not a batch of it for every process.
    """
    seed = job.config.seed
    streams = data.search_streams(seed) if job.search else data.train_streams(seed)
    for stream in (streams.weights, streams.alphas):
        if stream is not None and not stream.steps(0):
            raise DataError(
                f"{job.config.data.name}: found too little for one batch, expected two examples "
                f"or more for each of {ranks.size} processes; use more data or fewer of them"
            )
    return streams


def _open_session(
    job: Job,
    run: Run,
    data: Data,
    streams: Streams,
    device: torch.device,
    options: Options,
    ranks: Ranks,
) -> Session:
    facts = data.describe()
    unit = job.domain.describe(job.config, facts).unit
    seconds, steps = options.checkpoint_interval()
    # One of the processes speaks.
    console, log = (error_console(), run.log) if ranks.leads else (Console(quiet=True), None)
    return Session(
        config=job.config,
        space=job.domain.space,
        streams=streams,
        run=run,
        reporter=Reporter(console, log, unit),
        metadata={
            "kind": job.command,
            "config": config_file.as_mapping(job.config),
            "facts": facts,
            "counts": dict(data.counts),
            "genotype": dump(job.genotype) if job.genotype is not None else None,
            "versions": versions(),
        },
        checkpoint_seconds=seconds,
        checkpoint_steps=steps,
        max_steps=options.max_steps,
        resume_command=f"{_program(ranks)} {job.words} --resume {shlex.quote(str(run.path))}",
        device_status=devices.status(device),
    )


def _program(ranks: Ranks) -> str:
    """What starts as many processes on this machine."""
    place = started()
    if place is None or ranks.size == 1:
        return "darts"
    return f"torchrun --nproc-per-node {place.local_size} -m darts_cli"


def _carry_out(state: State, session: Session) -> None:
    with devices.one_line_out_of_memory():
        finished = fit(state, session)
    if not finished:
        done = state.position.total
        session.reporter.say(
            f"stopped after {done} step{'' if done == 1 else 's'}, state saved; "
            f"go on with: {session.resume_command}"
        )
    if state.computation.ranks.leads:
        print(session.run.path)


def _default_path(job: Job) -> Path:
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    what = job.config.space if job.genotype is None else job.genotype.name
    return Path("runs") / f"{job.command}-{what}-{Path(job.config.data.name).name}-{stamp}"


def _notes(job: Job) -> dict[str, Any]:
    return {"command": job.command, "versions": versions()}
