"""A figure that is measured in points from its top left corner."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.transforms import Affine2D, Bbox

from darts_cli.run.history import History
from darts_cli.viz.canvas import TEXT_SIZE, blank, font, measure
from darts_cli.viz.plots.epochs import progress
from darts_cli.viz.style import Theme
from darts_cli.viz.text import shown

# Points around everything, and from the top edge to the plot below the title.
MARGIN, HEADER = 20.0, 44.0

# Sizes of texts in points.
TITLE_SIZE, TICK_SIZE = 13.0, 7.5

# In points: length of a line in a legend, and height of a row of entries.
SAMPLE, ENTRY_HEIGHT = 16.0, 14.0

# Offset of a pattern, and the points of its strokes and gaps.
Dashes = tuple[float, tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Entry:
    """A line in a legend and its text."""

    label: str
    ink: str
    """Colour of the line, as #RRGGBB."""
    width: float = 2.0
    """Points of the line."""
    dashes: Dashes | None = None


class Sheet:
    """A figure of a width and height in points, with a title and a legend."""

    def __init__(self, width: float, height: float, theme: Theme) -> None:
        self.width, self.height = width, height
        self.theme = theme
        self.figure = blank(width, height, theme.background)
        # From points below the top left corner to shares of the figure.
        self.points = Affine2D().translate(0, -height).scale(1 / width, -1 / height)
        self.transform = self.points + self.figure.transFigure

    def title(self, history: History, what: str, epoch: int) -> None:
        """Write the name of the run, what is shown of it, and the epoch it has reached."""
        what = f"{what}, {progress(history, epoch)}"
        baseline = MARGIN + TITLE_SIZE
        room = self.width - 2 * MARGIN - 9 - measure(what, TITLE_SIZE - 2)
        name = shown(history.name)
        while measure(name, TITLE_SIZE, bold=True) > room and len(name) > 1:
            name = name[:-2] + "\N{HORIZONTAL ELLIPSIS}"
        where = self.text(MARGIN, baseline, name, TITLE_SIZE, bold=True)
        end = where.x1 + 9
        self.text(end, baseline, what, TITLE_SIZE - 2, ink=self.theme.faint)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        size: float = TEXT_SIZE,
        *,
        ink: str | None = None,
        bold: bool = False,
        align: Literal["left", "right"] = "left",
    ) -> Bbox:
        """Write a line of text with its baseline at a height.

        Returns:
            The box of the text in points from the bottom left corner.
        """
        artist = self.figure.text(x, y, text, transform=self.transform, ha=align)
        artist.set(fontproperties=font(size, bold=bold), color=ink or self.theme.ink)
        # A dollar in a name would begin a formula.
        artist.set_parse_math(False)
        return artist.get_window_extent()

    def legend(self, entries: Sequence[Entry], top: float, width: float | None = None) -> None:
        """Draw a legend, the baseline of its first row at `top`, in rows of a width in points."""
        places = arrange((one.label for one in entries), width or self.width)
        for entry, (x, row) in zip(entries, places, strict=True):
            y = top + row * ENTRY_HEIGHT
            sample = Line2D([x, x + SAMPLE], [y - TICK_SIZE / 3] * 2, transform=self.transform)
            sample.set(color=entry.ink, linewidth=entry.width, solid_capstyle="butt")
            sample.set_linestyle(entry.dashes or "solid")
            self.figure.add_artist(sample)
            self.text(x + SAMPLE + 5, y, entry.label, TICK_SIZE)

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Add axes in a rectangle, with a thin frame and small numbers."""
        box = self.points.transform_bbox(Bbox.from_bounds(left, top + height, width, -height))
        axes = self.figure.add_axes(box.bounds, facecolor=self.theme.background)
        for spine in axes.spines.values():
            spine.set(color=self.theme.line, linewidth=0.7)
        axes.tick_params(colors=self.theme.line, labelsize=TICK_SIZE, length=2, pad=2)
        axes.tick_params(labelcolor=self.theme.faint)
        for axis in (axes.xaxis, axes.yaxis):
            # Formulas, matplotlib's default, could not be searched and need a second font.
            axis.set_major_formatter(plain_number)
        axes.set_axisbelow(True)
        return axes


def plain_number(value: float, _place: float = 0) -> str:
    """Format a number beside an axis."""
    return f"{value:g}"


def arrange(labels: Iterable[str], width: float) -> list[tuple[float, int]]:
    """Return the left edge and the row of each entry of a legend, in rows of a width in points."""
    x, row = MARGIN, 0
    places = []
    for label in labels:
        step = SAMPLE + 5 + measure(label, TICK_SIZE) + 14
        if x > MARGIN and x + step > width - MARGIN:
            x, row = MARGIN, row + 1
        places.append((x, row))
        x += step
    return places


def wrapped(text: str, width: float, size: float = TEXT_SIZE) -> list[str]:
    """Split a text into lines no wider than `width` points, unless a single word is wider."""
    lines: list[str] = []
    for word in text.split(" "):
        if lines and measure(f"{lines[-1]} {word}", size) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
