"""Genotypes as published code spells them: read without being run, and written the same way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darts_cli.errors import GenotypeError
from darts_cli.genotype.file import load, shipped
from darts_cli.genotype.pasted import parse_pasted, write_pasted
from darts_cli.genotype.types import CellGenotype, Edge, Genotype
from darts_cli.spaces import SPACES

V1 = """\
DARTS_V1 = Genotype(normal=[('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 0),
('sep_conv_3x3', 1), ('skip_connect', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0),
('skip_connect', 2)], normal_concat=[2, 3, 4, 5], reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1),
('skip_connect', 2), ('max_pool_3x3', 0), ('max_pool_3x3', 0), ('skip_connect', 2),
('skip_connect', 2), ('avg_pool_3x3', 0)], reduce_concat=[2, 3, 4, 5])
"""
INTEROP = f"""\
from collections import namedtuple

Genotype = namedtuple('Genotype', 'normal normal_concat reduce reduce_concat')

# OLD = Genotype(normal=[])
NASNet = Genotype(
  normal = [
    ('sep_conv_5x5', 1),
    ('sep_conv_3x3', 0),
    ('sep_conv_5x5', 0),
    ('sep_conv_3x3', 0),
    ('avg_pool_3x3', 1),
    ('skip_connect', 0),
    ('avg_pool_3x3', 0),
    ('avg_pool_3x3', 0),
    ('sep_conv_3x3', 1),
    ('skip_connect', 1),
  ],
  normal_concat = [2, 3, 4, 5, 6],
  reduce = [
    ('sep_conv_5x5', 1),
    ('sep_conv_7x7', 0),
    ('max_pool_3x3', 1),
    ('sep_conv_7x7', 0),
    ('avg_pool_3x3', 1),
    ('sep_conv_5x5', 0),
    ('skip_connect', 3),
    ('avg_pool_3x3', 2),
    ('sep_conv_3x3', 2),  # a bracket ) in a comment
    ('max_pool_3x3', 1),
  ],
  reduce_concat = [4, 5, 6],
)
{V1}
DARTS = DARTS_V1
"""
SMALL = "[('skip_connect', 0), ('skip_connect', 1)]"


def parse(text: str, name: str | None = None) -> Genotype:
    return parse_pasted(text, SPACES, "cell.txt", name)


def refusal(text: str, name: str | None = None) -> str:
    with pytest.raises(GenotypeError) as caught:
        parse(text, name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("name", "known"), [("NASNet", "nasnet"), ("DARTS_V1", "darts_v1")])
def test_a_file_of_published_code_is_searched_by_name(name: str, known: str) -> None:
    found = parse(INTEROP, name)
    assert (found.name, found.space) == (name, "cnn")
    assert found.cells == load(known, SPACES).cells


def test_the_only_genotype_of_a_text_needs_no_name() -> None:
    assert parse(V1).cells == load("darts_v1", SPACES).cells
    assert parse(V1.removeprefix("DARTS_V1 = ")).name == "cell"
    assert parse(f"I got `{V1.strip()}` after a day.").name == "DARTS_V1"


def test_of_a_log_the_last_genotype_counts() -> None:
    line = "11/02 03:04 PM genotype = Genotype(normal={0}, normal_concat=range(2, 3), reduce={0}, "
    line += "reduce_concat=range(2, 3))\n"
    other = SMALL.replace("skip_connect", "max_pool_3x3")
    found = parse(line.format(SMALL) + "train 000 2.3\n" + line.format(other))
    assert found.name == "genotype"
    assert found.count("max_pool_3x3") == {"normal": 2, "reduce": 2}


def test_arguments_may_be_in_order_and_ranges_may_be_tuples() -> None:
    found = parse(f"X = genotypes.Genotype({SMALL}, range(2, 3), {SMALL}, (2,))")
    cell = CellGenotype(((Edge("skip_connect", 0), Edge("skip_connect", 1)),), (2,))
    assert found == Genotype(space="cnn", name="X", cells={"normal": cell, "reduce": cell})


@pytest.mark.parametrize("start", ["X: Genotype = ", "  X=", "a = b; X = m."])
def test_a_name_is_what_a_genotype_is_assigned_to(start: str) -> None:
    assert parse(f"{start}Genotype({SMALL}, [2], {SMALL}, [2])").name == "X"


@pytest.mark.parametrize("arguments", ["recurrent={}, concat=range(1, 9)", "{}, range(1, 9)"])
def test_a_recurrent_genotype_has_an_edge_a_node(arguments: str) -> None:
    edges = (
        "[('relu', 0), ('relu', 1), ('tanh', 2), ('relu', 3), ('relu', 4), ('identity', 1), "
        "('relu', 5), ('relu', 1)]"
    )
    found = parse(f"DARTS_V1 = Genotype({arguments.format(edges)})")
    assert found.cells == load("rnn_darts_v1", SPACES).cells


@pytest.mark.parametrize("order", ["('{0}', {2}, {1})", "('{0}', {1}, {2})"])
def test_edges_that_name_their_node_may_be_of_any_number(order: str) -> None:
    edges = [("sep_conv_3x3", 0, 2), ("sep_conv_5x5", 1, 2), ("max_pool_3x3", 0, 3)]
    edges += [("skip_connect", 0, 4), ("skip_connect", 1, 4), ("dil_conv_3x3", 3, 4)]
    text = f"[{', '.join(order.format(*edge) for edge in edges)}]"
    found = parse(f"Fair_A = Genotype({text}, range(2, 5), {text}, range(2, 5))")
    assert found.cells["normal"] == CellGenotype(
        (
            (Edge("sep_conv_3x3", 0), Edge("sep_conv_5x5", 1)),
            (Edge("max_pool_3x3", 0),),
            (Edge("skip_connect", 0), Edge("skip_connect", 1), Edge("dil_conv_3x3", 3)),
        ),
        (2, 3, 4),
    )


@pytest.mark.parametrize("name", shipped())
def test_what_is_written_is_read_as_the_same_genotype(name: str) -> None:
    genotype = load(name, SPACES)
    text = write_pasted(genotype, SPACES[genotype.space])
    assert text.count("\n") == 1
    found = parse(text)
    assert (found.name, found.space, found.cells) == (name, genotype.space, genotype.cells)


def test_the_form_is_the_published_one() -> None:
    assert write_pasted(load("darts_v1", SPACES), SPACES["cnn"]) == (
        V1.replace("\n", " ").strip().replace("DARTS_V1", "darts_v1") + "\n"
    )


@pytest.mark.parametrize(
    ("name", "written"), [("run-epoch-3", "run_epoch_3"), ("3", "_3"), ("class", "_class")]
)
def test_a_name_is_made_one_of_python(name: str, written: str) -> None:
    cell = CellGenotype(((Edge("skip_connect", 0),),), (2,))
    genotype = Genotype(space="cnn", name=name, cells={"normal": cell, "reduce": cell})
    text = write_pasted(genotype, SPACES["cnn"])
    # One edge in a node: it has to say which.
    assert text.startswith(f"{written} = Genotype(normal=[('skip_connect', 2, 0)], normal_concat=[")
    assert parse(text).cells == genotype.cells


def cnn(normal: str = SMALL, concat: str = "[2]") -> str:
    return (
        f"X = Genotype(normal={normal}, normal_concat={concat}, reduce={SMALL}, reduce_concat=[2])"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing", "cell.txt: found no Genotype(...) in it, expected one"),
        (INTEROP, "cell.txt: found several genotypes, expected --name with one of NASNet, DARTS"),
        ("\nX = Genotype(normal=[", "cell.txt, line 2: found no end of Genotype(, expected a clos"),
        ("X = Genotype(normal=)", "cell.txt, line 1: found a Genotype(...) that is no Python, "),
        ("Genotype(1 2, 3, 4)", "cell.txt, line 1: found a Genotype(...) that is no Python, "),
        (f"Genotype({'[' * 30}{']' * 30})", "cell.txt, line 1: found nesting deeper than 20, exp"),
        (
            cnn("[('sep_conv_9x9', 0), ('skip_connect', 1)]"),
            (
                "cell.txt, line 1: found operation 'sep_conv_9x9', expected one of max_pool_3x3, "
                "avg_pool_3x3, skip_connect, sep_conv_3x3, sep_conv_5x5, dil_conv_3x3, "
                "dil_conv_5x5, sep_conv_7x7, conv_7x1_1x7"
            ),
        ),
        (cnn("\n\n[('none', 0),\n('none', 1)]"), "cell.txt, line 3: found operation 'none', expec"),
        (
            cnn("[('skip_connect', 2), ('skip_connect', 1)]"),
            "cell.txt, line 1: found source 2 of n",
        ),
        (
            cnn("[('skip_connect', -1), ('skip_connect', 1)]"),
            "cell.txt, line 1: found a construct ",
        ),
        (cnn("[('skip_connect', 1.0), ('skip_connect', 1)]"), "cell.txt, line 1: found 1.0, expec"),
        (cnn("[('skip_connect', True), ('skip_connect', 1)]"), "cell.txt, line 1: found a number"),
        (cnn("[('skip_connect', 0)]"), "cell.txt, line 1: found 1 edges of normal, expected 2 for"),
        (cnn("[('skip_connect', 0, 1, 2)]"), "cell.txt, line 1: found an edge of 4 items, expecte"),
        (cnn("[(0, 'skip_connect')]"), "cell.txt, line 1: found a number, expected an operation "),
        (cnn("[[x for x in y]]"), "cell.txt, line 1: found a construct (ListComp), expected an ed"),
        (cnn("open('/etc/passwd')"), "cell.txt, line 1: found a call, expected the edges of norma"),
        (cnn("PRIMITIVES"), "cell.txt, line 1: found a name, expected the edges of normal as a li"),
        (cnn("[*x]"), "cell.txt, line 1: found a construct (Starred), expected an edge as a list"),
        (cnn("[('skip_connect', 2, 0), ('skip_connect', 1)]"), "cell.txt, line 1: found edges of "),
        (
            cnn("[('skip_connect', 2, 0), ('skip_connect', 4, 0)]"),
            (
                "cell.txt, line 1: found no edge that ends in node 3 of normal, expected one or "
                "more; leave that node out, and count those behind it anew"
            ),
        ),
        (cnn("[('skip_connect', 1, 0)]"), "cell.txt, line 1: found source 0 of node 1, expected a"),
        (cnn("[('skip_connect', 2, 2)]"), "cell.txt, line 1: found source 2 of node 2, expected a"),
        (cnn("[]"), "cell.txt, line 1: found no edge that ends in node 2 of normal, expected one"),
        (
            cnn(concat="[3]"),
            "cell.txt, line 1: found state 3 in the concat of normal, expected a n",
        ),
        (cnn(concat="[2, 2]"), "cell.txt, line 1: found state 2 twice in the concat of normal, ex"),
        (cnn(concat="[]"), "cell.txt, line 1: found an empty concat of normal, expected one state"),
        (cnn(concat="range(2, 10 ** 9)"), "cell.txt, line 1: found a construct (BinOp), expected "),
        (cnn(concat="range(2, 999999)"), "cell.txt, line 1: found state 3 in the concat of normal"),
        (cnn(concat="range(2, 3, 0)"), "cell.txt, line 1: found a call, expected concat as a list"),
        (cnn(concat="range(*x)"), "cell.txt, line 1: found a construct (Starred), expected a stat"),
        (cnn().replace("reduce=", "other="), "cell.txt, line 1: found argument 'other', expected "),
        (cnn().replace(", reduce_concat=[2]", ""), "cell.txt, line 1: found a genotype without 'r"),
        (f"Genotype({SMALL}, [2], {SMALL}, [2], 3)", "cell.txt, line 1: found 5 arguments, expect"),
        (f"Genotype({SMALL}, normal={SMALL}, a=1)", "cell.txt, line 1: found argument 'normal' tw"),
        (
            "Genotype(recurrent=[('relu', 0), ('relu', 3)], concat=[1])",
            "cell.txt, line 1: found so",
        ),
        (
            "Genotype(recurrent=[('relu', 1, 0)] * 2, concat=[1])",
            "cell.txt, line 1: found a constr",
        ),
        (
            "Genotype([('relu', 1, 0), ('tanh', 1, 0)], [1])",
            "cell.txt, line 1: found 2 edges in no",
        ),
        (f"Genotype(**{SMALL})", "cell.txt, line 1: found argument None, expected one of"),
    ],
)
def test_a_mistake_is_named_with_its_line(text: str, message: str) -> None:
    assert refusal(text).startswith(message)


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    assert refusal(INTEROP, "ENAS") == (
        "cell.txt: found no genotype 'ENAS', expected one of NASNet, DARTS_V1"
    )


@pytest.mark.parametrize(
    "text",
    [
        f"Genotype({'-' * 60_000}1)",
        f"Genotype({'1+' * 30_000}1)",
        f"Genotype({'9' * 60_000})",
        f"Genotype({'not ' * 15_000}1)",
        f"Genotype({'a.' * 30_000}a)",
        f"Genotype({'lambda:' * 9_000}a)",
        "Genotype(" * 7_000,
        "#Genotype(" * 6_500,
        "class Genotype(" * 4_000,
        "Genotype('" * 6_000,
        "Genotype()" * 6_000,
        "Genotype(\0)",
    ],
)
def test_a_text_made_to_be_dear_is_refused(text: str) -> None:
    assert refusal(text).startswith("cell.txt")


def assert_read_or_refused(text: str) -> None:
    try:
        parse(text)
    except GenotypeError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either is right
        assert len(str(error)) < 2000  # noqa: PT017


PIECES = st.sampled_from(
    [
        *("Genotype(", "normal=", "reduce=", "normal_concat=", "recurrent=", "concat=", "range("),
        *("(", ")", "[", "]", ",", "'", '"', "#", "\n", "=", "0", "1", "2", "-", "*", "lambda: "),
        *(
            "'skip_connect'",
            "'relu'",
            "('skip_connect', 0)",
            "X = ",
            "f'{x}'",
            "\\",
            "\0",
            "9" * 99,
        ),
    ]
)


@given(st.lists(PIECES, max_size=40).map("".join))
def test_any_pieces_of_a_genotype_are_read_or_refused(text: str) -> None:
    assert_read_or_refused(text)
    assert_read_or_refused(f"Genotype({text})")


@given(st.data())
def test_any_change_of_a_genotype_is_read_or_refused(data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(V1)))
    end = data.draw(st.integers(start, min(len(V1), start + 20)))
    assert_read_or_refused(V1[:start] + data.draw(st.text(max_size=5) | PIECES) + V1[end:])
