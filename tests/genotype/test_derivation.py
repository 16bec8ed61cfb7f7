"""Derivation: golden cases, a closed form, an independent formula, and properties."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darts_cli.genotype.derivation import Choice, derive, softmax
from darts_cli.genotype.file import dump, parse
from darts_cli.genotype.types import CellGenotype, Edge, Genotype
from darts_cli.space import SearchSpace
from darts_cli.spaces import SPACES
from darts_cli.terminal.reporter import summarize

GOLDEN = Path(__file__).parents[1] / "golden"
CNN = SPACES["cnn"]
RNN = SPACES["rnn"]
# One node with three inputs, of which it keeps two: the smallest space that drops an edge.
SMALL = SearchSpace(
    name="small",
    cells=("normal",),
    inputs=3,
    nodes=1,
    edges_per_node=2,
    primitives=CNN.primitives,
)

Rows = list[list[float]]


def golden(name: str) -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = json.loads((GOLDEN / name).read_text(encoding="utf-8"))
    assert len(cases) == 40
    return cases


def pairs(cell: CellGenotype) -> list[list[str | int]]:
    return [[edge.operation, edge.source] for edge in cell.edges]


def derived(space: SearchSpace, alphas: dict[str, Rows]) -> Genotype:
    return derive(space, alphas, name="derived")[0]


def test_derivation_gives_the_golden_convolutional_cells() -> None:
    for number, case in enumerate(golden("cnn_derive.json")):
        alphas = {"normal": case["alphas_normal"], "reduce": case["alphas_reduce"]}
        genotype = derived(CNN, alphas)
        for cell in ("normal", "reduce"):
            assert pairs(genotype.cells[cell]) == case[cell], (number, cell)
            assert list(genotype.cells[cell].concat) == case[f"{cell}_concat"], (number, cell)
            assert [len(node) for node in genotype.cells[cell].nodes] == [2, 2, 2, 2]


def test_derivation_gives_the_golden_recurrent_cells() -> None:
    for number, case in enumerate(golden("rnn_derive.json")):
        cell = derived(RNN, {"recurrent": case["alphas"]}).cells["recurrent"]
        assert pairs(cell) == case["recurrent"], number
        assert list(cell.concat) == case["concat"], number
        assert [len(node) for node in cell.nodes] == [1] * 8


def test_edges_are_ranked_by_probability_and_not_by_raw_alpha() -> None:
    rows: Rows = [
        [1, 1, 1, 1, 5, 1, 1, 1],
        [10, 10, 10, 11, 10, 10, 10, 10],
        [10, 15, 10, 10, 10, 10, 10, 10],
    ]
    cell = derived(SMALL, {"normal": rows}).cells["normal"]
    assert pairs(cell) == [["max_pool_3x3", 2], ["sep_conv_3x3", 0]]


def test_a_tie_keeps_the_lower_edge_and_the_lower_primitive() -> None:
    cell = derived(SMALL, {"normal": [[0.5] * 8] * 3}).cells["normal"]
    assert pairs(cell) == [["max_pool_3x3", 0], ["max_pool_3x3", 1]]


def test_the_probability_of_none_counts_against_its_edge() -> None:
    # Edges 1 and 2 hold the same alphas but for `none`, which takes its share of edge 1.
    rows: Rows = [[0, 9, 0, 0, 0, 0, 0, 0], [5, 2, 0, 0, 0, 0, 0, 0], [0, 2, 0, 0, 0, 0, 0, 0]]
    cell = derived(SMALL, {"normal": rows}).cells["normal"]
    assert [edge.source for edge in cell.edges] == [0, 2]


def test_the_genotype_carries_its_name_space_and_origin() -> None:
    alphas = {"normal": [[0.0] * 8] * 3}
    genotype, _ = derive(SMALL, alphas, name="mine", origin={"epoch": 3})
    assert (genotype.name, genotype.space, genotype.origin) == ("mine", "small", {"epoch": 3})
    assert derived(SMALL, alphas).origin == {}


@pytest.mark.parametrize("seed", range(3))
def test_choices_agree_with_an_independent_formula(seed: int) -> None:
    rng = np.random.default_rng(seed)
    alphas = {cell: rng.normal(size=(14, 8)) for cell in CNN.cells}
    genotype, choices = derive(
        CNN, {cell: rows.tolist() for cell, rows in alphas.items()}, name="random"
    )
    expected: list[Choice] = []
    for cell, raw in alphas.items():
        probabilities = np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True)
        start = 0
        for node in range(4):
            block = probabilities[start : start + node + 2, 1:]
            start += node + 2
            best, second = np.sort(block, axis=1)[:, ::-1][:, :2].T
            order = np.argsort(-best)
            expected += [
                Choice(
                    cell=cell,
                    node=node + 2,
                    edge=Edge(CNN.primitives[1 + int(block[source].argmax())], int(source)),
                    probability=float(best[source]),
                    operation_margin=float(best[source] - second[source]),
                    edge_margin=float(best[source] - best[order[2]]) if node else None,
                )
                for source in order[:2]
            ]
    edges = [edge for cell in genotype.cells.values() for edge in cell.edges]
    assert [choice.edge for choice in choices] == edges
    assert len(choices) == len(expected) == 16
    for found, wanted in zip(choices, expected, strict=True):
        assert (found.cell, found.node, found.edge) == (wanted.cell, wanted.node, wanted.edge)
        assert found.probability == pytest.approx(wanted.probability, rel=1e-12)
        assert found.operation_margin == pytest.approx(wanted.operation_margin, rel=1e-9)
        # The first node has just the two edges that it keeps.
        assert (found.edge_margin is None) == (wanted.edge_margin is None) == (found.node == 2)
        if found.edge_margin is not None:
            assert found.edge_margin == pytest.approx(wanted.edge_margin, rel=1e-9)


def test_alphas_of_any_size_have_probabilities() -> None:
    assert softmax([1e4, 1e4, -1e4]) == [0.5, 0.5, 0.0]
    assert softmax([-1e4, -1e4]) == [0.5, 0.5]


# Multiples of 1/64 add without rounding, so that a shift neither makes nor breaks a tie.
alpha_values = st.integers(-640, 640).map(lambda number: number / 64)


def alpha_rows(edges: int, primitives: int) -> st.SearchStrategy[Rows]:
    row = st.lists(alpha_values, min_size=primitives, max_size=primitives)
    return st.lists(row, min_size=edges, max_size=edges)


@given(rows=alpha_rows(9, 5), shifts=st.lists(alpha_values, min_size=9, max_size=9))
@settings(max_examples=50, deadline=None)
def test_adding_a_constant_to_a_row_changes_nothing(rows: Rows, shifts: Sequence[float]) -> None:
    space = SearchSpace(
        name="small",
        cells=("normal",),
        inputs=2,
        nodes=3,
        edges_per_node=2,
        primitives=RNN.primitives,
    )
    shifted = [[alpha + shift for alpha in row] for row, shift in zip(rows, shifts, strict=True)]
    assert derive(space, {"normal": rows}, name="a") == derive(space, {"normal": shifted}, name="a")


@given(rows=alpha_rows(36, 5), none=st.sampled_from([0.0, 20.0]))
@settings(max_examples=30, deadline=None)
def test_none_is_never_kept(rows: Rows, none: float) -> None:
    favoured = [[row[0] + none, *row[1:]] for row in rows]
    cell = derived(RNN, {"recurrent": favoured}).cells["recurrent"]
    assert {edge.operation for edge in cell.edges} <= set(RNN.primitives[1:])
    assert len(cell.edges) == 8


@st.composite
def cells(draw: st.DrawFn) -> CellGenotype:
    """Any number of nodes and edges, and any states joined in any order."""
    count = draw(st.integers(1, 6))
    nodes = tuple(
        tuple(
            Edge(draw(st.sampled_from(CNN.operations)), draw(st.integers(0, node + 1)))
            for _ in range(draw(st.integers(1, 3)))
        )
        for node in range(count)
    )
    states = st.lists(st.integers(2, count + 1), min_size=1, unique=True)
    return CellGenotype(nodes, tuple(draw(states)))


plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)


@given(
    normal=cells(),
    reduce=cells(),
    name=st.text() | st.text(alphabet="word :#'\"\n-", min_size=90, max_size=120),
    origin=st.dictionaries(st.text(max_size=10), plain_values, max_size=3),
)
@settings(max_examples=60, deadline=None)
def test_what_is_written_reads_back_the_same(
    normal: CellGenotype, reduce: CellGenotype, name: str, origin: dict[str, Any]
) -> None:
    genotype = Genotype(
        space="cnn", name=name, cells={"normal": normal, "reduce": reduce}, origin=origin
    )
    assert parse(dump(genotype), SPACES, "written.yaml") == genotype


def test_a_written_genotype_is_the_text_that_the_design_shows() -> None:
    normal = CellGenotype(((Edge("sep_conv_3x3", 0), Edge("skip_connect", 1)),), (2,))
    reduce = CellGenotype(((Edge("skip_connect", 0),), (Edge("max_pool_3x3", 2),)), (2, 3))
    genotype = Genotype(
        space="cnn",
        name="tiny",
        cells={"normal": normal, "reduce": reduce},
        origin={"run": "a", "epoch": 2},
    )
    assert dump(genotype) == (
        "format: 1\n"
        "space: cnn\n"
        "name: tiny\n"
        "cells:\n"
        "  normal:\n"
        "    nodes:\n"
        "      - [[sep_conv_3x3, 0], [skip_connect, 1]]\n"
        "    concat: [2]\n"
        "  reduce:\n"
        "    nodes:\n"
        "      - [[skip_connect, 0]]\n"
        "      - [[max_pool_3x3, 2]]\n"
        "    concat: [2, 3]\n"
        "origin:\n"
        "  run: a\n"
        "  epoch: 2\n"
    )


def test_a_summary_counts_the_skip_connections_of_each_cell() -> None:
    normal = CellGenotype(((Edge("sep_conv_3x3", 0), Edge("skip_connect", 1)),), (2,))
    reduce = CellGenotype(((Edge("skip_connect", 0), Edge("skip_connect", 1)),), (2,))
    genotype = Genotype(space="cnn", name="tiny", cells={"normal": normal, "reduce": reduce})
    assert genotype.count("skip_connect") == {"normal": 1, "reduce": 2}
    assert summarize(genotype, "skip_connect") == (
        "  normal (1 skip connection): [sep_conv_3x3 0, skip_connect 1]\n"
        "  reduce (2 skip connections): [skip_connect 0, skip_connect 1]"
    )


def test_edges_of_a_space_go_node_by_node_with_sources_in_order() -> None:
    assert len(CNN.edges) == 14
    assert CNN.edges[:6] == ((0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 0))
    assert len(RNN.edges) == 36
    assert "none" not in CNN.operations
    assert CNN.operations[-2:] == ("sep_conv_7x7", "conv_7x1_1x7")
