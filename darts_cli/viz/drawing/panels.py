"""Cells in rows and columns on one figure, with titles and a legend."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from darts_cli.genotype.difference import Surplus
from darts_cli.viz.canvas import blank, measure
from darts_cli.viz.drawing.layout import Plan
from darts_cli.viz.drawing.legend import LINE_HEIGHT, Entry, arrange, draw_legend
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

    def draw_title(self, pen: Pen) -> None:
        """Draw the genotype's name and the cell's, from the left edge."""
        gid, y = f"{self.prefix}-title", TITLE_SIZE - TITLE_HEIGHT
        pen.text(self.genotype, (0, y), TITLE_SIZE, gid=gid, bold=True, left=True)
        gid, at, ink = f"{gid}-cell", (self.title_widths[0], y), pen.theme.faint
        pen.text(f"{self.cell} cell", at, TITLE_SIZE, gid=gid, ink=ink, left=True)


def draw_page(
    rows: Sequence[Sequence[Panel]],
    style: Style,
    legend: Sequence[Sequence[Entry]],
    summary: str = "",
) -> Figure:
    """Draw panels in rows of the same length on a figure of 72 units per inch.

    Every column is as wide as its widest panel.
    """
    theme, title_height = style.colours, TITLE_HEIGHT if style.title else 0.0
    summary = summary if style.title else ""
    groups = legend if style.legend else ()
    widths, columns = [], []
    for column in zip(*rows, strict=True):
        widest = max(panel.plan.width for panel in column)
        columns.append([panel.plan.layout(widest) for panel in column])
        title = max(sum(panel.title_widths) for panel in column) if style.title else 0.0
        widths.append(max(title, *(layout.width for layout in columns[-1])))
    width = max(
        sum(widths) + BETWEEN_COLUMNS * (len(widths) - 1),
        measure(summary, NAME_SIZE) if summary else 0.0,
        *(entry.width for group in groups for entry in group),
    )
    lines = [line for group in groups for line in arrange(group, width)]
    heights = [max(panel.plan.height for panel in row) for row in rows]
    top = MARGIN + (SUMMARY_HEIGHT if summary else 0.0)
    bottom = top + sum(heights) + title_height * len(rows) + BETWEEN_ROWS * (len(rows) - 1)
    height = bottom + (LEGEND_GAP + LINE_HEIGHT * len(lines) if lines else 0.0) + MARGIN
    canvas = blank(width + 2 * MARGIN, height, theme.background)
    axes = canvas.add_axes((0, 0, 1, 1), xlim=(0, width + 2 * MARGIN), ylim=(height, 0))
    axes.set_axis_off()
    if summary:
        pen = Pen(axes, theme, MARGIN, MARGIN + NAME_SIZE)
        pen.text(summary, (0, 0), NAME_SIZE, gid="summary", left=True)
    for row, layouts, row_height in zip(rows, zip(*columns, strict=True), heights, strict=True):
        top += title_height
        left = MARGIN
        for panel, layout, panel_width in zip(row, layouts, widths, strict=True):
            pen = Pen(axes, theme, left, top)
            if style.title:
                panel.draw_title(pen)
            pen.draw(layout, panel.prefix, panel.surplus)
            left += panel_width + BETWEEN_COLUMNS
        top += row_height + BETWEEN_ROWS
    draw_legend(Pen(axes, theme, MARGIN, bottom + LEGEND_GAP), lines)
    return canvas
