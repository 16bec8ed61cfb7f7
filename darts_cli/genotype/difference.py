"""What two genotypes of one space do not share."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from darts_cli.errors import GenotypeError
from darts_cli.genotype.types import CellGenotype, Genotype

Place = tuple[int, int]
"""The place of an edge: of its node among the nodes, and its own among the edges of that node."""


@dataclass(frozen=True, slots=True)
class Surplus:
    """What a cell has and another one has not."""

    edges: frozenset[Place]
    concat: frozenset[int]


@dataclass(frozen=True, slots=True)
class Difference:
    """What each of two cells has and the other has not."""

    first: Surplus
    second: Surplus
    edges: int
    """How many edges the larger one of both cells has."""

    @property
    def differing(self) -> int:
        """How many of `edges` the other cell has not: all but those that both have."""
        return max(len(self.first.edges), len(self.second.edges))

    @property
    def concat_differs(self) -> bool:
        """Whether the outputs are made of different states."""
        return bool(self.first.concat or self.second.concat)


def compare(first: Genotype, second: Genotype) -> dict[str, Difference]:
    """The difference of each kind of cell.

    Two edges are the same if they have the same operation and source and lead
    to the same node; their order in it says nothing. A node may have an edge
    twice, which is then shared as often as both have it.

    Raises:
        GenotypeError: if the genotypes are not of one space.
    """
    if first.space != second.space:
        raise GenotypeError(
            f"{first.name} is of space {first.space!r} and {second.name} of {second.space!r},"
            " expected two genotypes of one space"
        )
    return {
        name: Difference(
            surplus(cell, second.cells[name]),
            surplus(second.cells[name], cell),
            edges=max(len(cell.edges), len(second.cells[name].edges)),
        )
        for name, cell in first.cells.items()
    }


def surplus(cell: CellGenotype, other: CellGenotype) -> Surplus:
    """What `cell` has and `other` has not; of an edge that it has more often, the last ones."""
    edges = set()
    for node, own in enumerate(cell.nodes):
        shared = Counter(other.nodes[node] if node < len(other.nodes) else ())
        for index, edge in enumerate(own):
            if shared[edge]:
                shared[edge] -= 1
            else:
                edges.add((node, index))
    return Surplus(frozenset(edges), frozenset(cell.concat) - frozenset(other.concat))


def summarize(differences: Mapping[str, Difference]) -> str:
    """How many edges differ, in all and by cell, in one line."""
    edges = sum(difference.edges for difference in differences.values())
    count = sum(difference.differing for difference in differences.values())
    text = f"{count} of {edges} edges differ{'s' * (count == 1)}"
    if count and len(differences) > 1:
        by_cell = (f"{one.differing} of {one.edges} in {name}" for name, one in differences.items())
        text += f": {', '.join(by_cell)}"
    concats = [name for name, one in differences.items() if one.concat_differs]
    if concats:
        text += "; concat differs"
        text += f" in {' and '.join(concats)}" if len(differences) > 1 else ""
    return text
