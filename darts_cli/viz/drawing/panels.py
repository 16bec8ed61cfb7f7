"""Cells in rows and columns on one figure, with titles and a legend."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from darts_cli.genotype.difference import Surplus
from darts_cli.viz.canvas import measure
from darts_cli.viz.drawing.layout import Layout, Plan
from darts_cli.viz.drawing.legend import Entry, Legend
from darts_cli.viz.drawing.pen import NAME_SIZE, TITLE_SIZE, Pen
from darts_cli.viz.style import Style

MARGIN, TITLE_HEIGHT, SUMMARY_HEIGHT = 16.0, 32.0, 26.0
"""Points around the picture, for the title of a cell, and for the line above all of them."""
BETWEEN_ROWS, BETWEEN_COLUMNS = 26.0, 48.0
LEGEND_GAP = 22.0
"""From the last cell to the legend."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """One cell on a page."""

    genotype: str
    """The title of its genotype."""
    cell: str
    prefix: str
    """What the identifiers of its boxes and texts begin with."""
    plan: Plan
    surplus: Surplus | None = None
    """What is strong in it; None where it is compared with none."""

    @property
    def title_widths(self) -> tuple[float, float]:
        """Of the genotype's name with the space after it, and of the cell's name."""
        name = measure(self.genotype, TITLE_SIZE, bold=True) + 9
        return name, measure(f"{self.cell} cell", TITLE_SIZE)


class Page:
    """Panels in rows of equally many, every column as wide as its widest panel."""

    def __init__(
        self,
        rows: Sequence[Sequence[Panel]],
        style: Style,
        *,
        legend: Sequence[Sequence[Entry]] = (),
        summary: str | None = None,
    ) -> None:
        self.rows = rows
        self.theme = style.colours
        self.title_height = TITLE_HEIGHT if style.title else 0.0
        self.summary = summary if style.title else None
        columns = list(zip(*rows, strict=True))
        widest = [max(panel.plan.width for panel in column) for column in columns]
        self.layouts = [
            [panel.plan.layout(width) for panel, width in zip(row, widest, strict=True)]
            for row in rows
        ]
        titles = [
            max(sum(panel.title_widths) for panel in column) if style.title else 0.0
            for column in columns
        ]
        self.widths = [
            max(title, *(layout.width for layout in layouts))
            for title, layouts in zip(titles, zip(*self.layouts, strict=True), strict=True)
        ]
        groups = legend if style.legend else ()
        self.width = max(
            sum(self.widths) + BETWEEN_COLUMNS * (len(self.widths) - 1),
            measure(self.summary, NAME_SIZE) if self.summary else 0.0,
            *(entry.width for group in groups for entry in group),
        )
        self.legend = Legend(groups, self.width)

    def figure(self) -> Figure:
        """All of it, on a figure of 72 units an inch."""
        heights = [max(layout.height for layout in row) for row in self.layouts]
        top = MARGIN + (SUMMARY_HEIGHT if self.summary else 0.0)
        height = top + sum(heights) + self.title_height * len(heights) + MARGIN
        height += BETWEEN_ROWS * (len(heights) - 1)
        if self.legend.lines:
            height += LEGEND_GAP + self.legend.height
        width = self.width + 2 * MARGIN
        background = self.theme.background
        canvas = Figure(figsize=(width / 72, height / 72), dpi=72, facecolor=background)
        canvas.set_layout_engine("none")
        axes = canvas.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
        axes.set_axis_off()
        if self.summary:
            pen = Pen(axes, self.theme, MARGIN, MARGIN + NAME_SIZE)
            pen.text(self.summary, (0, 0), NAME_SIZE, gid="summary", align="left")
        for row, layouts, row_height in zip(self.rows, self.layouts, heights, strict=True):
            top += self.title_height
            self._draw_row(axes, row, layouts, top)
            top += row_height + BETWEEN_ROWS
        self.legend.draw(Pen(axes, self.theme, MARGIN, top - BETWEEN_ROWS + LEGEND_GAP))
        return canvas

    def _draw_row(
        self, axes: Axes, row: Sequence[Panel], layouts: Sequence[Layout], top: float
    ) -> None:
        left = MARGIN
        for panel, layout, width in zip(row, layouts, self.widths, strict=True):
            pen = Pen(axes, self.theme, left, top)
            if self.title_height:
                self._draw_title(pen, panel)
            pen.draw(layout, panel.prefix, panel.surplus)
            left += width + BETWEEN_COLUMNS

    def _draw_title(self, pen: Pen, panel: Panel) -> None:
        """The genotype's name and the cell's, from the left edge."""
        y = TITLE_SIZE - TITLE_HEIGHT
        gid = f"{panel.prefix}-title"
        pen.text(panel.genotype, (0, y), TITLE_SIZE, gid=gid, bold=True, align="left")
        pen.text(
            f"{panel.cell} cell",
            (panel.title_widths[0], y),
            TITLE_SIZE,
            gid=f"{gid}-cell",
            ink=self.theme.faint,
            align="left",
        )
