"""Finds and reads genotype files, and names file, line and choices of every mistake."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from darts_cli import yaml_text
from darts_cli.errors import GenotypeError
from darts_cli.genotype.types import CellGenotype, Edge, Genotype
from darts_cli.space import SearchSpace

FORMAT = 1
"""The format number that genotype files carry."""

Spaces = Mapping[str, SearchSpace]

MAX_NODES = 64
"""Of a cell; published ones have four to eight."""

MAX_EDGES = 16
"""Of a node; published ones have one or two."""


def shipped() -> dict[str, Path]:
    """The genotypes that come with darts, by name."""
    package = Path(__file__).parents[1]
    # An installed wheel holds them inside the package, a checkout beside it.
    for folder in (package / "genotypes", package.parent / "genotypes"):
        if folder.is_dir():
            return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    return {}


def load(name_or_path: str | Path, spaces: Spaces) -> Genotype:
    """Read a genotype from a file, or one that ships with darts by its name.

    Raises:
        GenotypeError: if there is none, or the file is not a valid genotype.
    """
    path = Path(name_or_path)
    known = shipped()
    if str(name_or_path) in known:
        path = known[str(name_or_path)]
    try:
        if not path.is_file():
            raise GenotypeError(
                f"no genotype {str(name_or_path)!r}: "
                f"expected a YAML file or one of {', '.join(known)}"
            )
        text = yaml_text.read(path, GenotypeError, what="a genotype")
    except OSError as error:
        raise GenotypeError(
            f"{path}: cannot be read ({error.strerror}); check its name and permissions"
        ) from None
    return parse(text, spaces, str(path))


def parse(text: str, spaces: Spaces, file: str) -> Genotype:
    """Read a genotype from YAML text; `file` is what errors call it.

    Raises:
        GenotypeError: with file, line, what was found and what is allowed.
    """
    # A checkpoint holds one too, which no file's size has bounded.
    yaml_text.check_size(len(text), file, GenotypeError, what="a genotype")
    root = _Reader.open(text, file)
    fields = root.mapping(
        "genotype", required=("format", "space", "name", "cells"), optional=("origin",)
    )
    format_ = fields["format"].integer("format")
    if format_ != FORMAT:
        raise fields["format"].error(f"format {format_}", f"format {FORMAT}")
    space_name = fields["space"].string("space")
    if space_name not in spaces:
        raise fields["space"].error(f"space {space_name!r}", _one_of(spaces))
    space = spaces[space_name]
    cells = fields["cells"].mapping("cells", required=space.cells)
    return Genotype(
        space=space_name,
        name=fields["name"].string("name"),
        cells={name: _cell(cells[name], name, space) for name in space.cells},
        origin=fields["origin"].plain_mapping("origin") if "origin" in fields else {},
    )


def dump(genotype: Genotype) -> str:
    """The YAML text of a genotype; `parse` reads it back."""
    lines = [
        f"format: {FORMAT}",
        f"space: {genotype.space}",
        f"name: {_scalar(genotype.name)}",
        "cells:",
    ]
    for name, cell in genotype.cells.items():
        lines += [f"  {name}:", "    nodes:"]
        for node in cell.nodes:
            edges = ", ".join(f"[{edge.operation}, {edge.source}]" for edge in node)
            lines.append(f"      - [{edges}]")
        lines.append(f"    concat: [{', '.join(map(str, cell.concat))}]")
    text = "\n".join(lines) + "\n"
    if genotype.origin:
        text += yaml.safe_dump({"origin": dict(genotype.origin)}, sort_keys=False)
    return text


def _scalar(text: str) -> str:
    """A YAML scalar that reads back as the same string."""
    return yaml.safe_dump(text, default_style=None).removesuffix("...\n").strip()


def _cell(reader: "_Reader", name: str, space: SearchSpace) -> CellGenotype:
    fields = reader.mapping(f"cell {name!r}", required=("nodes", "concat"))
    nodes = tuple(
        _node(item, space.inputs + index, space)
        for index, item in enumerate(fields["nodes"].sequence("nodes", most=MAX_NODES))
    )
    first, last = space.inputs, space.inputs + len(nodes) - 1
    concat: list[int] = []
    for item in fields["concat"].sequence("concat"):
        state = item.integer("a state of concat")
        if not first <= state <= last:
            raise item.error(f"state {state} in concat", f"a node's state, {first} to {last}")
        if state in concat:
            raise item.error(f"state {state} twice in concat", "each state once")
        concat.append(state)
    return CellGenotype(nodes, tuple(concat))


def _node(reader: "_Reader", state: int, space: SearchSpace) -> tuple[Edge, ...]:
    edges = []
    items = reader.sequence(f"node {state}", most=MAX_EDGES)
    for item in items:
        pair = item.sequence("an edge")
        if len(pair) != 2:
            raise item.error(f"an edge of {len(pair)} items", "[operation, source]")
        operation = pair[0].string("an operation")
        if operation not in space.operations:
            raise pair[0].error(f"operation {operation!r}", _one_of(space.operations))
        source = pair[1].integer("a source")
        if not 0 <= source < state:
            raise pair[1].error(
                f"source {source} of node {state}", f"an earlier state, 0 to {state - 1}"
            )
        edges.append(Edge(operation, source))
    if space.fixed_edges not in (None, len(edges)):
        raise reader.error(f"{len(edges)} edges in node {state}", f"{space.fixed_edges}")
    return tuple(edges)


def _one_of(choices: Iterable[str]) -> str:
    return "one of " + ", ".join(choices)


class _Reader:
    """A YAML node that knows its line, and turns into plain values or a `GenotypeError`."""

    def __init__(self, node: yaml.Node, file: str) -> None:
        self.node = node
        self.file = file

    @classmethod
    def open(cls, text: str, file: str) -> "_Reader":
        """The root node of a document, of which no part is an alias of another."""
        node = yaml_text.compose(text, file, GenotypeError)
        if node is None:
            raise GenotypeError(f"{file}: empty, expected a genotype")
        return cls(node, file)

    def error(self, found: str, expected: str) -> GenotypeError:
        line = self.node.start_mark.line + 1
        return GenotypeError(f"{self.file}, line {line}: found {found}, expected {expected}")

    def mapping(
        self, what: str, required: Iterable[str], optional: Iterable[str] = ()
    ) -> dict[str, "_Reader"]:
        """The values of a mapping by key; every key known, present if required, and there once."""
        required, optional = tuple(required), tuple(optional)
        if not isinstance(self.node, yaml.MappingNode):
            raise self.error(self._kind(), f"{what} as a mapping")
        values: dict[str, _Reader] = {}
        for key_node, value_node in self.node.value:
            key = _Reader(key_node, self.file)
            name = key.string("a key")
            if name not in required + optional:
                raise key.error(f"key {name!r} in {what}", _one_of(required + optional))
            if name in values:
                raise key.error(f"key {name!r} twice in {what}", "each key once")
            values[name] = _Reader(value_node, self.file)
        for name in required:
            if name not in values:
                raise self.error(f"{what} without {name!r}", f"the keys {', '.join(required)}")
        return values

    def sequence(self, what: str, *, most: int | None = None) -> list["_Reader"]:
        """The items of a list that holds at least one, and no more than `most`."""
        if not isinstance(self.node, yaml.SequenceNode):
            raise self.error(self._kind(), f"{what} as a list")
        if not self.node.value:
            raise self.error(f"an empty list for {what}", "at least one item")
        if most is not None and len(self.node.value) > most:
            raise self.error(f"{len(self.node.value)} items for {what}", f"{most} at most")
        return [_Reader(node, self.file) for node in self.node.value]

    def string(self, what: str) -> str:
        if isinstance(self.node, yaml.ScalarNode) and self.node.tag == "tag:yaml.org,2002:str":
            return str(self.node.value)
        raise self.error(self._kind(), f"{what} as text")

    def integer(self, what: str) -> int:
        # `0b1` and `1_0` are integers to YAML too, but nobody writes a state so.
        if (
            isinstance(self.node, yaml.ScalarNode)
            and self.node.tag == "tag:yaml.org,2002:int"
            and self.node.value.removeprefix("-").isdecimal()
            and len(self.node.value) <= 9
        ):
            return int(self.node.value)
        raise self.error(self._kind(), f"{what} as a whole number")

    def plain_mapping(self, what: str) -> dict[str, Any]:
        """The mapping as plain values, for what is only carried along."""
        if not isinstance(self.node, yaml.MappingNode):
            raise self.error(self._kind(), f"{what} as a mapping")
        self._refuse_repeated_keys(what)
        try:
            value = yaml.safe_load(yaml.serialize(self.node))
        # PyYAML meets a wrong value after a tag, such as `!!bool x`, with whatever it stumbles on.
        except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError):
            raise self.error(f"unreadable values in {what}", "plain YAML values") from None
        return dict(value)

    def _refuse_repeated_keys(self, what: str) -> None:
        """Raise where a mapping has a key twice, however deep it is."""
        nodes = [self.node]
        while nodes:
            node = nodes.pop()
            if isinstance(node, yaml.SequenceNode):
                nodes += node.value
            elif isinstance(node, yaml.MappingNode):
                keys: set[tuple[str, str]] = set()
                for key, value in node.value:
                    name = (key.tag, str(key.value))
                    if name in keys:
                        found = f"key {key.value!r} twice in {what}"
                        raise _Reader(key, self.file).error(found, "each key once")
                    keys.add(name)
                    nodes.append(value)

    def _kind(self) -> str:
        if isinstance(self.node, yaml.MappingNode):
            return "a mapping"
        if isinstance(self.node, yaml.SequenceNode):
            return "a list"
        text = self.node.value if len(self.node.value) <= 40 else self.node.value[:40] + "..."
        return f"{text!r}" if text else "nothing"
