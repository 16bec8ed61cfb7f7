"""A figure that is measured in points from its top left corner, and its way into a file."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox

from darts_cli.errors import ConfigError
from darts_cli.history import History
from darts_cli.viz.cells import FONT, MAX_PIXELS, METADATA
from darts_cli.viz.text import shown

MARGIN = 20.0
"""Points around everything."""

HEADER = 44.0
"""Points from the top edge to what is below the title."""

TITLE_SIZE, TEXT_SIZE, TICK_SIZE = 13.0, 9.0, 7.5

SAMPLE = 16.0
"""Points of a line in a legend."""

Dashes = tuple[float, tuple[float, ...]]
"""Where a pattern begins, and the points of its strokes and gaps."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Inks:
    """All colours but those of operations."""

    paper: str
    text: str
    faint: str
    """Of what is less important."""
    line: str
    """Of frames and thresholds."""
    grid: str
    empty: str
    """Of what is not known."""
    series: tuple[str, ...]
    """Of lines beside one another; Okabe and Ito's, which the colour-blind can tell apart."""


LIGHT = Inks(
    paper="#FFFFFF",
    text="#222222",
    faint="#666666",
    line="#B4B4B4",
    grid="#E8E8E8",
    empty="#F2F2F2",
    series=("#0072B2", "#D55E00", "#009E73", "#CC79A7"),
)
DARK = Inks(
    paper="#16191D",
    text="#E8E8E8",
    faint="#A4AAB1",
    line="#59616A",
    grid="#2B3036",
    empty="#23272C",
    series=("#56B4E9", "#E69F00", "#2DBE97", "#DF9CC2"),
)


@contextmanager
def plain_settings() -> Iterator[None]:
    """Matplotlib as it comes, whatever the user's own settings say, for the same bytes everywhere.

    Text stays text in SVG and PDF, to be searched and copied, and a fixed salt
    gives the same identifiers each time.
    """
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "darts", "pdf.fonttype": 42})
        yield


class Sheet:
    """A figure of so many points, with a title."""

    def __init__(self, width: float, height: float, *, dark: bool) -> None:
        self.width, self.height = width, height
        self.inks = DARK if dark else LIGHT
        self.figure = Figure(figsize=(width / 72, height / 72), dpi=72, facecolor=self.inks.paper)
        self.figure.set_layout_engine("none")

    def title(self, history: History, what: str) -> None:
        """Name the run, and what is shown of it."""
        baseline = MARGIN + TITLE_SIZE
        room = self.width - 2 * MARGIN - 9 - width_of(what, TITLE_SIZE - 2)
        name = shown(history.name)
        while width_of(name, TITLE_SIZE, bold=True) > room and len(name) > 1:
            name = name[:-2] + "\N{HORIZONTAL ELLIPSIS}"
        where = self.text(MARGIN, baseline, name, TITLE_SIZE, bold=True)
        end = where.x1 + 9
        self.text(end, baseline, what, TITLE_SIZE - 2, ink=self.inks.faint)

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
            color=ink or self.inks.text,
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
        axes = self.figure.add_axes(box, facecolor=self.inks.paper)
        for spine in axes.spines.values():
            spine.set(color=self.inks.line, linewidth=0.7)
        axes.tick_params(
            colors=self.inks.line, labelcolor=self.inks.faint, labelsize=TICK_SIZE, length=2, pad=2
        )
        for axis in (axes.xaxis, axes.yaxis):
            # Plain text, not formulas: it can be searched, and needs no second font.
            axis.set_major_formatter(plain_number)
        axes.set_axisbelow(True)
        return axes


def plain_number(value: float, _place: float = 0) -> str:
    """How numbers are written beside axes."""
    return f"{value:g}"


def font(size: float, *, bold: bool = False) -> FontProperties:
    """The font of all pictures."""
    return FontProperties(family=list(FONT), size=size, weight="bold" if bold else "normal")


def width_of(text: str, size: float = TEXT_SIZE, *, bold: bool = False) -> float:
    """Of a line of text, in points."""
    return Sheet(72, 72, dark=False).text(0, 0, text, size, bold=bold).width


def entry_width(label: str) -> float:
    """Of an entry of a legend, with the gap behind it."""
    return SAMPLE + 5 + width_of(label, TICK_SIZE) + 14


def wrapped(text: str, width: float, size: float = TEXT_SIZE) -> list[str]:
    """A text in lines that are no wider than so many points, unless one word is."""
    lines: list[str] = []
    for word in text.split(" "):
        if lines and width_of(f"{lines[-1]} {word}", size) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def suffix_of(path: Path, suffixes: Sequence[str]) -> str:
    """The suffix of a path in small letters.

    Raises:
        ConfigError: if it is none of those that can be written.
    """
    suffix = path.suffix.lower()
    if suffix not in suffixes:
        choices = f"one of {', '.join(suffixes)}" if len(suffixes) > 1 else suffixes[0]
        raise ConfigError(
            f"{path}: found {f'suffix {suffix!r}' if suffix else 'no suffix'}, expected {choices}"
        )
    return suffix


def save(figure: Figure, path: Path, suffix: str, *, dpi: float) -> None:
    """Write a figure; the same one gives the same bytes every day.

    Args:
        figure: What was drawn, under `plain_settings`, which have to hold still.
        path: Where to, whatever its own suffix.
        suffix: The format, of those in `cells.METADATA`.
        dpi: Pixels an inch of what has pixels.
    """
    most = MAX_PIXELS / float(max(figure.get_size_inches()))
    figure.savefig(
        path,
        format=suffix[1:],
        dpi=min(dpi, most),
        facecolor=figure.get_facecolor(),
        metadata=METADATA[suffix],
    )
