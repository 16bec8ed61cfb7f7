"""Genotype files: those that ship, and every mistake by file, line and choices."""

import errno
import re
from pathlib import Path

import pytest

from darts_cli.errors import GenotypeError
from darts_cli.genotype.file import load, parse, shipped
from darts_cli.genotype.types import Edge
from darts_cli.space import SearchSpace
from darts_cli.spaces import SPACES

TINY = """\
format: 1
space: cnn
name: tiny
cells:
  normal:
    nodes:
      - [[sep_conv_3x3, 0], [skip_connect, 1]]
      - [[max_pool_3x3, 2]]
    concat: [2, 3]
  reduce:
    nodes:
      - [[avg_pool_3x3, 0]]
    concat: [2]
origin:
  run: a
  parts: {seed: 0}
"""

OPERATIONS = (
    "max_pool_3x3, avg_pool_3x3, skip_connect, sep_conv_3x3, sep_conv_5x5, dil_conv_3x3, "
    "dil_conv_5x5, sep_conv_7x7, conv_7x1_1x7"
)
NAMES = "amoebanet, darts_v1, darts_v2, nasnet, rnn_darts_v1, rnn_darts_v2, rnn_enas"

RNN = SearchSpace(
    name="rnn",
    cells=("recurrent",),
    inputs=1,
    nodes=2,
    edges_per_node=1,
    primitives=("none", "tanh", "relu"),
    fixed_edges=1,
)


def error_of(text: str) -> str:
    with pytest.raises(GenotypeError) as caught:
        parse(text, SPACES, "g.yaml")
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.exit_status == 2
    return message


def test_a_whole_file_reads_as_it_stands() -> None:
    genotype = parse(TINY, SPACES, "g.yaml")
    normal = genotype.cells["normal"]
    assert (genotype.space, genotype.name) == ("cnn", "tiny")
    assert normal.nodes == (
        (Edge("sep_conv_3x3", 0), Edge("skip_connect", 1)),
        (Edge("max_pool_3x3", 2),),
    )
    assert normal.concat == (2, 3)
    assert genotype.cells["reduce"].nodes == ((Edge("avg_pool_3x3", 0),),)
    assert genotype.origin == {"run": "a", "parts": {"seed": 0}}


def test_the_origin_is_optional() -> None:
    assert parse(TINY[: TINY.index("origin")], SPACES, "g.yaml").origin == {}


# What is replaced in the file above (once), by what, and what is said about it.
MISTAKES = {
    "unknown operation": (
        "max_pool_3x3",
        "sep_conv_9x9",
        f"line 8: found operation 'sep_conv_9x9', expected one of {OPERATIONS}",
    ),
    "the operation none": (
        "max_pool_3x3",
        "none",
        f"line 8: found operation 'none', expected one of {OPERATIONS}",
    ),
    "source not before its node": (
        "[max_pool_3x3, 2]",
        "[max_pool_3x3, 3]",
        "line 8: found source 3 of node 3, expected an earlier state, 0 to 2",
    ),
    "negative source": (
        "[skip_connect, 1]",
        "[skip_connect, -1]",
        "line 7: found source -1 of node 2, expected an earlier state, 0 to 1",
    ),
    "concat of an input": (
        "[2, 3]",
        "[1, 3]",
        "line 9: found state 1 in concat, expected a node's state, 2 to 3",
    ),
    "concat beyond the nodes": (
        "[2, 3]",
        "[2, 4]",
        "line 9: found state 4 in concat, expected a node's state, 2 to 3",
    ),
    "concat of a state twice": (
        "[2, 3]",
        "[3, 3]",
        "line 9: found state 3 twice in concat, expected each state once",
    ),
    "empty concat": (
        "[2, 3]",
        "[]",
        "line 9: found an empty list for concat, expected at least one item",
    ),
    "a key twice in the genotype": (
        "name: tiny",
        "space: cnn",
        "line 3: found key 'space' twice in genotype, expected each key once",
    ),
    "a cell twice": (
        "  reduce:",
        "  normal:",
        "line 10: found key 'normal' twice in cells, expected each key once",
    ),
    "a key twice in a cell": (
        "    concat: [2, 3]",
        "    concat: [2, 3]\n    concat: [3]",
        "line 10: found key 'concat' twice in cell 'normal', expected each key once",
    ),
    "a key twice in the origin": (
        "  run: a",
        "  run: a\n  run: b",
        "line 16: found key 'run' twice in origin, expected each key once",
    ),
    "a key twice inside the origin": (
        "{seed: 0}",
        "[{seed: 0, seed: 1}]",
        "line 16: found key 'seed' twice in origin, expected each key once",
    ),
    "unknown key in the genotype": (
        "name: tiny",
        "nom: tiny",
        "line 3: found key 'nom' in genotype, expected one of format, space, name, cells, origin",
    ),
    "unknown cell": (
        "  reduce:",
        "  reduction:",
        "line 10: found key 'reduction' in cells, expected one of normal, reduce",
    ),
    "unknown key in a cell": (
        "    concat: [2, 3]",
        "    concatenation: [2, 3]",
        "line 9: found key 'concatenation' in cell 'normal', expected one of nodes, concat",
    ),
    "missing name": (
        "name: tiny\n",
        "",
        "line 1: found genotype without 'name', expected the keys format, space, name, cells",
    ),
    "missing format": (
        "format: 1\n",
        "",
        "line 1: found genotype without 'format', expected the keys format, space, name, cells",
    ),
    "missing cell": (
        TINY[TINY.index("  reduce") : TINY.index("origin")],
        "",
        "line 5: found cells without 'reduce', expected the keys normal, reduce",
    ),
    "missing concat": (
        "    concat: [2, 3]\n",
        "",
        "line 6: found cell 'normal' without 'concat', expected the keys nodes, concat",
    ),
    "format as text": (
        "format: 1",
        "format: one",
        "line 1: found 'one', expected format as a whole number",
    ),
    "format with a point": (
        "format: 1",
        "format: 1.0",
        "line 1: found '1.0', expected format as a whole number",
    ),
    "space as a number": ("space: cnn", "space: 7", "line 2: found '7', expected space as text"),
    "name as a number": ("name: tiny", "name: 1", "line 3: found '1', expected name as text"),
    "name as a truth value": (
        "name: tiny",
        "name: yes",
        "line 3: found 'yes', expected name as text",
    ),
    "name as nothing": ("name: tiny", "name:", "line 3: found nothing, expected name as text"),
    "name as a list": ("name: tiny", "name: [a]", "line 3: found a list, expected name as text"),
    "cells as a list": (
        TINY[TINY.index("cells:") : TINY.index("origin")],
        "cells: [normal]\n",
        "line 4: found a list, expected cells as a mapping",
    ),
    "a cell as text": (
        TINY[TINY.index("  reduce") : TINY.index("origin")],
        "  reduce: same\n",
        "line 10: found 'same', expected cell 'reduce' as a mapping",
    ),
    "a key as a list": (
        "    concat: [2, 3]",
        "    [concat]: [2, 3]",
        "line 9: found a list, expected a key as text",
    ),
    "nodes as a mapping": (
        "      - [[avg_pool_3x3, 0]]",
        "      one: 1",
        "line 12: found a mapping, expected nodes as a list",
    ),
    "no nodes": (
        "    nodes:\n      - [[avg_pool_3x3, 0]]",
        "    nodes: []",
        "line 11: found an empty list for nodes, expected at least one item",
    ),
    "a node as text": (
        "[[max_pool_3x3, 2]]",
        "max_pool_3x3",
        "line 8: found 'max_pool_3x3', expected node 3 as a list",
    ),
    "an empty node": (
        "[[max_pool_3x3, 2]]",
        "[]",
        "line 8: found an empty list for node 3, expected at least one item",
    ),
    "an edge as text": (
        "[[max_pool_3x3, 2]]",
        "[max_pool_3x3, 2]",
        "line 8: found 'max_pool_3x3', expected an edge as a list",
    ),
    "an edge of three": (
        "[max_pool_3x3, 2]",
        "[max_pool_3x3, 2, 1]",
        "line 8: found an edge of 3 items, expected [operation, source]",
    ),
    "an operation as a number": (
        "[max_pool_3x3, 2]",
        "[3, 2]",
        "line 8: found '3', expected an operation as text",
    ),
    "a source as text": (
        "[max_pool_3x3, 2]",
        "[max_pool_3x3, two]",
        "line 8: found 'two', expected a source as a whole number",
    ),
    "a source with a point": (
        "[max_pool_3x3, 2]",
        "[max_pool_3x3, 2.0]",
        "line 8: found '2.0', expected a source as a whole number",
    ),
    "a source in binary": (
        "[max_pool_3x3, 2]",
        "[max_pool_3x3, 0b1]",
        "line 8: found '0b1', expected a source as a whole number",
    ),
    "a source that only a tag makes a number": (
        "[max_pool_3x3, 2]",
        "[max_pool_3x3, !!int '--2']",
        "line 8: found '--2', expected a source as a whole number",
    ),
    "a source as a truth value": (
        "[max_pool_3x3, 2]",
        "[max_pool_3x3, true]",
        "line 8: found 'true', expected a source as a whole number",
    ),
    "a very long source": (
        "[max_pool_3x3, 2]",
        f"[max_pool_3x3, {'1' * 60}]",
        f"line 8: found '{'1' * 40}...', expected a source as a whole number",
    ),
    "concat as a number": (
        "concat: [2, 3]",
        "concat: 2",
        "line 9: found '2', expected concat as a list",
    ),
    "a state of concat as text": (
        "[2, 3]",
        "[2, x]",
        "line 9: found 'x', expected a state of concat as a whole number",
    ),
    "origin as text": (
        TINY[TINY.index("origin") :],
        "origin: a paper\n",
        "line 14: found 'a paper', expected origin as a mapping",
    ),
    "unknown format": ("format: 1", "format: 2", "line 1: found format 2, expected format 1"),
    "unknown space": (
        "space: cnn",
        "space: gnn",
        "line 2: found space 'gnn', expected one of cnn, rnn",
    ),
    "not YAML": (
        "[2, 3]",
        "[2, 3",
        "line 10: not YAML: expected ',' or ']', but got ':'",
    ),
    "two documents": (
        "origin:",
        "---\norigin:",
        "line 14: not YAML: but found another document",
    ),
    "an alias": (
        "      - [[max_pool_3x3, 2]]",
        "      - &a [[max_pool_3x3, 2]]\n      - *a",
        "line 9: found an alias, expected plain YAML",
    ),
}


@pytest.mark.parametrize(("old", "new", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named_with_its_line_and_the_choices(old: str, new: str, message: str) -> None:
    assert old in TINY
    assert error_of(TINY.replace(old, new, 1)) == f"g.yaml, {message}"


@pytest.mark.parametrize(
    "value",
    [
        "!!bool x",
        "!!int ''",
        "!!float x",
        "!!timestamp x",
        "2020-13-45",
        "!!python/object/apply:os.getcwd []",
        "{[a]: b}",
        "{<<: 3}",
    ],
)
def test_an_origin_that_yaml_cannot_make_a_value_of_is_named(value: str) -> None:
    text = TINY.replace("  run: a", f"  run: {value}")
    assert error_of(text) == (
        "g.yaml, line 15: found unreadable values in origin, expected plain YAML values"
    )


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n"])
def test_an_empty_file_is_named(text: str) -> None:
    assert error_of(text) == "g.yaml: empty, expected a genotype"


def test_a_file_of_plain_text_is_named() -> None:
    assert error_of("hello\n") == "g.yaml, line 1: found 'hello', expected genotype as a mapping"


def test_control_characters_are_not_yaml() -> None:
    assert error_of("a: \x01\n") == "g.yaml: not YAML: unreadable characters"


def test_nesting_without_end_is_refused_before_it_takes_time() -> None:
    for brackets in ("[" * 30_000, "\n" + "- " * 15_000, "{a: " * 8_000):
        message = error_of("a: " + brackets)
        assert message.startswith("g.yaml, line ")
        assert message.endswith(": found nesting deeper than 20, expected plain YAML")


@pytest.mark.parametrize(("depth", "allowed"), [(18, True), (19, False)])
def test_nesting_ends_at_twenty(depth: int, allowed: bool) -> None:
    text = TINY.replace("{seed: 0}", "[" * depth + "]" * depth)
    if allowed:
        assert parse(text, SPACES, "g.yaml").origin["run"] == "a"
    else:
        assert error_of(text) == (
            "g.yaml, line 16: found nesting deeper than 20, expected plain YAML"
        )


def test_an_alias_bomb_is_refused_before_it_expands() -> None:
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 40)]
    assert error_of("\n".join(lines)) == "g.yaml, line 2: found an alias, expected plain YAML"


def test_a_node_of_a_recurrent_cell_has_one_edge() -> None:
    text = (
        "format: 1\nspace: rnn\nname: r\ncells:\n  recurrent:\n    nodes:\n"
        "      - [[tanh, 0]]\n      - [[relu, 0], [tanh, 1]]\n    concat: [1, 2]\n"
    )
    with pytest.raises(GenotypeError) as caught:
        parse(text, {"rnn": RNN}, "g.yaml")
    assert str(caught.value) == "g.yaml, line 8: found 2 edges in node 2, expected 1"
    mended = parse(text.replace("[relu, 0], ", ""), {"rnn": RNN}, "g.yaml")
    assert mended.cells["recurrent"].edges == (Edge("tanh", 0), Edge("tanh", 1))


def load_error(path: Path | str) -> str:
    with pytest.raises(GenotypeError) as caught:
        load(path, SPACES)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_file_is_found_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(TINY, encoding="utf-8")
    assert load(path, SPACES) == load(str(path), SPACES) == parse(TINY, SPACES, "g.yaml")


def test_a_mistake_in_a_file_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(TINY.replace("format: 1", "format: 9"), encoding="utf-8")
    assert load_error(path) == f"{path}, line 1: found format 9, expected format 1"


def test_a_missing_name_lists_the_genotypes_that_ship() -> None:
    assert load_error("darts_v3") == (
        f"no genotype 'darts_v3': expected a YAML file or one of {NAMES}"
    )


def test_a_folder_is_no_genotype(tmp_path: Path) -> None:
    assert load_error(tmp_path) == (
        f"no genotype {str(tmp_path)!r}: expected a YAML file or one of {NAMES}"
    )


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "big.yaml"
    path.write_text(TINY + "#" * 40_000, encoding="utf-8")
    assert load_error(path) == f"{path}: too large for a genotype (32,768 bytes at most)"


def test_a_file_that_is_no_utf_8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes(TINY.replace("tiny", "tïny").encode("latin-1"))
    assert load_error(path) == f"{path}: expected YAML text in UTF-8, found other bytes"


def test_a_file_that_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(TINY, encoding="utf-8")

    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(errno.EACCES, "Permission denied")

    # The tests may run as root, whom no file refuses.
    monkeypatch.setattr(Path, "read_text", refuse)
    assert load_error(path) == (
        f"{path}: cannot be read (Permission denied); check its name and permissions"
    )


def test_a_name_too_long_for_a_file_is_one_line() -> None:
    pasted = "Genotype(normal=[" + "('sep_conv_3x3', 0), " * 30
    assert load_error(pasted).endswith(
        ": cannot be read (File name too long); check its name and permissions"
    )


# The tables of the papers, as `shared/info.md` states them: nodes between spaces, edges by +.
ABBREVIATIONS = {
    "s3": "sep_conv_3x3",
    "s5": "sep_conv_5x5",
    "s7": "sep_conv_7x7",
    "d3": "dil_conv_3x3",
    "c7": "conv_7x1_1x7",
    "av": "avg_pool_3x3",
    "mx": "max_pool_3x3",
    "id": "skip_connect",
}
PUBLISHED_RNN = {
    "rnn_darts_v1": (
        "relu.0 relu.1 tanh.2 relu.3 relu.4 identity.1 relu.5 relu.1",
        (1, 2, 3, 4, 5, 6, 7, 8),
    ),
    "rnn_darts_v2": (
        "sigmoid.0 relu.1 relu.1 identity.1 tanh.2 sigmoid.5 tanh.3 relu.5",
        (1, 2, 3, 4, 5, 6, 7, 8),
    ),
    "rnn_enas": (
        "tanh.0 tanh.1 relu.1 tanh.3 tanh.3 relu.3 relu.4 relu.7 relu.8 relu.8 relu.8",
        (2, 5, 6, 9, 10, 11),
    ),
}
INTEROP = {
    "nasnet": (
        ("s5.1+s3.0 s5.0+s3.0 av.1+id.0 av.0+av.0 s3.1+id.1", (2, 3, 4, 5, 6)),
        ("s5.1+s7.0 mx.1+s7.0 av.1+s5.0 id.3+av.2 s3.2+mx.1", (4, 5, 6)),
    ),
    "amoebanet": (
        ("av.0+mx.1 s3.0+s5.2 s3.0+av.3 s3.1+id.1 id.0+av.1", (4, 5, 6)),
        ("av.0+s3.1 mx.0+s7.2 s7.0+av.1 mx.0+mx.1 c7.0+s3.5", (3, 4, 6)),
    ),
    "darts_v1": (
        ("s3.1+s3.0 id.0+s3.1 id.0+s3.1 s3.0+id.2", (2, 3, 4, 5)),
        ("mx.0+mx.1 id.2+mx.0 mx.0+id.2 id.2+av.0", (2, 3, 4, 5)),
    ),
    "darts_v2": (
        ("s3.0+s3.1 s3.0+s3.1 s3.1+id.0 id.0+d3.2", (2, 3, 4, 5)),
        ("mx.0+mx.1 id.2+mx.1 mx.0+id.2 id.2+mx.1", (2, 3, 4, 5)),
    ),
}


def test_the_genotypes_that_ship_are_the_published_ones() -> None:
    assert sorted(shipped()) == sorted([*INTEROP, *PUBLISHED_RNN])


@pytest.mark.parametrize("name", INTEROP)
def test_a_shipped_genotype_is_the_published_table(name: str) -> None:
    genotype = load(name, SPACES)
    assert (genotype.name, genotype.space) == (name, "cnn")
    for cell, (table, concat) in zip(("normal", "reduce"), INTEROP[name], strict=True):
        nodes = [
            [(ABBREVIATIONS[edge[:2]], int(edge[3:])) for edge in node.split("+")]
            for node in table.split()
        ]
        found = genotype.cells[cell]
        assert [[(edge.operation, edge.source) for edge in node] for node in found.nodes] == nodes
        assert found.concat == concat


@pytest.mark.parametrize("name", PUBLISHED_RNN)
def test_a_shipped_recurrent_genotype_is_the_published_table(name: str) -> None:
    genotype = load(name, SPACES)
    assert (genotype.name, genotype.space) == (name, "rnn")
    table, concat = PUBLISHED_RNN[name]
    found = genotype.cells["recurrent"]
    edges = [f"{edge.operation}.{edge.source}" for (edge,) in found.nodes]
    assert edges == table.split()
    assert found.concat == concat


@pytest.mark.parametrize("name", [*INTEROP, *PUBLISHED_RNN])
def test_a_shipped_genotype_names_its_architecture_and_paper(name: str) -> None:
    origin = load(name, SPACES).origin
    assert list(origin) == ["architecture", "paper"]
    assert re.search(r"(ICLR|CVPR|AAAI|ICML) 20\d\d$", origin["paper"])
    others = {"nasnet": "Zoph", "amoebanet": "Real", "rnn_enas": "Pham"}
    authors = others.get(name, "Liu, Simonyan and Yang, DARTS")
    assert origin["paper"].startswith(authors)


def test_a_text_that_is_too_large_is_refused_before_it_is_read() -> None:
    with pytest.raises(GenotypeError) as caught:
        parse("[" + "a," * 1_000_000 + "a]", SPACES, "the genotype in x")
    assert str(caught.value) == "the genotype in x: too large for a genotype (32,768 bytes at most)"


@pytest.mark.parametrize(
    ("nodes", "edges", "message"),
    [
        (65, 1, "found 65 items for nodes, expected 64 at most"),
        (2, 17, "found 17 items for node 2, expected 16 at most"),
    ],
)
def test_a_cell_of_too_many_nodes_or_edges_is_refused(nodes: int, edges: int, message: str) -> None:
    node = f"[{', '.join(['[skip_connect, 0]'] * edges)}]"
    cell = f"{{nodes: [{', '.join([node] * nodes)}], concat: [2]}}"
    text = f"format: 1\nspace: cnn\nname: x\ncells:\n  normal: {cell}\n  reduce: {cell}\n"
    with pytest.raises(GenotypeError) as caught:
        parse(text, SPACES, "x.yaml")
    assert str(caught.value).startswith("x.yaml, line ")
    assert str(caught.value).endswith(f": {message}")
