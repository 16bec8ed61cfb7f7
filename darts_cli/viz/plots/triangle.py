"""The edges of all cells as small panels in triangles: a row per node, a column per source."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count, groupby

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from darts_cli.genotype.derivation import softmax
from darts_cli.run.history import History
from darts_cli.viz.canvas import TEXT_SIZE, font, measure
from darts_cli.viz.plots import epochs
from darts_cli.viz.plots.sheet import HEADER, MARGIN, TICK_SIZE, Sheet
from darts_cli.viz.style import Theme

# Points: least width of a panel, gap between neighbours, and height of the name above a panel.
MIN_WIDTH, GAP, LABEL_HEIGHT = 104.0, 10.0, 15.0

# Points: height of a cell's name above it and of the numbers below it, and gap between cells.
CELL_HEIGHT, AXIS_HEIGHT, BETWEEN_CELLS = 18.0, 28.0, 12.0

# Points that leave room for the legend however small the cells are.
MIN_SHEET_WIDTH = 520.0

ARROW = "\N{RIGHTWARDS ARROW}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Edge:
    """One edge of a searched cell over all epochs."""

    cell: str
    node: int
    """Number of the node, counted on from the inputs as in genotype files."""
    source: int
    epochs: tuple[int, ...]
    probabilities: NDArray[np.float64]
    """Softmax values `[T, O]`: a row per epoch, a column per primitive."""
    chosen: Mapping[int, str]
    """Operation of the edge by epoch; epochs whose genotype drops the edge are missing."""

    @property
    def operation(self) -> str | None:
        """Operation of the edge after the newest epoch; None if the edge is dropped."""
        return self.chosen.get(self.epochs[-1])

    @property
    def label(self) -> str:
        """Source, node, and the operation if the edge is kept: `0 → 2 sep_conv_3x3`."""
        return " ".join((str(self.source), ARROW, str(self.node), self.operation or "")).rstrip()

    def stretches(self) -> list[tuple[str, int, int]]:
        """Return each operation chosen in successive epochs, with its first and last epoch."""
        places = count()
        groups = groupby(self.chosen.items(), key=lambda one: (one[1], one[0] - next(places)))
        found = [(operation, [epoch for epoch, _ in group]) for (operation, _), group in groups]
        return [(operation, numbers[0], numbers[-1]) for operation, numbers in found]


def edges(history: History) -> list[Edge]:
    """Return the edges of all cells, in the order of the alphas' rows.

    Raises:
        CheckpointError: if there are no alphas.
    """
    snapshots = epochs.snapshots(history)
    chosen: dict[tuple[str, int, int], dict[int, str]] = {}
    for snapshot in snapshots:
        for choice in snapshot.choices:
            place = choice.cell, choice.node, choice.edge.source
            chosen.setdefault(place, {})[snapshot.epoch] = choice.edge.operation
    inputs = history.space.inputs
    return [
        Edge(
            cell=cell,
            node=node + inputs,
            source=source,
            epochs=tuple(snapshot.epoch for snapshot in snapshots),
            probabilities=np.array([softmax(snapshot.alphas[cell][row]) for snapshot in snapshots]),
            chosen=chosen.get((cell, node + inputs, source), {}),
        )
        for cell in history.space.cells
        for row, (node, source) in enumerate(history.space.edges)
    ]


def limits(found: Sequence[Edge]) -> tuple[float, float]:
    """Return the smallest and the largest probability of all edges; 0 if that is near."""
    low = min(float(edge.probabilities.min()) for edge in found)
    high = max(float(edge.probabilities.max()) for edge in found)
    if low < high / 4:
        low = 0.0
    # An axis needs an interval, even if all alphas are the same.
    return (low, high) if high - low > 1e-9 else (low - 0.001, high + 0.001)


def draw_edges(
    history: History, what: str, theme: Theme, panel_height: float, left: float, legend: float
) -> tuple[Sheet, list[tuple[Edge, Axes]]]:
    """Draw a titled sheet with empty axes for each edge, and the names of edges and epochs.

    Args:
        history: The run of a search.
        what: Words for what is shown of it.
        theme: Colours of the sheet.
        panel_height: Height of a panel in points.
        left: Points for the names of a row, to the left of its first panel.
        legend: Points for the legend, below `HEADER` and above all cells.

    Raises:
        CheckpointError: if there are no alphas.
    """
    space, found = history.space, edges(history)
    panel_width = max(MIN_WIDTH, *(measure(edge.label, TICK_SIZE, bold=True) for edge in found))
    column, row = panel_width + GAP, LABEL_HEIGHT + panel_height
    cell_height = CELL_HEIGHT + space.nodes * row + AXIS_HEIGHT + BETWEEN_CELLS
    width = MARGIN + left + (space.nodes + space.inputs - 1) * column - GAP + MARGIN
    height = HEADER + legend + len(space.cells) * cell_height - BETWEEN_CELLS + MARGIN / 2
    sheet = Sheet(max(width, MIN_SHEET_WIDTH), height, theme)
    sheet.title(history, what, found[0].epochs[-1])
    tops = {cell: HEADER + legend + n * cell_height for n, cell in enumerate(space.cells)}
    for cell, top in tops.items():
        sheet.text(MARGIN, top + TEXT_SIZE + 2, f"{cell} cell", TEXT_SIZE + 2, bold=True)
    panels = []
    for edge in found:
        x = MARGIN + left + edge.source * column
        y = tops[edge.cell] + CELL_HEIGHT + (edge.node - space.inputs) * row + LABEL_HEIGHT
        kept = edge.operation is not None
        ink = theme.ink if kept else theme.faint
        sheet.text(x, y - 4, edge.label, TICK_SIZE, ink=ink, bold=kept)
        axes = sheet.axes(x, y, panel_width, panel_height)
        last = edge.node == space.inputs + space.nodes - 1
        epochs.scale(axes, edge.epochs, ticks=4, named=last)
        if last and edge.source == 0:
            label = axes.set_xlabel("epoch", labelpad=2, loc="left", color=theme.faint)
            label.set_fontproperties(font(TICK_SIZE))
        # The leftmost panel has the numbers or names of the whole row.
        axes.tick_params(axis="y", labelleft=edge.source == 0)
        panels.append((edge, axes))
    return sheet, panels
