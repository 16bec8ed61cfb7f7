"""What two genotypes do not share: counted by hand, and properties."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darts_cli.errors import GenotypeError
from darts_cli.genotype.difference import Surplus, compare, summarize, surplus
from darts_cli.genotype.types import CellGenotype, Genotype
from tests.viz.genotypes import POOL, SEP, SHIPPED, SKIP, any_cells, cell, cnn

CELLS = st.integers(1, 3).flatmap(any_cells)
EMPTY = Surplus(frozenset(), frozenset())


def of(one: CellGenotype) -> Genotype:
    return Genotype(space="any", name="any", cells={"cell": one})


def test_the_orders_of_darts_differ_in_five_edges_of_sixteen() -> None:
    differences = compare(SHIPPED["darts_v1"], SHIPPED["darts_v2"])
    assert differences["normal"].first.edges == {(1, 0), (3, 0), (3, 1)}
    assert differences["normal"].second.edges == {(1, 0), (3, 0), (3, 1)}
    assert differences["reduce"].first.edges == {(1, 1), (3, 1)}
    assert summarize(differences) == ("5 of 16 edges differ: 3 of 8 in normal, 2 of 8 in reduce")


def test_an_edge_differs_by_operation_by_source_and_by_node() -> None:
    one = cell([[(SEP, 0)], [(SEP, 1)]], [2])
    assert surplus(one, cell([[(POOL, 0)], [(SEP, 1)]], [2])).edges == {(0, 0)}
    assert surplus(one, cell([[(SEP, 1)], [(SEP, 1)]], [2])).edges == {(0, 0)}
    assert surplus(one, cell([[(SEP, 1)], [(SEP, 0)]], [2])).edges == {(0, 0), (1, 0)}


def test_an_edge_that_a_node_has_twice_is_shared_as_often_as_both_have_it() -> None:
    once, twice = cell([[(SKIP, 0), (SEP, 0)]], [2]), cell([[(SKIP, 0), (SKIP, 0)]], [2])
    assert surplus(twice, once).edges == {(0, 1)}
    assert surplus(once, twice).edges == {(0, 1)}
    assert surplus(twice, twice) == EMPTY


def test_nodes_that_only_one_has_are_all_its_own() -> None:
    small = cnn("small", cell([[(SEP, 0), (SEP, 1)]], [2]))
    large = cnn("large", cell([[(SEP, 0), (SEP, 1)], [(SKIP, 2), (SEP, 0)]], [2, 3]))
    difference = compare(small, large)["normal"]
    assert difference.first == EMPTY
    assert difference.second == Surplus(frozenset({(1, 0), (1, 1)}), frozenset({3}))
    assert (difference.differing, difference.edges) == (2, 4)
    assert summarize(compare(small, large)) == (
        "4 of 8 edges differ: 2 of 4 in normal, 2 of 4 in reduce;"
        " concat differs in normal and reduce"
    )


def test_a_summary_of_one_cell_does_not_name_it() -> None:
    assert summarize(compare(SHIPPED["rnn_darts_v2"], SHIPPED["rnn_enas"])) == (
        "10 of 11 edges differ; concat differs"
    )


def test_a_summary_of_the_same_cells_says_so() -> None:
    same = SHIPPED["darts_v2"]
    assert summarize(compare(same, same)) == "0 of 16 edges differ"


def test_one_edge_differs_in_the_singular() -> None:
    one, other = (of(cell([[(operation, 0)]], [1])) for operation in (SEP, SKIP))
    assert summarize(compare(one, other)) == "1 of 1 edges differs"


def test_genotypes_of_two_spaces_are_refused() -> None:
    with pytest.raises(GenotypeError) as error:
        compare(SHIPPED["darts_v2"], SHIPPED["rnn_enas"])
    assert str(error.value) == (
        "darts_v2 is of space 'cnn' and rnn_enas of 'rnn', expected two genotypes of one space"
    )


@given(CELLS)
def test_a_cell_differs_nowhere_from_itself(one: CellGenotype) -> None:
    difference = compare(of(one), of(one))["cell"]
    assert (difference.first, difference.second) == (EMPTY, EMPTY)
    assert (difference.differing, difference.concat_differs) == (0, False)


@given(CELLS, st.randoms(use_true_random=False))
def test_the_order_of_edges_and_of_concat_makes_no_difference(
    one: CellGenotype, draws: random.Random
) -> None:
    nodes = tuple(tuple(draws.sample(edges, len(edges))) for edges in one.nodes)
    other = CellGenotype(nodes, tuple(draws.sample(one.concat, len(one.concat))))
    assert surplus(one, other) == surplus(other, one) == EMPTY


@given(any_cells(2), any_cells(2))
def test_a_comparison_is_the_same_from_both_sides(one: CellGenotype, other: CellGenotype) -> None:
    there, back = compare(of(one), of(other))["cell"], compare(of(other), of(one))["cell"]
    assert (there.first, there.second) == (back.second, back.first)
    assert (there.differing, there.edges) == (back.differing, back.edges)
    assert summarize({"cell": there}) == summarize({"cell": back})


@given(any_cells(2), any_cells(2))
def test_what_is_left_of_both_is_the_same(one: CellGenotype, other: CellGenotype) -> None:
    def shared(cell_: CellGenotype, extra: Surplus) -> list[tuple[int, str, int]]:
        return sorted(
            (node, edge.operation, edge.source)
            for node, edges in enumerate(cell_.nodes)
            for index, edge in enumerate(edges)
            if (node, index) not in extra.edges
        )

    difference = compare(of(one), of(other))["cell"]
    left = shared(one, difference.first)
    assert left == shared(other, difference.second)
    assert len(left) == difference.edges - difference.differing
    # And no edge that is left out would have had a partner.
    extra = [
        {(node, cell_.nodes[node][index]) for node, index in side.edges}
        for cell_, side in ((one, difference.first), (other, difference.second))
    ]
    assert not extra[0] & extra[1]
