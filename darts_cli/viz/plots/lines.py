"""Alphas over epochs as lines: one panel per edge, one line per operation."""

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from darts_cli.run.history import History
from darts_cli.viz.plots import epochs
from darts_cli.viz.plots.sheet import ENTRY_HEIGHT, Entry, arrange
from darts_cli.viz.plots.triangle import MIN_SHEET_WIDTH, Triangle, limits
from darts_cli.viz.style import DEFAULT, Style, colour

# In points: height of a panel, and room for the numbers of the vertical axis that all share.
PANEL_HEIGHT, LEFT = 62.0, 24.0

# Widths in points of a line, and of the winning one of an edge that is kept.
THIN, THICK = 1.0, 2.6


def figure(history: History, style: Style = DEFAULT) -> Figure:
    """Draw the probabilities of each edge's primitives, the winning one of a kept edge thick.

    Raises:
        CheckpointError: if there are no alphas.
    """
    primitives = history.space.primitives
    _, last_row = arrange(primitives, MIN_SHEET_WIDTH)[-1]
    triangle = Triangle(
        history,
        panel_height=PANEL_HEIGHT,
        left=LEFT,
        legend=ENTRY_HEIGHT * (last_row + 1) + 8,
        theme=style.colours,
    )
    low, high = limits(triangle.edges)
    room = 0.05 * (high - low)
    for edge, axes in triangle.panels():
        for column, primitive in enumerate(primitives):
            wins = primitive == edge.operation
            epochs.plot(
                axes,
                edge.epochs,
                edge.probabilities[:, column].tolist(),
                color=colour(primitive),
                linewidth=THICK if wins else THIN,
                zorder=3 if wins else 2,
            )
        axes.set_ylim(max(low - room, 0), high + room)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10]))
        axes.grid(axis="y", color=triangle.sheet.theme.grid, linewidth=0.6)
    triangle.title("softmax probabilities")
    entries = [Entry(primitive, colour(primitive)) for primitive in primitives]
    triangle.sheet.legend(entries, triangle.legend_top + 8, MIN_SHEET_WIDTH)
    return triangle.sheet.figure
