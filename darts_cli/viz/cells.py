"""Draws a genotype's cells with matplotlib, or writes them as graphviz text."""

from itertools import pairwise
from pathlib import Path
from typing import Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon
from matplotlib.path import Path as Curve

from darts_cli.errors import ConfigError
from darts_cli.files import replacing
from darts_cli.genotype import Genotype
from darts_cli.space import SearchSpace
from darts_cli.viz.layout import Box, Label, Layout, Plan, Point, State, Wire
from darts_cli.viz.text import INPUT_FILL, NODE_FILL, OUTPUT_FILL, colour, dot, names, title

SUFFIXES = (".svg", ".png", ".pdf", ".dot")
"""The formats of a picture."""

MARGIN, TITLE_HEIGHT, BETWEEN_CELLS = 16.0, 32.0, 26.0
"""Points around the picture, for a title, and from one cell to the next title."""
DPI, MAX_PIXELS = 200, 60_000
"""Of a PNG; matplotlib draws no more than 65,535 pixels in a row."""
FONT = ("DejaVu Sans", "sans-serif")
"""The first comes with matplotlib; a viewer of SVG without it takes another sans serif."""
INK, FAINT = "#222222", "#666666"
JOIN_COLOUR = "#A6A6A6"
FILLS = {"input": INPUT_FILL, "node": NODE_FILL, "output": OUTPUT_FILL}
OUTLINES = {"input": "#5E8B61", "node": "#6F8FB0", "output": "#C08A35"}
ROUNDING = {"input": 4.0, "node": 10.0, "output": 4.0}
LABEL_SIZE, NAME_SIZE, NOTE_SIZE, TITLE_SIZE = 9.0, 11.5, 7.5, 13.0
TINT = 0.14
"""How much of its colour an operation's label is filled with."""
ARROW_LENGTH, ARROW_HALF_WIDTH = 6.0, 3.0

METADATA: dict[str, dict[str, str | None]] = {
    ".svg": {"Date": None, "Creator": "darts"},
    ".png": {"Software": "darts"},
    ".pdf": {"CreationDate": None, "Creator": "darts", "Producer": None},
}


def draw(genotype: Genotype, path: str | Path, *, space: SearchSpace | None = None) -> None:
    """Draw all cells of a genotype into one file, which appears whole or not at all.

    Args:
        genotype: What to draw.
        path: Where to; its suffix is the format.
        space: The genotype's space, needed only where its name is not known to `text.NAMES`.

    Raises:
        ConfigError: if the suffix names no format.
        WriteError: if the file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ConfigError(
            f"{path}: found {f'suffix {suffix!r}' if suffix else 'no suffix'},"
            f" expected one of {', '.join(SUFFIXES)}"
        )
    with replacing(path) as temporary:
        if suffix == ".dot":
            temporary.write_text(dot(genotype, space=space), encoding="utf-8")
        else:
            _save(figure(genotype, space=space), temporary, suffix)


def _save(picture: Figure, path: Path, suffix: str) -> None:
    """Write a figure so that the same genotype gives the same bytes every day."""
    dpi = min(DPI, MAX_PIXELS / float(max(picture.get_size_inches())))
    # Text stays text in SVG and PDF, to be searched and copied, and a fixed salt gives the same
    # identifiers each time. Matplotlib knows no other way to set these than its parameters.
    with mpl.rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "darts",
            "pdf.fonttype": 42,
            "savefig.bbox": None,
            "savefig.transparent": False,
        }
    ):
        picture.savefig(
            path, format=suffix[1:], dpi=dpi, facecolor="white", metadata=METADATA[suffix]
        )


def figure(genotype: Genotype, *, space: SearchSpace | None = None) -> Figure:
    """All cells of a genotype, one below the other, on a figure of 72 units an inch.

    Boxes and their texts carry a `gid` that begins with the cell's name and
    `state` or `label`.
    """
    called = names(genotype, space)
    plans = {name: Plan(cell, called, _measure) for name, cell in genotype.cells.items()}
    shown = title(genotype)
    titles = [sum(_title_widths(shown, name)) for name in plans]
    widest = max(plan.width for plan in plans.values())
    layouts = {name: plan.layout(widest) for name, plan in plans.items()}
    inner = max([*titles, *(layout.width for layout in layouts.values())])
    width = inner + 2 * MARGIN
    height = 2 * MARGIN + sum(TITLE_HEIGHT + layout.height for layout in layouts.values())
    height += BETWEEN_CELLS * (len(layouts) - 1)
    canvas = Figure(figsize=(width / 72, height / 72), dpi=72, facecolor="white")
    canvas.set_layout_engine("none")
    axes = canvas.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    top = MARGIN
    for name, layout in layouts.items():
        pen = _Pen(axes, name, MARGIN, top + TITLE_HEIGHT)
        pen.title(shown, above=TITLE_HEIGHT - TITLE_SIZE)
        pen.draw(layout)
        top += TITLE_HEIGHT + layout.height + BETWEEN_CELLS
    return canvas


def _font(size: float, *, bold: bool = False) -> FontProperties:
    return FontProperties(family=list(FONT), size=size, weight="bold" if bold else "normal")


def _measure(text: str, size: float = LABEL_SIZE, *, bold: bool = False) -> float:
    """The width of a text in points."""
    page = Figure(figsize=(1, 1), dpi=72)
    artist = page.text(
        0, 0, text, fontproperties=_font(size, bold=bold), parse_math=False, usetex=False
    )
    return artist.get_window_extent().width


def _title_widths(genotype_title: str, cell: str) -> tuple[float, float]:
    """Of the genotype's name with the space after it, and of the cell's name."""
    return _measure(genotype_title, TITLE_SIZE, bold=True) + 9, _measure(f"{cell} cell", TITLE_SIZE)


class _Pen:
    """Draws the layout of one cell with its top left corner at a point."""

    def __init__(self, axes: Axes, cell: str, left: float, top: float) -> None:
        self.axes = axes
        self.cell = cell
        self.left = left
        self.top = top

    def draw(self, layout: Layout) -> None:
        """All of it: lines below boxes."""
        for wire in layout.wires:
            self._wire(wire)
        for number, label in enumerate(layout.labels):
            self._label(label, number)
        for number, state in enumerate(layout.states):
            self._state(state, number)

    def title(self, genotype_title: str, *, above: float) -> None:
        """The genotype's name and the cell's, from the left edge."""
        y = self.top - above
        self._text(genotype_title, (self.left, y), TITLE_SIZE, bold=True, align="left")
        x = self.left + _title_widths(genotype_title, self.cell)[0]
        self._text(f"{self.cell} cell", (x, y), TITLE_SIZE, ink=FAINT, align="left")

    def _wire(self, wire: Wire) -> None:
        points = [(x + self.left, y + self.top) for x, y in wire.points]
        ink = JOIN_COLOUR if wire.operation is None else colour(wire.operation)
        (x, y), tip = points[-1], points[-1]
        points[-1] = (x - ARROW_LENGTH, y)
        # Lines begin under the opaque box, so that none hangs in the air at a rounded corner.
        start = (points[0][0] - ROUNDING["node"], points[0][1])
        codes, vertices = [Curve.MOVETO, Curve.LINETO], [start, points[0]]
        for (x0, y0), (x1, y1) in pairwise(points):
            if y0 == y1:
                codes.append(Curve.LINETO)
                vertices.append((x1, y1))
            else:
                middle = (x0 + x1) / 2
                codes += [Curve.CURVE4] * 3
                vertices += [(middle, y0), (middle, y1), (x1, y1)]
        width = 1.2 if wire.operation is None else 1.9
        self.axes.add_patch(
            PathPatch(Curve(vertices, codes), fill=False, edgecolor=ink, linewidth=width, zorder=1)
        )
        back, half = tip[0] - ARROW_LENGTH - 1, ARROW_HALF_WIDTH
        head = [tip, (back, tip[1] - half), (back, tip[1] + half)]
        self.axes.add_patch(Polygon(head, facecolor=ink, edgecolor="none", zorder=2))

    def _label(self, label: Label, number: int) -> None:
        ink = colour(label.operation)
        red, green, blue = (1 - TINT * (1 - part) for part in to_rgb(ink))
        gid = f"{self.cell}-label-{number}"
        self._box(
            label.box,
            fill=to_hex((red, green, blue)),
            outline=ink,
            rounding=label.box.height / 2,
            gid=gid,
        )
        self._text(
            label.operation,
            (label.box.x + self.left, label.box.y + self.top),
            LABEL_SIZE,
            gid=f"{gid}-text",
        )

    def _state(self, state: State, number: int) -> None:
        gid = f"{self.cell}-state-{number}"
        self._box(
            state.box,
            fill=FILLS[state.kind],
            outline=OUTLINES[state.kind],
            rounding=ROUNDING[state.kind],
            gid=gid,
        )
        x, y = state.box.x + self.left, state.box.y + self.top
        rise = 6.0 if state.note else 0.0
        # Only the names in `text.NAMES` have subscripts; anything else is shown as it is.
        maths = "_{" in state.name
        name = f"${state.name}$" if maths else state.name
        size = NAME_SIZE if maths or state.kind == "node" else LABEL_SIZE
        self._text(name, (x, y - rise), size, gid=f"{gid}-text", maths=maths)
        if state.note:
            self._text(state.note, (x, y + 10), NOTE_SIZE, ink=FAINT)

    def _box(self, box: Box, *, fill: str, outline: str, rounding: float, gid: str) -> None:
        patch = FancyBboxPatch(
            (box.x - box.width / 2 + self.left, box.y - box.height / 2 + self.top),
            box.width,
            box.height,
            boxstyle=f"round,pad=0,rounding_size={rounding}",
            facecolor=fill,
            edgecolor=outline,
            linewidth=1.1,
            zorder=3,
        )
        patch.set_gid(gid)
        self.axes.add_patch(patch)

    def _text(
        self,
        text: str,
        at: Point,
        size: float,
        *,
        gid: str | None = None,
        ink: str = INK,
        bold: bool = False,
        align: Literal["left", "center"] = "center",
        maths: bool = False,
    ) -> None:
        artist = self.axes.text(
            *at,
            text,
            fontproperties=_font(size, bold=bold),
            color=ink,
            ha=align,
            va="center_baseline" if align == "center" else "baseline",
            parse_math=maths,
            usetex=False,
            math_fontfamily="dejavusans",
            zorder=4,
        )
        artist.set_gid(gid)
