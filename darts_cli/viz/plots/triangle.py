"""The edges of all cells as small panels in triangles: a row per node, a column per source."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

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
        found: list[tuple[str, int, int]] = []
        for epoch, operation in self.chosen.items():
            if found and found[-1][0] == operation and found[-1][2] == epoch - 1:
                found[-1] = operation, found[-1][1], epoch
            else:
                found.append((operation, epoch, epoch))
        return found


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


def limits(found: list[Edge]) -> tuple[float, float]:
    """Return the smallest and the largest probability of all edges; 0 if that is near."""
    low = min(float(edge.probabilities.min()) for edge in found)
    high = max(float(edge.probabilities.max()) for edge in found)
    if low < high / 4:
        low = 0.0
    # An axis needs an interval, even if all alphas are the same.
    return (low, high) if high - low > 1e-9 else (low - 0.001, high + 0.001)


class Triangle:
    """All panels of a history on one sheet."""

    def __init__(
        self, history: History, *, panel_height: float, left: float, legend: float, theme: Theme
    ) -> None:
        """Make the sheet.

        Args:
            history: The run of a search.
            panel_height: Height of a panel in points.
            left: Points for the names of a row, to the left of its first panel.
            legend: Points for the legend, above all cells.
            theme: Colours of the sheet.

        Raises:
            CheckpointError: if there are no alphas.
        """
        self.history, self.edges = history, edges(history)
        space = history.space
        labels = [measure(edge.label, TICK_SIZE, bold=True) for edge in self.edges]
        self.panel_width, self.panel_height = max(MIN_WIDTH, *labels), panel_height
        self.left = MARGIN + left
        self.legend_top = HEADER
        self.top = HEADER + legend
        columns = space.nodes + space.inputs - 1
        width = self.left + columns * (self.panel_width + GAP) - GAP + MARGIN
        self._row = LABEL_HEIGHT + panel_height
        self._cell = CELL_HEIGHT + space.nodes * self._row + AXIS_HEIGHT
        height = self.top + len(space.cells) * (self._cell + BETWEEN_CELLS) - BETWEEN_CELLS
        self.sheet = Sheet(max(width, MIN_SHEET_WIDTH), height + MARGIN / 2, theme)

    def title(self, what: str) -> None:
        """Write the title of the sheet: the run, and `what` is shown of it."""
        self.sheet.title(self.history, what, self.edges[0].epochs[-1])

    def panels(self) -> Iterator[tuple[Edge, Axes]]:
        """Yield all edges and their axes, with the name of the edge and the epochs."""
        space, sheet = self.history.space, self.sheet
        for number, cell in enumerate(space.cells):
            top = self.top + number * (self._cell + BETWEEN_CELLS)
            sheet.text(MARGIN, top + TEXT_SIZE + 2, f"{cell} cell", TEXT_SIZE + 2, bold=True)
            for edge in self.edges:
                if edge.cell == cell:
                    row = top + CELL_HEIGHT + (edge.node - space.inputs) * self._row
                    yield edge, self._panel(edge, row)

    def _panel(self, edge: Edge, top: float) -> Axes:
        space, theme = self.history.space, self.sheet.theme
        left = self.left + edge.source * (self.panel_width + GAP)
        axes = self.sheet.axes(left, top + LABEL_HEIGHT, self.panel_width, self.panel_height)
        kept = edge.operation is not None
        ink, baseline = theme.ink if kept else theme.faint, top + LABEL_HEIGHT - 4
        self.sheet.text(left, baseline, edge.label, TICK_SIZE, ink=ink, bold=kept)
        last = edge.node == space.inputs + space.nodes - 1
        epochs.scale(axes, edge.epochs, ticks=4, named=last)
        if last and edge.source == 0:
            axes.set_xlabel(
                "epoch", fontproperties=font(TICK_SIZE), color=theme.faint, labelpad=2, loc="left"
            )
        # The leftmost panel has the numbers or names of the whole row.
        axes.tick_params(axis="y", labelleft=edge.source == 0)
        return axes
