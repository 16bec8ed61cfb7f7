"""Genotypes in words: graphviz and Mermaid text with every edge, and the terminal drawing."""

import re

import pytest
from rich.console import Console

from darts_cli.genotype.types import Genotype
from darts_cli.space import SearchSpace
from darts_cli.spaces import SPACES
from darts_cli.viz.style import COLOURS, THEMES
from darts_cli.viz.text import dot, mermaid, names, terminal
from tests.viz.genotypes import ALL, HARD, SEP, SHIPPED, SKIP, cell, cnn

RECURRENT = SearchSpace(
    name="rnn",
    cells=("recurrent",),
    inputs=1,
    nodes=8,
    edges_per_node=1,
    primitives=("none", "tanh"),
)
LINK = re.compile(r'(\w+) -->(?:\|"([^"]*)"\|)? (\w+)')
STATE = re.compile(r'(\w+)(?:\[|\(\()"([^"]*)"(?:\]|\)\)):::(\w+)')
# Characters that end a string or a label, begin a comment or markup, or are an entity.
STRANGE = 'a"b\\n|c]d)e\n`f`;g#h<i>&%%{j}%% end $$k$$ é'


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


def links(text: str) -> list[tuple[str, str, str]]:
    """Source, operation and target of every link, in the order that Mermaid numbers them in."""
    lines = [line.strip() for line in text.splitlines() if "-->" in line]
    matches = [LINK.fullmatch(line) for line in lines]
    return [(found[1], found[2] or "", found[3]) for found in matches if found]


def expected_links(genotype: Genotype) -> list[tuple[str, str, str]]:
    inputs = names(genotype).inputs
    links = []
    for number, cell_ in enumerate(genotype.cells.values()):
        prefix = f"cell{number}_state"
        for state, parts in enumerate(inputs):
            joined = range(len(parts) if len(parts) > 1 else 0)
            links += [(f"{prefix}{state}_input{part}", "", f"{prefix}{state}") for part in joined]
        for node, edges in enumerate(cell_.nodes, start=len(inputs)):
            links += [
                (f"{prefix}{edge.source}", edge.operation, f"{prefix}{node}") for edge in edges
            ]
        links += [(f"{prefix}{state}", "", f"cell{number}_output") for state in cell_.concat]
    return links


def test_mermaid_text_has_every_edge_once(genotype: Genotype) -> None:
    text = mermaid(genotype)
    assert text.count("-->") == len(links(text))
    assert links(text) == expected_links(genotype)


def test_mermaid_text_declares_every_state_once_and_with_its_kind(genotype: Genotype) -> None:
    found = STATE.findall(mermaid(genotype))
    declared = [identifier for identifier, _, _ in found]
    assert len(declared) == len(set(declared))
    linked = {end for source, _, target in expected_links(genotype) for end in (source, target)}
    assert linked <= set(declared)
    kinds = {kind for _, _, kind in found}
    assert kinds == {"inputState", "nodeState", "outputState"}
    for number, cell_ in enumerate(genotype.cells.values()):
        nodes = [
            label
            for identifier, label, kind in found
            if identifier.startswith(f"cell{number}_") and kind == "nodeState"
        ]
        joined = sum(len(parts) > 1 for parts in names(genotype).inputs)
        assert len(nodes) == len(cell_.nodes) + joined


def test_mermaid_text_colours_each_link_once_and_by_its_operation(genotype: Genotype) -> None:
    text = mermaid(genotype)
    styles: dict[int, str] = {}
    for numbers, ink in re.findall(r"linkStyle ([\d,]+) stroke:(#\w{6}),", text):
        for number in map(int, numbers.split(",")):
            assert number not in styles
            styles[number] = ink
    found = links(text)
    assert sorted(styles) == list(range(len(found)))
    for number, (_, operation, _) in enumerate(found):
        assert styles[number] == (COLOURS[operation] if operation else THEMES["light"].join)


def test_mermaid_text_is_a_flowchart_with_one_subgraph_a_cell() -> None:
    lines = mermaid(SHIPPED["darts_v2"]).splitlines()
    assert lines[0] == "flowchart LR"
    assert [line for line in lines if "subgraph" in line] == [
        '  subgraph cell0["darts_v2, normal cell"]',
        '  subgraph cell1["darts_v2, reduce cell"]',
    ]
    assert lines.count("  end") == 2
    assert '    cell0_state1 -->|"sep_conv_3x3"| cell0_state2' in lines
    assert '    cell1_state0["c_{k-2}"]:::inputState' in lines


@pytest.mark.parametrize("where", ["name", "operation"])
def test_nothing_in_a_name_breaks_mermaid_text(where: str) -> None:
    name, operation = (STRANGE, SEP) if where == "name" else ("plain", STRANGE)
    text = mermaid(cnn(name, cell([[(operation, 0), (SKIP, 1)]], [2])))
    quoted = re.findall(r'"([^"]*)"', text)
    assert all(re.fullmatch(r"([\w {},-]|#\d+;)*", one) for one in quoted)
    # What is left without them is what a genotype with plain names has.
    plain = mermaid(cnn("plain", cell([[(SEP, 0), (SKIP, 1)]], [2])))
    structure = [re.sub(r'"[^"]*"|#\w{6}', "", one) for one in (text, plain)]
    assert structure[0] == structure[1]
    codes = {part for one in quoted for part in re.findall(r"#(\d+);", one)}
    assert {ord(letter) for letter in '"\\|])`;#<>&%$'} <= set(map(int, codes))
    assert any("é" in one for one in quoted)


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
