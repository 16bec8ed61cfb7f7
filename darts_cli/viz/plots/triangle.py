"""The edges of all cells as small panels in triangles: a row a node, a column a source."""

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

MIN_WIDTH = 104.0
"""Of a panel, in points."""

GAP = 10.0
"""Between neighbouring panels."""

LABEL_HEIGHT = 15.0
"""Above a panel, for its name."""

CELL_HEIGHT = 18.0
"""Above a cell, for its name."""

AXIS_HEIGHT = 28.0
"""Below a cell, for the numbers of epochs."""

BETWEEN_CELLS = 12.0
"""From one cell to the next."""

MIN_SHEET_WIDTH = 520.0
"""So that there is a place for the legend however small the cells are."""

ARROW = "\N{RIGHTWARDS ARROW}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Edge:
    """One edge of a searched cell over all epochs."""

    cell: str
    node: int
    """Counted on from the inputs, as in genotype files."""
    source: int
    epochs: tuple[int, ...]
    probabilities: NDArray[np.float64]
    """`[T, O]`, softmax values: a row an epoch, a column a primitive."""
    chosen: Mapping[int, str]
    """The operation that the genotype gives this edge, by epoch; none where it drops the edge."""

    @property
    def operation(self) -> str | None:
        """What the edge carries after the newest epoch; None if it is dropped."""
        return self.chosen.get(self.epochs[-1])

    @property
    def label(self) -> str:
        """`0 → 2 sep_conv_3x3`: source, node, and the operation if the edge is kept."""
        return " ".join((str(self.source), ARROW, str(self.node), self.operation or "")).rstrip()

    def stretches(self) -> list[tuple[str, int, int]]:
        """Each operation that was chosen epoch after epoch, with its first and last epoch."""
        found: list[tuple[str, int, int]] = []
        for epoch, operation in self.chosen.items():
            if found and found[-1][0] == operation and found[-1][2] == epoch - 1:
                found[-1] = operation, found[-1][1], epoch
            else:
                found.append((operation, epoch, epoch))
        return found


def edges(history: History) -> list[Edge]:
    """Those of all cells, in the order of the alphas' rows.

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
    """The smallest and the largest probability of all; from 0 where that is not far."""
    low = min(float(edge.probabilities.min()) for edge in found)
    high = max(float(edge.probabilities.max()) for edge in found)
    if low < high / 4:
        low = 0.0
    # Alphas that are all the same have a scale too.
    return (low, high) if high - low > 1e-9 else (low - 0.001, high + 0.001)


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """The axes of one edge."""

    edge: Edge
    axes: Axes
    first: bool
    """Whether it is the leftmost of its row, where the vertical axis is named."""


class Triangle:
    """All panels of a history on one sheet."""

    def __init__(
        self, history: History, *, panel_height: float, left: float, legend: float, theme: Theme
    ) -> None:
        """Make the sheet.

        Args:
            history: Of a search.
            panel_height: Of each panel, in points.
            left: Points for the names of a row, to the left of its first panel.
            legend: Points above all cells, for the legend.
            theme: Its colours.

        Raises:
            CheckpointError: if there are no alphas.
        """
        self.edges = edges(history)
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
        self._space = space

    def panels(self) -> Iterator[Panel]:
        """Make the axes of all edges, named and with their epochs."""
        space, sheet = self._space, self.sheet
        for number, cell in enumerate(space.cells):
            top = self.top + number * (self._cell + BETWEEN_CELLS)
            sheet.text(MARGIN, top + TEXT_SIZE + 2, f"{cell} cell", TEXT_SIZE + 2, bold=True)
            for edge in self.edges:
                if edge.cell == cell:
                    row = top + CELL_HEIGHT + (edge.node - space.inputs) * self._row
                    yield self._panel(edge, row)

    def _panel(self, edge: Edge, top: float) -> Panel:
        space, theme = self._space, self.sheet.theme
        left = self.left + edge.source * (self.panel_width + GAP)
        axes = self.sheet.axes(left, top + LABEL_HEIGHT, self.panel_width, self.panel_height)
        kept = edge.operation is not None
        self.sheet.text(
            left,
            top + LABEL_HEIGHT - 4,
            edge.label,
            TICK_SIZE,
            ink=theme.ink if kept else theme.faint,
            bold=kept,
        )
        last = edge.node == space.inputs + space.nodes - 1
        epochs.scale(axes, edge.epochs, ticks=4, named=last)
        if last and edge.source == 0:
            axes.set_xlabel(
                "epoch", fontproperties=font(TICK_SIZE), color=theme.faint, labelpad=2, loc="left"
            )
        return Panel(edge=edge, axes=axes, first=edge.source == 0)
