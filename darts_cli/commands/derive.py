"""`darts derive`: read the genotype off the alphas of a run or checkpoint."""

from contextlib import nullcontext
from pathlib import Path

from rich.table import Table

from darts_cli.commands.reading import read_alphas
from darts_cli.engine.artifacts import origin
from darts_cli.errors import CheckpointError
from darts_cli.genotype.derivation import Choice, derive
from darts_cli.genotype.file import dump
from darts_cli.options import DeriveOptions
from darts_cli.run.directory import Run
from darts_cli.run.files import write_text
from darts_cli.run.signals import CLOSE
from darts_cli.terminal.console import error_console


def derive_genotype(options: DeriveOptions) -> None:
    """Write the genotype of the newest alphas, or of those of an epoch, and how sure it is.

    Raises:
        CheckpointError: if there are no such alphas.
        RunError: if another process writes to the run whose own genotype this would write.
        WriteError: if the genotype cannot be written.
    """
    file, default = _locate(options.source, options.epoch)
    run, path = Run(options.source), options.output or default
    with run.locked() if options.output is None and path == run.genotype else nullcontext():
        space, alphas, metadata = read_alphas(file)
        folder, after = file.resolve().parent, metadata["position"]["epoch"]
        name = folder.parent.name if folder.name == "alphas" else folder.name
        genotype, choices = derive(
            space, alphas, name=f"{name}-epoch-{after}", origin=origin(metadata, name, after)
        )
        write_text(path, dump(genotype))
    error_console().print(_table(choices))
    print(path)


def _locate(source: Path, epoch: int | None) -> tuple[Path, Path]:
    """Return the file that holds the alphas, and where their genotype goes."""
    if source.is_file():
        if epoch is not None:
            raise CheckpointError(
                f"--epoch {epoch}: needs a run directory, found the file {source}; leave one out"
            )
        return source, source.with_suffix(".genotype.yaml")
    run = Run.open(source)
    if epoch is not None:
        file = run.alphas_of(epoch)
        if not file.is_file():
            there = sorted(path.stem for path in run.alphas.glob("epoch-*.safetensors"))
            found = f"{there[0]} to {there[-1]}" if there else "none"
            raise CheckpointError(f"--epoch {epoch}: no alphas of it in {run.path}, found {found}")
        return file, run.path / f"genotype-epoch-{epoch}.yaml"
    if not run.last.is_file():
        raise CheckpointError(f"{run.path}: found no checkpoint in it yet, let the run save one")
    return run.last, run.genotype


def _table(choices: list[Choice]) -> Table:
    """Return a table of kept edges, with their probability and margins."""
    table = Table(title="how sure the choice is", title_justify="left", box=None, pad_edge=False)
    for header in ("cell", "node", "edge"):
        table.add_column(header, no_wrap=True)
    for header in ("probability", "over next op", "over next edge"):
        table.add_column(header, justify="right")
    for choice in choices:
        table.add_row(
            choice.cell,
            str(choice.node),
            f"{choice.edge.operation} {choice.edge.source}",
            f"{choice.probability:.3f}",
            _margin(choice.operation_margin),
            "only ones" if choice.edge_margin is None else _margin(choice.edge_margin),
        )
    return table


def _margin(margin: float) -> str:
    return f"{margin:.3f}" + (" close" if margin < CLOSE else "")
