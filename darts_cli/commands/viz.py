"""`darts viz`: draw the cells of a genotype."""

from pathlib import Path

from rich.console import Console

from darts_cli.errors import GenotypeError
from darts_cli.genotype_file import load
from darts_cli.run import Run
from darts_cli.spaces import SPACES
from darts_cli.viz.text import terminal


def visualize(source: str, output: Path | None) -> None:
    """Draw a genotype, by name, file or run, into a file or on the terminal.

    Raises:
        DartsError: for whatever a user can mend.
    """
    name = source
    if Path(source).is_dir():
        run = Run.open(Path(source))
        if not run.genotype.is_file():
            raise GenotypeError(
                f"{run.path}: found no genotype in it yet, expected a finished epoch"
            )
        name = str(run.genotype)
    genotype = load(name, SPACES)
    if output is None:
        Console().print(terminal(genotype))
        return
    # Imports matplotlib, which the terminal can do without.
    from darts_cli.viz.cells import draw

    draw(genotype, output)
    print(output)
