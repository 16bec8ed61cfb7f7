"""Genotypes that are hard to draw, and strategies for any genotype."""

from collections.abc import Sequence

from hypothesis import strategies as st

from darts_cli.genotype.file import load, shipped
from darts_cli.genotype.types import CellGenotype, Edge, Genotype
from darts_cli.space import SearchSpace
from darts_cli.spaces import SPACES
from darts_cli.viz.style import COLOURS

Nodes = Sequence[Sequence[tuple[str, int]]]


def cell(nodes: Nodes, concat: Sequence[int]) -> CellGenotype:
    return CellGenotype(
        tuple(tuple(Edge(operation, source) for operation, source in node) for node in nodes),
        tuple(concat),
    )


def cnn(name: str, normal: CellGenotype, reduce: CellGenotype | None = None) -> Genotype:
    return Genotype(space="cnn", name=name, cells={"normal": normal, "reduce": reduce or normal})


def recurrent(name: str, edges: Sequence[tuple[str, int]], concat: Sequence[int]) -> Genotype:
    cells = {"recurrent": cell([[edge] for edge in edges], concat)}
    return Genotype(space="rnn", name=name, cells=cells)


SKIP, SEP, POOL = "skip_connect", "sep_conv_3x3", "max_pool_3x3"
SHIPPED = {name: load(name, SPACES) for name in shipped()}
COLLAPSED = {
    "all skip, from input 0": cnn("zero", cell([[(SKIP, 0), (SKIP, 0)]] * 4, [2, 3, 4, 5])),
    "all skip, from input 1": cnn("one", cell([[(SKIP, 1), (SKIP, 1)]] * 4, [2, 3, 4, 5])),
    "all skip, in a chain": cnn(
        "skip",
        cell([[(SKIP, 0), (SKIP, 1)], *[[(SKIP, 0), (SKIP, node)] for node in (2, 3, 4)]], [5]),
    ),
    "one edge in one node": cnn("single", cell([[(SKIP, 0)]], [2])),
}
HARD = {
    **COLLAPSED,
    "all edges from state 0": cnn("zero", cell([[(SEP, 0), (POOL, 0)]] * 4, [2, 3, 4, 5])),
    "five edges in a node": cnn(
        "five",
        cell(
            [
                [(SEP, 0), ("dil_conv_5x5", 1), (POOL, 0), ("avg_pool_3x3", 1), (SKIP, 0)],
                [(SEP, 2), (SEP, 2), (SKIP, 0)],
                [("sep_conv_5x5", 0), (SEP, 3), (POOL, 1), ("avg_pool_3x3", 2), (SKIP, 3)],
            ],
            [3, 4],
        ),
        cell([[("conv_7x1_1x7", 1)]], [2]),
    ),
    "a convolutional cell of eleven nodes": cnn(
        "eleven",
        cell([[(SEP, node // 2), (POOL, node + 1)] for node in range(11)], range(7, 13)),
        cell([[(SEP, node), (SKIP, 0)] for node in range(4)], [5]),
    ),
    "a recurrent chain": recurrent("chain", [("identity", node) for node in range(11)], [11]),
    "a recurrent fan": recurrent("fan", [("sigmoid", 0)] * 11, range(1, 12)),
}
ALL = {**SHIPPED, **HARD}


@st.composite
def any_cells(draw: st.DrawFn, inputs: int) -> CellGenotype:
    """Draw a cell of one to six nodes with one to four edges each."""
    operations = st.sampled_from([name for name in COLOURS if name != "none"])
    nodes = []
    for node in range(draw(st.integers(1, 6))):
        edges = st.tuples(operations, st.integers(0, node + inputs - 1))
        nodes.append(draw(st.lists(edges, min_size=1, max_size=4)))
    states = st.integers(inputs, inputs + len(nodes) - 1)
    return cell(nodes, draw(st.lists(states, min_size=1, unique=True)))


def space_of(inputs: int) -> SearchSpace:
    """Return a space without names in `text.NAMES`, of cells with this number of inputs."""
    return SearchSpace(
        name=f"space of {inputs}",
        cells=("cell",),
        inputs=inputs,
        nodes=6,
        edges_per_node=2,
        primitives=tuple(COLOURS),
    )


@st.composite
def any_genotypes(draw: st.DrawFn, inputs: int) -> Genotype:
    """Draw a genotype of `space_of(inputs)`."""
    cells = {"cell": draw(any_cells(inputs))}
    return Genotype(space=space_of(inputs).name, name="any", cells=cells)
