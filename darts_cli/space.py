"""A search space as data: the graph of its cells, and the operations on their edges."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchSpace:
    """The description of a search space, without tensors.

    A cell is a directed acyclic graph. States 0 to `inputs - 1` are its inputs. Each node is the
    sum of its edges, and an edge applies an operation to an earlier state (DARTS, section 2.1).
    """

    name: str
    """Name of the space in genotype files and for `darts search`."""
    cells: tuple[str, ...]
    """Kinds of cells that are searched, each with its own alphas."""
    inputs: int
    """Number of input states of a cell."""
    nodes: int
    """Number of nodes of a searched cell."""
    edges_per_node: int
    """Number of edges that a node keeps when the genotype is derived."""
    primitives: tuple[str, ...]
    """Candidate operations of an edge, in the order of the columns of the alphas."""
    discrete_only: tuple[str, ...] = ()
    """Operations that a genotype may have although they are no candidates."""
    skip: str = "skip_connect"
    """Primitive of a skip connection or identity; a cell full of it has collapsed."""
    fixed_edges: int | None = None
    """Number of edges that a node of a genotype must have; None: one or more."""

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """Pairs (node, source) of all edges of a searched cell, node by node, sources in order."""
        return tuple(
            (node, source) for node in range(self.nodes) for source in range(node + self.inputs)
        )

    @property
    def operations(self) -> tuple[str, ...]:
        """Operations that a genotype may have: primitives without `none`, and the discrete ones."""
        return tuple(name for name in self.primitives if name != NO_OPERATION) + self.discrete_only


# The primitive that stands for the absence of an edge; a genotype never has it.
NO_OPERATION = "none"
