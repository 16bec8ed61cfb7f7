"""Pictures of a genotype's cells, one below the other, and their text for other programs."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from matplotlib.figure import Figure

from darts_cli.genotype.types import CellGenotype, Genotype
from darts_cli.run.files import write_text
from darts_cli.space import SearchSpace
from darts_cli.viz.canvas import METADATA, check, measure, save
from darts_cli.viz.drawing.layout import Plan
from darts_cli.viz.drawing.legend import explain
from darts_cli.viz.drawing.panels import Panel, draw_page
from darts_cli.viz.style import DEFAULT, Style
from darts_cli.viz.text import Names, dot, mermaid, names, shown

# By suffix, the formats that other programs draw in their own style.
TEXTS: dict[str, Callable[[Genotype], str]] = {".dot": dot, ".mmd": mermaid}

SUFFIXES = (*METADATA, *TEXTS)


def draw(genotype: Genotype, path: Path, *, style: Style = DEFAULT) -> None:
    """Draw all cells of a genotype into one file, which appears whole or not at all.

    Args:
        genotype: The genotype.
        path: The file; its suffix is the format.
        style: Theme, title and legend; formats of text have none of them.

    Raises:
        ConfigError: if the suffix names no format.
        WriteError: if the file cannot be written.
    """
    check(path, SUFFIXES)
    if (text := TEXTS.get(path.suffix.lower())) is not None:
        write_text(path, text(genotype))
    else:
        save(figure(genotype, style=style), path)


def figure(
    genotype: Genotype, *, style: Style = DEFAULT, space: SearchSpace | None = None
) -> Figure:
    """Draw all cells of a genotype, one below the other, on a figure of 72 units per inch.

    Boxes and their texts carry a `gid` that begins with the cell's name and
    `state` or `label`.

    Args:
        genotype: The genotype.
        style: Theme, title and legend.
        space: The genotype's space, needed only if its name is not a key of `text.NAMES`.
    """
    called, heading = names(genotype, space), shown(genotype.name)
    rows = [
        [Panel(genotype=heading, cell=name, prefix=name, plan=_plan(cell, called))]
        for name, cell in genotype.cells.items()
    ]
    return draw_page(rows, style, explain(genotype.cells.values(), called))


@lru_cache(maxsize=256)
def _plan(cell: CellGenotype, called: Names) -> Plan:
    # Cached, since an animation draws a cell several times, each with other edges marked as new.
    return Plan(cell, called, measure)
