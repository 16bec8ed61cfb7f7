"""Alphas over epochs as lines: one panel per edge, one line per operation."""

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from darts_cli.run.history import History
from darts_cli.viz.plots import epochs
from darts_cli.viz.plots.sheet import ENTRY_HEIGHT, HEADER, Entry, arrange
from darts_cli.viz.plots.triangle import MIN_SHEET_WIDTH, draw_edges, limits
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
    what, legend = "softmax probabilities", ENTRY_HEIGHT * (last_row + 1) + 8
    sheet, panels = draw_edges(history, what, style.colours, PANEL_HEIGHT, LEFT, legend)
    low, high = limits([edge for edge, _ in panels])
    room = 0.05 * (high - low)
    for edge, axes in panels:
        for primitive, values in zip(primitives, edge.probabilities.T.tolist(), strict=True):
            width, order = (THICK, 3) if primitive == edge.operation else (THIN, 2)
            look = {"color": colour(primitive), "linewidth": width, "zorder": order}
            epochs.plot(axes, edge.epochs, values, **look)
        axes.set_ylim(max(low - room, 0), high + room)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10]))
        axes.grid(axis="y", color=style.colours.grid, linewidth=0.6)
    entries = [Entry(primitive, colour(primitive)) for primitive in primitives]
    sheet.legend(entries, HEADER + 8, MIN_SHEET_WIDTH)
    return sheet.figure
