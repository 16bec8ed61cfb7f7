"""The legend below a picture: the meaning of its colours, boxes and lines."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from darts_cli.genotype.types import CellGenotype
from darts_cli.viz.canvas import measure
from darts_cli.viz.drawing.layout import Box, Wire
from darts_cli.viz.drawing.pen import LABEL_SIZE, LEAD, OUTLINE_WIDTHS, Pen, Weight
from darts_cli.viz.style import COLOURS, colour, mix
from darts_cli.viz.text import Names

# Size of the sample before each text, in points.
SAMPLE_WIDTH, SAMPLE_HEIGHT = 24.0, 12.0

# Points from a sample to its text, from a text to the next sample, and from line to line.
GAP, BETWEEN, LINE_HEIGHT = 6.0, 20.0, 20.0


@dataclass(frozen=True, slots=True)
class Entry:
    """A sample and its text."""

    text: str
    draw: Callable[[Pen, Box, str], None]
    """Function that draws the sample into a box, with an identifier."""
    x: float = 0.0
    """Left edge of the sample."""

    @property
    def width(self) -> float:
        """Width of sample and text in points."""
        return SAMPLE_WIDTH + GAP + measure(self.text)


class Legend:
    """Groups of entries, each in one line or, if that is too long, in lines and columns."""

    def __init__(self, groups: Iterable[Sequence[Entry]], width: float) -> None:
        self.lines = [line for group in groups for line in _arrange(group, width)]
        self.height = LINE_HEIGHT * len(self.lines)

    def draw(self, pen: Pen) -> None:
        """Draw the legend, from the point of the pen downwards."""
        entries = ((row, entry) for row, line in enumerate(self.lines) for entry in line)
        for number, (row, entry) in enumerate(entries):
            y = (row + 0.5) * LINE_HEIGHT
            box = Box(entry.x + SAMPLE_WIDTH / 2, y, SAMPLE_WIDTH, SAMPLE_HEIGHT)
            entry.draw(pen, box, f"legend-sample-{number}")
            at, gid = (entry.x + SAMPLE_WIDTH + GAP, y + LABEL_SIZE * 0.36), f"legend-{number}-name"
            pen.text(entry.text, at, LABEL_SIZE, gid=gid, align="left")


def _arrange(group: Sequence[Entry], width: float) -> Iterator[list[Entry]]:
    """Yield the lines of a group, no wider than a width that fits its widest entry."""
    starts = [*accumulate((entry.width + BETWEEN for entry in group), initial=0.0)]
    if starts[-1] - BETWEEN <= width:
        yield [replace(entry, x=x) for entry, x in zip(group, starts, strict=False)]
        return
    step = max(entry.width for entry in group) + BETWEEN
    columns = max(int((width + BETWEEN) / step), 1)
    for first in range(0, len(group), columns):
        line = group[first : first + columns]
        yield [replace(entry, x=column * step) for column, entry in enumerate(line)]


def explain(
    cells: Iterable[CellGenotype], called: Names, *, compared: bool = False
) -> list[list[Entry]]:
    """Return the entries, in groups, that explain a picture of some cells.

    Args:
        cells: The cells of the picture.
        called: The names of their states.
        compared: Whether lines of the picture are strong or pale.
    """
    cells = list(cells)
    sums = any(len(edges) > 1 for cell in cells for edges in cell.nodes)
    used = {edge.operation for cell in cells for edge in cell.edges}
    known = [operation for operation in COLOURS if operation in used]
    operations = [*known, *sorted(used - set(known))]
    boxes = [
        Entry("input", _draw_kind("input")),
        Entry("node, the sum of its edges" if sums else "node", _draw_kind("node")),
        Entry(f"output, the {called.join} of nodes", _draw_kind("output")),
    ]
    groups = [[Entry(operation, _draw_operation(operation)) for operation in operations], boxes]
    if compared:
        marks = {"only in one": Weight.STRONG, "in both": Weight.PALE}
        groups.append([Entry(text, _draw_line(weight)) for text, weight in marks.items()])
    return groups


def _draw_operation(operation: str) -> Callable[[Pen, Box, str], None]:
    def draw(pen: Pen, box: Box, gid: str) -> None:
        ink = colour(operation)
        pen.box(
            box,
            fill=mix(ink, pen.theme.background, pen.theme.tint),
            outline=ink,
            rounding=box.height / 2,
            gid=gid,
            width=OUTLINE_WIDTHS[Weight.STRONG],
        )

    return draw


def _draw_kind(kind: str) -> Callable[[Pen, Box, str], None]:
    return lambda pen, box, gid: pen.kind(box, kind, gid)


def _draw_line(weight: Weight) -> Callable[[Pen, Box, str], None]:
    def draw(pen: Pen, box: Box, gid: str) -> None:
        ends = (box.x - box.width / 2 + LEAD, box.y), (box.x + box.width / 2, box.y)
        pen.wire(Wire(ends, None), gid, weight)

    return draw
