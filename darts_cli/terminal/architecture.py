"""The architecture in the display: small cells, signals of a collapse, and warnings."""

import textwrap
from collections.abc import Callable, Sequence

from rich.columns import Columns
from rich.console import Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from darts_cli.genotype.types import CellGenotype, Edge
from darts_cli.run.signals import Signals, has_collapsed
from darts_cli.space import SearchSpace
from darts_cli.terminal.frame import FinishedEpochs
from darts_cli.terminal.numbers import GAP, fitting, widest

# Function that returns the style of an operation.
Colour = Callable[[str], str]

# Before a warning.
_SIGN = "! "

_WARNING, _NEW = "yellow", "bold yellow"


def cells(finished: FinishedEpochs, width: int, colour: Colour) -> list[RenderableType]:
    """Return the genotype's cells: in one block side by side if they fit, else in one block each.

    A single cell has its nodes in columns. Cells that are too wide are left out.

    Args:
        finished: Epochs with the newest genotype, and the one before it.
        width: Columns of the terminal.
        colour: Function that returns the style of an operation.
    """
    if finished.snapshot is None:
        return []
    before = finished.before.genotype.cells if finished.before is not None else {}
    blocks = [
        _cell(name, cell, before.get(name), finished.space.inputs, colour)
        for name, cell in finished.snapshot.genotype.cells.items()
    ]
    widths = [widest(block.plain.split("\n")) for block in blocks]
    gap = (0, len(GAP))
    if len(blocks) > 1 and sum(widths) + len(GAP) * (len(blocks) - 1) <= width:
        return [Columns(blocks, padding=gap)]
    if len(blocks) == 1 and widths[0] <= width:
        head, *nodes = blocks[0].split("\n")
        return [Group(head, Columns(nodes, padding=gap, column_first=True))]
    return [block for block, own in zip(blocks, widths, strict=True) if own <= width]


def _cell(
    name: str, cell: CellGenotype, before: CellGenotype | None, inputs: int, colour: Colour
) -> Text:
    """Return a line about the cell, and one per node; edges that are new have a plus."""
    new = [
        set(node).difference(before.nodes[index] if before is not None else node)
        for index, node in enumerate(cell.nodes)
    ]
    count = sum(map(len, new))
    changes = f"{count} edge{'' if count == 1 else 's'} changed" if count else ""
    term_width = widest([_term(edge) for edge in cell.edges])
    margin = len(str(inputs + len(cell.nodes) - 1))
    text = Text.assemble((f"{name} cell", "bold"), GAP, (changes, _NEW))
    for number, (node, changed) in enumerate(zip(cell.nodes, new, strict=True), start=inputs):
        text.append(f"\n{number:>{margin}}", style="dim")
        for edge in node:
            text.append(" +" if edge in changed else "  ", style=_NEW)
            bold = "bold " if edge in changed else ""
            text.append(_term(edge).ljust(term_width), style=f"{bold}{colour(edge.operation)}")
    return text


def _term(edge: Edge) -> str:
    return f"{edge.operation} {edge.source}"


def signals(space: SearchSpace, those: Signals, width: int) -> Table:
    """Return a row per cell with its signals of a collapse, below a row of their names.

    On a narrow terminal, the margin is left out first, then the entropy.

    Args:
        space: Search space of the cells.
        those: Signals after the newest epoch.
        width: Columns of the terminal.
    """
    edges = space.nodes * space.edges_per_node
    kind = space.skip.removesuffix("_connect")
    skips = "identities" if kind == "identity" else f"{kind}s"
    ago = those.unchanged_epochs
    columns = {
        "": space.cells,
        skips: [f"{those.skip_connections[cell]} of {edges}" for cell in space.cells],
        # Of all cells together.
        "unchanged": [f"{ago} epoch{'' if ago == 1 else 's'}", *[""] * (len(space.cells) - 1)],
        "entropy": [f"{those.entropy[cell]:.3f}" for cell in space.cells],
        "weakest margin": [f"{those.weakest_margin[cell]:.4f}" for cell in space.cells],
    }
    columns = {name: [name, *texts] for name, texts in columns.items()}
    columns = fitting(columns, width + len(GAP))
    table = Table.grid(padding=(0, len(GAP), 0, 0))
    for name, texts in columns.items():
        side: JustifyMethod = "right" if name else "left"
        table.add_column(width=widest(texts), no_wrap=True, overflow="crop", justify=side)
    for row, texts in enumerate(zip(*columns.values(), strict=True)):
        shown = [Text(text) for text in texts]
        if row == 1 and has_collapsed(space, those):
            # The count of skip connections in the normal cell.
            shown[1:2] = [Text(text, style=_WARNING) for text in texts[1:2]]
        table.add_row(*shown, style="" if row else "dim")
    return table


def warnings(those: Sequence[str], width: int, height: int) -> list[Text]:
    """Return the lines of the warnings; those that do not fit in `height` are counted."""
    lines: list[Text] = []
    for number, warning in enumerate(those):
        more = _wrapped(warning, width)
        # One line less if something has to be said below.
        last = number == len(those) - 1
        if len(lines) + len(more) > height - (0 if last else 1):
            rest = len(those) - number
            said = f"{rest} {'more ' if lines else ''}warning{'' if rest == 1 else 's'} in log.txt"
            return [*lines, *_wrapped(said, width)[:1]][:height]
        lines += more
    return lines


def _wrapped(warning: str, width: int) -> list[Text]:
    texts = textwrap.wrap(
        warning, max(width, 8), initial_indent=_SIGN, subsequent_indent=" " * len(_SIGN)
    )
    return [Text.assemble((text, _WARNING)) for text in texts]
