"""A search space as data: the shape of its cells, and the operations on their edges."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchSpace:
    """Everything about a space that can be said without a tensor.

    A cell is a directed acyclic graph. States 0 to `inputs - 1` are its inputs;
    each of its nodes is the sum of its edges, and an edge applies an operation
    to an earlier state (DARTS, section 2.1).
    """

    name: str
    """What `space:` says in a genotype file, and `darts search` takes."""
    cells: tuple[str, ...]
    """The kinds of cell that are searched, each with alphas of its own."""
    inputs: int
    """How many states a cell is given."""
    nodes: int
    """How many nodes a searched cell computes."""
    edges_per_node: int
    """How many edges a node keeps when the genotype is derived."""
    primitives: tuple[str, ...]
    """The candidate operations of an edge, in the order of the columns of the alphas."""
    discrete_only: tuple[str, ...] = ()
    """Operations that a genotype may use although they are no candidates."""
    skip: str = "skip_connect"
    """The primitive that hands a state on as it is; a cell full of it has collapsed."""
    fixed_edges: int | None = None
    """How many edges a node of a genotype must have; None: any number from one on."""

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """(node, source) of every edge of a searched cell: node by node, sources in order."""
        return tuple(
            (node, source) for node in range(self.nodes) for source in range(node + self.inputs)
        )

    @property
    def operations(self) -> tuple[str, ...]:
        """What a genotype may hold: all primitives but `none`, and the discrete ones."""
        return tuple(name for name in self.primitives if name != NO_OPERATION) + self.discrete_only


NO_OPERATION = "none"
"""The primitive that stands for the absence of an edge; a genotype never holds it."""
