"""Genotypes in words: names, graphviz and Mermaid text, the terminal drawing."""

from collections.abc import Iterator
from dataclasses import dataclass

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.text import Text

from darts_cli.genotype.types import CellGenotype, Edge, Genotype
from darts_cli.space import SearchSpace
from darts_cli.viz.style import THEMES, colour

# Other programs draw text on white.
LIGHT = THEMES["light"]

# Characters of a genotype's name that a title shows.
MAX_TITLE = 60

# A line with the longest operations of the convolutional space fits 80 columns.
EDGES_PER_LINE = 2


@dataclass(frozen=True, slots=True)
class Names:
    """Names of the states of a cell, with `_{...}` around subscripts."""

    inputs: tuple[tuple[str, ...], ...]
    """For each input state its name, or the names of the inputs that are joined into it."""
    output: str
    join: str
    """How the states in `concat` make the output."""

    def joined(self) -> list[tuple[int, tuple[str, ...]]]:
        """Return the number and the inputs of each state that joins several inputs."""
        return [(state, parts) for state, parts in enumerate(self.inputs) if len(parts) > 1]

    def state(self, state: int) -> str:
        """Return the name of an input, or the number of any other state."""
        if state < len(self.inputs) and len(self.inputs[state]) == 1:
            return self.inputs[state][0]
        return f"node {state}"


NAMES: dict[str, Names] = {
    "cnn": Names((("c_{k-2}",), ("c_{k-1}",)), "c_{k}", "concat"),
    "rnn": Names((("x_{t}", "h_{t-1}"),), "h_{t}", "average"),
}


def names(genotype: Genotype, space: SearchSpace | None = None) -> Names:
    """Return the names of a genotype's states, plain ones for a space without names in `NAMES`.

    Without `space`, an unknown space is assumed to have the fewest inputs with
    which every source is an earlier state.
    """
    known = NAMES.get(genotype.space)
    if known is not None and (space is None or space.inputs == len(known.inputs)):
        return known
    needed = (
        max(edge.source for edge in node) - index + 1
        for cell in genotype.cells.values()
        for index, node in enumerate(cell.nodes)
    )
    inputs = max(1, *needed) if space is None else space.inputs
    return Names(tuple((f"input {state}",) for state in range(inputs)), "output", "concat")


def shown(name: str) -> str:
    """Shorten a name to `MAX_TITLE` characters that a line of text and XML can hold."""
    name = printable(name)
    return name if len(name) <= MAX_TITLE else name[: MAX_TITLE - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _states(cell: CellGenotype, called: Names) -> Iterator[tuple[str, str, str]]:
    """Yield the key, the label and the kind of each state of a cell."""
    for number, parts in enumerate([*called.inputs, *(() for _ in cell.nodes)]):
        if len(parts) == 1:
            yield str(number), parts[0], "input"
            continue
        for part, name in enumerate(parts):
            yield f"{number}_input{part}", name, "input"
        yield str(number), str(number), "node"
    yield "output", called.output, "output"


def _links(cell: CellGenotype, called: Names) -> Iterator[tuple[str, str, str | None]]:
    """Yield the keys of source and target of each line of a cell, and its operation if any."""
    for number, parts in called.joined():
        for part in range(len(parts)):
            yield f"{number}_input{part}", str(number), None
    for number, node in enumerate(cell.nodes, start=len(called.inputs)):
        for edge in node:
            yield str(edge.source), str(number), edge.operation
    for number in cell.concat:
        yield str(number), "output", None


def count(number: int, noun: str) -> str:
    """Return a number and its noun, which has an s unless the number is 1."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def printable(name: str) -> str:
    """Replace the characters that a line of text or XML cannot hold."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name
    )


def dot(genotype: Genotype) -> str:
    """Write the genotype as graphviz text: one cluster per cell, one line per edge."""
    fill = LIGHT.fills["node"]
    lines = [
        f"digraph {_quote(shown(genotype.name))} {{",
        "  rankdir=LR;",
        '  graph [fontname="Helvetica", labeljust="l", color="white"];',
        f'  node [fontname="Helvetica", shape="circle", style="filled", fillcolor="{fill}"];',
        '  edge [fontname="Helvetica", fontsize=10, color="#555555"];',
    ]
    called = names(genotype)
    for name, cell in genotype.cells.items():
        lines += [
            f"  subgraph {_quote(f'cluster_{name}')} {{",
            f"    label={_quote(f'{shown(genotype.name)}, {name} cell')};",
        ]
        for key, label, kind in _states(cell, called):
            shape = "" if kind == "node" else f', shape="box", fillcolor="{LIGHT.fills[kind]}"'
            lines.append(f"    {_quote(f'{name} {key}')} [label={_quote(label)}{shape}];")
        for source, target, operation in _links(cell, called):
            line = f"    {_quote(f'{name} {source}')} -> {_quote(f'{name} {target}')}"
            if operation is not None:
                line += f" [label={_quote(operation)}, color={_quote(colour(operation))}]"
            lines.append(f"{line};")
        lines.append("  }")
    return "\n".join([*lines, "}"]) + "\n"


def _quote(text: str) -> str:
    """Quote a graphviz string."""
    # A backslash would begin an escape.
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def mermaid(genotype: Genotype) -> str:
    """Write the genotype as Mermaid text: one subgraph per cell, one line per edge."""
    called = names(genotype)
    lines, links = ["flowchart LR"], list[str | None]()
    for number, (name, cell) in enumerate(genotype.cells.items()):
        heading = _quote_mermaid(f"{shown(genotype.name)}, {name} cell")
        lines += [f"  subgraph cell{number}[{heading}]", "    direction LR"]
        keys = {}
        for key, label, kind in _states(cell, called):
            keys[key] = f"cell{number}_{'' if kind == 'output' else 'state'}{key}"
            left, right = ("((", "))") if kind == "node" else ("[", "]")
            lines.append(f"    {keys[key]}{left}{_quote_mermaid(label)}{right}:::{kind}State")
        for source, target, operation in _links(cell, called):
            label = "" if operation is None else f"|{_quote_mermaid(operation)}|"
            lines.append(f"    {keys[source]} -->{label} {keys[target]}")
            links.append(operation)
        lines.append("  end")
    # Not `classDef node`: Mermaid has a class of this name.
    for kind, fill in LIGHT.fills.items():
        look = f"fill:{fill},stroke:{LIGHT.outlines[kind]},color:{LIGHT.ink}"
        lines.append(f"  classDef {kind}State {look}")
    # Mermaid counts the links of all cells, from 0.
    for operation in dict.fromkeys(links):
        numbers = ",".join(str(number) for number, one in enumerate(links) if one == operation)
        ink, width = (LIGHT.join, 1) if operation is None else (colour(operation), 2)
        lines.append(f"  linkStyle {numbers} stroke:{ink},stroke-width:{width}px")
    return "\n".join(lines) + "\n"


def _quote_mermaid(text: str) -> str:
    """Quote a Mermaid string."""
    # Quotes, markup and much else have a meaning; any character can be written by its number.
    letters = (
        letter if letter.isalnum() or letter in " _{}-," else f"#{ord(letter)};" for letter in text
    )
    return f'"{"".join(letters)}"'


def terminal(genotype: Genotype) -> Group:
    """Write the cells as equations, one per node, for a rich console of 80 columns or more."""
    called = names(genotype)
    panels = []
    for name, cell in genotype.cells.items():
        heading = Text.assemble((shown(genotype.name), "bold"), f" {name} cell")
        panels.append(boxed(_equations(cell, called), heading))
    return Group(*panels)


def boxed(content: RenderableType, heading: str | Text) -> Panel:
    """Draw a box around a text of the terminal, with a heading in its upper border."""
    return Panel(
        content, box.ROUNDED, title=heading, title_align="left", padding=(0, 1), expand=False
    )


def _equations(cell: CellGenotype, called: Names) -> Text:
    """Write one equation per node, its edges in columns, over several lines if there are many."""
    last = len(called.inputs) + len(cell.nodes) - 1
    margin = max(len(called.output), len(f"node {last}"))
    column = max(len(term(edge, called)) for edge in cell.edges)

    def line(left: str, *right: str | Text) -> Text:
        return Text.assemble((left.ljust(margin), "bold"), *right)

    lines = [
        line(f"node {number}", " = ", " joined with ".join(parts))
        for number, parts in called.joined()
    ]
    for number, node in enumerate(cell.nodes, start=len(called.inputs)):
        for first in range(0, len(node), EDGES_PER_LINE):
            terms = []
            for index, edge in enumerate(node[first : first + EDGES_PER_LINE], start=first):
                shown = term(edge, called)
                shown.pad_right(column - len(shown))
                terms += [Text(" + " if index else " = "), shown]
            lines.append(line("" if first else f"node {number}", *terms))
            lines[-1].rstrip()
    nodes = f"node{'s' * (len(cell.concat) > 1)} {', '.join(map(str, cell.concat))}"
    lines.append(line(called.output, f" = {called.join} of {nodes}"))
    return Text("\n").join(lines)


def term(edge: Edge, called: Names) -> Text:
    """Write an edge as an operation of its source."""
    return Text.assemble((edge.operation, colour(edge.operation)), f"({called.state(edge.source)})")
