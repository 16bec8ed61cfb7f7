"""The story that `search` and `train` share: plan, load, build, fit, say where the result is."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from darts_cli import checkpoint, config_file
from darts_cli.commands import plan
from darts_cli.commands.options import Options, refuse_changes
from darts_cli.config import RECIPES, AlphasConfig, Config
from darts_cli.engine import artifacts, devices, strategies
from darts_cli.engine.architect import Architect
from darts_cli.engine.artifacts import Session, versions
from darts_cli.engine.loop import fit
from darts_cli.engine.meter import Meter
from darts_cli.engine.randomness import count, generator
from darts_cli.engine.state import State
from darts_cli.engine.task import Data, Domain, Facts, Streams
from darts_cli.errors import CheckpointError, ConfigError
from darts_cli.files import write_text
from darts_cli.genotype import Genotype, dump
from darts_cli.genotype_file import parse
from darts_cli.progress import Reporter, error_console, plan_table
from darts_cli.run import Run
from darts_cli.spaces import SPACES
from darts_cli.spaces.domains import DOMAINS

_METADATA = ("kind", "config", "facts", "genotype", "position", "best")
"""What the metadata of a whole checkpoint has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What a run is about."""

    command: str
    """`search` or `train`."""
    config: Config
    genotype: Genotype | None
    """What is trained; None in a search."""

    @property
    def domain(self) -> Domain:
        """Networks and data of the space."""
        return DOMAINS[self.config.space]

    @property
    def search(self) -> bool:
        """Whether this is a search, which reads training data alone."""
        return self.genotype is None


def start(job: Job, options: Options) -> None:
    """Carry out a new run, or print its plan.

    Raises:
        DartsError: for whatever a user can mend.
    """
    device = devices.choose(options.gpu, options.device)
    job = replace(job, config=job.domain.locate(job.config))
    path = options.out or _default_path(job)
    if options.dry_run:
        facts, counts = job.domain.outline(job.config, search=job.search)
        _print_plan(_plan(job, facts, counts, device=device, path=path))
        return
    Run.check_new(path)
    data = job.domain.load(job.config, device, search=job.search)
    # Before anything is written: settings or images that are no use leave nothing behind.
    planned = _plan(job, data.describe(), data.counts, device=device, path=path)
    streams = _streams(job, data)
    state = _build_state(job, data.describe(), device)
    run = Run.create(path)
    _show_plan(planned)
    write_text(run.config, config_file.dump(job.config, _notes(job)))
    if job.genotype is not None:
        write_text(run.genotype, dump(job.genotype))
    session = _open_session(job, run, data.describe(), streams, device, options)
    # So that a run that is killed at any later moment can be resumed.
    artifacts.save(state, session)
    _carry_out(state, session)


def resume(command: str, options: Options) -> None:
    """Go on with a run under its own settings.

    Raises:
        DartsError: for whatever a user can mend.
    """
    refuse_changes(options)
    if options.resume is None:
        raise ConfigError("--resume: expected the directory of a run")
    run = Run.open(options.resume)
    device = devices.choose(options.gpu, options.device)
    tensors, metadata = checkpoint.read(run.last)
    job = read_job(metadata, run.last)
    if job.command != command:
        raise ConfigError(
            f"{run.path}: found a run of darts {job.command}, expected one of darts {command}"
        )
    if options.epochs is not None:
        job = _extend(job, options.epochs, done=metadata["position"]["epoch"])
    data = job.domain.load(job.config, device, search=job.search, facts=metadata["facts"])
    planned = _plan(job, data.describe(), data.counts, device=device, path=run.path)
    if options.dry_run:
        _print_plan(planned)
        return
    state = _build_state(job, data.describe(), device)
    state.restore(tensors, metadata)
    _show_plan(planned)
    write_text(run.config, config_file.dump(job.config, _notes(job)))
    run.keep_metrics(state.position.epoch)
    session = _open_session(job, run, data.describe(), _streams(job, data), device, options)
    _carry_out(state, session)


def _extend(job: Job, epochs: int, *, done: int) -> Job:
    """The same run with another number of epochs."""
    if epochs < done:
        raise ConfigError(
            f"--epochs {epochs}: the run has done {done} already, expected {done} or more"
        )
    return replace(job, config=replace(job.config, epochs=epochs))


def read_job(metadata: Mapping[str, Any], path: Path) -> Job:
    """What a checkpoint is of.

    Raises:
        CheckpointError: if it does not say.
    """
    if metadata.get("kind") == "alphas":
        raise CheckpointError(
            f"{path}: found alphas alone, expected a whole checkpoint; "
            "use the run's last.safetensors"
        )
    missing = [name for name in _METADATA if name not in metadata]
    if missing:
        raise CheckpointError(
            f"{path}: found no {missing[0]!r} in it, expected a checkpoint of a search or training"
        )
    command, settings, text = (metadata[name] for name in ("kind", "config", "genotype"))
    genotype = parse(text, SPACES, f"the genotype in {path}") if text is not None else None
    return Job(command=command, config=saved_config(command, settings, path), genotype=genotype)


def saved_config(command: str, settings: Mapping[str, Any], path: Path) -> Config:
    """All settings of a run, as its checkpoint holds them.

    Raises:
        CheckpointError: if they are not those of a command of this version.
    """
    try:
        base = RECIPES[command][settings["space"]][settings["recipe"]]
    except (KeyError, TypeError):
        raise CheckpointError(
            f"{path}: found settings of no known command, space and recipe; "
            "use the version of darts that wrote it"
        ) from None
    return config_file.override(base, settings, str(path))


def _build_state(job: Job, facts: Facts, device: torch.device) -> State:
    """A network with fresh weights, and what trains it."""
    config = job.config
    torch.manual_seed(count(config.seed, "initial weights"))
    task = job.domain.build(config, facts, job.genotype)
    task.module.to(device)
    optimizer = torch.optim.SGD(
        task.module.parameters(),
        lr=config.weights.lr,
        momentum=config.weights.momentum,
        weight_decay=config.weights.weight_decay,
        foreach=True,
    )
    return State(
        task=task,
        optimizer=optimizer,
        architect=_build_architect(job, config.alphas, device) if config.alphas else None,
        meter=Meter(task.measures, device),
    )


def _build_architect(job: Job, config: AlphasConfig, device: torch.device) -> Architect:
    draws = generator(job.config.seed, "initial alphas")
    alphas = strategies.find(config.strategy).initial(job.domain.space, config.init_scale, draws)
    return Architect({cell: alpha.to(device) for cell, alpha in alphas.items()}, config)


def _streams(job: Job, data: Data) -> Streams:
    seed = job.config.seed
    return data.search_streams(seed) if job.search else data.train_streams(seed)


def _open_session(
    job: Job, run: Run, facts: Facts, streams: Streams, device: torch.device, options: Options
) -> Session:
    return Session(
        config=job.config,
        space=job.domain.space,
        streams=streams,
        run=run,
        reporter=Reporter(error_console(), run.log),
        metadata={
            "kind": job.command,
            "config": config_file.as_mapping(job.config),
            "facts": facts,
            "genotype": dump(job.genotype) if job.genotype is not None else None,
            "versions": versions(),
        },
        checkpoint_seconds=60 * options.checkpoint_every,
        max_steps=options.max_steps,
        resume_command=f"darts {_words(job)} --resume {shlex.quote(str(run.path))}",
        device_status=devices.status(device),
    )


def _carry_out(state: State, session: Session) -> None:
    with devices.one_line_out_of_memory():
        finished = fit(state, session)
    if not finished:
        done = state.position.total
        session.reporter.say(
            f"stopped after {done} step{'' if done == 1 else 's'}, state saved; "
            f"go on with: {session.resume_command}"
        )
    print(session.run.path)


def _words(job: Job) -> str:
    return f"search {job.config.space}" if job.search else "train"


def _default_path(job: Job) -> Path:
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    what = job.config.space if job.genotype is None else job.genotype.name
    return Path("runs") / f"{job.command}-{what}-{Path(job.config.data.name).name}-{stamp}"


def _notes(job: Job) -> dict[str, Any]:
    return {"command": job.command, "versions": versions()}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Planned:
    """What a run is about to do."""

    job: Job
    facts: Facts
    counts: Mapping[str, int]
    device: torch.device
    path: Path
    size: plan.Size

    @property
    def steps_per_epoch(self) -> int:
        """Steps that train the weights."""
        share = self.job.config.data.search_portion if self.job.search else 1.0
        return plan.steps(self.job.config, round(share * self.counts["train"]))


def _plan(
    job: Job, facts: Facts, counts: Mapping[str, int], *, device: torch.device, path: Path
) -> _Planned:
    size = plan.measure(job.domain, job.config, facts, job.genotype)
    return _Planned(job=job, facts=facts, counts=counts, device=device, path=path, size=size)


def _print_plan(planned: _Planned) -> None:
    """The plan as a table, and as one JSON object on standard output."""
    _show_plan(planned)
    job, config = planned.job, planned.job.config
    classes = len(planned.facts["classes"])
    fields = {
        "command": job.command,
        "space": config.space,
        "genotype": job.genotype.name if job.genotype is not None else None,
        "device": str(planned.device),
        "data": {"name": config.data.name, "classes": classes, **planned.counts},
        "epochs": config.epochs,
        "steps_per_epoch": planned.steps_per_epoch,
        "steps": planned.steps_per_epoch * config.epochs,
        **plan.as_json(planned.size),
        "out": str(planned.path),
        "config": config_file.as_mapping(config),
    }
    print(json.dumps(fields))


def _show_plan(planned: _Planned) -> None:
    """The table that every run begins with."""
    job, config, facts, size = planned.job, planned.job.config, planned.facts, planned.size
    splits = ", ".join(f"{count:,} {split}" for split, count in planned.counts.items())
    epochs = "1 epoch" if config.epochs == 1 else f"{config.epochs:,} epochs"
    rows = {
        "device": devices.describe(planned.device),
        "data": f"{config.data.name}: {splits}; {len(facts['classes'])} classes, "
        f"{facts['channels']} x {facts['size']} x {facts['size']}",
        "network": f"{config.network.channels} channels, {config.network.layers} cells",
        "parameters": f"{size.parameters:,}"
        + (f" and {size.alphas} alphas" if size.alphas else ""),
        "MACs": f"{size.macs:,} an image",
        "steps": f"{epochs} of {planned.steps_per_epoch:,}, batch {config.data.batch_size}",
        "memory": f"about {plan.format_bytes(size.memory_bytes)} in a step",
        "seed": str(config.seed),
        "output": str(planned.path),
    }
    if config.alphas is not None:
        rows["order"] = f"{config.alphas.order} ({config.alphas.hypergradient})"
    title = f"darts {_words(job)}" + (f" {job.genotype.name}" if job.genotype is not None else "")
    error_console().print(plan_table(title, rows))
