"""How a search's cells change from epoch to epoch, as an animated GIF."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from darts_cli.genotype.difference import surplus
from darts_cli.genotype.types import CellGenotype, Edge, Genotype
from darts_cli.run.history import History
from darts_cli.run.signals import SearchSnapshot
from darts_cli.viz import cells
from darts_cli.viz.canvas import TEXT_SIZE, check, plain_settings
from darts_cli.viz.drawing.panels import MARGIN
from darts_cli.viz.gif import Palette, write
from darts_cli.viz.plots import epochs
from darts_cli.viz.plots.sheet import TICK_SIZE, TITLE_SIZE, Sheet, wrapped
from darts_cli.viz.plots.triangle import ARROW
from darts_cli.viz.style import DEFAULT, Style, colour, mix

SUFFIXES = (".gif",)

# Pixels per inch at which the names of operations can just be read.
DPI = 80

# Heights in points: of the epoch with two lines of news, of the progress, and of its bar.
HEADER, STRIP, BAR = 62.0, 34.0, 7.0

MIN_WIDTH = 500.0
NEWS_LINES = 2

NO_BREAK = "\N{NO-BREAK SPACE}"

# Width in points of the outline of a new edge's operation.
NEW_OUTLINE = 3.0

# Opacity of the bar over epochs before the frame's.
PAST = 0.45

# Duration of a whole search, as far as the limits for an epoch allow.
TOTAL_SECONDS = 20.0

# Milliseconds: of an epoch at least and at most, of a frame at most, and of the pause at the end.
MIN_EPOCH, MAX_EPOCH, MAX_FRAME, END = 120, 600, 2400, 3000


@dataclass(frozen=True, slots=True)
class NewEdge:
    """An edge that the epoch before does not have."""

    cell: str
    node: int
    """Number of the node, counted on from the inputs as in genotype files."""
    edge: Edge
    index: int
    """Index among all edges of the cell."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """Neighbouring epochs whose genotypes have the same edges."""

    first: int
    last: int
    cells: Mapping[str, CellGenotype]
    """Cells by name, the edges of a node sorted so that it looks the same whichever is stronger."""
    snapshot: SearchSnapshot
    """State of the search after the last of these epochs."""
    new: Sequence[NewEdge]
    """Edges that the frame before does not have; none for the first frame."""


def draw(history: History, path: Path, *, style: Style = DEFAULT) -> None:
    """Draw all epochs of a search into a GIF, which appears whole or not at all.

    Args:
        history: The run of a search.
        path: The file to write.
        style: Theme, and whether cells have titles; there is no legend.

    Raises:
        CheckpointError: if there are no alphas.
        ConfigError: if the suffix is not `.gif`.
        WriteError: if the file cannot be written.
    """
    check(path, SUFFIXES)
    frames = list(join(history))
    with plain_settings():
        film = _Film(history, frames, style)
        pictures = (film.picture(frame) for frame in frames)
        write(pictures, durations(frames), path)


def join(history: History) -> Iterator[Frame]:
    """Yield the frames of a search, one for neighbouring epochs with equal edges.

    Raises:
        CheckpointError: if there are no alphas.
    """
    before: dict[str, CellGenotype] = {}
    for drawn, group in groupby(epochs.snapshots(history), key=_sorted_cells):
        snapshots = list(group)
        first, last = snapshots[0], snapshots[-1]
        new = list(_new(before, drawn, history.space.inputs)) if before else []
        yield Frame(first=first.epoch, last=last.epoch, cells=drawn, snapshot=last, new=new)
        before = drawn


def _sorted_cells(snapshot: SearchSnapshot) -> dict[str, CellGenotype]:
    def key(edge: Edge) -> tuple[int, str]:
        return edge.source, edge.operation

    return {
        name: replace(cell, nodes=tuple(tuple(sorted(node, key=key)) for node in cell.nodes))
        for name, cell in snapshot.genotype.cells.items()
    }


def _new(
    before: Mapping[str, CellGenotype], after: Mapping[str, CellGenotype], inputs: int
) -> Iterator[NewEdge]:
    for name, cell in after.items():
        extra = surplus(cell, before[name]).edges
        places = [(node, at) for node, edges in enumerate(cell.nodes) for at in range(len(edges))]
        for index, (place, edge) in enumerate(zip(places, cell.edges, strict=True)):
            if place in extra:
                yield NewEdge(name, place[0] + inputs, edge, index)


def durations(frames: Sequence[Frame]) -> list[int]:
    """Compute the milliseconds of each frame: more for more epochs, and a pause at the end."""
    spans = [frame.last - frame.first + 1 for frame in frames]
    epoch = min(max(1000 * TOTAL_SECONDS / sum(spans), MIN_EPOCH), MAX_EPOCH)
    # A GIF stores durations in hundredths of a second.
    shown = [10 * round(min(epoch * span, MAX_FRAME) / 10) for span in spans]
    return [*shown[:-1], shown[-1] + END]


def describe_news(frame: Frame, width: float) -> list[str]:
    """Describe what is new in a frame, in at most two lines of `width` points."""
    if not frame.new:
        return ["the first genotype"]
    count = len(frame.new)
    # Lines must not break within an edge.
    edges = [
        f"{new.cell} {new.edge.source} {ARROW} {new.node} {new.edge.operation}".replace(
            " ", NO_BREAK
        )
        for new in frame.new
    ]
    for named in range(count, 0, -1):
        rest = f" and {count - named} more" if named < count else ""
        text = f"{count} edge{'' if count == 1 else 's'} changed: {', '.join(edges[:named])}{rest}"
        lines = wrapped(text, width)
        if len(lines) <= NEWS_LINES:
            return [line.replace(NO_BREAK, " ") for line in lines]
    return [f"{count} edges changed"]


# A cell, and the indices of its new edges.
_Key = tuple[str, CellGenotype, frozenset[int]]


class _Film:
    """The pictures of all frames, of one size."""

    def __init__(self, history: History, frames: Sequence[Frame], style: Style) -> None:
        self.history = history
        self.style = replace(style, legend=False)
        self.frames = frames
        keys = dict.fromkeys(_key(frame, name) for frame in frames for name in frame.cells)
        # Samples for the palette: for each operation the first cell that has it.
        by_operation: dict[str, tuple[str, CellGenotype]] = {}
        for name, cell, _ in keys:
            for edge in cell.edges:
                by_operation.setdefault(edge.operation, (name, cell))
        samples = set(by_operation.values())
        pictures = {key: self._draw(key) for key in keys if key[:2] in samples}
        texts = (draw(frames[-1], MIN_WIDTH) for draw in (self._header, self._strip))
        self.palette = Palette(self._areas(by_operation), [*pictures.values(), *texts])
        # A byte a pixel instead of three, since a long search has hundreds of drawings.
        self._drawings = {
            key: self.palette.apply(pictures[key] if key in pictures else self._draw(key))
            for key in keys
        }
        # Half a pixel more, which rounding takes away.
        widest = max(drawing.width for drawing in self._drawings.values())
        self.width = max(MIN_WIDTH, 72 / DPI * (widest + 0.5))
        self.heights = {
            name: max(drawing.height for key, drawing in self._drawings.items() if key[0] == name)
            for name in frames[0].cells
        }

    def _areas(self, operations: Iterable[str]) -> Iterator[str]:
        """Yield the colours of areas, first of the background."""
        theme = self.style.colours
        yield from (theme.background, theme.ink, theme.faint, theme.join, theme.grid)
        yield from (*theme.fills.values(), *theme.outlines.values(), theme.series[0])
        yield mix(theme.series[0], theme.grid, PAST)
        for operation in operations:
            yield colour(operation)
            yield mix(colour(operation), theme.background, theme.tint)

    def _draw(self, key: _Key) -> Image.Image:
        """Draw a cell with thick outlines of its new edges."""
        name, cell, new = key
        space = self.history.space
        genotype = Genotype(space=space.name, name=self.history.name, cells={name: cell})
        figure = cells.figure(genotype, style=self.style, space=space)
        for patch in figure.axes[0].patches:
            if patch.get_gid() in {f"{name}-label-{index}" for index in new}:
                patch.set_linewidth(NEW_OUTLINE)
        return _rasterize(figure)

    def picture(self, frame: Frame) -> Image.Image:
        """Return the header, the cells one below the other, and the progress."""
        parts = [self._header(frame, self.width), self._strip(frame, self.width)]
        header, strip = (self.palette.apply(part) for part in parts)
        height = header.height + sum(self.heights.values()) + strip.height
        # Index 0 is the background.
        page = Image.new("P", (header.width, height))
        page.putpalette(self.palette.values)
        page.paste(header)
        page.paste(strip, (0, height - strip.height))
        tops = accumulate(self.heights.values(), initial=header.height)
        for name, top in zip(self.heights, tops, strict=False):
            page.paste(self._drawings[_key(frame, name)], (0, top))
        return page

    def _header(self, frame: Frame, width: float) -> Image.Image:
        """Draw the epochs of the frame, the counts of skip connections, and the new edges."""
        sheet = Sheet(width, HEADER, self.style.colours)
        many = frame.last > frame.first
        these = f"epochs {frame.first} to {frame.last}" if many else f"epoch {frame.first}"
        title = f"{these} of {self.history.epochs}"
        sheet.text(MARGIN, MARGIN + TITLE_SIZE - 4, title, TITLE_SIZE, bold=True)
        skips = frame.snapshot.signals.skip_connections
        kind = self.history.space.skip.removesuffix("_connect")
        counts = f"{kind} connections: " + ", ".join(f"{n} {cell}" for cell, n in skips.items())
        end = width - MARGIN
        sheet.text(end, MARGIN + 9, counts, TEXT_SIZE, ink=sheet.theme.faint, align="right")
        for place, line in enumerate(describe_news(frame, width - 2 * MARGIN)):
            sheet.text(MARGIN, MARGIN + 26 + 12 * place, line, TEXT_SIZE)
        return _rasterize(sheet.figure)

    def _strip(self, frame: Frame, width: float) -> Image.Image:
        """Draw the progress of the search, with a notch wherever an edge changed."""
        sheet = Sheet(width, STRIP, self.style.colours)
        theme, start, end = sheet.theme, self.frames[0].first - 1, self.frames[-1].last
        axes = sheet.axes(MARGIN, 6, width - 2 * MARGIN, BAR)
        axes.set_axis_off()
        axes.set(xlim=(start, end), ylim=(0, 1))
        axes.axvspan(start, end, color=theme.grid, linewidth=0)
        axes.axvspan(start, frame.last, color=theme.series[0], alpha=PAST, linewidth=0)
        axes.axvspan(frame.first - 1, frame.last, color=theme.series[0], linewidth=0)
        for other in self.frames[1:]:
            axes.axvline(other.first - 1, color=theme.background, linewidth=0.8)
        y = 6 + BAR + TICK_SIZE + 3
        sheet.text(MARGIN, y, f"epoch {start + 1}", TICK_SIZE, ink=theme.faint)
        sheet.text(width - MARGIN, y, str(end), TICK_SIZE, ink=theme.faint, align="right")
        return _rasterize(sheet.figure)


def _key(frame: Frame, name: str) -> _Key:
    return name, frame.cells[name], frozenset(one.index for one in frame.new if one.cell == name)


def _rasterize(figure: Figure) -> Image.Image:
    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = canvas.buffer_rgba()  # type: ignore[no-untyped-call]
    return Image.frombuffer("RGBA", canvas.get_width_height(), pixels).convert("RGB")
