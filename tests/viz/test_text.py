"""Genotypes in words: graphviz text with every edge, and the terminal drawing."""

import pytest
from rich.console import Console

from darts_cli.genotype import Genotype
from darts_cli.space import SearchSpace
from darts_cli.spaces import SPACES
from darts_cli.viz.text import dot, names, terminal
from tests.viz.genotypes import ALL, HARD, SEP, SHIPPED, cell, cnn

RECURRENT = SearchSpace(
    name="rnn", cells=("recurrent",), inputs=1, nodes=8, kept_inputs=1, primitives=("none", "tanh")
)


@pytest.fixture(params=ALL)
def genotype(request: pytest.FixtureRequest) -> Genotype:
    return ALL[request.param]


def test_a_space_without_names_of_its_own_gets_plain_ones() -> None:
    genotype = Genotype(
        space="other", name="other", cells={"cell": cell([[("op", 2)], [("op", 0)]], [4])}
    )
    assert names(genotype).inputs == (("input 0",), ("input 1",), ("input 2",))
    assert names(genotype, RECURRENT).inputs == (("input 0",),)


def test_dot_text_has_every_edge(genotype: Genotype) -> None:
    text = dot(genotype)
    assert text.startswith("digraph ")
    assert text.count("{") - text.count("_{") == text.count("}") - text.count("_{")
    inputs = len(names(genotype).inputs)
    for name, cell_ in genotype.cells.items():
        for node, edges in enumerate(cell_.nodes, start=inputs):
            for edge in edges:
                start = f'"{name} {edge.source}" -> "{name} {node}" [label="{edge.operation}"'
                assert text.count(start) == edges.count(edge)


def test_dot_text_joins_the_states_in_concat_to_the_output_and_no_others() -> None:
    text = dot(SHIPPED["amoebanet"])
    assert '"normal 4" -> "normal output";' in text
    assert '"normal 2" -> "normal output";' not in text


def test_dot_text_escapes_what_graphviz_would_read() -> None:
    assert r'digraph "a\"b\\n"' in dot(cnn('a"b\\n', cell([[(SEP, 0)]], [2])))


def printed(genotype: Genotype) -> str:
    console = Console(width=80, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(terminal(genotype))
    return capture.get()


def test_the_terminal_drawing_fits_80_columns(genotype: Genotype) -> None:
    lines = printed(genotype).splitlines()
    assert max(map(len, lines)) <= 80
    for cell_ in genotype.cells.values():
        for edge in cell_.edges:
            source = names(genotype).state(edge.source)
            assert any(f"{edge.operation}({source})" in line for line in lines)


def test_the_terminal_drawing_reads_as_equations() -> None:
    chain = printed(HARD["all skip, in a chain"]).splitlines()
    lines = [" ".join(line.strip("│ ").split()) for line in chain]
    assert "node 2 = skip_connect(c_{k-2}) + skip_connect(c_{k-1})" in lines
    assert "node 3 = skip_connect(c_{k-2}) + skip_connect(node 2)" in lines
    assert "c_{k} = concat of node 5" in lines
    joined = printed(HARD["a recurrent chain"])
    assert "node 0  = x_{t} joined with h_{t-1}" in joined
    assert "h_{t}   = average of node 11" in joined


def test_the_terminal_drawing_shows_names_as_they_are() -> None:
    name = "<$x_{1}$ & [bold]\x01\n" + "long " * 100
    assert "<$x_{1}$ & [bold]" in printed(cnn(name, cell([[(SEP, 0)]], [2])))


def test_naming_imports_no_space_that_needs_torch() -> None:
    assert names(SHIPPED["rnn_enas"], SPACES["rnn"]) == names(SHIPPED["rnn_enas"])
