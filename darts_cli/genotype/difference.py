"""The difference between two genotypes of one space."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from darts_cli.errors import GenotypeError
from darts_cli.genotype.types import CellGenotype, Genotype

# The place of an edge: index of its node among the nodes, and its own index in that node.
Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Surplus:
    """The edges and concatenated states of a cell that another cell lacks."""

    edges: frozenset[Place]
    concat: frozenset[int]


@dataclass(frozen=True, slots=True)
class Difference:
    """The surplus of each of two cells over the other."""

    first: Surplus
    second: Surplus
    edges: int
    """Number of edges of the larger cell."""

    @property
    def differing(self) -> int:
        """Number of `edges` that the cells do not share."""
        return max(len(self.first.edges), len(self.second.edges))

    @property
    def concat_differs(self) -> bool:
        """Whether the outputs concatenate different states."""
        return bool(self.first.concat or self.second.concat)


def compare(first: Genotype, second: Genotype) -> dict[str, Difference]:
    """Return the difference of each kind of cell.

    Two edges are the same if operation, source and node are the same; their order in the node
    does not matter. If a node has an edge twice, it is shared as often as both nodes have it.

    Raises:
        GenotypeError: if the genotypes belong to different spaces.
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
    """Return what `cell` has and `other` lacks; of repeated edges, the last ones."""
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
    """Describe in one line how many edges differ, in total and by cell."""
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
