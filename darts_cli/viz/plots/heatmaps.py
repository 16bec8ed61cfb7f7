"""Alphas over epochs as heat maps: one an edge, as softmax probabilities."""

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from darts_cli.run.history import History
from darts_cli.viz.canvas import measure
from darts_cli.viz.plots.sheet import HEADER, MARGIN, TICK_SIZE, Sheet
from darts_cli.viz.plots.triangle import Edge, draw_edges, limits
from darts_cli.viz.style import DEFAULT, Style

# Perceptually uniform, and readable without telling red from green.
SCALE = "viridis"

# Heights in points of a primitive's row and of the legend, and the size of the colour bar.
ROW, LEGEND = 10.0, 44.0
BAR_WIDTH, BAR_HEIGHT = 190.0, 9.0

# Style of the line along the chosen operation: white on black is seen on any colour of the scale.
MARK: dict[str, Any] = {
    "color": "#FFFFFF",
    "linewidth": 1.1,
    "solid_capstyle": "butt",
    "path_effects": [withStroke(linewidth=2.6, foreground="#000000")],
}


def figure(history: History, style: Style = DEFAULT) -> Figure:
    """Draw a panel for each edge: epochs from left to right, primitives from top to bottom.

    A white line follows the operation that the genotype gives the edge, as long
    as it keeps the edge.

    Raises:
        CheckpointError: if there are no alphas.
    """
    primitives = history.space.primitives
    height = ROW * len(primitives)
    left = max(measure(name, TICK_SIZE) for name in primitives) + 8
    sheet, panels = draw_edges(history, "alphas", style.colours, height, left, LEGEND)
    norm = Normalize(*limits([edge for edge, _ in panels]))
    scale = ScalarMappable(norm, colormaps[SCALE].with_extremes(bad=style.colours.empty))
    for edge, axes in panels:
        _paint(axes, edge, scale)
        for operation, first, last in edge.stretches():
            row = primitives.index(operation)
            axes.plot([first - 0.5, last + 0.5], [row, row], **MARK)
        axes.set_yticks(range(len(primitives)), primitives)
        axes.tick_params(axis="y", length=0, labelcolor=style.colours.ink)
    _legend(sheet, scale, len(primitives))
    return sheet.figure


def _paint(axes: Axes, edge: Edge, scale: ScalarMappable) -> None:
    first, last = edge.epochs[0], edge.epochs[-1]
    rows = edge.probabilities.shape[1]
    # [O, T], with nan for epochs whose alphas are missing.
    picture = np.full((rows, last - first + 1), np.nan)
    picture[:, np.array(edge.epochs) - first] = edge.probabilities.T
    extent = first - 0.5, last + 0.5, rows - 0.5, -0.5
    image = axes.imshow(picture, aspect="auto", interpolation="nearest", extent=extent)
    image.set(norm=scale.norm, cmap=scale.cmap)


def _legend(sheet: Sheet, scale: ScalarMappable, primitives: int) -> None:
    """Draw the colour bar, on it the probability of all at the start, and what lines mean."""
    sheet.text(MARGIN, HEADER + 8, "softmax probability", TICK_SIZE)
    left = MARGIN + measure("softmax probability", TICK_SIZE) + 12
    axes = sheet.axes(left, HEADER + 1, BAR_WIDTH, BAR_HEIGHT)
    bar = sheet.figure.colorbar(scale, cax=axes, orientation="horizontal")
    bar.outline.set(edgecolor=sheet.theme.line, linewidth=0.7)
    low, high = scale.get_clim()
    ticks = MaxNLocator(nbins=5, steps=[1, 2, 5, 10]).tick_values(low, high)
    inside = [tick for tick in ticks if low <= tick <= high]
    bar.set_ticks(inside, labels=[f"{tick:g}" for tick in inside])
    axes.axvline(1 / primitives, **MARK)
    left += BAR_WIDTH + 24
    notes = {
        "chosen, as long as the edge is kept": ([-8, 8], [0, 0]),
        f"1/{primitives}: all alike, as at the start": ([0, 0], [-4, 4]),
    }
    for place, (note, line) in enumerate(notes.items()):
        y = HEADER + 8 + 13 * place
        sample = sheet.axes(left, y - 7, 16, 9)
        sample.set_axis_off()
        sample.set(xlim=(-8, 8), ylim=(-4.5, 4.5))
        sample.plot(*line, **MARK)
        sheet.text(left + 22, y, note, TICK_SIZE, ink=sheet.theme.faint)
