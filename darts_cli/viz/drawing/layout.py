"""The layout of a cell's picture, in points from the top left corner; draws nothing.

The cell is laid out from left to right in layers. A node and the labels of its
edges, stacked to its left, form one rigid block, and every edge has a row of its
own that runs straight from the layer of its source to its label. Edges bend
only in the channels between the columns, which hold no boxes: whatever the
genotype, no label covers another one and no edge runs through a label or a state.
"""
# The project has a layout of its own because graphviz is a system package that users would have to
# install, and because its labels may overlap.

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from darts_cli.genotype.difference import Place
from darts_cli.genotype.types import CellGenotype
from darts_cli.viz.drawing.rows import (
    BLOCK_GAP,
    LABEL_HEIGHT,
    NAMED_HEIGHT,
    PORT,
    ROW,
    STATE_HEIGHT,
    Graph,
    arrange,
)
from darts_cli.viz.text import Names

# Widths of a node, and of an input or output, which has a name.
STATE_WIDTH = 30.0
NAMED_WIDTH = 54.0
LABEL_PADDING = 7.0
MIN_CHANNEL, MAX_CHANNEL, STRETCHED_CHANNEL = 34.0, 110.0, 160.0
# Width between the labels of a node and the node.
JOINT, JOINT_PER_EDGE = 18.0, 6.0
# Width of a channel for every point that an edge climbs in it; less is too steep to follow.
CURVE = 0.55

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle, by its centre."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class State:
    """An input, node or output: its box and its texts."""

    box: Box
    kind: str
    """`input`, `node` or `output`."""
    name: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Label:
    """The operation of an edge, on its row."""

    box: Box
    operation: str
    place: Place


@dataclass(frozen=True, slots=True)
class Wire:
    """A line through points, level between points of the same height and bent elsewhere."""

    points: tuple[Point, ...]
    operation: str | None
    """Operation of the edge; None for a line into the output or into a joined input."""
    place: Place | None = None
    """Place of the edge in the cell."""
    joined: int | None = None
    """State that the line leads into the output."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The picture of one cell."""

    width: float
    height: float
    states: Sequence[State]
    labels: Sequence[Label]
    wires: Sequence[Wire]


@dataclass(frozen=True, slots=True)
class _Columns:
    """Left and right edges of the columns."""

    states: list[tuple[float, float]]
    """Columns of states by layer; the output's is the last."""
    labels: list[tuple[float, float]]
    """Columns of labels by layer; layer 0 has no labels and its column no width."""


class Plan:
    """The rows of a cell and its least width, from which a layout of any width is made."""

    def __init__(self, cell: CellGenotype, names: Names, measure: Callable[[str], float]) -> None:
        """Arrange the rows; `measure` returns the width of a label's text in points."""
        self.graph = Graph(cell, names)
        self.measure = measure
        self.width = self.height = 0.0
        self.rows = arrange(self.graph)
        self.rows.settle()
        parts = self.layout()
        boxes = [state.box for state in parts.states] + [label.box for label in parts.labels]
        top = min(box.y - box.height / 2 for box in boxes)
        self.rows.y = [y - top for y in self.rows.y]
        self.width = parts.width
        self.height = max(box.y + box.height / 2 for box in boxes) - top

    def layout(self, width: float = 0.0) -> Layout:
        """Place everything, with the channels widened towards a picture of `width` points."""
        columns = self._columns(max(width - self.width, 0.0))
        return Layout(
            width=columns.states[-1][1],
            height=self.height,
            states=[*self._states(columns), *self._given(), self._output(columns)],
            labels=list(self._labels(columns)),
            wires=[*self._edges(columns), *self._joins(columns)],
        )

    def _columns(self, spare: float = 0.0) -> _Columns:
        """Place all columns, with `spare` points shared between the channels up to a limit."""
        graph = self.graph
        x = NAMED_WIDTH + MIN_CHANNEL if graph.names.joined() else 0.0
        states: list[tuple[float, float]] = []
        labels = [(0.0, 0.0)]
        unshared = spare
        for layer in range(graph.depth):
            members = [state for state, place in enumerate(graph.layers) if place == layer]
            if layer:
                channel = self._channel(layer - 1)
                share = min(spare / (graph.depth - 1), max(STRETCHED_CHANNEL - channel, 0.0))
                unshared -= share
                x += channel + share
                edges = [graph.edges[node] for node in members]
                label = max(self.measure(edge.operation) for node in edges for edge in node)
                labels.append((x, x + label + 2 * LABEL_PADDING))
                x = labels[-1][1] + JOINT + JOINT_PER_EDGE * (max(map(len, edges)) - 1)
            wide = any(graph.named(state) for state in members)
            states.append((x, x + (NAMED_WIDTH if wide else STATE_WIDTH)))
            x = states[-1][1]
        x += min(MIN_CHANNEL + unshared, STRETCHED_CHANNEL)
        states.append((x, x + NAMED_WIDTH))
        return _Columns(states, labels)

    def _channel(self, layer: int) -> float:
        """Return the natural width of the channel to the right of a layer's states."""
        climbs = [
            abs(self.rows.row(node, index) - self.rows.y[edge.source])
            for node in self.graph.nodes
            for index, edge in enumerate(self.graph.edges[node])
            if self.graph.layers[edge.source] == layer
        ]
        return min(max(CURVE * max(climbs), MIN_CHANNEL), MAX_CHANNEL)

    def _states(self, columns: _Columns) -> Iterator[State]:
        graph = self.graph
        for state in range(len(graph.edges)):
            left, right = columns.states[graph.layers[state]]
            named = graph.named(state)
            width = NAMED_WIDTH if named else STATE_WIDTH
            box = Box((left + right) / 2, self.rows.y[state], width, graph.heights[state])
            if named:
                yield State(box, "input", graph.names.inputs[state][0], f"state {state}")
            else:
                yield State(box, "node", str(state))

    def _given(self) -> Iterator[State]:
        """Yield the inputs that are joined into one state, in a column before all others."""
        for state, parts in self.graph.names.joined():
            for place, name in enumerate(parts):
                y = self.rows.y[state] + (place - (len(parts) - 1) / 2) * (NAMED_HEIGHT + BLOCK_GAP)
                yield State(Box(NAMED_WIDTH / 2, y, NAMED_WIDTH, NAMED_HEIGHT), "input", name)

    def _output(self, columns: _Columns) -> State:
        left, right = columns.states[-1]
        joined = [self.rows.y[state] for state in self.graph.concat]
        height = max(max(joined) - min(joined) + STATE_HEIGHT, NAMED_HEIGHT)
        box = Box((left + right) / 2, (max(joined) + min(joined)) / 2, right - left, height)
        return State(box, "output", self.graph.names.output, self.graph.names.join)

    def _labels(self, columns: _Columns) -> Iterator[Label]:
        for node in self.graph.nodes:
            left, right = columns.labels[self.graph.layers[node]]
            for index, edge in enumerate(self.graph.edges[node]):
                y = self.rows.row(node, index)
                box = Box((left + right) / 2, y, right - left, LABEL_HEIGHT)
                yield Label(box, edge.operation, (node - self.graph.inputs, index))

    def _edges(self, columns: _Columns) -> Iterator[Wire]:
        graph = self.graph
        for node in graph.nodes:
            edges, y = graph.edges[node], self.rows.y[node]
            _, label_end = columns.labels[graph.layers[node]]
            end, _ = columns.states[graph.layers[node]]
            step = min(PORT, (graph.heights[node] - 12) / max(len(edges) - 1, 1)) / ROW
            for index, edge in enumerate(edges):
                layer = graph.layers[edge.source]
                row, offset = self.rows.row(node, index), self.rows.offsets[node][index]
                points = (
                    (columns.states[layer][1], self._leaves(edge.source)[node, index]),
                    (columns.labels[layer + 1][0], row),
                    (label_end, row),
                    (end, y + offset * step),
                )
                yield Wire(points, edge.operation, place=(node - graph.inputs, index))

    def _leaves(self, state: int) -> dict[tuple[int, int], float]:
        """Return the height at which each edge leaves a state, in the order of their rows."""
        graph, y = self.graph, self.rows.y[state]
        out = sorted(graph.out[state], key=lambda end: self.rows.row(*end))
        # Edges in the order of their rows do not cross in the channel.
        slots = [place - (len(out) - 1) / 2 for place in range(len(out))]
        if state in graph.concat:
            # The line into the output leaves in the middle, since it has to be level.
            above = sum(self.rows.row(*end) < y for end in out)
            slots = [place - above + (place >= above) for place in range(len(out))]
        furthest = max((abs(slot) for slot in slots), default=0) or 1
        step = min(PORT, (graph.heights[state] / 2 - 6) / furthest)
        return {end: y + slot * step for end, slot in zip(out, slots, strict=True)}

    def _joins(self, columns: _Columns) -> Iterator[Wire]:
        """Yield the lines without an operation: into the output, and into joined inputs."""
        for state in sorted(self.graph.concat):
            start, y = columns.states[self.graph.layers[state]][1], self.rows.y[state]
            yield Wire(((start, y), (columns.states[-1][0], y)), None, joined=state)
        given = self._given()
        for state, parts in self.graph.names.joined():
            for place in range(len(parts)):
                y = self.rows.y[state] + (place - (len(parts) - 1) / 2) * PORT
                yield Wire(((NAMED_WIDTH, next(given).box.y), (columns.states[0][0], y)), None)
