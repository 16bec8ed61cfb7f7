"""The discrete architecture: edges, cells and genotypes as values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

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
