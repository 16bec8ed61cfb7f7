"""Two genotypes of one space side by side, with what they do not share marked."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from darts_cli.genotype.difference import Surplus, compare, summarize, surplus
from darts_cli.genotype.types import CellGenotype, Genotype
from darts_cli.space import SearchSpace
from darts_cli.viz.style import DEFAULT, Style
from darts_cli.viz.text import Names, boxed, names, shown, term

# Output on the terminal needs no matplotlib, which is slow to import.
if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(first: Genotype, second: Genotype, path: Path, *, style: Style = DEFAULT) -> None:
    """Draw two genotypes into one file, which appears whole or not at all.

    Args:
        first: The genotype on the left.
        second: The genotype on the right.
        path: The file; its suffix is the format.
        style: Theme, title and legend.

    Raises:
        GenotypeError: if the genotypes are not of one space.
        ConfigError: if the suffix names no format that a comparison can be drawn in.
        WriteError: if the file cannot be written.
    """
    from darts_cli.viz.canvas import METADATA, check, save

    check(path, METADATA, what=" for two genotypes")
    save(figure(first, second, style=style), path)


def figure(
    first: Genotype, second: Genotype, *, style: Style = DEFAULT, space: SearchSpace | None = None
) -> "Figure":
    """Draw two genotypes, the first on the left, cell by cell, on a figure of 72 units per inch.

    Edges and members of concat that one of them lacks are strong, all other
    lines pale. Identifiers begin with `first` or `second`.

    Args:
        first: The genotype on the left.
        second: The genotype on the right.
        style: Theme, title and legend.
        space: The genotypes' space, needed only if its name is not a key of `text.NAMES`.

    Raises:
        GenotypeError: if the genotypes are not of one space.
    """
    from darts_cli.viz.canvas import measure
    from darts_cli.viz.drawing.layout import Plan
    from darts_cli.viz.drawing.legend import explain
    from darts_cli.viz.drawing.panels import Panel, draw_page

    differences = compare(first, second)
    called = _names(first, second, space)
    rows = [
        [
            Panel(
                genotype=shown(genotype.name),
                cell=cell,
                prefix=f"{side}-{cell}",
                plan=Plan(genotype.cells[cell], called, partial(measure, bold=True)),
                surplus=extra,
            )
            for side, genotype, extra in (
                ("first", first, difference.first),
                ("second", second, difference.second),
            )
        ]
        for cell, difference in differences.items()
    ]
    cells = [*first.cells.values(), *second.cells.values()]
    return draw_page(rows, style, explain(cells, called, compared=True), summarize(differences))


def _names(first: Genotype, second: Genotype, space: SearchSpace | None = None) -> Names:
    # One of the genotypes may not show how many inputs there are.
    return max(names(first, space), names(second, space), key=lambda called: len(called.inputs))


def terminal(first: Genotype, second: Genotype) -> Group:
    """Describe what differs, node by node, for a rich console of 80 columns or more.

    Raises:
        GenotypeError: if the genotypes are not of one space.
    """
    differences = compare(first, second)
    panels = [
        boxed(_table(first, second, name), f"{name} cell")
        for name, difference in differences.items()
        if difference.differing or difference.concat_differs
    ]
    return Group(Text(summarize(differences)), *panels)


def _table(first: Genotype, second: Genotype, name: str) -> Table:
    """Return a row for each node with an edge that differs, and one for concat."""
    called = _names(first, second)
    cells = first.cells[name], second.cells[name]
    sides = [(cell, surplus(cell, other)) for cell, other in (cells, cells[::-1])]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    for genotype in (first, second):
        table.add_column(Text(f"only in {shown(genotype.name)}"), overflow="fold")
    for place in range(max(len(cell.nodes) for cell in cells)):
        edges = [_edges(cell, extra, place, called) for cell, extra in sides]
        if any(edges):
            table.add_row(Text(f"node {place + len(called.inputs)}", style="bold"), *edges)
    concats = [", ".join(map(str, sorted(extra.concat))) for _, extra in sides]
    if any(concats):
        nodes = [concat and f"node{'s' * (',' in concat)} {concat}" for concat in concats]
        table.add_row(Text(called.join, style="bold"), *nodes)
    return table


def _edges(cell: CellGenotype, extra: Surplus, place: int, called: Names) -> Text:
    """Return the edges of a node that the other cell lacks, one per line."""
    if place >= len(cell.nodes):
        return Text("no such node", style="dim")
    edges = enumerate(cell.nodes[place])
    return Text("\n").join(
        term(edge, called) for index, edge in edges if (place, index) in extra.edges
    )
