"""The cells and alphas of a run as the JSON values that its page draws."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

from darts_cli.genotype.derivation import softmax
from darts_cli.genotype.types import CellGenotype, Genotype
from darts_cli.run.signals import SearchSnapshot
from darts_cli.space import SearchSpace
from darts_cli.viz.drawing.layout import Box, Layout, Plan
from darts_cli.viz.style import colour
from darts_cli.viz.text import Names, names

# Width in points of a label's letter: 0.6 of the style sheet's 9.5 points, in any monospace font.
LETTER_WIDTH = 5.7

# Probabilities are whole numbers, in parts of this, which take the fewest bytes.
SHARES = 10_000

_Item = TypeVar("_Item")


class Pictures:
    """The different cells of a page, each once, and the operations in them."""

    def __init__(self) -> None:
        self._layouts: dict[tuple[CellGenotype, Names], int] = {}
        self._operations: dict[str, int] = {}

    def number_all(self, genotype: Genotype, space: SearchSpace) -> dict[str, int]:
        """Return the number of each cell's layout."""
        called, numbers = names(genotype, space), self._layouts
        return {
            name: numbers.setdefault((cell, called), len(numbers))
            for name, cell in genotype.cells.items()
        }

    def layouts(self) -> list[dict[str, Any]]:
        """Lay out the numbered cells, in the order of their numbers."""
        return [self._plain(_lay_out(*key), _describe(*key)) for key in self._layouts]

    def operations(self) -> list[list[str]]:
        """Return the names and colours of the operations that the layouts refer to by number."""
        return [[name, colour(name)] for name in self._operations]

    def _operation(self, name: str) -> int:
        return self._operations.setdefault(name, len(self._operations))

    def _plain(self, layout: Layout, text: str) -> dict[str, Any]:
        return {
            "width": round(layout.width, 1),
            "height": round(layout.height, 1),
            "text": text,
            "states": [
                [*_numbers(state.box), state.kind, state.name, state.note]
                for state in layout.states
            ],
            "labels": [
                [*_numbers(label.box), self._operation(label.operation)] for label in layout.labels
            ],
            "wires": [
                [
                    None if wire.operation is None else self._operation(wire.operation),
                    *(round(number, 1) for point in wire.points for number in point),
                ]
                for wire in layout.wires
            ],
        }


@lru_cache(maxsize=2048)
def _lay_out(cell: CellGenotype, called: Names) -> Layout:
    # Cached, since a page that turns out too large is built again with fewer epochs.
    return Plan(cell, called, lambda text: LETTER_WIDTH * len(text)).layout()


def _numbers(box: Box) -> list[float]:
    return [round(number, 1) for number in (box.x, box.y, box.width, box.height)]


def _describe(cell: CellGenotype, called: Names) -> str:
    """Describe the cell in words, for screen readers."""
    parts = [f"node {number} = {' and '.join(inputs)} joined" for number, inputs in called.joined()]
    for number, node in enumerate(cell.nodes, start=len(called.inputs)):
        terms = (f"{edge.operation}({called.state(edge.source)})" for edge in node)
        parts.append(f"node {number} = {' + '.join(terms)}")
    nodes = ", ".join(map(str, cell.concat))
    parts.append(f"{called.output} = {called.join} of nodes {nodes}")
    return "; ".join(parts).replace("_{", "[").replace("}", "]")


def plain_edges(space: SearchSpace, genotype: Genotype) -> list[list[str]]:
    """Return the names of source and node of each edge, in the order of the alphas' rows."""
    called = names(genotype, space)
    return [
        [called.state(source), called.state(node + space.inputs)] for node, source in space.edges
    ]


def plain_snapshot(
    snapshot: SearchSnapshot, space: SearchSpace, pictures: Pictures
) -> dict[str, Any]:
    """Build the JSON object of a search after an epoch."""
    alphas = snapshot.alphas
    return {
        "epoch": snapshot.epoch,
        "cells": pictures.number_all(snapshot.genotype, space),
        "probabilities": {
            cell: [[round(SHARES * share) for share in softmax(row)] for row in alphas[cell]]
            for cell in space.cells
        },
        "chosen": {cell: _chosen(snapshot, space, cell) for cell in space.cells},
        "text": _describe_signals(
            snapshot.signals.unchanged_epochs, snapshot.signals.skip_connections, space
        ),
    }


def _chosen(snapshot: SearchSnapshot, space: SearchSpace, cell: str) -> list[int]:
    """Return for each edge the column of the primitive that the genotype keeps, or -1."""
    rows = {edge: row for row, edge in enumerate(space.edges)}
    columns = [-1] * len(rows)
    for choice in snapshot.choices:
        if choice.cell == cell:
            row = rows[choice.node - space.inputs, choice.edge.source]
            columns[row] = space.primitives.index(choice.edge.operation)
    return columns


def _describe_signals(unchanged: int, skips: Mapping[str, int], space: SearchSpace) -> str:
    when = (
        f"The genotype has stood for {_count(unchanged, 'epoch')}"
        if unchanged
        else "The genotype is new in this epoch"
    )
    edges, kind = space.nodes * space.edges_per_node, space.skip.removesuffix("_connect")
    cells = (f"{count} of {edges} edges of the {cell} cell" for cell, count in skips.items())
    return f"{when}; {kind} connections: {', '.join(cells)}."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def spread(items: Sequence[_Item], most: int) -> list[_Item]:
    """Return at most `most` items, evenly spread, the first and the last among them."""
    last = len(items) - 1
    if last < most:
        return list(items)
    if most == 1:
        return [items[-1]]
    return [items[round(place * last / (most - 1))] for place in range(most)]
