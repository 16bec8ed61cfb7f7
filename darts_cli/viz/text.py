"""Genotypes in words: names, graphviz and Mermaid text, the terminal drawing."""

from collections.abc import Iterator
from dataclasses import dataclass

from rich import box
from rich.console import Group
from rich.panel import Panel
from rich.text import Text

from darts_cli.genotype.types import CellGenotype, Edge, Genotype
from darts_cli.space import SearchSpace
from darts_cli.viz.style import THEMES, colour

LIGHT = THEMES["light"]
"""What other programs draw from text is on white."""

MAX_TITLE = 60
"""Characters of a genotype's name that a title shows."""

EDGES_PER_LINE = 2
"""So that a line with the longest operations of the convolutional space fits 80 columns."""


@dataclass(frozen=True, slots=True)
class Names:
    """What the states of a cell are called, with `_{...}` around subscripts."""

    inputs: tuple[tuple[str, ...], ...]
    """For each input state its name, or the several inputs that are joined into it."""
    output: str
    join: str
    """How the output is made of the states in `concat`."""

    def state(self, state: int) -> str:
        """The name of an input, and the number of any other state."""
        if state < len(self.inputs) and len(self.inputs[state]) == 1:
            return self.inputs[state][0]
        return f"node {state}"


NAMES: dict[str, Names] = {
    "cnn": Names((("c_{k-2}",), ("c_{k-1}",)), "c_{k}", "concat"),
    "rnn": Names((("x_{t}", "h_{t-1}"),), "h_{t}", "average"),
}


def names(genotype: Genotype, space: SearchSpace | None = None) -> Names:
    """The names of a genotype's states; plain ones for a space that has none of its own.

    Without `space`, an unknown space is taken to have the fewest inputs with
    which every source is an earlier state.
    """
    known = NAMES.get(genotype.space)
    if space is not None:
        inputs = space.inputs
    elif known is not None:
        return known
    else:
        inputs = max(
            max(edge.source for edge in node) - index + 1
            for cell in genotype.cells.values()
            for index, node in enumerate(cell.nodes)
        )
    if known is not None and len(known.inputs) == inputs:
        return known
    return Names(tuple((f"input {state}",) for state in range(max(inputs, 1))), "output", "concat")


def title(genotype: Genotype) -> str:
    """The genotype's name, as a picture shows it."""
    return shown(genotype.name)


def shown(name: str) -> str:
    """A name of any kind, with nothing in it that a line of text or XML could not hold."""
    name = "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name
    )
    return name if len(name) <= MAX_TITLE else name[: MAX_TITLE - 1] + "\N{HORIZONTAL ELLIPSIS}"


def dot(genotype: Genotype, *, space: SearchSpace | None = None) -> str:
    """The genotype as graphviz text: one cluster a cell, one line an edge."""
    fill = LIGHT.fills["node"]
    lines = [
        f"digraph {_quote(title(genotype))} {{",
        "  rankdir=LR;",
        '  graph [fontname="Helvetica", labeljust="l", color="white"];',
        f'  node [fontname="Helvetica", shape="circle", style="filled", fillcolor="{fill}"];',
        '  edge [fontname="Helvetica", fontsize=10, color="#555555"];',
    ]
    for name, cell in genotype.cells.items():
        lines += [
            f"  subgraph {_quote(f'cluster_{name}')} {{",
            f"    label={_quote(f'{title(genotype)}, {name} cell')};",
            *(f"    {line}" for line in _dot_cell(cell, name, names(genotype, space))),
            "  }",
        ]
    return "\n".join([*lines, "}"]) + "\n"


def _dot_cell(cell: CellGenotype, prefix: str, called: Names) -> Iterator[str]:
    def state(key: object) -> str:
        return _quote(f"{prefix} {key}")

    inputs = len(called.inputs)
    given = f'shape="box", fillcolor="{LIGHT.fills["input"]}"'
    for number, parts in enumerate(called.inputs):
        if len(parts) == 1:
            yield f"{state(number)} [label={_quote(parts[0])}, {given}];"
            continue
        yield f"{state(number)} [label={_quote(str(number))}];"
        for part in parts:
            yield f"{state(part)} [label={_quote(part)}, {given}];"
            yield f"{state(part)} -> {state(number)};"
    for number in range(inputs, inputs + len(cell.nodes)):
        yield f"{state(number)} [label={_quote(str(number))}];"
    output = _quote(called.output)
    yield f'{state("output")} [label={output}, shape="box", fillcolor="{LIGHT.fills["output"]}"];'
    for number, node in enumerate(cell.nodes, start=inputs):
        for edge in node:
            style = f"label={_quote(edge.operation)}, color={_quote(colour(edge.operation))}"
            yield f"{state(edge.source)} -> {state(number)} [{style}];"
    for number in cell.concat:
        yield f"{state(number)} -> {state('output')};"


def _quote(text: str) -> str:
    """A graphviz string, in which a backslash would start an escape."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def mermaid(genotype: Genotype, *, space: SearchSpace | None = None) -> str:
    """The genotype as Mermaid text: one subgraph a cell, one line an edge."""
    called = names(genotype, space)
    lines, links = ["flowchart LR"], list[str | None]()
    for number, (name, cell) in enumerate(genotype.cells.items()):
        drawn = list(_mermaid_links(cell, f"cell{number}", called))
        heading = _quote_mermaid(f"{title(genotype)}, {name} cell")
        lines += [
            f"  subgraph cell{number}[{heading}]",
            "    direction LR",
            *(f"    {line}" for line in _mermaid_states(cell, f"cell{number}", called)),
            *(f"    {line}" for line, _ in drawn),
            "  end",
        ]
        links += [operation for _, operation in drawn]
    # Mermaid has a class `node` of its own.
    for kind, fill in LIGHT.fills.items():
        look = f"fill:{fill},stroke:{LIGHT.outlines[kind]},color:{LIGHT.ink}"
        lines.append(f"  classDef {kind}State {look}")
    # Mermaid counts the links of all cells, from 0.
    for operation in dict.fromkeys(links):
        numbers = ",".join(str(number) for number, one in enumerate(links) if one == operation)
        ink = LIGHT.join if operation is None else colour(operation)
        width = "1px" if operation is None else "2px"
        lines.append(f"  linkStyle {numbers} stroke:{ink},stroke-width:{width}")
    return "\n".join(lines) + "\n"


def _mermaid_states(cell: CellGenotype, prefix: str, called: Names) -> Iterator[str]:
    inputs = len(called.inputs)
    for number, parts in enumerate(called.inputs):
        for part, name in enumerate(parts):
            suffix = f"_input{part}" if len(parts) > 1 else ""
            yield f"{prefix}_state{number}{suffix}[{_quote_mermaid(name)}]:::inputState"
        if len(parts) > 1:
            yield f'{prefix}_state{number}(("{number}")):::nodeState'
    for number in range(inputs, inputs + len(cell.nodes)):
        yield f'{prefix}_state{number}(("{number}")):::nodeState'
    yield f"{prefix}_output[{_quote_mermaid(called.output)}]:::outputState"


def _mermaid_links(
    cell: CellGenotype, prefix: str, called: Names
) -> Iterator[tuple[str, str | None]]:
    """Every link with its operation; None for one that has none."""
    for number, parts in enumerate(called.inputs):
        for part in range(len(parts) if len(parts) > 1 else 0):
            yield f"{prefix}_state{number}_input{part} --> {prefix}_state{number}", None
    for number, node in enumerate(cell.nodes, start=len(called.inputs)):
        for edge in node:
            label = _quote_mermaid(edge.operation)
            link = f"{prefix}_state{edge.source} -->|{label}| {prefix}_state{number}"
            yield link, edge.operation
    for number in cell.concat:
        yield f"{prefix}_state{number} --> {prefix}_output", None


def _quote_mermaid(text: str) -> str:
    """A Mermaid string, in which quotes, markup and much else would mean something."""
    letters = (
        letter if letter.isalnum() or letter in " _{}-," else f"#{ord(letter)};" for letter in text
    )
    return f'"{"".join(letters)}"'


def terminal(genotype: Genotype, *, space: SearchSpace | None = None) -> Group:
    """The cells as equations, one node a line, for a rich console of 80 columns or more."""
    called = names(genotype, space)
    panels = [
        Panel(
            _equations(cell, called),
            title=Text.assemble((title(genotype), "bold"), f" {name} cell"),
            title_align="left",
            box=box.ROUNDED,
            padding=(0, 1),
            expand=False,
        )
        for name, cell in genotype.cells.items()
    ]
    return Group(*panels)


def _equations(cell: CellGenotype, called: Names) -> Text:
    """One line a node, its edges in columns; more lines where a node has many edges."""
    left = [called.output]
    left += [f"node {number}" for number in range(len(called.inputs) + len(cell.nodes))]
    margin = max(map(len, left))
    column = max(len(term(edge, called)) for edge in cell.edges)
    lines = [
        Text.assemble((f"node {number}".ljust(margin), "bold"), " = ", " joined with ".join(parts))
        for number, parts in enumerate(called.inputs)
        if len(parts) > 1
    ]
    for number, node in enumerate(cell.nodes, start=len(called.inputs)):
        for first in range(0, len(node), EDGES_PER_LINE):
            name = "" if first else f"node {number}"
            line = Text.assemble((name.ljust(margin), "bold"))
            for index, edge in enumerate(node[first : first + EDGES_PER_LINE], start=first):
                shown = term(edge, called)
                shown.pad_right(column - len(shown))
                line.append(" + " if index else " = ").append_text(shown)
            line.rstrip()
            lines.append(line)
    lines.append(
        Text.assemble(
            (called.output.ljust(margin), "bold"),
            f" = {called.join} of node{'s' * (len(cell.concat) > 1)} "
            f"{', '.join(map(str, cell.concat))}",
        )
    )
    return Text("\n").join(lines)


def term(edge: Edge, called: Names) -> Text:
    """An edge as an operation of its source."""
    return Text.assemble((edge.operation, colour(edge.operation)), f"({called.state(edge.source)})")
