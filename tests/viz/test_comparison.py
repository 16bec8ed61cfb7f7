"""Two genotypes side by side: what differs is marked, and nothing covers anything else."""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from rich.console import Console

from darts_cli.errors import ConfigError, GenotypeError
from darts_cli.genotype.difference import compare, summarize
from darts_cli.genotype.types import Genotype
from darts_cli.viz.comparison import draw, figure, terminal
from darts_cli.viz.style import COLOURS, THEMES, Style, mix
from tests.viz.genotypes import (
    ALL,
    COLLAPSED,
    HARD,
    SEP,
    SHIPPED,
    SKIP,
    any_genotypes,
    cell,
    cnn,
    space_of,
)
from tests.viz.overlaps import (
    boxes,
    check_lines_pass_boxes_by,
    check_nothing_is_covered,
    lines,
    texts,
)

PAIRS = [
    ("darts_v1", "darts_v2"),
    ("darts_v2", "darts_v2"),
    ("nasnet", "amoebanet"),
    ("rnn_darts_v2", "rnn_enas"),
    ("a recurrent chain", "rnn_enas"),
    *(("darts_v2", name) for name in COLLAPSED),
    ("all skip, from input 0", "all skip, from input 1"),
    ("five edges in a node", "one edge in one node"),
    ("a convolutional cell of eleven nodes", "all skip, in a chain"),
]


def edges(*genotypes: Genotype) -> int:
    return sum(len(cell_.edges) for one in genotypes for cell_ in one.cells.values())


def check(first: Genotype, second: Genotype, picture: Figure) -> None:
    check_nothing_is_covered(picture, edges=edges(first, second))
    check_lines_pass_boxes_by(picture)


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_nothing_covers_anything_else(first: str, second: str) -> None:
    one, two = ALL[first], ALL[second]
    check(one, two, figure(one, two, style=Style(legend=True)))


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("title", [True, False])
@pytest.mark.parametrize("legend", [True, False])
def test_nothing_covers_anything_else_in_any_style(theme: str, title: bool, legend: bool) -> None:
    one, two = SHIPPED["darts_v1"], HARD["one edge in one node"]
    check(one, two, figure(one, two, style=Style(theme=theme, title=title, legend=legend)))


@settings(max_examples=8, deadline=None)
@given(any_genotypes(2), any_genotypes(2))
def test_no_two_genotypes_at_all_are_drawn_over_one_another(
    first: Genotype, second: Genotype
) -> None:
    style = Style(legend=True)
    check(first, second, figure(first, second, style=style, space=space_of(2)))


def test_a_long_name_covers_nothing() -> None:
    one = cnn("long " * 100, cell([[(SEP, 0)]], [2]))
    two = cnn("x", cell([[(SKIP, 0)]], [2]))
    check(one, two, figure(one, two))
    check(two, one, figure(two, one))


def outlines(picture: Figure) -> dict[str, str]:
    """Return the colour of the outline of each label."""
    (axes,) = picture.axes
    return {
        str(patch.get_gid()): to_hex(patch.get_edgecolor()).upper()
        for patch in axes.patches
        if isinstance(patch, FancyBboxPatch) and "-label-" in str(patch.get_gid())
    }


@pytest.mark.parametrize("name", THEMES)
def test_edges_of_one_are_drawn_in_full_colour_and_common_ones_pale(name: str) -> None:
    one, two, theme = SHIPPED["darts_v1"], SHIPPED["darts_v2"], THEMES[name]
    shown = outlines(figure(one, two, style=Style(theme=name)))
    for kind, difference in compare(one, two).items():
        sides = (("first", one, difference.first), ("second", two, difference.second))
        for side, genotype, surplus in sides:
            places = [
                (node, index, edge)
                for node, node_edges in enumerate(genotype.cells[kind].nodes)
                for index, edge in enumerate(node_edges)
            ]
            for number, (node, index, edge) in enumerate(places):
                ink = COLOURS[edge.operation]
                pale = mix(ink, theme.background, theme.pale)
                expected = ink if (node, index) in surplus.edges else pale
                assert shown[f"{side}-{kind}-label-{number}"] == expected


def line_widths(picture: Figure) -> dict[str, float]:
    (axes,) = picture.axes
    names = {name for name, _ in lines(picture)}
    return {
        str(patch.get_gid()): patch.get_linewidth()
        for patch in axes.patches
        if patch.get_gid() in names
    }


def test_members_of_concat_that_only_one_has_are_marked() -> None:
    one = cnn("one", cell([[(SEP, 0)], [(SEP, 1)], [(SKIP, 0)]], [2, 3]))
    two = cnn("two", cell([[(SEP, 0)], [(SEP, 1)], [(SKIP, 0)]], [3, 4]))
    widths = line_widths(figure(one, two))
    # Three edges, then the lines from the states in concat.
    assert widths["first-normal-line-3"] > widths["first-normal-line-4"]
    assert widths["second-normal-line-4"] > widths["second-normal-line-3"]
    assert widths["first-normal-line-4"] == widths["second-normal-line-3"]
    assert set(outlines(figure(one, two)).values()) == {
        mix(COLOURS[operation], "#FFFFFF", THEMES["light"].pale) for operation in (SEP, SKIP)
    }


def test_nothing_is_marked_in_a_genotype_beside_itself() -> None:
    genotype = SHIPPED["amoebanet"]
    assert len(set(line_widths(figure(genotype, genotype)).values())) == 2
    assert not set(outlines(figure(genotype, genotype)).values()) & set(COLOURS.values())


def test_cells_stand_beside_one_another_with_their_tops_in_line() -> None:
    picture = figure(SHIPPED["rnn_darts_v2"], SHIPPED["rnn_enas"])
    states = boxes(picture, "state")
    tops = {}
    for side in ("first", "second"):
        mine = [box for name, box in states.items() if name.startswith(side)]
        mine += [box for name, box in boxes(picture, "label").items() if name.startswith(side)]
        tops[side] = max(box.y1 for box in mine)
    assert tops["first"] == pytest.approx(tops["second"])
    left = max(box.x1 for name, box in states.items() if name.startswith("first"))
    right = min(box.x0 for name, box in states.items() if name.startswith("second"))
    assert left < right


def test_titles_and_summary_are_drawn_unless_they_are_not_asked_for() -> None:
    one, two = SHIPPED["darts_v1"], SHIPPED["darts_v2"]
    (axes,) = figure(one, two).axes
    shown = [text.get_text() for text in axes.texts]
    assert "5 of 16 edges differ: 3 of 8 in normal, 2 of 8 in reduce" in shown
    assert shown.count("darts_v1") == shown.count("darts_v2") == 2
    untitled = texts(figure(one, two, style=Style(title=False)))
    assert not [name for name in untitled if "title" in name or "summary" in name]


def test_a_legend_explains_what_is_marked() -> None:
    (axes,) = figure(SHIPPED["darts_v1"], SHIPPED["darts_v2"], style=Style(legend=True)).axes
    shown = [text.get_text() for text in axes.texts if str(text.get_gid()).startswith("legend")]
    assert shown[-2:] == ["only in one", "in both"]
    # Of both genotypes: the second one has no average pooling, the first no dilation.
    assert {"avg_pool_3x3", "dil_conv_3x3"} <= set(shown)


def test_genotypes_of_two_spaces_are_refused(tmp_path: Path) -> None:
    one, two = SHIPPED["darts_v2"], SHIPPED["rnn_enas"]
    message = (
        "darts_v2 is of space 'cnn' and rnn_enas of 'rnn', expected two genotypes of one space"
    )
    with pytest.raises(GenotypeError) as error:
        draw(one, two, tmp_path / "both.svg")
    assert str(error.value) == message
    with pytest.raises(GenotypeError) as error:
        terminal(one, two)
    assert str(error.value) == message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a.dot", "suffix '.dot'"),
        ("a.mmd", "suffix '.mmd'"),
        ("a.gif", "suffix '.gif'"),
        ("a", "no suffix"),
    ],
)
def test_formats_of_text_and_others_are_refused(name: str, found: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with pytest.raises(ConfigError) as error:
        draw(SHIPPED["darts_v1"], SHIPPED["darts_v2"], path)
    assert str(error.value) == (
        f"{path}: found {found}, expected one of .svg, .png, .pdf for two genotypes"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("suffix", "start"), [(".svg", b"<?xml"), (".png", b"\x89PNG\r\n"), (".PDF", b"%PDF-")]
)
def test_a_picture_is_of_the_kind_that_its_name_says(
    suffix: str, start: bytes, tmp_path: Path
) -> None:
    paths = [tmp_path / f"{name}{suffix}" for name in ("one", "two")]
    for path in paths:
        draw(SHIPPED["nasnet"], SHIPPED["amoebanet"], path, style=Style(legend=True))
    assert paths[0].read_bytes().startswith(start)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_identifiers_in_an_svg_are_there_once(tmp_path: Path) -> None:
    draw(SHIPPED["darts_v1"], SHIPPED["darts_v2"], tmp_path / "both.svg", style=Style(legend=True))
    root = ET.fromstring((tmp_path / "both.svg").read_text())  # noqa: S314 - our own file
    identifiers = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(identifiers) == len(set(identifiers))


def printed(first: Genotype, second: Genotype) -> list[str]:
    console = Console(width=80, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(terminal(first, second))
    return [" ".join(line.strip("│ ").split()) for line in capture.get().splitlines()]


def test_the_terminal_lists_node_by_node_what_differs() -> None:
    text = printed(SHIPPED["darts_v1"], SHIPPED["darts_v2"])
    assert text[0] == "5 of 16 edges differ: 3 of 8 in normal, 2 of 8 in reduce"
    assert text[2:6] == [
        "only in darts_v1 only in darts_v2",
        "node 3 skip_connect(c_{k-2}) sep_conv_3x3(c_{k-2})",
        "node 5 sep_conv_3x3(c_{k-2}) skip_connect(c_{k-2})",
        "skip_connect(node 2) dil_conv_3x3(node 2)",
    ]
    assert not [line for line in text if line.startswith(("node 2", "node 4", "concat"))]


def test_the_terminal_names_nodes_and_members_of_concat_that_one_lacks() -> None:
    text = printed(SHIPPED["rnn_darts_v2"], SHIPPED["rnn_enas"])
    assert "node 9 no such node relu(node 8)" in text
    assert "average nodes 1, 3, 4, 7, 8 nodes 9, 10, 11" in text


def test_the_terminal_says_nothing_of_cells_that_are_the_same() -> None:
    same = SHIPPED["darts_v2"]
    assert printed(same, same) == ["0 of 16 edges differ"]
    one = cnn("one", cell([[(SEP, 0)]], [2]), cell([[(SEP, 1)]], [2]))
    two = cnn("two", cell([[(SEP, 0)]], [2]), cell([[(SKIP, 1)]], [2]))
    assert not [line for line in printed(one, two) if "normal cell" in line]


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_the_terminal_comparison_fits_80_columns(first: str, second: str) -> None:
    console = Console(width=80, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(terminal(ALL[first], ALL[second]))
    text = capture.get()
    assert max(map(len, text.splitlines())) <= 80
    assert summarize(compare(ALL[first], ALL[second])) in " ".join(text.split())


def test_names_and_operations_of_any_length_fit_80_columns() -> None:
    one = cnn("[bold]long " * 20, cell([[("operation_" * 9, 0)]], [2]))
    two = cnn("x", cell([[(SKIP, 0)]], [2]))
    console = Console(width=80, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(terminal(one, two))
    assert max(map(len, capture.get().splitlines())) <= 80
    assert "[bold]long" in capture.get()


def test_the_terminal_comparison_imports_neither_torch_nor_matplotlib() -> None:
    code = (
        "import sys, darts_cli.viz.comparison;"
        "sys.exit(bool({'torch', 'matplotlib'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
