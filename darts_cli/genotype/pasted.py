"""Genotypes in the syntax of published code: `NAME = Genotype(normal=[...], ...)`.

The text is parsed and never executed. Only lists, tuples, ranges, strings and numbers are accepted.
"""

import ast
import keyword
import re
import warnings
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from darts_cli.errors import GenotypeError
from darts_cli.genotype.types import CellGenotype, Edge, Genotype
from darts_cli.schema import one_of
from darts_cli.space import SearchSpace

# Limit of a text with genotypes; in the log of a search each takes some three hundred bytes.
MAX_BYTES = 2**16

_CALL = re.compile(r"\bGenotype[ \t]*\(")
_NAME = re.compile(r"(\w+)[ \t]*(?::[ \t]*[\w.]+[ \t]*)?=[ \t]*(?:\w+\.)*$")
_TOKEN = re.compile(r"'[^'\n]*'|\"[^\"\n]*\"|#[^\n]*|[()\[\]]")
# Nesting of brackets at most.
_DEEPEST = 20
# Limit of what is taken of a line before a call, of names in errors, and of states of a range.
_LONGEST = 100

# Arguments for the edges and for the concat of each cell, in their published order.
_ARGUMENTS = {
    "cnn": (("normal", "normal_concat"), ("reduce", "reduce_concat")),
    "rnn": (("recurrent", "concat"),),
}

# Edges of a node of an image cell, in genotypes whose edges do not name their node.
_PAIR = 2


def parse_pasted(
    text: str, spaces: Mapping[str, SearchSpace], file: str, name: str | None
) -> Genotype:
    """Read the genotype in a text.

    Args:
        text: Text with one or more `Genotype(...)`.
        spaces: Search spaces by name.
        file: Name of the text in errors.
        name: Name of one of several genotypes; None: the only one, which takes the name of the
            file if it has none.

    Raises:
        GenotypeError: with file, line, what was found and what is allowed.
    """
    found: dict[str, _Call] = {}
    stem = Path(file).stem
    for number, call in enumerate(_find(text, file), start=1):
        # The last one of a name counts, as in Python and in the log of a search.
        found[call.name or (stem if stem not in found else f"{stem}-{number}")] = call
    if not found:
        raise GenotypeError(f"{file}: found no Genotype(...) in it, expected one")
    names = ", ".join(list(found)[:_LONGEST])
    if name is None and len(found) > 1:
        raise GenotypeError(f"{file}: found several genotypes, expected --name with one of {names}")
    if name is not None and name not in found:
        raise GenotypeError(f"{file}: found no genotype {name!r}, expected one of {names}")
    name = next(iter(found)) if name is None else name
    return _Reader(file, found[name], spaces).genotype(name)


def write_pasted(genotype: Genotype, space: SearchSpace) -> str:
    """Return the genotype as a line of published code.

    Where a cell has a node without the published number of edges, its edges name their node:
    `(operation, node, source)`.
    """
    name = re.sub(r"\W", "_", genotype.name)
    if not name.isidentifier() or keyword.iskeyword(name):
        name = f"_{name}"
    parts = []
    # A space of one's own has no published names.
    names = _ARGUMENTS.get(space.name) or [(cell, f"{cell}_concat") for cell in space.cells]
    for cell, (edges, concat) in zip(space.cells, names, strict=True):
        parts.append(f"{edges}=[{_write_edges(genotype.cells[cell], space)}]")
        parts.append(f"{concat}={list(genotype.cells[cell].concat)}")
    return f"{name} = Genotype({', '.join(parts)})\n"


def _write_edges(cell: CellGenotype, space: SearchSpace) -> str:
    usual = space.fixed_edges or _PAIR
    if all(len(node) == usual for node in cell.nodes):
        return ", ".join(f"({edge.operation!r}, {edge.source})" for edge in cell.edges)
    return ", ".join(
        f"({edge.operation!r}, {state}, {edge.source})"
        for state, node in enumerate(cell.nodes, start=space.inputs)
        for edge in node
    )


class _Call(NamedTuple):
    """A call `Genotype(...)` in the text."""

    name: str | None
    """Name that it is assigned to, if any."""
    line: int
    """Line of its beginning, counted from 1."""
    tree: ast.Call


def _find(text: str, file: str) -> Iterator[_Call]:
    """Yield all calls outside of comments."""
    place = 0
    while match := _CALL.search(text, place):
        start, place = match.span()
        before = text[text.rfind("\n", 0, start) + 1 : start]
        if "#" in before or before.rstrip().endswith(("class", "def")):
            continue
        line = text.count("\n", 0, start) + 1
        where = f"{file}, line {line}"
        place = _end_of_call(text, place, where)
        assigned = _NAME.search(before[-_LONGEST:])
        yield _Call(assigned[1] if assigned else None, line, _tree(text[start:place], where))


def _end_of_call(text: str, place: int, where: str) -> int:
    """Return the position after the bracket that closes the one right before `place`."""
    depth = 1
    for token in _TOKEN.finditer(text, place):
        # Strings and comments change nothing.
        depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(token[0], 0)
        if depth > _DEEPEST:
            raise GenotypeError(f"{where}: found nesting deeper than {_DEEPEST}, expected lists")
        if not depth:
            return token.end()
    raise GenotypeError(f"{where}: found no end of Genotype(, expected a closing bracket")


def _tree(source: str, where: str) -> ast.Call:
    try:
        # About invalid escapes in strings; no operation has any.
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(source, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise GenotypeError(
            f"{where}: found a Genotype(...) that is no Python, "
            "expected Genotype(normal=[...], normal_concat=[...], ...)"
        ) from None
    if not isinstance(tree, ast.Call):
        raise GenotypeError(f"{where}: expected Genotype(...) and nothing behind it")
    return tree


class _Reader:
    """Reader of one call: from its syntax to a genotype, or to an error with its line."""

    def __init__(self, file: str, call: _Call, spaces: Mapping[str, SearchSpace]) -> None:
        self.file, self.line, self.call = file, call.line, call.tree
        given = {argument.arg for argument in call.tree.keywords}
        recurrent = given & {*chain(*_ARGUMENTS["rnn"])} or len(call.tree.args) + len(given) <= 2
        self.space = spaces["rnn" if recurrent and "normal" not in given else "cnn"]

    def error(self, node: ast.AST, found: str, expected: str) -> GenotypeError:
        line = self.line + getattr(node, "lineno", 1) - 1
        return GenotypeError(f"{self.file}, line {line}: found {found}, expected {expected}")

    def genotype(self, name: str) -> Genotype:
        """Return the genotype of the call."""
        space, values = self.space, self._arguments()
        cells = {
            cell: self._cell(values[edges], values[concat], cell)
            for cell, (edges, concat) in zip(space.cells, _ARGUMENTS[space.name], strict=True)
        }
        return Genotype(space=space.name, name=name, cells=cells)

    def _arguments(self) -> dict[str, ast.expr]:
        call, names = self.call, tuple(chain(*_ARGUMENTS[self.space.name]))
        if len(call.args) > len(names):
            raise self.error(call, f"{len(call.args)} arguments", ", ".join(names))
        values = dict(zip(names, call.args, strict=False))
        for argument in call.keywords:
            if argument.arg not in names:
                raise self.error(argument, f"argument {argument.arg!r}", one_of(names).expected)
            if argument.arg in values:
                raise self.error(argument, f"argument {argument.arg!r} twice", "each once")
            values[argument.arg] = argument.value
        for name in names:
            if name not in values:
                raise self.error(call, f"a genotype without {name!r}", ", ".join(names))
        return values

    def _cell(self, edges: ast.expr, concat: ast.expr, cell: str) -> CellGenotype:
        items = self._items(edges, f"the edges of {cell}")
        nodes = self._deal(edges, [(item, *self._edge(item)) for item in items], cell)
        first, last = self.space.inputs, self.space.inputs + len(nodes) - 1
        states: list[int] = []
        for item, state in self._states(concat):
            if not first <= state <= last:
                found = f"state {state} in the concat of {cell}"
                raise self.error(item, found, f"a node's state, {first} to {last}")
            if state in states:
                raise self.error(item, f"state {state} twice in the concat of {cell}", "each once")
            states.append(state)
        if not states:
            raise self.error(concat, f"an empty concat of {cell}", "one state or more")
        return CellGenotype(nodes, tuple(states))

    def _edge(self, item: ast.expr) -> tuple[str, list[int]]:
        """Return the operation of an edge, and the one or two states that it names."""
        parts = self._items(item, "an edge")
        if len(parts) not in {2, 3}:
            raise self.error(item, f"an edge of {len(parts)} items", "(operation, source)")
        operation = parts[0].value if isinstance(parts[0], ast.Constant) else None
        if not isinstance(operation, str):
            raise self.error(parts[0], _kind(parts[0]), "an operation as text")
        if operation not in self.space.operations:
            found = f"operation {operation[:_LONGEST]!r}"
            raise self.error(parts[0], found, one_of(self.space.operations).expected)
        return operation, [self._state(part) for part in parts[1:]]

    def _deal(
        self, whole: ast.expr, edges: list[tuple[ast.expr, str, list[int]]], cell: str
    ) -> tuple[tuple[Edge, ...], ...]:
        """Distribute edges over nodes: by the node they name, else a fixed number each."""
        inputs, fixed = self.space.inputs, self.space.fixed_edges
        each = fixed or _PAIR
        named = {len(states) == 2 for _, _, states in edges}
        if len(named) > 1:
            raise self.error(whole, f"edges of {cell} with and without a node", "all alike")
        if named == {False} and len(edges) % each:
            raise self.error(whole, f"{len(edges)} edges of {cell}", f"{each} for each node")
        nodes: dict[int, list[Edge]] = {}
        for number, (item, operation, states) in enumerate(edges):
            # An edge goes from an earlier state to a later one, whichever is written first.
            node = max(states) if len(states) == 2 else inputs + number // each
            source = min(states)
            if source >= node or node < inputs:
                found = f"source {source} of node {node}"
                raise self.error(item, found, "an earlier state of a later node")
            nodes.setdefault(node, []).append(Edge(operation, source))
        for node in range(inputs, max(nodes, default=inputs) + 1):
            if node not in nodes:
                found = f"no edge that ends in node {node} of {cell}"
                remedy = "leave that node out, and count those behind it anew"
                raise self.error(whole, found, f"one or more; {remedy}")
            if fixed not in {None, len(nodes[node])}:
                raise self.error(whole, f"{len(nodes[node])} edges in node {node}", f"{fixed}")
        return tuple(tuple(nodes[node]) for node in sorted(nodes))

    def _items(self, node: ast.expr, what: str) -> list[ast.expr]:
        if not isinstance(node, ast.List | ast.Tuple):
            raise self.error(node, _kind(node), f"{what} as a list")
        return node.elts

    def _states(self, node: ast.expr) -> Iterator[tuple[ast.expr, int]]:
        """Yield the numbers of a list or range, each with its syntax."""
        match node:
            case ast.Call(func=ast.Name(id="range"), args=[_, *more], keywords=[]) if len(more) < 3:
                numbers = [self._state(argument) for argument in node.args]
                if len(numbers) < 3 or numbers[2]:
                    yield from ((node, state) for state in range(*numbers)[:_LONGEST])
                    return
        for item in self._items(node, "concat"):
            yield item, self._state(item)

    def _state(self, node: ast.expr) -> int:
        value = node.value if isinstance(node, ast.Constant) else None
        # type() and not isinstance, since True is an int. Larger numbers are no state of any cell.
        if type(value) is not int or value > 10**6:
            raise self.error(node, _kind(node), "a state as a whole number")
        return value


def _kind(node: ast.expr) -> str:
    """Describe a construct for an error."""
    if isinstance(node, ast.Constant):
        value = repr(node.value) if not isinstance(node.value, int) else "a number"
        return value if len(value) <= 40 else f"{value[:40]}..."
    kinds = {"Call": "a call", "Name": "a name", "List": "a list", "Tuple": "a tuple"}
    kind = type(node).__name__
    return kinds.get(kind, f"a construct ({kind})")
