"""Cells in rows and columns on one figure, with titles and a legend."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from darts_cli.genotype.difference import Surplus
from darts_cli.viz.canvas import blank, measure
from darts_cli.viz.drawing.layout import Plan
from darts_cli.viz.drawing.legend import Entry, Legend
from darts_cli.viz.drawing.pen import NAME_SIZE, TITLE_SIZE, Pen
from darts_cli.viz.style import Style

# Points: around the picture, height of a cell's title, and of the summary above all cells.
MARGIN, TITLE_HEIGHT, SUMMARY_HEIGHT = 16.0, 32.0, 26.0

# Points between rows, between columns, and from the last cell to the legend.
BETWEEN_ROWS, BETWEEN_COLUMNS, LEGEND_GAP = 26.0, 48.0, 22.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """One cell on a page."""

    genotype: str
    """Title of the cell's genotype."""
    cell: str
    prefix: str
    """Beginning of the identifiers of its boxes and texts."""
    plan: Plan
    surplus: Surplus | None = None
    """Edges and states drawn strong; None if the cell is not compared."""

    @property
    def title_widths(self) -> tuple[float, float]:
        """Widths of the genotype's name with the space after it, and of the cell's name."""
        name = measure(self.genotype, TITLE_SIZE, bold=True) + 9
        return name, measure(f"{self.cell} cell", TITLE_SIZE)


class Page:
    """Panels in rows of the same length, every column as wide as its widest panel."""

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
        self.widths, columns = [], []
        for column in zip(*rows, strict=True):
            widest = max(panel.plan.width for panel in column)
            layouts = [panel.plan.layout(widest) for panel in column]
            title = max(sum(panel.title_widths) for panel in column) if style.title else 0.0
            self.widths.append(max(title, *(layout.width for layout in layouts)))
            columns.append(layouts)
        self.layouts = list(zip(*columns, strict=True))
        groups = legend if style.legend else ()
        self.width = max(
            sum(self.widths) + BETWEEN_COLUMNS * (len(self.widths) - 1),
            measure(self.summary, NAME_SIZE) if self.summary else 0.0,
            *(entry.width for group in groups for entry in group),
        )
        self.legend = Legend(groups, self.width)

    def figure(self) -> Figure:
        """Draw the page on a figure of 72 units per inch."""
        heights = [max(layout.height for layout in row) for row in self.layouts]
        top = MARGIN + (SUMMARY_HEIGHT if self.summary else 0.0)
        height = top + sum(heights) + self.title_height * len(heights) + MARGIN
        height += BETWEEN_ROWS * (len(heights) - 1)
        if self.legend.lines:
            height += LEGEND_GAP + self.legend.height
        width = self.width + 2 * MARGIN
        canvas = blank(width, height, self.theme.background)
        axes = canvas.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
        axes.set_axis_off()
        if self.summary:
            pen = Pen(axes, self.theme, MARGIN, MARGIN + NAME_SIZE)
            pen.text(self.summary, (0, 0), NAME_SIZE, gid="summary", align="left")
        for row, layouts, row_height in zip(self.rows, self.layouts, heights, strict=True):
            top += self.title_height
            left = MARGIN
            for panel, layout, panel_width in zip(row, layouts, self.widths, strict=True):
                pen = Pen(axes, self.theme, left, top)
                if self.title_height:
                    self._draw_title(pen, panel)
                pen.draw(layout, panel.prefix, panel.surplus)
                left += panel_width + BETWEEN_COLUMNS
            top += row_height + BETWEEN_ROWS
        self.legend.draw(Pen(axes, self.theme, MARGIN, top - BETWEEN_ROWS + LEGEND_GAP))
        return canvas

    def _draw_title(self, pen: Pen, panel: Panel) -> None:
        """Draw the genotype's name and the cell's, from the left edge."""
        gid, y = f"{panel.prefix}-title", TITLE_SIZE - TITLE_HEIGHT
        pen.text(panel.genotype, (0, y), TITLE_SIZE, gid=gid, bold=True, align="left")
        gid, at, ink = f"{gid}-cell", (panel.title_widths[0], y), self.theme.faint
        pen.text(f"{panel.cell} cell", at, TITLE_SIZE, gid=gid, ink=ink, align="left")
