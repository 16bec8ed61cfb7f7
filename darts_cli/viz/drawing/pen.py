"""Draws boxes, lines and texts with matplotlib, in the colours of a theme."""

from itertools import pairwise
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch, Patch, PathPatch, Polygon
from matplotlib.path import Path as Curve
from matplotlib.transforms import Affine2D

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


# Emphasis of a part of a cell.
Weight = Literal["pale", "plain", "strong"]

# Widths of lines and outlines, and of strong ones.
EDGE, JOIN, OUTLINE = (1.9, 3.0), (1.2, 2.4), (1.1, 1.8)


class Pen:
    """Draws on axes whose unit is a point, relative to a point of the page."""

    def __init__(self, axes: Axes, theme: Theme, left: float, top: float) -> None:
        self.axes = axes
        self.theme = theme
        self.transform = Affine2D().translate(left, top) + axes.transData

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

    def wire(self, wire: Wire, gid: str, weight: Weight = "plain") -> None:
        """Draw a line with an arrow."""
        strong = weight == "strong"
        if wire.operation is not None:
            ink, width = colour(wire.operation), EDGE[strong]
        else:
            ink, width = self.theme.ink if strong else self.theme.join, JOIN[strong]
        if weight == "pale":
            ink = mix(ink, self.theme.background, self.theme.pale)
        *points, (x, y) = wire.points
        curve = _bend([*points, (x - ARROW_LENGTH, y)])
        # Strong lines lie above pale ones.
        above = 0.5 if strong else 0.0
        look = {"edgecolor": ink, "linewidth": width, "zorder": 1 + above}
        self._add(PathPatch(curve, fill=False, gid=gid, **look))
        back, half = x - ARROW_LENGTH - 1, max(ARROW_HALF_WIDTH, width / 2 + 2)
        head = [(x, y), (back, y - half), (back, y + half)]
        self._add(Polygon(head, facecolor=ink, edgecolor="none", zorder=2 + above))

    def _label(self, label: Label, gid: str, weight: Weight) -> None:
        theme, pale, strong = self.theme, weight == "pale", weight == "strong"
        share = {"pale": 0.0, "plain": theme.tint, "strong": theme.strong}[weight]
        fade = theme.pale if pale else 1.0
        self.operation(label.box, label.operation, gid, share, OUTLINE[strong], fade)
        ink, at = theme.faint if pale else theme.ink, (label.box.x, label.box.y)
        self.text(label.operation, at, LABEL_SIZE, gid=f"{gid}-text", ink=ink, bold=strong)

    def operation(
        self, box: Box, name: str, gid: str, share: float, width: float, fade: float = 1.0
    ) -> None:
        """Draw the box of an operation, with shares of its colour in the fill and the outline."""
        ink, background = colour(name), self.theme.background
        fill, outline = mix(ink, background, share), mix(ink, background, fade)
        self._box(box, fill, outline, box.height / 2, gid, width)

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
        fill, outline = self.theme.fills[kind], self.theme.outlines[kind]
        self._box(box, fill, outline, min(ROUNDING[kind], box.height / 3), gid, OUTLINE[False])

    def _box(
        self, box: Box, fill: str, outline: str, rounding: float, gid: str, width: float
    ) -> None:
        corner = box.x - box.width / 2, box.y - box.height / 2
        shape = f"round,pad=0,rounding_size={rounding}"
        patch = FancyBboxPatch(corner, box.width, box.height, boxstyle=shape, gid=gid)
        patch.set(facecolor=fill, edgecolor=outline, linewidth=width, zorder=3)
        self._add(patch)

    def _add(self, patch: Patch) -> None:
        patch.set_transform(self.transform)
        self.axes.add_patch(patch)

    def text(
        self,
        text: str,
        at: Point,
        size: float,
        *,
        gid: str,
        ink: str | None = None,
        bold: bool = False,
        left: bool = False,
        maths: bool = False,
    ) -> None:
        """Write a line of text centred at a point, or to the right of it on its baseline."""
        artist = self.axes.text(*at, text, transform=self.transform, gid=gid, zorder=4)
        artist.set(fontproperties=font(size, bold=bold), color=ink or self.theme.ink)
        artist.set(parse_math=maths, usetex=False, math_fontfamily="dejavusans")
        artist.set(ha="left" if left else "center", va="baseline" if left else "center_baseline")


def _weigh(surplus: Surplus | None, place: Place | None, joined: int | None = None) -> Weight:
    """Return the weight of an edge, or of the line from a state to the output."""
    if surplus is None:
        return "plain"
    return "strong" if place in surplus.edges or joined in surplus.concat else "pale"


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
