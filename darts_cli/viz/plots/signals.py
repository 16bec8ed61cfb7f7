"""Signs of collapse over epochs, with the thresholds of `collapse`, and the warnings in words."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from darts_cli.run.history import History
from darts_cli.run.signals import CLOSE, SETTLED_EPOCHS, UNDECIDED, SearchSnapshot
from darts_cli.space import SearchSpace
from darts_cli.viz.canvas import TEXT_SIZE, font
from darts_cli.viz.plots import epochs
from darts_cli.viz.plots.sheet import (
    HEADER,
    MARGIN,
    TICK_SIZE,
    Dashes,
    Sheet,
    plain_number,
    wrapped,
)
from darts_cli.viz.style import DEFAULT, Style

WIDTH = 640.0
LEFT, RIGHT = 34.0, 100.0
"""For the numbers of the vertical axes, and for the names of thresholds."""

HEIGHT, GAP = 92.0, 30.0
LEGEND = 32.0
WARNING_LINE = 13.0
SMALLEST_MARGIN = 1e-4
"""Below it the scale of margins is linear, so that there is a place for 0."""

CHANGE: Dashes = (0, (1.5, 1.5))
"""The dashes of the lines at epochs with another genotype than before."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Panel:
    """One signal over all epochs."""

    title: str
    values: Mapping[str, Sequence[float]]
    """By cell; "" for what all cells share."""
    threshold: float
    meaning: str
    """What the threshold says, to the right of it."""
    scale: Callable[[Axes, float, float], None]
    """Sets the vertical axis, from the smallest and the largest value shown."""
    steps: bool = False
    """Whether values are whole numbers, which jump."""


def figure(history: History, style: Style = DEFAULT) -> Figure:
    """A panel a signal, each with its threshold; below, what looks bad after the newest epoch.

    Raises:
        CheckpointError: if there are no alphas.
    """
    snapshots = epochs.snapshots(history)
    panels = _panels(history.space, snapshots)
    words = _words(history, snapshots[-1].epoch)
    top = HEADER + LEGEND
    height = top + len(panels) * (HEIGHT + GAP) + 22 + WARNING_LINE * len(words) + MARGIN / 2
    sheet = Sheet(WIDTH, height, style.colours)
    sheet.title(history, f"signs of collapse, {epochs.progress(history, snapshots[-1].epoch)}")
    colours = {
        cell: sheet.theme.series[place % len(sheet.theme.series)]
        for place, cell in enumerate(history.space.cells)
    }
    _legend(sheet, colours)
    numbers = [snapshot.epoch for snapshot in snapshots]
    changed = [one.epoch for one in snapshots[1:] if one.signals.unchanged_epochs == 0]
    for panel in panels:
        axes = sheet.axes(MARGIN + LEFT, top, WIDTH - 2 * MARGIN - LEFT - RIGHT, HEIGHT)
        sheet.text(MARGIN + LEFT, top - 5, panel.title, TEXT_SIZE, bold=True)
        for epoch in changed:
            axes.axvline(epoch, color=sheet.theme.line, linewidth=0.7, linestyle=CHANGE, zorder=1)
        _draw(axes, panel, numbers, {**colours, "": sheet.theme.ink})
        _draw_threshold(axes, panel, sheet.theme.faint)
        epochs.scale(axes, numbers, ticks=10, named=panel is panels[-1])
        top += HEIGHT + GAP
    axes.set_xlabel("epoch", fontproperties=font(TICK_SIZE), color=sheet.theme.faint)
    for place, (line, heading) in enumerate(words):
        sheet.text(MARGIN + LEFT, top + 12 + place * WARNING_LINE, line, TEXT_SIZE, bold=heading)
    return sheet.figure


def _panels(space: SearchSpace, snapshots: Sequence[SearchSnapshot]) -> list[_Panel]:
    signals = [snapshot.signals for snapshot in snapshots]
    cells, count = space.cells, space.nodes * space.edges_per_node
    kind = f"{space.skip.removesuffix('_connect')} connections"
    return [
        _Panel(
            title=f"{kind} of {count} edge{'' if count == 1 else 's'}",
            values={cell: [one.skip_connections[cell] for one in signals] for cell in cells},
            threshold=count / 2,
            meaning=f"{cells[0]}: collapse",
            scale=lambda axes, _low, _high: _scale_counts(axes, count),
            steps=True,
        ),
        _Panel(
            title="entropy of the candidates, 1 where all weigh the same",
            values={cell: [one.entropy[cell] for one in signals] for cell in cells},
            threshold=UNDECIDED,
            meaning="above: undecided",
            scale=_scale_entropy,
        ),
        _Panel(
            title="weakest margin of probability",
            values={cell: [one.weakest_margin[cell] for one in signals] for cell in cells},
            threshold=CLOSE,
            meaning="below: by a hair",
            scale=_scale_margins,
        ),
        _Panel(
            title="epochs since the genotype changed",
            values={"": [one.unchanged_epochs for one in signals]},
            threshold=SETTLED_EPOCHS,
            meaning="from here: settled",
            scale=lambda axes, _low, high: _scale_counts(axes, high),
            steps=True,
        ),
    ]


def _scale_counts(axes: Axes, most: float) -> None:
    axes.set_ylim(-0.08 * most, 1.08 * most)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, steps=[1, 2, 5, 10]))


def _scale_entropy(axes: Axes, low: float, high: float) -> None:
    room = 0.08 * (high - low)
    axes.set_ylim(low - room, high + room)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10]))


def _scale_margins(axes: Axes, low: float, high: float) -> None:
    """Logarithmic, since the threshold is small, and linear around 0, which a tie is."""
    axes.set_yscale("symlog", linthresh=SMALLEST_MARGIN, linscale=0.4)
    axes.set_ylim(-SMALLEST_MARGIN / 4 if low < SMALLEST_MARGIN else low / 1.5, min(high * 1.5, 1))
    axes.yaxis.set_major_locator(FixedLocator([0, 1e-4, 1e-3, 1e-2, 0.1, 1]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(plain_number)


def _draw(axes: Axes, panel: _Panel, numbers: Sequence[int], colours: Mapping[str, str]) -> None:
    """The lines of all cells; equal ones are seen below one another, each thinner than the last."""
    for place, (cell, values) in enumerate(panel.values.items()):
        left = len(panel.values) - place - 1
        style = {"drawstyle": "steps-mid"} if panel.steps else {}
        epochs.plot(
            axes,
            numbers,
            values,
            color=colours[cell],
            linewidth=1.5 + 1.8 * left,
            zorder=3,
            **style,
        )
    shown = [value for values in panel.values.values() for value in values] + [panel.threshold]
    panel.scale(axes, min(shown), max(shown))


def _draw_threshold(axes: Axes, panel: _Panel, ink: str) -> None:
    axes.axhline(panel.threshold, color=ink, linewidth=0.8, zorder=2)
    axes.annotate(
        f"{panel.threshold:g}  {panel.meaning}",
        (1, panel.threshold),
        xycoords=("axes fraction", "data"),
        xytext=(5, 0),
        textcoords="offset points",
        fontproperties=font(TICK_SIZE),
        color=ink,
        va="center",
        parse_math=False,
    )


def _legend(sheet: Sheet, colours: Mapping[str, str]) -> None:
    x, y = MARGIN, HEADER + 5
    for cell, ink in colours.items():
        x = sheet.entry(x, y, f"{cell} cell", ink=ink)
    x = sheet.entry(x, y, "threshold", ink=sheet.theme.faint, width=0.8)
    sheet.entry(x, y, "the genotype changed", ink=sheet.theme.line, width=0.8, dashes=CHANGE)


def _words(history: History, epoch: int) -> list[tuple[str, bool]]:
    """The lines below the panels, and whether each is a heading."""
    found = history.warnings()
    if not found:
        return [(f"No warning after epoch {epoch}", True)]
    words = [(f"Warning{'' if len(found) == 1 else 's'} after epoch {epoch}", True)]
    for warning in found:
        first, *more = wrapped(warning, WIDTH - 2 * MARGIN - LEFT - 12)
        words.append((f"\N{BULLET} {first}", False))
        words += [(f"   {line}", False) for line in more]
    return words
