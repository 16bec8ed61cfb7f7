"""The cells and alphas of a run as the JSON values that its page draws."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, TypeVar

from darts_cli.genotype.derivation import softmax
from darts_cli.genotype.types import CellGenotype, Genotype
from darts_cli.run.signals import SearchSnapshot, Signals
from darts_cli.space import SearchSpace
from darts_cli.viz.drawing.layout import Box, Layout, Plan
from darts_cli.viz.style import colour
from darts_cli.viz.text import Names, count, names

# Width in points of a label's letter: 0.6 of the style sheet's 9.5 points, in any monospace font.
LETTER_WIDTH = 5.7

# Probabilities are whole numbers, in parts of this, which take the fewest bytes.
SHARES = 10_000

_Item = TypeVar("_Item")


class Pictures:
    """The different cells of a page, each once, and the operations in them."""

    def __init__(self) -> None:
        self._layouts: dict[tuple[CellGenotype, Names], int] = {}

    def number_all(self, genotype: Genotype, space: SearchSpace) -> dict[str, int]:
        """Return the number of each cell's layout."""
        called, numbers = names(genotype, space), self._layouts
        return {
            name: numbers.setdefault((cell, called), len(numbers))
            for name, cell in genotype.cells.items()
        }

    def plain(self) -> dict[str, Any]:
        """Return the numbered layouts, and the names and colours of their operations."""
        operations: dict[str | None, int | None] = {None: None}

        def number(operation: str | None) -> int | None:
            return operations.setdefault(operation, len(operations) - 1)

        layouts = []
        for cell, called in self._layouts:
            layout = _lay_out(cell, called)
            states = [[*_numbers(one.box), one.kind, one.name, one.note] for one in layout.states]
            labels = [[*_numbers(one.box), number(one.operation)] for one in layout.labels]
            wires = [[number(one.operation), *_round(*chain(*one.points))] for one in layout.wires]
            parts = {"states": states, "labels": labels, "wires": wires}
            width, height = _round(layout.width, layout.height)
            text = _describe(cell, called)
            layouts.append({"width": width, "height": height, "text": text, **parts})
        colours = [[name, colour(name)] for name in operations if name is not None]
        return {"operations": colours, "layouts": layouts}


@lru_cache(maxsize=2048)
def _lay_out(cell: CellGenotype, called: Names) -> Layout:
    # Cached, since a page that turns out too large is built again with fewer epochs.
    return Plan(cell, called, lambda text: LETTER_WIDTH * len(text)).layout()


def _numbers(box: Box) -> list[float]:
    return _round(box.x, box.y, box.width, box.height)


def _round(*numbers: float) -> list[float]:
    return [round(number, 1) for number in numbers]


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
    state = names(genotype, space).state
    return [[state(source), state(node + space.inputs)] for node, source in space.edges]


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
        "text": _describe_signals(snapshot.signals, space),
    }


def _chosen(snapshot: SearchSnapshot, space: SearchSpace, cell: str) -> list[int]:
    """Return for each edge the column of the primitive that the genotype keeps, or -1."""
    kept = {
        (choice.node - space.inputs, choice.edge.source): choice.edge.operation
        for choice in snapshot.choices
        if choice.cell == cell
    }
    return [space.primitives.index(kept[edge]) if edge in kept else -1 for edge in space.edges]


def _describe_signals(signals: Signals, space: SearchSpace) -> str:
    stood = f"has stood for {count(signals.unchanged_epochs, 'epoch')}"
    when = f"The genotype {stood if signals.unchanged_epochs else 'is new in this epoch'}"
    edges, kind = space.nodes * space.edges_per_node, space.skip.removesuffix("_connect")
    cells = (
        f"{number} of {edges} edges of the {cell} cell"
        for cell, number in signals.skip_connections.items()
    )
    return f"{when}; {kind} connections: {', '.join(cells)}."


def spread(items: Sequence[_Item], most: int) -> list[_Item]:
    """Return at most `most` items, evenly spread, the first and the last among them."""
    last = len(items) - 1
    if last < most:
        return list(items)
    if most == 1:
        return [items[-1]]
    return [items[round(place * last / (most - 1))] for place in range(most)]
