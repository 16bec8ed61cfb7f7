"""Learning curves: the metrics of each epoch, and the learning rate."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from darts_cli.errors import CheckpointError
from darts_cli.run.history import History
from darts_cli.run.metrics import METRICS, find_metric
from darts_cli.viz.plots import epochs
from darts_cli.viz.plots.chart import Chart, Panel
from darts_cli.viz.plots.sheet import MARGIN, Entry
from darts_cli.viz.style import DEFAULT, Style

# Splits that a record may have metrics of, in the order of their colours.
SPLITS = {"train": "training", "valid": "validation", "test": "test"}

# The learning rate's name in records.
RATE = "lr"

# Heights of panels in points.
HEIGHT, RATE_HEIGHT = 128.0, 64.0

# Ratio of the largest to the smallest value from which a metric has a log scale.
WIDE_RANGE = 10.0


def figure(history: History, style: Style = DEFAULT) -> Figure:
    """Draw a panel for each metric, all splits together, and the learning rate below.

    Raises:
        CheckpointError: if no epoch is finished, or nothing was measured.
    """
    records = epochs.records(history)
    panels = _panels(records)
    if not panels:
        raise CheckpointError(
            f"{history.path}: found no numbers in metrics.jsonl, expected losses of every epoch"
        )
    theme = style.colours
    inks = dict(zip(SPLITS, theme.series, strict=False)) | {RATE: theme.faint}
    drawn = {key for panel in panels for key in panel.curves}
    chart = Chart(
        panels=panels,
        numbers=[record["epoch"] for record in records],
        inks=inks,
        legend=[Entry(SPLITS[split], inks[split]) for split in SPLITS if split in drawn],
        left=40.0,
        right=72.0,
        below=MARGIN,
        grid=True,
    )
    return chart.draw(history, "learning curves", theme).figure


def _panels(records: Sequence[Mapping[str, Any]]) -> list[Panel]:
    """Make the panels with values: the known metrics, then others, then the learning rate."""
    parts = [
        (record["epoch"], split, record[split])
        for record in records
        for split in SPLITS
        if isinstance(record.get(split), Mapping)
    ]
    panels = []
    for name in dict.fromkeys([*METRICS, *(name for *_, part in parts for name in part)]):
        if (metric := find_metric(name)).plotted:
            values = [(epoch, split, part.get(name)) for epoch, split, part in parts]
            panels.append(_panel(name, values, metric.title, metric.format))
    rates = [(record["epoch"], RATE, record.get(RATE)) for record in records]
    panels.append(_panel(RATE, rates, "learning rate", "{:.4g}".format))
    return [panel for panel in panels if panel.curves]


def _panel(
    name: str, found: Sequence[tuple[int, str, Any]], title: str, write: Callable[[float], str]
) -> Panel:
    """Make a panel of the finite values found, each with its epoch and the name of its line."""
    curves: dict[str, tuple[list[int], list[float]]] = {}
    for line in [*SPLITS, RATE]:
        for epoch, key, value in found:
            if key == line and type(value) in {int, float} and math.isfinite(value):
                epochs, values = curves.setdefault(line, ([], []))
                epochs.append(epoch)
                values.append(float(value))
    height = RATE_HEIGHT if name == RATE else HEIGHT
    return Panel(title, curves, partial(_scale, name), height, write)


def _scale(name: str, axes: Axes, low: float, high: float) -> None:
    """Set a log scale for values that differ a lot, such as perplexities, else a linear one."""
    if name != RATE and 0 < WIDE_RANGE * low < high:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_ylim(low / 1.2, high * 1.2)
    else:
        # Values that are all the same need an interval around them.
        room = 0.06 * (high - low) or 0.06 * abs(high) or 1.0
        bottom = 0.0 if low >= 0 and (low < room or name == RATE) else low - room
        axes.set_ylim(bottom, high + room)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    factor, unit = (100, " %") if find_metric(name).percent else (1, "")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{factor * value:g}{unit}"))
