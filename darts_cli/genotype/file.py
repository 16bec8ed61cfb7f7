"""Genotype files: find, read and write them. Errors name file, line and allowed values."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from darts_cli import yaml_text
from darts_cli.errors import GenotypeError
from darts_cli.genotype.types import CellGenotype, Edge, Genotype
from darts_cli.schema import one_of
from darts_cli.space import SearchSpace

# The format number that genotype files carry.
FORMAT = 1

Spaces = Mapping[str, SearchSpace]

# Limits against malicious files: published cells have four to eight nodes, published nodes one or
# two edges.
MAX_NODES = 64
MAX_EDGES = 16


def shipped() -> dict[str, Path]:
    """Return the paths of the genotypes that ship with darts, by name."""
    package = Path(__file__).parents[1]
    # Inside the package in an installed wheel, beside it in a checkout.
    for folder in (package / "genotypes", package.parent / "genotypes"):
        if folder.is_dir():
            return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    return {}


def load(name_or_path: str | Path, spaces: Spaces) -> Genotype:
    """Read a genotype from a file, or one that ships with darts by its name.

    Args:
        name_or_path: Name of a shipped genotype, or path of a file.
        spaces: Search spaces by name.

    Raises:
        GenotypeError: if there is none, or the file is not a valid genotype.
    """
    known = shipped()
    path = known.get(str(name_or_path), Path(name_or_path))
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
    """Read a genotype from YAML text.

    Args:
        text: A YAML document.
        spaces: Search spaces by name.
        file: Name of the text in errors.

    Raises:
        GenotypeError: with file, line, what was found and what is allowed.
    """
    # Genotypes inside checkpoints come here too, and no file size bounds those.
    yaml_text.check_size(len(text), file, GenotypeError, what="a genotype")
    root = yaml_text.compose(text, file, GenotypeError)
    if root is None:
        raise GenotypeError(f"{file}: empty, expected a genotype")
    keys = ("format", "space", "name", "cells")
    fields = _Reader(root, file).mapping("genotype", required=keys, optional=("origin",))
    format_ = fields["format"].integer("format")
    if format_ != FORMAT:
        raise fields["format"].error(f"format {format_}", f"format {FORMAT}")
    space_name = fields["space"].string("space")
    if space_name not in spaces:
        raise fields["space"].error(f"space {space_name!r}", one_of(spaces).expected)
    space = spaces[space_name]
    cells = fields["cells"].mapping("cells", required=space.cells)
    return Genotype(
        space=space_name,
        name=fields["name"].string("name"),
        cells={name: _cell(cells[name], name, space) for name in space.cells},
        origin=fields["origin"].plain_mapping("origin") if "origin" in fields else {},
    )


def dump(genotype: Genotype) -> str:
    """Return the YAML text of a genotype, which `parse` reads back."""
    # A scalar that reads back as the same text; PyYAML ends a plain one with the document.
    name = yaml.safe_dump(genotype.name).removesuffix("...\n").strip()
    lines = [f"format: {FORMAT}", f"space: {genotype.space}", f"name: {name}", "cells:"]
    for kind, cell in genotype.cells.items():
        lines += [f"  {kind}:", "    nodes:"]
        for node in cell.nodes:
            edges = ", ".join(f"[{edge.operation}, {edge.source}]" for edge in node)
            lines.append(f"      - [{edges}]")
        lines.append(f"    concat: [{', '.join(map(str, cell.concat))}]")
    text = "\n".join(lines) + "\n"
    if genotype.origin:
        text += yaml.safe_dump({"origin": dict(genotype.origin)}, sort_keys=False)
    return text


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
    for item in reader.sequence(f"node {state}", most=MAX_EDGES):
        pair = item.sequence("an edge")
        if len(pair) != 2:
            raise item.error(f"an edge of {len(pair)} items", "[operation, source]")
        operation = pair[0].string("an operation")
        if operation not in space.operations:
            raise pair[0].error(f"operation {operation!r}", one_of(space.operations).expected)
        source = pair[1].integer("a source")
        if not 0 <= source < state:
            found = f"source {source} of node {state}"
            raise pair[1].error(found, f"an earlier state, 0 to {state - 1}")
        edges.append(Edge(operation, source))
    if space.fixed_edges not in (None, len(edges)):
        raise reader.error(f"{len(edges)} edges in node {state}", f"{space.fixed_edges}")
    return tuple(edges)


class _Reader:
    """A YAML node that turns into plain values, or into a `GenotypeError` with its line."""

    def __init__(self, node: yaml.Node, file: str) -> None:
        self.node = node
        self.file = file

    def error(self, found: str, expected: str) -> GenotypeError:
        line = self.node.start_mark.line + 1
        return GenotypeError(f"{self.file}, line {line}: found {found}, expected {expected}")

    def mapping(
        self, what: str, required: tuple[str, ...], optional: tuple[str, ...] = ()
    ) -> dict[str, "_Reader"]:
        """Return the values of a mapping by key; refuse unknown, missing and repeated keys."""
        if not isinstance(self.node, yaml.MappingNode):
            raise self.error(self._kind(), f"{what} as a mapping")
        values: dict[str, _Reader] = {}
        for key_node, value_node in self.node.value:
            key = _Reader(key_node, self.file)
            name = key.string("a key")
            if name not in required + optional:
                raise key.error(f"key {name!r} in {what}", one_of(required + optional).expected)
            if name in values:
                raise key.error(f"key {name!r} twice in {what}", "each key once")
            values[name] = _Reader(value_node, self.file)
        for name in required:
            if name not in values:
                raise self.error(f"{what} without {name!r}", f"the keys {', '.join(required)}")
        return values

    def sequence(self, what: str, *, most: int | None = None) -> list["_Reader"]:
        """Return the items of a list of at least one and at most `most` items."""
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
        # `0b1` and `1_0` are integers in YAML too, but not as a state. Nine digits bound the value.
        if (
            isinstance(self.node, yaml.ScalarNode)
            and self.node.tag == "tag:yaml.org,2002:int"
            and self.node.value.removeprefix("-").isdecimal()
            and len(self.node.value) <= 9
        ):
            return int(self.node.value)
        raise self.error(self._kind(), f"{what} as a whole number")

    def plain_mapping(self, what: str) -> dict[str, Any]:
        """Return the mapping as plain values, which are kept but not interpreted."""
        if not isinstance(self.node, yaml.MappingNode):
            raise self.error(self._kind(), f"{what} as a mapping")
        self._refuse_repeated_keys(what)
        try:
            value = yaml.safe_load(yaml.serialize(self.node))
        # On a wrong value after a tag, such as `!!bool x`, PyYAML raises errors of many types.
        except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError):
            raise self.error(f"unreadable values in {what}", "plain YAML values") from None
        return dict(value)

    def _refuse_repeated_keys(self, what: str) -> None:
        """Raise an error if a mapping at any depth has a key twice."""
        # A list and no recursion: documents may be deep.
        nodes = [self.node]
        while nodes:
            node = nodes.pop()
            if isinstance(node, yaml.SequenceNode):
                nodes += node.value
            elif isinstance(node, yaml.MappingNode):
                keys: set[tuple[str, str]] = set()
                for key, value in node.value:
                    if (name := (key.tag, str(key.value))) in keys:
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
