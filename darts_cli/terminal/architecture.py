"""The lines about the architecture: its cells drawn small, signals of collapse, warnings."""

import textwrap
from collections.abc import Callable, Iterable, Sequence

from rich.text import Text

from darts_cli.genotype.types import CellGenotype, Edge
from darts_cli.run.signals import Signals, has_collapsed
from darts_cli.space import SearchSpace
from darts_cli.terminal.picture import Past

_GAP = "  "
_SIGN = "! "
"""Before a warning."""

_WARNING, _NEW = "yellow", "bold yellow"


def cells(past: Past, width: int, height: int, colour: Callable[[str], str]) -> list[Text]:
    """The genotype's cells, beside or below one another; only those that have a place.

    Args:
        past: With the genotype, and the one before it.
        width: Of a line at most.
        height: Lines at most.
        colour: Of an operation.
    """
    if past.snapshot is None:
        return []
    before = past.before.genotype.cells if past.before is not None else {}
    blocks = [
        _cell(name, cell, before.get(name), past.space.inputs, colour)
        for name, cell in past.snapshot.genotype.cells.items()
    ]
    lines: list[Text] = []
    for block in _side_by_side(blocks, width):
        if len(lines) + len(block) <= height and _widest(block) <= width:
            lines += block
    return lines


def _cell(
    name: str,
    cell: CellGenotype,
    before: CellGenotype | None,
    inputs: int,
    colour: Callable[[str], str],
) -> list[Text]:
    """A line about the cell, and one a node; edges that the epoch before had not have a plus."""
    new = [
        set(node).difference(before.nodes[index] if before is not None else node)
        for index, node in enumerate(cell.nodes)
    ]
    count = sum(map(len, new))
    said = f"{count} edge{'' if count == 1 else 's'} changed" if count else ""
    widest = max(len(_term(edge)) for edge in cell.edges)
    margin = len(str(inputs + len(cell.nodes) - 1))
    lines = [Text.assemble((f"{name} cell", "bold"), _GAP, (said, _NEW))]
    for number, (node, changed) in enumerate(zip(cell.nodes, new, strict=True), start=inputs):
        line = Text.assemble((f"{number:>{margin}}", "dim"))
        for edge in node:
            line.append(" +" if edge in changed else "  ", style=_NEW)
            bold = "bold " if edge in changed else ""
            line.append(_term(edge).ljust(widest), style=f"{bold}{colour(edge.operation)}")
        lines.append(line)
    for line in lines:
        line.rstrip()
    return lines


def _term(edge: Edge) -> str:
    return f"{edge.operation} {edge.source}"


def _side_by_side(blocks: Sequence[list[Text]], width: int) -> list[list[Text]]:
    """Two cells in one block where both fit; of a single cell, its nodes in columns."""
    if len(blocks) == 1:
        head, *nodes = blocks[0]
        columns = max(1, (width + len(_GAP)) // (_widest(nodes) + len(_GAP)))
        height = -(-len(nodes) // columns)
        parts = [nodes[first : first + height] for first in range(0, len(nodes), height)]
        return [[head, *_joined(parts)]]
    if sum(map(_widest, blocks)) + len(_GAP) * (len(blocks) - 1) <= width:
        return [_joined(blocks)]
    return list(blocks)


def _joined(blocks: Sequence[Sequence[Text]]) -> list[Text]:
    """Blocks of lines, the first ones side by side, and so on."""
    lines = [Text() for _ in range(max(map(len, blocks)))]
    place = 0
    for block in blocks:
        for line, more in zip(lines, block, strict=False):
            line.pad_right(place - line.cell_len)
            line.append_text(more)
        place += _widest(block) + len(_GAP)
    return lines


def _widest(lines: Iterable[Text]) -> int:
    return max((line.cell_len for line in lines), default=0)


def signals(space: SearchSpace, those: Signals, width: int) -> list[Text]:
    """A line a cell with its signs of collapse, below one that names them.

    Where it is narrow, the margin is left out first, then the entropy.
    """
    edges = space.nodes * space.edges_per_node
    kind = space.skip.removesuffix("_connect")
    ago = those.unchanged_epochs
    stands = f"{ago} epoch{'' if ago == 1 else 's'}"
    columns = [
        ["", *space.cells],
        [
            "identities" if kind == "identity" else f"{kind}s",
            *(f"{those.skip_connections[cell]} of {edges}" for cell in space.cells),
        ],
        # Of all cells together.
        ["unchanged", stands, *[""] * (len(space.cells) - 1)],
        ["entropy", *(f"{those.entropy[cell]:.3f}" for cell in space.cells)],
        ["weakest margin", *(f"{those.weakest_margin[cell]:.4f}" for cell in space.cells)],
    ]
    widths = [max(map(len, column)) for column in columns]
    while sum(widths) + len(_GAP) * (len(widths) - 1) > width and len(widths) > 1:
        widths.pop()
    collapsed = has_collapsed(space, those)
    lines = []
    for row, texts in enumerate(zip(*columns, strict=True)):
        line = Text(texts[0].ljust(widths[0]))
        for column, (text, room) in enumerate(zip(texts, widths, strict=False)):
            if column:
                bad = collapsed and (row, column) == (1, 1)
                line.append(_GAP + text.rjust(room), style=_WARNING if bad else None)
        if not row:
            line.stylize("dim")
        line.rstrip()
        lines.append(line)
    return lines


def warnings(those: Sequence[str], width: int, height: int) -> list[Text]:
    """Each in as many lines as it takes; those for which there is no place are counted."""
    lines: list[Text] = []
    for number, warning in enumerate(those):
        more = _wrapped(warning, width)
        # Of a line less if something has to be said below.
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
