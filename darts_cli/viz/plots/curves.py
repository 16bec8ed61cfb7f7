"""Learning curves: what was measured after each epoch, and the learning rate."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from darts_cli.errors import CheckpointError
from darts_cli.run.history import History
from darts_cli.terminal.console import format_metrics
from darts_cli.viz.canvas import TEXT_SIZE, font
from darts_cli.viz.plots import epochs
from darts_cli.viz.plots.sheet import HEADER, MARGIN, TICK_SIZE, Sheet
from darts_cli.viz.style import DEFAULT, Style

SPLITS = {"train": "training", "valid": "validation", "test": "test"}
"""What a record may have measures of, in the order of their colours."""

METRICS: dict[str, str] = {
    "loss": "loss",
    "top1": "top-1 accuracy",
    "top5": "top-5 accuracy",
    "perplexity": "perplexity",
}
"""The names of those measures that have another one on a picture, in their order."""

RATE = "lr"
"""What records call the learning rate."""

SAME_AS_LOSS = "bits_per_word"
"""The loss in another unit, whose curve would be the same."""

WIDTH = 640.0
LEFT, RIGHT = 40.0, 72.0
"""For the numbers of the vertical axes, and for the newest values."""

HEIGHT, RATE_HEIGHT, GAP = 128.0, 64.0, 30.0
LEGEND = 32.0
WIDE_RANGE = 10.0
"""A measure whose largest value is so many times its smallest one is drawn on a log scale."""

Curve = tuple[list[int], list[float]]
"""Epochs, and a value each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Panel:
    name: str
    """As in the records."""
    title: str
    height: float
    curves: Mapping[str, Curve]
    """By split; of the learning rate, by its own name."""

    @property
    def values(self) -> list[float]:
        return [value for _, values in self.curves.values() for value in values]


def figure(history: History, style: Style = DEFAULT) -> Figure:
    """A panel a measure, all splits together, with the newest values; the learning rate below.

    Raises:
        CheckpointError: if no epoch is finished, or nothing was measured.
    """
    records = epochs.records(history)
    panels = _panels(records)
    if not panels:
        raise CheckpointError(
            f"{history.path}: found no numbers in metrics.jsonl, expected losses of every epoch"
        )
    top = HEADER + LEGEND
    height = top + sum(panel.height + GAP for panel in panels) + MARGIN
    sheet = Sheet(WIDTH, height, style.colours)
    numbers = [record["epoch"] for record in records]
    sheet.title(history, f"learning curves, {epochs.progress(history, max(numbers))}")
    splits = [split for split in SPLITS if any(split in panel.curves for panel in panels)]
    colours = dict(zip(SPLITS, sheet.theme.series, strict=False)) | {RATE: sheet.theme.faint}
    _legend(sheet, {split: colours[split] for split in splits})
    for panel in panels:
        axes = sheet.axes(MARGIN + LEFT, top, WIDTH - 2 * MARGIN - LEFT - RIGHT, panel.height)
        sheet.text(MARGIN + LEFT, top - 5, panel.title, TEXT_SIZE, bold=True)
        for split, curve in panel.curves.items():
            epochs.plot(axes, *curve, color=colours[split], linewidth=1.6)
        _scale(axes, panel)
        axes.grid(color=sheet.theme.grid, linewidth=0.6)
        epochs.scale(axes, numbers, ticks=10, named=panel is panels[-1])
        newest = {colours[split]: curve[1][-1] for split, curve in panel.curves.items()}
        _tell_newest(axes, panel, newest)
        top += panel.height + GAP
    axes.set_xlabel("epoch", fontproperties=font(TICK_SIZE), color=sheet.theme.faint)
    return sheet.figure


def _panels(records: Sequence[Mapping[str, Any]]) -> list[_Panel]:
    """What there are values of: the known measures first, then others, then the learning rate."""
    parts = [record.get(split) for record in records for split in SPLITS]
    there = [name for part in parts if isinstance(part, Mapping) for name in part]
    panels = []
    for name in dict.fromkeys([*METRICS, *there]):
        if name == SAME_AS_LOSS:
            continue
        curves = {split: _curve(records, (split, name)) for split in SPLITS}
        found = {split: curve for split, curve in curves.items() if curve[0]}
        panels.append(_Panel(name=name, title=METRICS.get(name, name), height=HEIGHT, curves=found))
    rate = {RATE: curve} if (curve := _curve(records, (RATE,)))[0] else {}
    panels.append(_Panel(name=RATE, title="learning rate", height=RATE_HEIGHT, curves=rate))
    return [panel for panel in panels if panel.curves]


def _curve(records: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> Curve:
    """The numbers below some keys of the records; records without are passed over."""
    numbers, values = [], []
    for record in records:
        value: Any = record
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        if type(value) in {int, float} and math.isfinite(value):
            numbers.append(record["epoch"])
            values.append(float(value))
    return numbers, values


def _scale(axes: Axes, panel: _Panel) -> None:
    """A log scale for values that differ a lot, such as the first perplexities and the last."""
    low, high = min(panel.values), max(panel.values)
    if panel.name != RATE and 0 < WIDE_RANGE * low < high:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_ylim(low / 1.2, high * 1.2)
    else:
        room = 0.06 * (high - low) or 0.06 * abs(high) or 1.0
        bottom = 0.0 if low >= 0 and (low < room or panel.name == RATE) else low - room
        axes.set_ylim(bottom, high + room)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    percent = panel.name in {"top1", "top5"}
    axes.yaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{100 * value:g} %" if percent else f"{value:g}")
    )


def _tell_newest(axes: Axes, panel: _Panel, newest: Mapping[str, float]) -> None:
    """Write the newest values to the right, each at its height unless they would touch."""
    apart = (TICK_SIZE + 2) / panel.height
    inverse = axes.transData + axes.transAxes.inverted()
    wanted = {ink: float(inverse.transform((0, value))[1]) for ink, value in newest.items()}
    places, below = {}, -1.0
    for ink in sorted(wanted, key=lambda ink: wanted[ink]):
        below = places[ink] = max(wanted[ink], below + apart)
    # What was moved up moves all of them down by the same in the mean.
    rise = (sum(places.values()) - sum(wanted.values())) / len(places)
    for ink, height in places.items():
        shown = f"{newest[ink]:.4g}" if panel.name == RATE else _format(panel.name, newest[ink])
        axes.text(
            1.012,
            height - rise,
            shown,
            transform=axes.transAxes,
            fontproperties=font(TICK_SIZE, bold=True),
            color=ink,
            va="center",
            parse_math=False,
        )


def _format(name: str, value: float) -> str:
    """As on the console, without the measure's name."""
    return format_metrics({name: value}).removeprefix(f"{name} ")


def _legend(sheet: Sheet, colours: Mapping[str, str]) -> None:
    x = MARGIN
    for split, ink in colours.items():
        x = sheet.entry(x, HEADER + 5, SPLITS[split], ink=ink)
