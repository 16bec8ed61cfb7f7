"""The legend below a picture: the meaning of its colours, boxes and lines."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

from darts_cli.genotype.types import CellGenotype
from darts_cli.viz.canvas import measure
from darts_cli.viz.drawing.layout import Box, Wire
from darts_cli.viz.drawing.pen import LABEL_SIZE, LEAD, OUTLINE, Pen, Weight
from darts_cli.viz.style import COLOURS
from darts_cli.viz.text import Names

# Size of the sample before each text, in points.
SAMPLE_WIDTH, SAMPLE_HEIGHT = 24.0, 12.0

# Points from a sample to its text, from a text to the next sample, and from line to line.
GAP, BETWEEN, LINE_HEIGHT = 6.0, 20.0, 20.0


# A function that draws a sample.
Sample = Callable[[Pen, Box, str], None]


class Entry(NamedTuple):
    """A sample and its text."""

    text: str
    draw: Sample
    """Function that draws the sample into a box, with an identifier."""

    @property
    def width(self) -> float:
        """Width of sample and text in points."""
        return SAMPLE_WIDTH + GAP + measure(self.text)


# A line of a legend: entries and the left edges of their samples.
Line = Sequence[tuple[float, Entry]]


def draw_legend(pen: Pen, lines: Sequence[Line]) -> None:
    """Draw the lines of a legend, from the point of the pen downwards."""
    entries = ((row, *place) for row, line in enumerate(lines) for place in line)
    for number, (row, x, entry) in enumerate(entries):
        y = (row + 0.5) * LINE_HEIGHT
        box = Box(x + SAMPLE_WIDTH / 2, y, SAMPLE_WIDTH, SAMPLE_HEIGHT)
        entry.draw(pen, box, f"legend-sample-{number}")
        at, gid = (x + SAMPLE_WIDTH + GAP, y + LABEL_SIZE * 0.36), f"legend-{number}-name"
        pen.text(entry.text, at, LABEL_SIZE, gid=gid, left=True)


def arrange(group: Sequence[Entry], width: float) -> Iterator[Line]:
    """Yield one line of a group or, if that is too long, lines and columns.

    Args:
        group: Entries that belong together.
        width: Points of a line, enough for the widest entry.
    """
    steps = [entry.width + BETWEEN for entry in group]
    if sum(steps) - BETWEEN <= width:
        yield list(zip(accumulate(steps, initial=0.0), group, strict=False))
        return
    columns = max(int((width + BETWEEN) / max(steps)), 1)
    for first in range(0, len(group), columns):
        line = group[first : first + columns]
        yield [(column * max(steps), entry) for column, entry in enumerate(line)]


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
    operations = [*(one for one in COLOURS if one in used), *sorted(used - COLOURS.keys())]
    boxes = [
        Entry("input", _kind("input")),
        Entry("node, the sum of its edges" if sums else "node", _kind("node")),
        Entry(f"output, the {called.join} of nodes", _kind("output")),
    ]
    groups = [[Entry(operation, _operation(operation)) for operation in operations], boxes]
    if compared:
        groups.append([Entry("only in one", _line("strong")), Entry("in both", _line("pale"))])
    return groups


def _kind(kind: str) -> Sample:
    return lambda pen, box, gid: pen.kind(box, kind, gid)


def _operation(name: str) -> Sample:
    return lambda pen, box, gid: pen.operation(box, name, gid, pen.theme.tint, OUTLINE[True])


def _line(weight: Weight) -> Sample:
    def draw(pen: Pen, box: Box, gid: str) -> None:
        ends = (box.x - box.width / 2 + LEAD, box.y), (box.x + box.width / 2, box.y)
        pen.wire(Wire(ends, None), gid, weight)

    return draw
