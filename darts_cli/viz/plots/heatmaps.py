"""Alphas over epochs as heat maps: one an edge, as softmax probabilities."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from darts_cli.run.history import History
from darts_cli.viz.canvas import measure
from darts_cli.viz.plots import epochs
from darts_cli.viz.plots.sheet import MARGIN, TICK_SIZE, Sheet
from darts_cli.viz.plots.triangle import Edge, Triangle, limits
from darts_cli.viz.style import DEFAULT, Style

SCALE = "viridis"
"""Perceptually uniform, and readable without telling red from green."""

ROW = 10.0
"""Height of a primitive, in points."""

LEGEND = 44.0
BAR_WIDTH, BAR_HEIGHT = 190.0, 9.0

MARK_INK, MARK_EDGE = "#FFFFFF", "#000000"
"""Of the line along the chosen operation, which lies on any colour of the scale."""


def figure(history: History, style: Style = DEFAULT) -> Figure:
    """A panel an edge: epochs from left to right, primitives from top to bottom.

    A white line follows the operation that the genotype gives the edge, as long
    as it keeps the edge.

    Raises:
        CheckpointError: if there are no alphas.
    """
    primitives = history.space.primitives
    triangle = Triangle(
        history,
        panel_height=ROW * len(primitives),
        left=max(measure(name, TICK_SIZE) for name in primitives) + 8,
        legend=LEGEND,
        theme=style.colours,
    )
    low, high = limits(triangle.edges)
    norm, colours = (
        Normalize(low, high),
        colormaps[SCALE].with_extremes(bad=triangle.sheet.theme.empty),
    )
    for panel in triangle.panels():
        _paint(panel.axes, panel.edge, norm, colours)
        _mark(panel.axes, panel.edge, primitives)
        panel.axes.set_yticks(range(len(primitives)), primitives)
        panel.axes.tick_params(axis="y", length=0, labelleft=panel.first)
        panel.axes.tick_params(axis="y", labelcolor=triangle.sheet.theme.ink)
    last = triangle.edges[0].epochs[-1]
    triangle.sheet.title(history, f"alphas, {epochs.progress(history, last)}")
    _legend(triangle.sheet, triangle.legend_top, ScalarMappable(norm, colours), len(primitives))
    return triangle.sheet.figure


def _paint(axes: Axes, edge: Edge, norm: Normalize, colours: Colormap) -> None:
    first, last = edge.epochs[0], edge.epochs[-1]
    rows = edge.probabilities.shape[1]
    # Epochs whose alphas are missing stay empty.
    picture = np.full((rows, last - first + 1), np.nan)
    picture[:, np.array(edge.epochs) - first] = edge.probabilities.T
    axes.imshow(
        picture,
        norm=norm,
        cmap=colours,
        aspect="auto",
        interpolation="nearest",
        extent=(first - 0.5, last + 0.5, rows - 0.5, -0.5),
    )


def _mark(axes: Axes, edge: Edge, primitives: Sequence[str]) -> None:
    """Draw a line along the chosen operation."""
    for operation, first, last in edge.stretches():
        row = primitives.index(operation)
        axes.plot([first - 0.5, last + 0.5], [row, row], **_mark_style())


def _mark_style() -> dict[str, Any]:
    return {
        "color": MARK_INK,
        "linewidth": 1.1,
        "solid_capstyle": "butt",
        "path_effects": [withStroke(linewidth=2.6, foreground=MARK_EDGE)],
    }


def _legend(sheet: Sheet, top: float, scale: ScalarMappable, primitives: int) -> None:
    """The colour bar with the probability that all have at the start, and what a line means."""
    sheet.text(MARGIN, top + 8, "softmax probability", TICK_SIZE)
    left = MARGIN + measure("softmax probability", TICK_SIZE) + 12
    axes = sheet.axes(left, top + 1, BAR_WIDTH, BAR_HEIGHT)
    bar = sheet.figure.colorbar(scale, cax=axes, orientation="horizontal")
    bar.outline.set(edgecolor=sheet.theme.line, linewidth=0.7)
    low, high = scale.get_clim()
    ticks = MaxNLocator(nbins=5, steps=[1, 2, 5, 10]).tick_values(low, high)
    inside = [tick for tick in ticks if low <= tick <= high]
    bar.set_ticks(inside, labels=[f"{tick:g}" for tick in inside])
    axes.axvline(1 / primitives, **_mark_style())
    left += BAR_WIDTH + 24
    notes = {
        "chosen, as long as the edge is kept": ([-8, 8], [0, 0]),
        f"1/{primitives}: all alike, as at the start": ([0, 0], [-4, 4]),
    }
    for place, (note, line) in enumerate(notes.items()):
        y = top + 8 + 13 * place
        sample = sheet.axes(left, y - 7, 16, 9)
        sample.set_axis_off()
        sample.set(xlim=(-8, 8), ylim=(-4.5, 4.5))
        sample.plot(*line, **_mark_style())
        sheet.text(left + 22, y, note, TICK_SIZE, ink=sheet.theme.faint)
