"""The discrete architecture: what it is, how it is derived from alphas, and its YAML file."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from darts_cli.space import NO_OPERATION, SearchSpace

FORMAT = 1
"""The format number that genotype files carry."""

Alphas = Mapping[str, Sequence[Sequence[float]]]
"""Architecture parameters of each kind of cell: a row an edge, a column a primitive."""


@dataclass(frozen=True, slots=True)
class Edge:
    """An operation applied to an earlier state of the cell."""

    operation: str
    source: int


@dataclass(frozen=True, slots=True)
class CellGenotype:
    """A discrete cell: node `k` sums the edges of `nodes[k]`, the output joins `concat`."""

    nodes: tuple[tuple[Edge, ...], ...]
    concat: tuple[int, ...]

    @property
    def edges(self) -> tuple[Edge, ...]:
        """All edges, node by node: the order that parameter names follow."""
        return tuple(edge for node in self.nodes for edge in node)


@dataclass(frozen=True, kw_only=True, slots=True)
class Genotype:
    """The cells of one architecture, and where it comes from."""

    space: str
    name: str
    cells: Mapping[str, CellGenotype]
    origin: Mapping[str, Any] = field(default_factory=dict)

    def count(self, operation: str) -> dict[str, int]:
        """How many edges of each cell carry `operation`; many `skip_connect` signal a collapse."""
        return {
            name: sum(edge.operation == operation for edge in cell.edges)
            for name, cell in self.cells.items()
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """One edge that the derivation kept, and how sure it was. Probabilities are softmax values."""

    cell: str
    node: int
    edge: Edge
    probability: float
    """Of the chosen operation on this edge."""
    operation_margin: float
    """Over the next best operation of the same edge."""
    edge_margin: float | None
    """Over the strongest edge that the node dropped; None where it dropped none."""

    @property
    def margin(self) -> float:
        """The smaller one of both."""
        edge = self.edge_margin
        return self.operation_margin if edge is None else min(self.operation_margin, edge)


def derive(
    space: SearchSpace, alphas: Alphas, *, name: str, origin: Mapping[str, Any] | None = None
) -> tuple[Genotype, list[Choice]]:
    """Keep the strongest edges of every node, each with its strongest operation.

    The strength of an edge is the largest softmax probability over all
    primitives but `none` (DARTS, section 2.4). Ties keep the lower edge and the
    lower primitive.

    Returns:
        The genotype, and one `Choice` an edge in the genotype's order.
    """
    cells: dict[str, CellGenotype] = {}
    choices: list[Choice] = []
    concat = tuple(range(space.inputs, space.inputs + space.nodes))
    for cell in space.cells:
        rows = iter(alphas[cell])
        nodes = []
        for node in range(space.nodes):
            candidates = [
                _strongest(space, next(rows), source) for source in range(node + space.inputs)
            ]
            ranked = sorted(candidates, key=lambda candidate: -candidate.probability)
            kept, dropped = ranked[: space.edges_per_node], ranked[space.edges_per_node :]
            nodes.append(tuple(candidate.edge for candidate in kept))
            choices += [
                Choice(
                    cell=cell,
                    node=node + space.inputs,
                    edge=candidate.edge,
                    probability=candidate.probability,
                    operation_margin=candidate.margin,
                    edge_margin=(
                        candidate.probability - dropped[0].probability if dropped else None
                    ),
                )
                for candidate in kept
            ]
        cells[cell] = CellGenotype(tuple(nodes), concat)
    return Genotype(space=space.name, name=name, cells=cells, origin=dict(origin or {})), choices


@dataclass(frozen=True, slots=True)
class _Candidate:
    edge: Edge
    probability: float
    margin: float


def _strongest(space: SearchSpace, row: Sequence[float], source: int) -> _Candidate:
    """The best operation of one edge, and its margin over the next best."""
    probabilities = softmax(row)
    ranked = sorted(
        (
            (probability, name)
            for name, probability in zip(space.primitives, probabilities, strict=True)
            if name != NO_OPERATION
        ),
        key=lambda pair: -pair[0],
    )
    (best, operation), (second, _) = ranked[:2]
    return _Candidate(Edge(operation, source), best, best - second)


def softmax(row: Sequence[float]) -> list[float]:
    """Probabilities of one edge's primitives, shifted by the maximum so that none overflows."""
    largest = max(row)
    powers = [math.exp(alpha - largest) for alpha in row]
    total = sum(powers)
    return [power / total for power in powers]


def summarize(genotype: Genotype, skip: str) -> str:
    """A line a cell: how many edges hand a state on as it is, by `skip`, and those of its nodes."""
    skips = genotype.count(skip)
    # `skip_connect` is a skip connection, `identity` an identity connection.
    kind = skip.removesuffix("_connect")
    lines = []
    for name, cell in genotype.cells.items():
        nodes = (
            "[" + ", ".join(f"{edge.operation} {edge.source}" for edge in node) + "]"
            for node in cell.nodes
        )
        plural = "" if skips[name] == 1 else "s"
        lines.append(f"  {name} ({skips[name]} {kind} connection{plural}): {' '.join(nodes)}")
    return "\n".join(lines)


def dump(genotype: Genotype) -> str:
    """The YAML text of a genotype; `genotype_file.parse` reads it back."""
    lines = [
        f"format: {FORMAT}",
        f"space: {genotype.space}",
        f"name: {_scalar(genotype.name)}",
        "cells:",
    ]
    for name, cell in genotype.cells.items():
        lines += [f"  {name}:", "    nodes:"]
        for node in cell.nodes:
            edges = ", ".join(f"[{edge.operation}, {edge.source}]" for edge in node)
            lines.append(f"      - [{edges}]")
        lines.append(f"    concat: [{', '.join(map(str, cell.concat))}]")
    text = "\n".join(lines) + "\n"
    if genotype.origin:
        text += yaml.safe_dump({"origin": dict(genotype.origin)}, sort_keys=False)
    return text


def _scalar(text: str) -> str:
    """A YAML scalar that reads back as the same string."""
    return yaml.safe_dump(text, default_style=None).removesuffix("...\n").strip()
