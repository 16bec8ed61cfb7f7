"""Signs of collapse over epochs with their thresholds, and the warnings in words."""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import cycle

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from darts_cli.run.history import History
from darts_cli.run.signals import CLOSE, SETTLED_EPOCHS, UNDECIDED, SearchSnapshot
from darts_cli.space import SearchSpace
from darts_cli.viz.canvas import TEXT_SIZE
from darts_cli.viz.plots import epochs
from darts_cli.viz.plots.chart import MARKED, WIDTH, Chart, Panel, Scale
from darts_cli.viz.plots.sheet import MARGIN, Entry, plain_number, wrapped
from darts_cli.viz.style import DEFAULT, Style
from darts_cli.viz.text import count

# Points for the numbers of the vertical axes, and for the meanings of thresholds.
LEFT, RIGHT = 34.0, 100.0

# Heights in points of a panel and of a line of the warnings.
HEIGHT, WARNING_LINE = 92.0, 13.0

# Below it the scale of margins is linear, so that 0 has a place.
SMALLEST_MARGIN = 1e-4


def figure(history: History, style: Style = DEFAULT) -> Figure:
    """Draw a panel for each signal, and below the warnings after the newest epoch.

    Raises:
        CheckpointError: if there are no alphas.
    """
    snapshots = epochs.snapshots(history)
    theme, cells = style.colours, history.space.cells
    words = _words(history, snapshots[-1].epoch)
    inks = dict(zip(cells, cycle(theme.series), strict=False))
    chart = Chart(
        panels=_panels(history.space, snapshots),
        numbers=[snapshot.epoch for snapshot in snapshots],
        inks={**inks, "": theme.ink},
        legend=[
            *(Entry(f"{cell} cell", ink) for cell, ink in inks.items()),
            Entry("threshold", theme.faint, 0.8),
            Entry("the genotype changed", theme.line, 0.8, MARKED),
        ],
        left=LEFT,
        right=RIGHT,
        below=22 + WARNING_LINE * len(words) + MARGIN / 2,
        widths=(1.5, 1.8),
        marked=[one.epoch for one in snapshots[1:] if one.signals.unchanged_epochs == 0],
    )
    sheet = chart.draw(history, "signs of collapse", theme)
    for place, (line, heading) in enumerate(words):
        y = sheet.height - chart.below + 12 + place * WARNING_LINE
        sheet.text(MARGIN + LEFT, y, line, TEXT_SIZE, bold=heading)
    return sheet.figure


def _panels(space: SearchSpace, snapshots: Sequence[SearchSnapshot]) -> list[Panel]:
    numbers = [snapshot.epoch for snapshot in snapshots]
    signals = [snapshot.signals for snapshot in snapshots]

    def panel(
        title: str, signal: str, scale: Scale, threshold: tuple[float, str], *, steps: bool = False
    ) -> Panel:
        values = [getattr(one, signal) for one in signals]
        # What all cells share is no mapping.
        curves = (
            {cell: (numbers, [one[cell] for one in values]) for cell in space.cells}
            if isinstance(values[0], Mapping)
            else {"": (numbers, values)}
        )
        return Panel(title, curves, scale, HEIGHT, threshold=threshold, steps=steps)

    edges = space.nodes * space.edges_per_node
    skips = f"{space.skip.removesuffix('_connect')} connections of {count(edges, 'edge')}"
    entropy = "entropy of the candidates, 1 where all weigh the same"
    collapse = edges / 2, f"{space.cells[0]}: collapse"
    margin, close = "weakest margin of probability", (CLOSE, "below: by a hair")
    age, settled = "epochs since the genotype changed", (SETTLED_EPOCHS, "from here: settled")
    scale = partial(_scale_counts, least=edges)
    return [
        panel(skips, "skip_connections", scale, collapse, steps=True),
        panel(entropy, "entropy", _scale_entropy, (UNDECIDED, "above: undecided")),
        panel(margin, "weakest_margin", _scale_margins, close),
        panel(age, "unchanged_epochs", _scale_counts, settled, steps=True),
    ]


def _scale_counts(axes: Axes, _low: float, high: float, *, least: float = 0) -> None:
    high = max(high, least)
    axes.set_ylim(-0.08 * high, 1.08 * high)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, steps=[1, 2, 5, 10]))


def _scale_entropy(axes: Axes, low: float, high: float) -> None:
    room = 0.08 * (high - low)
    axes.set_ylim(low - room, high + room)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10]))


def _scale_margins(axes: Axes, low: float, high: float) -> None:
    """Set a log scale, since the threshold is small, that is linear around 0, a tie."""
    axes.set_yscale("symlog", linthresh=SMALLEST_MARGIN, linscale=0.4)
    axes.set_ylim(-SMALLEST_MARGIN / 4 if low < SMALLEST_MARGIN else low / 1.5, min(high * 1.5, 1))
    axes.yaxis.set_major_locator(FixedLocator([0, 1e-4, 1e-3, 1e-2, 0.1, 1]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(plain_number)


def _words(history: History, epoch: int) -> list[tuple[str, bool]]:
    """Return the lines below the panels, and whether each is a heading."""
    found = history.warnings()
    heading = f"Warning{'' if len(found) == 1 else 's'}" if found else "No warning"
    words = [(f"{heading} after epoch {epoch}", True)]
    for warning in found:
        first, *more = wrapped(warning, WIDTH - 2 * MARGIN - LEFT - 12)
        words.append((f"\N{BULLET} {first}", False))
        words += [(f"   {line}", False) for line in more]
    return words
