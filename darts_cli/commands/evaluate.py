"""`darts eval`: measure a trained network on a split of its data, or of other data."""

import json
from pathlib import Path

from rich.console import Console

from darts_cli.commands.checkpoint_checks import check_size
from darts_cli.commands.pipeline import choose_device
from darts_cli.commands.reading import find_checkpoint
from darts_cli.commands.run_spec import check_fingerprints, naming, read_spec, with_own_root
from darts_cli.config_file import override
from darts_cli.engine.execution import StepExecution
from darts_cli.engine.state import load_network
from darts_cli.engine.steps import evaluate
from darts_cli.errors import CheckpointError
from darts_cli.options import EvalOptions
from darts_cli.run import checkpoint
from darts_cli.run.files import write_text
from darts_cli.run.metrics import format_metrics
from darts_cli.runtime import devices
from darts_cli.runtime.precision import Precision
from darts_cli.runtime.ranks import process_group
from darts_cli.terminal.console import bar, error_console


def evaluate_checkpoint(options: EvalOptions) -> None:
    """Evaluate a checkpoint, print the metrics, and write them beside it as JSON.

    Raises:
        DartsError: for whatever a user can mend.
    """
    source, data_name = options.source, options.data
    device = choose_device(options.gpu, options.device)
    file = find_checkpoint(source)
    tensors, metadata = checkpoint.read(file)
    spec = read_spec(metadata, file)
    if spec.search:
        raise CheckpointError(
            f"{file}: found a search, expected a trained network; "
            f"first darts derive {source}, then darts train --genotype FILE"
        )
    check_size(spec, metadata["facts"], tensors, file)
    config = with_own_root(spec.config, file.parent)
    if data_name is not None:
        config = override(config, {"data": {"name": data_name}}, "--data")
    splits = spec.task.evaluation_splits if data_name is None else ("test",)
    splits = (options.split,) if options.split is not None else splits
    with process_group(device) as ranks:
        info = metadata["facts"]
        batch_size = options.batch_size or spec.task.evaluation_batch(device, ranks)
        with ranks.local_main_first():
            data = spec.task.load(config, device, search=False, info=info, ranks=ranks)
            loaders = {name: data.evaluation_loader(name, batch_size) for name in splits}
            if data_name is None:
                check_fingerprints(spec, data, metadata, "to measure other data, name it by --data")
        module = spec.task.build(config, info, spec.genotype)
        with naming(file):
            load_network(module, tensors, averaged=True)
        module.network.to(device)
        execution = StepExecution(ranks=ranks, precision=Precision("fp32", device))
        unit = spec.task.describe(config, info).unit
        console = error_console() if ranks.is_main and not options.quiet else Console(quiet=True)
        for name, loader in loaders.items():
            where = devices.describe(device)
            console.print(f"{file.name} on {name} of {config.data.name}, {where}")
            with devices.memory_errors(), bar(console, name, loader.steps(0)) as advance:
                metrics, count = evaluate(module, loader, {}, device, advance, execution=execution)
            if not ranks.is_main:
                continue
            print(f"{name}: {format_metrics(metrics)}  ({count:,} {unit}s)")
            # Other data has a file of its own, so that it does not take the place of the run's
            # result.
            other = "" if data_name is None else f"-{Path(data_name).name}"
            path = file.with_name(f"{file.stem}-{name}{other}.json")
            result = {
                "checkpoint": file.name,
                "data": Path(config.data.name).name,
                "split": name,
                "examples": count,
                "batch_size": batch_size,
                "epoch": metadata["position"]["epoch"],
                **metrics,
            }
            write_text(path, json.dumps(result, indent=2) + "\n")
            print(path)
