"""A new run, from its settings to its end."""

from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import torch

from darts_cli.commands import plan
from darts_cli.commands.building import build_state
from darts_cli.commands.options import Options
from darts_cli.commands.run_spec import RunSpec
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
from darts_cli.config import Config
from darts_cli.genotype.file import dump
from darts_cli.run.directory import Run
from darts_cli.run.files import write_text
from darts_cli.runtime.determinism import deterministically
from darts_cli.runtime.interruption import exit_on_signal
from darts_cli.runtime.ranks import Ranks, process_group


def start(spec: RunSpec, options: Options) -> None:
    """Carry out a new run, or print its plan.

    Raises:
        DartsError: for whatever a user can mend.
        Interrupted: if a signal came.
    """
    with exit_on_signal("nothing was begun"):
        device = choose_device(options)
        spec = replace(spec, config=_locate(spec))
        with process_group(device) as ranks, deterministically(options.deterministic):
            check_parts(spec.config, ranks)
            check_memory(spec.config, options, ranks)
            path = Path(ranks.broadcast(str(options.out or _default_path(spec))))
            if options.dry_run and not options.probe:
                _print_outline(spec, options, device, path, ranks)
            else:
                _start(spec, options, device, path, ranks)


def _print_outline(
    spec: RunSpec, options: Options, device: torch.device, path: Path, ranks: Ranks
) -> None:
    if not ranks.is_main:
        return
    info, counts = spec.task.outline(spec.config, search=spec.search)
    save = options.save_memory
    plan.print_json(
        plan.make(spec, info, counts, device=device, path=path, save_memory=save, ranks=ranks)
    )


def _start(spec: RunSpec, options: Options, device: torch.device, path: Path, ranks: Ranks) -> None:
    save = options.save_memory
    if ranks.is_main:
        Run.check_new(path)
    with ranks.local_main_first():
        data = spec.task.load(spec.config, device, search=spec.search, ranks=ranks)
        loaders = open_loaders(spec, data, ranks)
    # Before anything is written: settings or images that are no use leave nothing behind.
    info = data.describe()
    planned = plan.make(
        spec, info, data.counts, device=device, path=path, save_memory=save, ranks=ranks
    )
    state = build_state(spec, info, device, ranks, options)
    if options.probe:
        print_probe(planned, state, loaders, ranks)
        return
    run = Run.create(path) if ranks.is_main else Run(path)
    with run.locked() if ranks.is_main else nullcontext():
        write_settings(run, spec, planned, options, ranks)
        if spec.genotype is not None and ranks.is_main:
            write_text(run.genotype, dump(spec.genotype))
        carry_out(state, open_context(spec, run, data, loaders, device, options, ranks))


def _locate(spec: RunSpec) -> Config:
    """The settings with data by absolute paths, so that a run goes on from anywhere."""
    config = spec.config
    name, root = config.data.name, config.data.root
    folder = Path(name).expanduser()
    if name not in spec.task.data_names and folder.is_dir():
        name = str(folder.resolve())
    # What begins with ~ is the same from everywhere.
    if not root.startswith("~"):
        root = str(Path(root).resolve())
    return replace(config, data=replace(config.data, name=name, root=root))


def _default_path(spec: RunSpec) -> Path:
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    what = spec.config.space if spec.genotype is None else spec.genotype.name
    return Path("runs") / f"{spec.command}-{what}-{Path(spec.config.data.name).name}-{stamp}"
