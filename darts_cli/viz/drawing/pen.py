"""Draws boxes, lines and texts with matplotlib, in the colours of a theme."""

from enum import Enum, auto
from itertools import pairwise
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon
from matplotlib.path import Path as Curve

from darts_cli.genotype.difference import Place, Surplus
from darts_cli.viz.canvas import font
from darts_cli.viz.drawing.layout import Box, Label, Layout, Point, State, Wire
from darts_cli.viz.style import Theme, colour, mix

# Radius of the corners of each kind of box.
ROUNDING = {"input": 4.0, "node": 10.0, "output": 4.0}
LABEL_SIZE, NAME_SIZE, NOTE_SIZE, TITLE_SIZE = 9.0, 11.5, 7.5, 13.0
ARROW_LENGTH, ARROW_HALF_WIDTH = 6.0, 3.0
# Lines begin this far before their first point, under an opaque box, so that none ends in the air
# at a round corner.
LEAD = ROUNDING["node"]


class Weight(Enum):
    """Emphasis of a part of a cell."""

    PALE = auto()
    PLAIN = auto()
    STRONG = auto()


EDGE_WIDTHS = {Weight.PALE: 1.9, Weight.PLAIN: 1.9, Weight.STRONG: 3.0}
JOIN_WIDTHS = {Weight.PALE: 1.2, Weight.PLAIN: 1.2, Weight.STRONG: 2.4}
OUTLINE_WIDTHS = {Weight.PALE: 1.1, Weight.PLAIN: 1.1, Weight.STRONG: 1.8}


class Pen:
    """Draws on axes whose unit is a point, relative to a point of the page."""

    def __init__(self, axes: Axes, theme: Theme, left: float, top: float) -> None:
        self.axes = axes
        self.theme = theme
        self.left = left
        self.top = top

    def draw(self, layout: Layout, prefix: str, surplus: Surplus | None = None) -> None:
        """Draw one cell, lines below boxes.

        Args:
            layout: The layout of the cell.
            prefix: Beginning of the identifiers of its boxes and texts.
            surplus: Edges and states drawn strong, all others pale; None: all are plain.
        """
        for number, wire in enumerate(layout.wires):
            weight = _weigh(surplus, wire.place, wire.joined)
            self.wire(wire, f"{prefix}-line-{number}", weight)
        for number, label in enumerate(layout.labels):
            self._label(label, f"{prefix}-label-{number}", _weigh(surplus, label.place))
        for number, state in enumerate(layout.states):
            self._state(state, f"{prefix}-state-{number}")

    def wire(self, wire: Wire, gid: str, weight: Weight = Weight.PLAIN) -> None:
        """Draw a line with an arrow."""
        points = [(x + self.left, y + self.top) for x, y in wire.points]
        if wire.operation is not None:
            ink, width = colour(wire.operation), EDGE_WIDTHS[weight]
        else:
            ink = self.theme.ink if weight is Weight.STRONG else self.theme.join
            width = JOIN_WIDTHS[weight]
        if weight is Weight.PALE:
            ink = mix(ink, self.theme.background, self.theme.pale)
        tip = points[-1]
        points[-1] = (tip[0] - ARROW_LENGTH, tip[1])
        # Strong lines lie above pale ones.
        above = 0.5 if weight is Weight.STRONG else 0.0
        look = {"edgecolor": ink, "linewidth": width, "zorder": 1 + above}
        self.axes.add_patch(PathPatch(_bend(points), fill=False, gid=gid, **look))
        back, half = tip[0] - ARROW_LENGTH - 1, max(ARROW_HALF_WIDTH, width / 2 + 2)
        head = [tip, (back, tip[1] - half), (back, tip[1] + half)]
        self.axes.add_patch(Polygon(head, facecolor=ink, edgecolor="none", zorder=2 + above))

    def _label(self, label: Label, gid: str, weight: Weight) -> None:
        theme, ink = self.theme, colour(label.operation)
        share = {Weight.PALE: 0.0, Weight.PLAIN: theme.tint, Weight.STRONG: theme.strong}
        pale = weight is Weight.PALE
        self.box(
            label.box,
            fill=mix(ink, theme.background, share[weight]),
            outline=mix(ink, theme.background, theme.pale) if pale else ink,
            rounding=label.box.height / 2,
            gid=gid,
            width=OUTLINE_WIDTHS[weight],
        )
        self.text(
            label.operation,
            (label.box.x, label.box.y),
            LABEL_SIZE,
            gid=f"{gid}-text",
            ink=theme.faint if pale else theme.ink,
            bold=weight is Weight.STRONG,
        )

    def _state(self, state: State, gid: str) -> None:
        self.kind(state.box, state.kind, gid)
        x, y = state.box.x, state.box.y
        rise = 6.0 if state.note else 0.0
        # Only the names in `text.NAMES` have subscripts; any other text is no formula.
        maths = "_{" in state.name
        name = f"${state.name}$" if maths else state.name
        size = NAME_SIZE if maths or state.kind == "node" else LABEL_SIZE
        self.text(name, (x, y - rise), size, gid=f"{gid}-text", maths=maths)
        if state.note:
            note, ink = f"{gid}-text-note", self.theme.faint
            self.text(state.note, (x, y + 10), NOTE_SIZE, gid=note, ink=ink)

    def kind(self, box: Box, kind: str, gid: str) -> None:
        """Draw the box of an input, a node or an output."""
        self.box(
            box,
            fill=self.theme.fills[kind],
            outline=self.theme.outlines[kind],
            rounding=min(ROUNDING[kind], box.height / 3),
            gid=gid,
        )

    def box(
        self,
        box: Box,
        *,
        fill: str,
        outline: str,
        rounding: float,
        gid: str,
        width: float = OUTLINE_WIDTHS[Weight.PLAIN],
    ) -> None:
        """Draw a rectangle with round corners."""
        self.axes.add_patch(
            FancyBboxPatch(
                (box.x - box.width / 2 + self.left, box.y - box.height / 2 + self.top),
                box.width,
                box.height,
                boxstyle=f"round,pad=0,rounding_size={rounding}",
                facecolor=fill,
                edgecolor=outline,
                linewidth=width,
                zorder=3,
                gid=gid,
            )
        )

    def text(
        self,
        text: str,
        at: Point,
        size: float,
        *,
        gid: str,
        ink: str | None = None,
        bold: bool = False,
        align: Literal["left", "center"] = "center",
        maths: bool = False,
    ) -> None:
        """Write a line of text centred at a point, or to the right of it on its baseline."""
        self.axes.text(
            at[0] + self.left,
            at[1] + self.top,
            text,
            fontproperties=font(size, bold=bold),
            color=ink or self.theme.ink,
            ha=align,
            va="center_baseline" if align == "center" else "baseline",
            parse_math=maths,
            usetex=False,
            math_fontfamily="dejavusans",
            zorder=4,
            gid=gid,
        )


def _weigh(surplus: Surplus | None, place: Place | None, joined: int | None = None) -> Weight:
    """Return the weight of an edge, or of the line from a state to the output."""
    if surplus is None:
        return Weight.PLAIN
    return Weight.STRONG if place in surplus.edges or joined in surplus.concat else Weight.PALE


def _bend(points: list[Point]) -> Curve:
    """Return a curve through points that is level at both ends of every part."""
    start = (points[0][0] - LEAD, points[0][1])
    codes, vertices = [Curve.MOVETO, Curve.LINETO], [start, points[0]]
    for (x0, y0), (x1, y1) in pairwise(points):
        if y0 == y1:
            codes.append(Curve.LINETO)
            vertices.append((x1, y1))
        else:
            middle = (x0 + x1) / 2
            codes += [Curve.CURVE4] * 3
            vertices += [(middle, y0), (middle, y1), (x1, y1)]
    return Curve(vertices, codes)
