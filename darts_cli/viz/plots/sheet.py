"""A figure that is measured in points from its top left corner."""

from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox

from darts_cli.run.history import History
from darts_cli.viz.canvas import TEXT_SIZE, font, measure
from darts_cli.viz.style import Theme
from darts_cli.viz.text import shown

MARGIN = 20.0
"""Points around everything."""

HEADER = 44.0
"""Points from the top edge to what is below the title."""

TITLE_SIZE, TICK_SIZE = 13.0, 7.5

SAMPLE = 16.0
"""Points of a line in a legend."""

Dashes = tuple[float, tuple[float, ...]]
"""Where a pattern begins, and the points of its strokes and gaps."""


class Sheet:
    """A figure of so many points, with a title."""

    def __init__(self, width: float, height: float, theme: Theme) -> None:
        self.width, self.height = width, height
        self.theme = theme
        self.figure = Figure(figsize=(width / 72, height / 72), dpi=72, facecolor=theme.background)
        self.figure.set_layout_engine("none")

    def title(self, history: History, what: str) -> None:
        """Name the run, and what is shown of it."""
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
        align: Literal["left", "center", "right"] = "left",
    ) -> Bbox:
        """Write a line with its baseline at a height; where it went, from the bottom left."""
        artist = self.figure.text(
            x / self.width,
            1 - y / self.height,
            text,
            fontproperties=font(size, bold=bold),
            color=ink or self.theme.ink,
            ha=align,
            va="baseline",
            # Names may hold a dollar.
            parse_math=False,
        )
        return artist.get_window_extent()

    def entry(
        self,
        x: float,
        y: float,
        label: str,
        *,
        ink: str,
        width: float = 2.0,
        dashes: Dashes | None = None,
    ) -> float:
        """Draw an entry of a legend, with its text's baseline at a height.

        Returns:
            Where the next entry begins.
        """
        sample = Line2D(
            [x / self.width, (x + SAMPLE) / self.width],
            [1 - (y - TICK_SIZE / 3) / self.height] * 2,
            color=ink,
            linewidth=width,
            linestyle=dashes or "solid",
            solid_capstyle="butt",
        )
        self.figure.add_artist(sample)
        self.text(x + SAMPLE + 5, y, label, TICK_SIZE)
        return x + entry_width(label)

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes in a rectangle, with a thin frame and small numbers."""
        box = (
            left / self.width,
            1 - (top + height) / self.height,
            width / self.width,
            height / self.height,
        )
        axes = self.figure.add_axes(box, facecolor=self.theme.background)
        for spine in axes.spines.values():
            spine.set(color=self.theme.line, linewidth=0.7)
        axes.tick_params(
            colors=self.theme.line,
            labelcolor=self.theme.faint,
            labelsize=TICK_SIZE,
            length=2,
            pad=2,
        )
        for axis in (axes.xaxis, axes.yaxis):
            # Plain text, not formulas: it can be searched, and needs no second font.
            axis.set_major_formatter(plain_number)
        axes.set_axisbelow(True)
        return axes


def plain_number(value: float, _place: float = 0) -> str:
    """How numbers are written beside axes."""
    return f"{value:g}"


def entry_width(label: str) -> float:
    """Of an entry of a legend, with the gap behind it."""
    return SAMPLE + 5 + measure(label, TICK_SIZE) + 14


def wrapped(text: str, width: float, size: float = TEXT_SIZE) -> list[str]:
    """A text in lines that are no wider than so many points, unless one word is."""
    lines: list[str] = []
    for word in text.split(" "):
        if lines and measure(f"{lines[-1]} {word}", size) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
