"""Discrete architectures as values: edges, cells and genotypes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# Architecture parameters of each kind of cell, `[E, O]`: a row per edge, a column per primitive.
Alphas = Mapping[str, Sequence[Sequence[float]]]


@dataclass(frozen=True, slots=True)
class Edge:
    """An operation applied to an earlier state of the cell."""

    operation: str
    source: int


@dataclass(frozen=True, slots=True)
class CellGenotype:
    """A discrete cell: node `k` sums the edges `nodes[k]`; the output concatenates `concat`."""

    nodes: tuple[tuple[Edge, ...], ...]
    concat: tuple[int, ...]

    @property
    def edges(self) -> tuple[Edge, ...]:
        """All edges, node by node; names of parameters follow this order."""
        return tuple(edge for node in self.nodes for edge in node)


@dataclass(frozen=True, kw_only=True, slots=True)
class Genotype:
    """The cells of one architecture, and its origin."""

    space: str
    name: str
    cells: Mapping[str, CellGenotype]
    origin: Mapping[str, Any] = field(default_factory=dict)

    def count(self, operation: str) -> dict[str, int]:
        """Count the edges of each cell with `operation`; many `skip_connect` signal a collapse."""
        return {
            name: sum(edge.operation == operation for edge in cell.edges)
            for name, cell in self.cells.items()
        }
