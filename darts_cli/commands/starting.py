"""A new run, from its settings to its end."""

from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import torch

from darts_cli.commands import plan
from darts_cli.commands.building import build_state
from darts_cli.commands.job import Job
from darts_cli.commands.options import Options
from darts_cli.commands.running import (
    carry_out,
    check_memory,
    check_parts,
    choose_device,
    open_session,
    open_streams,
    print_probe,
    write_settings,
)
from darts_cli.config import Config
from darts_cli.engine.determinism import deterministically
from darts_cli.engine.interruption import leaving
from darts_cli.engine.ranks import Ranks, joined
from darts_cli.files import write_text
from darts_cli.genotype import dump
from darts_cli.run import Run


def start(job: Job, options: Options) -> None:
    """Carry out a new run, or print its plan.

    Raises:
        DartsError: for whatever a user can mend.
        Interrupted: if a signal came.
    """
    with leaving("nothing was begun"):
        device = choose_device(options)
        job = replace(job, config=_locate(job))
        with joined(device) as ranks, deterministically(options.deterministic):
            check_parts(job.config, ranks)
            check_memory(job.config, options, ranks)
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
        streams = open_streams(job, data, ranks)
    # Before anything is written: settings or images that are no use leave nothing behind.
    facts = data.describe()
    planned = plan.make(
        job, facts, data.counts, device=device, path=path, save_memory=save, ranks=ranks
    )
    state = build_state(job, facts, device, ranks, options)
    if options.probe:
        print_probe(planned, state, streams, ranks)
        return
    run = Run.create(path) if ranks.leads else Run(path)
    with run.locked() if ranks.leads else nullcontext():
        write_settings(run, job, planned, options, ranks)
        if job.genotype is not None and ranks.leads:
            write_text(run.genotype, dump(job.genotype))
        carry_out(state, open_session(job, run, data, streams, device, options, ranks))


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


def _default_path(job: Job) -> Path:
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    what = job.config.space if job.genotype is None else job.genotype.name
    return Path("runs") / f"{job.command}-{what}-{Path(job.config.data.name).name}-{stamp}"
