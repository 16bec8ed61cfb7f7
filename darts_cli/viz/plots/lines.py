"""Alphas over epochs as lines: one panel an edge, one line an operation."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from darts_cli.run.history import History
from darts_cli.viz.plots import epochs
from darts_cli.viz.plots.sheet import MARGIN, Sheet, entry_width
from darts_cli.viz.plots.triangle import MIN_SHEET_WIDTH, Triangle, limits
from darts_cli.viz.style import DEFAULT, Style, colour

PANEL_HEIGHT = 62.0
LEFT = 24.0
"""For the numbers of the vertical axis, which is the same for all panels."""

LEGEND_LINE = 14.0
THIN, THICK = 1.0, 2.6
"""Points of a line, and of the winning one of an edge that is kept."""


def figure(history: History, style: Style = DEFAULT) -> Figure:
    """A panel an edge with its primitives' probabilities, the winning one of a kept edge thick.

    Raises:
        CheckpointError: if there are no alphas.
    """
    primitives = history.space.primitives
    entries = _arrange(primitives)
    triangle = Triangle(
        history,
        panel_height=PANEL_HEIGHT,
        left=LEFT,
        legend=LEGEND_LINE * (entries[-1][1] + 1) + 8,
        theme=style.colours,
    )
    low, high = limits(triangle.edges)
    room = 0.05 * (high - low)
    for panel in triangle.panels():
        for column, primitive in enumerate(primitives):
            wins = primitive == panel.edge.operation
            epochs.plot(
                panel.axes,
                panel.edge.epochs,
                panel.edge.probabilities[:, column].tolist(),
                color=colour(primitive),
                linewidth=THICK if wins else THIN,
                zorder=3 if wins else 2,
            )
        panel.axes.set_ylim(max(low - room, 0), high + room)
        panel.axes.yaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10]))
        panel.axes.grid(axis="y", color=triangle.sheet.theme.grid, linewidth=0.6)
        panel.axes.tick_params(axis="y", labelleft=panel.first)
    last = triangle.edges[0].epochs[-1]
    what = f"softmax probabilities, {epochs.progress(history, last)}"
    triangle.sheet.title(history, what)
    _legend(triangle.sheet, triangle.legend_top, list(zip(primitives, entries, strict=True)))
    return triangle.sheet.figure


def _arrange(primitives: Sequence[str]) -> list[tuple[float, int]]:
    """Where each entry of the legend begins, and in which line."""
    x, line = MARGIN, 0
    places = []
    for primitive in primitives:
        width = entry_width(primitive)
        if x > MARGIN and x + width > MIN_SHEET_WIDTH - MARGIN:
            x, line = MARGIN, line + 1
        places.append((x, line))
        x += width
    return places


def _legend(sheet: Sheet, top: float, entries: Sequence[tuple[str, tuple[float, int]]]) -> None:
    for primitive, (x, line) in entries:
        sheet.entry(x, top + 8 + line * LEGEND_LINE, primitive, ink=colour(primitive))
