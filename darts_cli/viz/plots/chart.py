"""Charts over epochs: panels below one another, with titles, lines, thresholds and a legend."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes

from darts_cli.run.history import History
from darts_cli.viz.canvas import TEXT_SIZE, font
from darts_cli.viz.plots import epochs
from darts_cli.viz.plots.sheet import HEADER, MARGIN, TICK_SIZE, Dashes, Entry, Sheet
from darts_cli.viz.style import Theme

# Points: width of the sheet, from panel to panel, and height of the legend.
WIDTH, GAP, LEGEND = 640.0, 30.0, 32.0

# Dashes of the vertical lines at marked epochs.
MARKED: Dashes = (0, (1.5, 1.5))


Scale = Callable[[Axes, float, float], None]


@dataclass(frozen=True, slots=True)
class Panel:
    """Lines over epochs that share a vertical axis."""

    title: str
    curves: Mapping[str, tuple[Sequence[int], Sequence[float]]]
    """Epochs and values of each line, by a key of the chart's `inks`."""
    scale: Scale
    """Sets the vertical axis, given the smallest and the largest value or threshold."""
    height: float
    """Height in points."""
    format: Callable[[float], str] | None = None
    """Text of a line's newest value, written to its right; None: no text."""
    threshold: tuple[float, str] | None = None
    """Value of a horizontal line, and its meaning, which is written to its right."""
    steps: bool = False
    """Whether values are whole numbers, which jump."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """Panels on one sheet, all over the same epochs."""

    panels: Sequence[Panel]
    numbers: Sequence[int]
    """Epochs of the run, which the horizontal axis spans."""
    inks: Mapping[str, str]
    """Colours of the lines, as #RRGGBB."""
    legend: Sequence[Entry]
    left: float
    """Points for the numbers of the vertical axes."""
    right: float
    """Points for the texts to the right of the panels."""
    below: float
    """Points below the panels."""
    widths: tuple[float, float] = (1.6, 0.0)
    """Points of the last line of a panel, and what each line before is wider than the next."""
    marked: Sequence[int] = ()
    """Epochs with a vertical line."""
    grid: bool = False

    def draw(self, history: History, what: str, theme: Theme) -> Sheet:
        """Draw the chart of a run, titled with its name and `what` is shown of it."""
        top = HEADER + LEGEND
        height = top + sum(panel.height + GAP for panel in self.panels) + self.below
        sheet = Sheet(WIDTH, height, theme)
        sheet.title(history, what, max(self.numbers))
        sheet.legend(self.legend, HEADER + 5)
        left, width = MARGIN + self.left, WIDTH - 2 * MARGIN - self.left - self.right
        for panel in self.panels:
            axes = sheet.axes(left, top, width, panel.height)
            sheet.text(left, top - 5, panel.title, TEXT_SIZE, bold=True)
            for epoch in self.marked:
                axes.axvline(epoch, color=theme.line, linewidth=0.7, linestyle=MARKED, zorder=1)
            style: dict[str, Any] = {"drawstyle": "steps-mid"} if panel.steps else {}
            for index, (key, curve) in enumerate(panel.curves.items()):
                # Of equal lines, each is thinner than the one below it, so that all are seen.
                wide = self.widths[0] + self.widths[1] * (len(panel.curves) - index - 1)
                epochs.plot(axes, *curve, color=self.inks[key], linewidth=wide, zorder=3, **style)
            shown = [value for _, values in panel.curves.values() for value in values]
            shown += [panel.threshold[0]] if panel.threshold else []
            panel.scale(axes, min(shown), max(shown))
            if panel.threshold:
                _draw_threshold(axes, *panel.threshold, theme.faint)
            if self.grid:
                axes.grid(color=theme.grid, linewidth=0.6)
            epochs.scale(axes, self.numbers, ticks=10, named=panel is self.panels[-1])
            if panel.format:
                newest = {self.inks[key]: values[-1] for key, (_, values) in panel.curves.items()}
                _write_newest(axes, panel.height, newest, panel.format)
            top += panel.height + GAP
        axes.set_xlabel("epoch", fontproperties=font(TICK_SIZE), color=theme.faint)
        return sheet


def _draw_threshold(axes: Axes, value: float, meaning: str, ink: str) -> None:
    axes.axhline(value, color=ink, linewidth=0.8, zorder=2)
    place, text = (1, value), f"{value:g}  {meaning}"
    across = axes.get_yaxis_transform()
    note = axes.annotate(text, place, (5, 0), xycoords=across, textcoords="offset points")
    note.set(fontproperties=font(TICK_SIZE), color=ink, va="center", parse_math=False)


def _write_newest(
    axes: Axes, height: float, newest: Mapping[str, float], format_value: Callable[[float], str]
) -> None:
    """Write the newest values, by colour, each at its height unless they would touch."""
    apart = (TICK_SIZE + 2) / height
    inverse = axes.transData + axes.transAxes.inverted()
    wanted = {ink: float(inverse.transform((0, value))[1]) for ink, value in newest.items()}
    places, below = {}, -1.0
    for ink in sorted(wanted, key=lambda ink: wanted[ink]):
        below = places[ink] = max(wanted[ink], below + apart)
    # Moving texts up has raised their mean; move all of them down by as much.
    rise = (sum(places.values()) - sum(wanted.values())) / len(places)
    for ink, place in places.items():
        text = axes.text(1.012, place - rise, format_value(newest[ink]), transform=axes.transAxes)
        text.set(fontproperties=font(TICK_SIZE, bold=True), color=ink, va="center")
        text.set_parse_math(False)
