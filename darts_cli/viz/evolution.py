"""How a search's cells change from epoch to epoch, as an animated GIF."""

import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from darts_cli.genotype.types import CellGenotype, Edge, Genotype
from darts_cli.run.history import History
from darts_cli.run.signals import SearchSnapshot
from darts_cli.viz import cells
from darts_cli.viz.canvas import TEXT_SIZE, check, plain_settings
from darts_cli.viz.drawing.panels import MARGIN
from darts_cli.viz.gif import Palette, Pixels, write
from darts_cli.viz.plots import epochs
from darts_cli.viz.plots.sheet import TICK_SIZE, TITLE_SIZE, Sheet, wrapped
from darts_cli.viz.plots.triangle import ARROW
from darts_cli.viz.style import DEFAULT, Style

SUFFIXES = (".gif",)

DPI = 80
"""Small operations are just readable."""

HEADER = 62.0
"""Points for the epoch, and for what is new in two lines."""

STRIP, BAR = 34.0, 7.0
"""Points for the progress, and for its bar."""

MIN_WIDTH = 500.0
NEWS_LINES = 2
NEW_OUTLINE = 3.0
"""Points around the operation of an edge that is new."""

TOTAL_SECONDS = 20.0
"""Of a whole search, as far as the limits for an epoch allow."""

MIN_EPOCH, MAX_EPOCH, MAX_FRAME, END = 120, 600, 2400, 3000
"""Milliseconds: of an epoch at least and at most, of a frame at most, and at the end besides."""


@dataclass(frozen=True, slots=True)
class NewEdge:
    """An edge that an epoch has and the one before had not."""

    cell: str
    node: int
    """Counted on from the inputs, as in genotype files."""
    edge: Edge
    index: int
    """Its place among all edges of the cell."""

    def __str__(self) -> str:
        return f"{self.cell} {self.edge.source} {ARROW} {self.node} {self.edge.operation}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """Neighbouring epochs whose genotypes have the same edges."""

    first: int
    last: int
    cells: Mapping[str, CellGenotype]
    """The edges of each node sorted, so that a node looks the same whichever edge is stronger."""
    snapshot: SearchSnapshot
    """The last of these epochs."""
    new: Sequence[NewEdge]
    """Edges that the frame before does not have; of the first frame none."""


def draw(history: History, path: str | Path, *, style: Style = DEFAULT) -> None:
    """Draw all epochs of a search into a GIF, which appears whole or not at all.

    Raises:
        CheckpointError: if there are no alphas.
        ConfigError: if the suffix is not `.gif`.
        WriteError: if the file cannot be written.
    """
    path = Path(path)
    check(path, SUFFIXES)
    frames = list(join(history))
    with plain_settings():
        film = _Film(history, frames, style)
        pictures = (film.picture(frame) for frame in frames)
        write(pictures, durations(frames), path)


def join(history: History) -> Iterator[Frame]:
    """The frames of a search.

    Raises:
        CheckpointError: if there are no alphas.
    """
    frame: Frame | None = None
    for snapshot in epochs.snapshots(history):
        drawn = {name: _sort(cell) for name, cell in snapshot.genotype.cells.items()}
        if frame is not None and frame.cells == drawn:
            frame = replace(frame, last=snapshot.epoch, snapshot=snapshot)
            continue
        new = _new(frame, drawn, history.space.inputs)
        if frame is not None:
            yield frame
        epoch = snapshot.epoch
        frame = Frame(first=epoch, last=epoch, cells=drawn, snapshot=snapshot, new=new)
    if frame is not None:
        yield frame


def _sort(cell: CellGenotype) -> CellGenotype:
    def key(edge: Edge) -> tuple[int, str]:
        return edge.source, edge.operation

    return CellGenotype(tuple(tuple(sorted(node, key=key)) for node in cell.nodes), cell.concat)


def _new(before: Frame | None, after: Mapping[str, CellGenotype], inputs: int) -> list[NewEdge]:
    found: list[NewEdge] = []
    if before is None:
        return found
    for name, cell in after.items():
        index = 0
        for number, (old, edges) in enumerate(
            zip(before.cells[name].nodes, cell.nodes, strict=True), start=inputs
        ):
            left = Counter(old)
            for edge in edges:
                if not left[edge]:
                    found.append(NewEdge(name, number, edge, index))
                left[edge] -= 1
                index += 1
    return found


def durations(frames: Sequence[Frame]) -> list[int]:
    """Milliseconds of each frame: more for more epochs, and a rest at the end."""
    spans = [frame.last - frame.first + 1 for frame in frames]
    epoch = min(max(1000 * TOTAL_SECONDS / sum(spans), MIN_EPOCH), MAX_EPOCH)
    # A GIF counts hundredths of a second.
    shown = [10 * round(min(epoch * span, MAX_FRAME) / 10) for span in spans]
    return [*shown[:-1], shown[-1] + END]


def tell(frame: Frame, width: float) -> list[str]:
    """What is new in a frame, in two lines at most of so many points."""
    if not frame.new:
        return ["the first genotype"]
    count = len(frame.new)
    # An edge is not torn apart at the end of a line.
    edges = [str(edge).replace(" ", "\N{NO-BREAK SPACE}") for edge in frame.new]
    for named in range(count, 0, -1):
        rest = f" and {count - named} more" if named < count else ""
        text = f"{count} edge{'' if count == 1 else 's'} changed: {', '.join(edges[:named])}{rest}"
        lines = wrapped(text, width)
        if len(lines) <= NEWS_LINES:
            return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]
    return [f"{count} edges changed"]


@dataclass(frozen=True, slots=True)
class _Drawing:
    """The pixels of a cell, packed: a long search has hundreds."""

    shape: tuple[int, ...]
    packed: bytes

    @classmethod
    def pack(cls, pixels: Pixels) -> "_Drawing":
        return cls(pixels.shape, zlib.compress(pixels.tobytes(), level=1))

    def unpack(self) -> Pixels:
        return np.frombuffer(zlib.decompress(self.packed), np.uint8).reshape(self.shape)


class _Film:
    """The frames' pictures, all of one size; each cell is laid out once."""

    def __init__(self, history: History, frames: Sequence[Frame], style: Style) -> None:
        self.history = history
        self.style = replace(style, legend=False)
        self.frames = frames
        self.palette = Palette()
        self._drawings: dict[_Key, _Drawing] = {}
        # By cell, since one layout serves all choices of edges to point out.
        keys = {_key(frame, name): None for frame in frames for name in frame.cells}
        figures: dict[tuple[str, CellGenotype], list[_Key]] = {}
        for key in keys:
            figures.setdefault(key[:2], []).append(key)
        for (name, cell), variants in figures.items():
            self._draw(name, cell, variants)
        pixels = [drawing.shape for drawing in self._drawings.values()]
        # Half a pixel more, which rounding takes away.
        self.width = max(MIN_WIDTH, *(72 / DPI * (shape[1] + 0.5) for shape in pixels))
        self.heights = {
            name: max(drawing.shape[0] for key, drawing in self._drawings.items() if key[0] == name)
            for name in frames[0].cells
        }
        for frame in (frames[0], frames[-1]):
            self.palette.count(self._header(frame))
            self.palette.count(self._strip(frame))

    def _draw(self, name: str, cell: CellGenotype, variants: Sequence["_Key"]) -> None:
        """Lay a cell out, and draw it with each choice of new edges."""
        space = self.history.space
        genotype = Genotype(space=space.name, name=self.history.name, cells={name: cell})
        figure = cells.figure(genotype, style=self.style, space=space)
        patches = {str(patch.get_gid()): patch for patch in figure.axes[0].patches}
        labels = [patches[f"{name}-label-{index}"] for index in range(len(cell.edges))]
        outline = labels[0].get_linewidth()
        for key in variants:
            for index, label in enumerate(labels):
                label.set_linewidth(NEW_OUTLINE if index in key[2] else outline)
            pixels = _rasterize(figure)
            self.palette.count(pixels)
            self._drawings[key] = _Drawing.pack(pixels)

    def picture(self, frame: Frame) -> Image.Image:
        """The header, the cells one below the other, and the progress."""
        header, strip = self._header(frame), self._strip(frame)
        height = len(header) + sum(self.heights.values()) + len(strip)
        page = np.empty((height, header.shape[1], 3), np.uint8)
        page[:] = header[0, 0]
        page[: len(header)] = header
        page[-len(strip) :] = strip
        top = len(header)
        for name, room in self.heights.items():
            drawing = self._drawings[_key(frame, name)].unpack()
            page[top : top + len(drawing), : drawing.shape[1]] = drawing
            top += room
        return self.palette.apply(page)

    def _header(self, frame: Frame) -> Pixels:
        """Which epochs these are, and what is new."""
        sheet = Sheet(self.width, HEADER, self.style.colours)
        many = frame.last > frame.first
        these = f"epochs {frame.first} to {frame.last}" if many else f"epoch {frame.first}"
        title = f"{these} of {self.history.epochs}"
        sheet.text(MARGIN, MARGIN + TITLE_SIZE - 4, title, TITLE_SIZE, bold=True)
        skips = frame.snapshot.signals.skip_connections
        kind = self.history.space.skip.removesuffix("_connect")
        counts = f"{kind} connections: " + ", ".join(f"{n} {cell}" for cell, n in skips.items())
        end = self.width - MARGIN
        sheet.text(end, MARGIN + 9, counts, TEXT_SIZE, ink=sheet.theme.faint, align="right")
        for place, line in enumerate(tell(frame, self.width - 2 * MARGIN)):
            sheet.text(MARGIN, MARGIN + 26 + 12 * place, line, TEXT_SIZE)
        return _rasterize(sheet.figure)

    def _strip(self, frame: Frame) -> Pixels:
        """How far the search is, with a notch wherever an edge changed."""
        sheet = Sheet(self.width, STRIP, self.style.colours)
        theme, start, end = sheet.theme, self.frames[0].first - 1, self.frames[-1].last
        axes = sheet.axes(MARGIN, 6, self.width - 2 * MARGIN, BAR)
        axes.set_axis_off()
        axes.set(xlim=(start, end), ylim=(0, 1))
        axes.axvspan(start, end, color=theme.grid, linewidth=0)
        axes.axvspan(start, frame.last, color=theme.series[0], alpha=0.45, linewidth=0)
        axes.axvspan(frame.first - 1, frame.last, color=theme.series[0], linewidth=0)
        for other in self.frames[1:]:
            axes.axvline(other.first - 1, color=theme.background, linewidth=0.8)
        y = 6 + BAR + TICK_SIZE + 3
        sheet.text(MARGIN, y, f"epoch {start + 1}", TICK_SIZE, ink=theme.faint)
        sheet.text(self.width - MARGIN, y, str(end), TICK_SIZE, ink=theme.faint, align="right")
        return _rasterize(sheet.figure)


_Key = tuple[str, CellGenotype, frozenset[int]]
"""A cell, and the places of its new edges."""


def _key(frame: Frame, name: str) -> _Key:
    return name, frame.cells[name], frozenset(one.index for one in frame.new if one.cell == name)


def _rasterize(figure: Figure) -> Pixels:
    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = canvas.buffer_rgba()  # type: ignore[no-untyped-call]
    return np.asarray(pixels)[:, :, :3].copy()
