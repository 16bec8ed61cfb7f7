"""The vertical order and heights in a cell's picture: few crossings, short climbs."""

import math
from collections.abc import Iterator, Sequence
from itertools import combinations, permutations, product
from typing import NamedTuple

from darts_cli.genotype.types import CellGenotype, Edge
from darts_cli.viz.text import Names

# Points below which two heights, or two costs, are the same.
TOLERANCE = 1e-6

LABEL_HEIGHT = 18.0
# From one label of a node to the next.
ROW = 24.0
# Between boxes of different nodes.
BLOCK_GAP = 11.0
# Height of the strip of a line without a label.
LANE = 8.0
# Heights of a node, and of an input or output, which has a name.
STATE_HEIGHT = 30.0
NAMED_HEIGHT = 40.0
# Between the ends of two edges on the same side of a state.
PORT = 6.0

# Up to this many nodes every order is tried, 120 of them; beyond, one is improved step by step.
EXHAUSTIVE = 5
# Orders tried at most, times the square of the number of states.
TRIES = 80_000
# Costs of a crossing, of a point of height, and of a point between the inputs and the middle of the
# picture, in points that edges climb.
CROSSING_COST, HEIGHT_COST, BALANCE_COST = 40.0, 0.5, 0.5


class _Strip(NamedTuple):
    """The heights of a block in the columns `first` to `last`, relative to its centre."""

    first: int
    last: int
    top: float
    bottom: float


class Graph:
    """A cell as states in layers, without heights on the page.

    Column 2L holds the states of layer L, column 2L - 1 the labels of their edges.
    """

    def __init__(self, cell: CellGenotype, names: Names) -> None:
        self.names = names
        self.inputs = len(names.inputs)
        self.edges: list[tuple[Edge, ...]] = [*([()] * self.inputs), *cell.nodes]
        self.concat = frozenset(cell.concat)
        self.layers = [0] * self.inputs
        for edges in cell.nodes:
            self.layers.append(1 + max(self.layers[edge.source] for edge in edges))
        self.depth = 1 + max(self.layers)
        self.nodes = range(self.inputs, len(self.edges))
        self.out: list[list[tuple[int, int]]] = [[] for _ in self.edges]
        for node in self.nodes:
            for index, edge in enumerate(self.edges[node]):
                self.out[edge.source].append((node, index))
        # Paths by the latest source of each node make a tree, whose branches move as a whole.
        self.paths: list[tuple[int, ...]] = [(state,) for state in range(self.inputs)]
        for node in self.nodes:
            latest = max(edge.source for edge in self.edges[node])
            self.paths.append((*self.paths[latest], node))
        self.heights = [self._height(state) for state in range(len(self.edges))]

    def named(self, state: int) -> bool:
        """Return whether the state is an input with a name of its own."""
        return state < self.inputs and len(self.names.inputs[state]) == 1

    def _height(self, state: int) -> float:
        """Return the height of the state's box, enough for the ends of its edges."""
        least = NAMED_HEIGHT if self.named(state) else STATE_HEIGHT
        ends = max(len(self.edges[state]), len(self.out[state]) + (state in self.concat))
        return max(least, PORT * ends + 14)

    def strips(self, state: int, offsets: Sequence[float]) -> list[_Strip]:
        """Return the strips of a state, its labels, its rows and its line into the output."""
        column, half = 2 * self.layers[state], self.heights[state] / 2
        strips = [_Strip(column, column, -half, half)]
        if offsets:
            stack = (len(offsets) - 1) * ROW / 2 + LABEL_HEIGHT / 2
            strips.append(_Strip(column - 1, column - 1, -stack, stack))
        for edge, offset in zip(self.edges[state], offsets, strict=True):
            first = 2 * self.layers[edge.source] + 1
            if first < column - 1:
                strips.append(_Strip(first, column - 2, offset - LANE / 2, offset + LANE / 2))
        if state in self.concat:
            strips.append(_Strip(column + 1, 2 * self.depth - 1, -LANE / 2, LANE / 2))
        return strips


class _Order(NamedTuple):
    """The order of states and of labels from top to bottom."""

    nodes: tuple[int, ...]
    """Nodes from top to bottom."""
    stacks: tuple[tuple[int, ...], ...]
    """Indices of the edges of each state from top to bottom."""

    def neighbours(self, graph: Graph) -> Iterator["_Order"]:
        """Yield every order with one label, one node, or one branch of nodes moved."""
        for state, stack in enumerate(self.stacks):
            for index in stack:
                for moved in _moves(stack, {index}):
                    stacks = (*self.stacks[:state], moved, *self.stacks[state + 1 :])
                    yield _Order(self.nodes, stacks)
        for node in self.nodes:
            family = {other for other in self.nodes if node in graph.paths[other]}
            for members in [{node}] if len(family) == 1 else [{node}, family]:
                for nodes in _moves(self.nodes, members):
                    yield _Order(nodes, self.stacks)


def _moves(items: tuple[int, ...], members: set[int]) -> Iterator[tuple[int, ...]]:
    """Yield all other orders with the members together at some place, in their own order."""
    moving = [item for item in items if item in members]
    rest = [item for item in items if item not in members]
    for place in range(len(rest) + 1):
        moved = (*rest[:place], *moving, *rest[place:])
        if moved != items:
            yield moved


class Rows:
    """The heights of all states and edges for one order."""

    def __init__(self, graph: Graph, order: _Order) -> None:
        self.graph = graph
        self.order = [*range(graph.inputs), *order.nodes]
        self.offsets = [
            [(stack.index(index) - (len(stack) - 1) / 2) * ROW for index in range(len(stack))]
            for stack in order.stacks
        ]
        self.y = [0.0] * len(graph.edges)
        self.above: list[list[tuple[int, float]]] = [[] for _ in self.y]
        self.below: list[list[tuple[int, float]]] = [[] for _ in self.y]
        self._separate()
        self._relax(sweeps=6)

    def _separate(self) -> None:
        """Find how far apart states that share a column must be, and pack them from the top."""
        strips = [self.graph.strips(state, rows) for state, rows in enumerate(self.offsets)]
        for upper, lower in combinations(self.order, 2):
            distances = [
                one.bottom - other.top + BLOCK_GAP
                for one, other in product(strips[upper], strips[lower])
                if one.first <= other.last and other.first <= one.last
            ]
            if distances:
                self.above[lower].append((upper, max(distances)))
                self.below[upper].append((lower, max(distances)))
        for state in self.order:
            self.y[state] = max((self.y[up] + gap for up, gap in self.above[state]), default=0.0)

    def _pull(self, state: int) -> float | None:
        """Return the height at which the state's edges climb least; None without edges."""
        graph = self.graph
        wishes = [
            self.y[edge.source] - offset
            for edge, offset in zip(graph.edges[state], self.offsets[state], strict=True)
        ]
        wishes += [self.y[node] + self.offsets[node][index] for node, index in graph.out[state]]
        return sum(wishes) / len(wishes) if wishes else None

    def _relax(self, sweeps: int) -> None:
        """Move each state towards its edges, as far as those above and below allow."""
        for sweep in range(sweeps):
            for state in self.order if sweep % 2 else reversed(self.order):
                self._move({state})

    def _move(self, group: set[int]) -> None:
        """Move states together to where their edges climb least, or until others stop them."""
        pulls = ((self._pull(state), self.y[state]) for state in group)
        wishes = [wish - y for wish, y in pulls if wish is not None]
        if not wishes:
            return
        low, high = -math.inf, math.inf
        for state in group:
            ups, downs = self.above[state], self.below[state]
            y = self.y[state]
            low = max(low, *(self.y[up] + gap - y for up, gap in ups if up not in group), low)
            high = min(high, *(self.y[to] - gap - y for to, gap in downs if to not in group), high)
        move = min(max(sum(wishes) / len(wishes), low), high)
        for state in group:
            self.y[state] += move

    def settle(self) -> None:
        """Relax for the order that is drawn, and move states that block one another together."""
        for _ in range(20):
            self._relax(sweeps=4)
            for group in self._touching():
                self._move(group)
        self._relax(sweeps=20)

    def _touching(self) -> list[set[int]]:
        """Return groups of states that hold each other in place."""
        groups: list[set[int]] = []
        for state in self.order:
            y, ups = self.y[state], self.above[state]
            joined = {state, *(up for up, gap in ups if y - self.y[up] - gap < TOLERANCE)}
            for group in [group for group in groups if group & joined]:
                groups.remove(group)
                joined |= group
            groups.append(joined)
        return [group for group in groups if len(group) > 1]

    def row(self, node: int, index: int) -> float:
        """Return the height of an edge's row."""
        return self.y[node] + self.offsets[node][index]

    def cost(self) -> float:
        """Compute how hard the order is to follow: crossings, climbs, height and balance."""
        climbs = sum(
            abs(self.row(node, index) - self.y[edge.source])
            for node in self.graph.nodes
            for index, edge in enumerate(self.graph.edges[node])
        )
        top, bottom = min(self.y), max(self.y)
        inputs = sum(self.y[: self.graph.inputs]) / self.graph.inputs
        return (
            climbs
            + CROSSING_COST * self._crossings()
            + HEIGHT_COST * (bottom - top)
            + BALANCE_COST * abs(inputs - (top + bottom) / 2)
        )

    def _crossings(self) -> int:
        """Count the crossings of edges that bend with other edges, channel by channel."""
        graph, crossings = self.graph, 0
        for layer in range(graph.depth - 1):
            level = [self.y[state] for state in graph.concat if graph.layers[state] <= layer]
            bent = []
            for node in graph.nodes:
                for index, edge in enumerate(graph.edges[node]):
                    row = self.row(node, index)
                    if graph.layers[edge.source] == layer:
                        bent.append((self.y[edge.source], row))
                    elif graph.layers[edge.source] < layer < graph.layers[node]:
                        level.append(row)
            crossings += sum((y0 - y) * (y1 - y) < 0 for y0, y1 in bent for y in level)
            crossings += sum(
                (a0 - b0) * (a1 - b1) < 0 for (a0, a1), (b0, b1) in combinations(bent, 2)
            )
        return crossings


def arrange(graph: Graph) -> Rows:
    """Find the best order: of all orders of a small cell, then by single moves while they help."""
    stacks = tuple(
        tuple(sorted(range(len(edges)), key=lambda index: edges[index].source))
        for edges in graph.edges
    )
    along_paths = tuple(sorted(graph.nodes, key=lambda node: graph.paths[node]))
    all_ = permutations(graph.nodes) if len(graph.nodes) <= EXHAUSTIVE else [along_paths]
    orders = (_Order(nodes, stacks) for nodes in all_)
    best = min(orders, key=lambda order: Rows(graph, order).cost())
    rows = Rows(graph, best)
    cost, left = rows.cost(), TRIES // len(graph.edges) ** 2
    moved = best.neighbours(graph)
    while (order := next(moved, None)) is not None:
        left -= 1
        other = Rows(graph, order)
        if (found := other.cost()) < cost - TOLERANCE:
            rows, cost, moved = other, found, order.neighbours(graph)
            if left <= 0:
                break
    return rows
