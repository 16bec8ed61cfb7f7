"""Pictures of genotypes: nothing covers anything else, and every format is what it says."""

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_hex

from darts_cli.errors import ConfigError
from darts_cli.genotype.file import shipped
from darts_cli.genotype.types import Genotype
from darts_cli.run.files import WriteError
from darts_cli.spaces import SPACES
from darts_cli.viz.cells import draw, figure
from darts_cli.viz.style import COLOURS, THEMES, Style
from darts_cli.viz.text import dot, mermaid
from tests.viz.genotypes import (
    ALL,
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

EVERY_STYLE = [
    Style(theme=theme, title=title, legend=legend)
    for theme in THEMES
    for title in (True, False)
    for legend in (True, False)
]
SVG_TEXT = "{http://www.w3.org/2000/svg}text"


def edges(genotype: Genotype) -> int:
    return sum(len(cell_.edges) for cell_ in genotype.cells.values())


def check(genotype: Genotype, style: Style) -> None:
    picture = figure(genotype, style=style, space=SPACES.get(genotype.space))
    check_nothing_is_covered(picture, edges=edges(genotype))
    check_lines_pass_boxes_by(picture)


@pytest.fixture(params=ALL)
def genotype(request: pytest.FixtureRequest) -> Genotype:
    return ALL[request.param]


@pytest.mark.parametrize("theme", THEMES)
def test_nothing_covers_anything_else(genotype: Genotype, theme: str) -> None:
    check(genotype, Style(theme=theme, legend=True))


@pytest.mark.parametrize("style", EVERY_STYLE, ids=repr)
def test_nothing_covers_anything_else_in_any_style(style: Style) -> None:
    check(SHIPPED["amoebanet"], style)
    check(SHIPPED["rnn_enas"], style)
    check(HARD["one edge in one node"], style)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 3).flatmap(any_genotypes), st.booleans())
def test_no_genotype_at_all_is_drawn_over_itself(genotype: Genotype, legend: bool) -> None:
    picture = figure(genotype, style=Style(legend=legend), space=space_of(int(genotype.space[-1])))
    check_nothing_is_covered(picture, edges=edges(genotype))
    check_lines_pass_boxes_by(picture)


def test_states_outside_concat_are_not_joined_to_the_output() -> None:
    assert len(list(lines(figure(SHIPPED["amoebanet"])))) == 20 + 3 + 3


@pytest.mark.parametrize("name", ["amoebanet", "rnn_darts_v2"])
def test_an_operation_has_one_colour_in_every_picture(name: str) -> None:
    for theme in THEMES:
        (axes,) = figure(SHIPPED[name], style=Style(theme=theme)).axes
        written = {text.get_gid(): text.get_text() for text in axes.texts}
        for patch in axes.patches:
            if "-label-" in str(patch.get_gid()):
                shown = to_hex(patch.get_edgecolor()).upper()
                assert shown == COLOURS[written[f"{patch.get_gid()}-text"]]


def test_a_picture_has_the_background_and_the_ink_of_its_theme(tmp_path: Path) -> None:
    for name, theme in THEMES.items():
        path = tmp_path / f"{name}.svg"
        draw(SHIPPED["darts_v2"], path, style=Style(theme=name))
        text = path.read_text()
        shown = {color.lower() for color in (theme.background, theme.ink, theme.fills["input"])}
        assert all(f"fill: {color}" in text for color in shown)
        others = [other for other in THEMES.values() if other is not theme]
        assert not any(f"fill: {other.background.lower()}" in text for other in others)


def test_a_title_is_drawn_unless_it_is_not_asked_for() -> None:
    with_title = texts(figure(SHIPPED["darts_v2"]))
    assert {"normal-title", "normal-title-cell", "reduce-title"} <= with_title.keys()
    picture = figure(SHIPPED["darts_v2"], style=Style(title=False))
    assert not [name for name in texts(picture) if "title" in name]
    assert picture.bbox.height < figure(SHIPPED["darts_v2"]).bbox.height


def test_a_legend_lists_each_operation_once_and_the_three_kinds_of_boxes() -> None:
    (axes,) = figure(SHIPPED["amoebanet"], style=Style(legend=True)).axes
    shown = [text.get_text() for text in axes.texts if str(text.get_gid()).startswith("legend")]
    operations = {
        edge.operation for one in SHIPPED["amoebanet"].cells.values() for edge in one.edges
    }
    assert shown[:-3] == [operation for operation in COLOURS if operation in operations]
    assert shown[-3:] == ["input", "node, the sum of its edges", "output, the concat of nodes"]
    colours = [
        to_hex(patch.get_edgecolor()).upper()
        for patch in axes.patches
        if str(patch.get_gid()).startswith("legend-sample")
    ]
    assert colours[:-3] == [COLOURS[operation] for operation in shown[:-3]]
    assert colours[-3:] == [*THEMES["light"].outlines.values()]


def test_a_legend_is_not_drawn_unless_it_is_asked_for() -> None:
    picture = figure(SHIPPED["darts_v2"])
    assert not boxes(picture, "sample")
    assert not [name for name in texts(picture) if name.startswith("legend")]


def test_a_legend_names_operations_without_a_colour_of_their_own_last() -> None:
    genotype = cnn("new", cell([[("b", 0), ("a", 1)], [(SEP, 0), (SKIP, 1)]], [2, 3]))
    (axes,) = figure(genotype, style=Style(legend=True)).axes
    shown = [text.get_text() for text in axes.texts if str(text.get_gid()).startswith("legend")]
    assert shown[:4] == [SKIP, SEP, "a", "b"]


def test_a_legend_speaks_of_a_recurrent_cell_in_its_own_words() -> None:
    (axes,) = figure(SHIPPED["rnn_enas"], style=Style(legend=True)).axes
    shown = {text.get_text() for text in axes.texts}
    assert {"tanh", "relu", "input", "node", "output, the average of nodes"} <= shown
    assert "sigmoid" not in shown


def test_inputs_joined_into_one_state_are_drawn_before_it() -> None:
    (axes,) = figure(SHIPPED["rnn_enas"]).axes
    shown = [text.get_text() for text in axes.texts]
    assert {"$x_{t}$", "$h_{t-1}$", "$h_{t}$", "average", "0", "11"} <= set(shown)


@pytest.mark.parametrize(
    "operation", ["a name that is much longer than that of any operation" * 2, "x"]
)
def test_labels_and_legend_are_as_wide_as_what_they_say(operation: str) -> None:
    genotype = cnn("long", cell([[(operation, 0), (operation, 1)]] * 2, [2, 3]))
    check(genotype, Style(legend=True))


def test_a_space_without_names_of_its_own_gets_plain_ones() -> None:
    genotype = Genotype(
        space="other", name="other", cells={"cell": cell([[("op", 2)], [("op", 0)]], [4])}
    )
    check(genotype, Style(legend=True))


FEW = ["amoebanet", "rnn_enas", "a convolutional cell of eleven nodes"]


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize(
    ("suffix", "start"), [(".png", b"\x89PNG\r\n\x1a\n"), (".PDF", b"%PDF-"), (".svg", b"<?xml")]
)
def test_a_picture_is_of_the_kind_that_its_name_says(
    name: str, suffix: str, start: bytes, tmp_path: Path
) -> None:
    draw(ALL[name], tmp_path / f"picture{suffix}")
    assert (tmp_path / f"picture{suffix}").read_bytes().startswith(start)


def test_text_for_other_programs_is_written_as_it_is(genotype: Genotype, tmp_path: Path) -> None:
    for suffix, text in ((".dot", dot), (".mmd", mermaid)):
        draw(genotype, tmp_path / f"picture{suffix}", style=Style(theme="dark"))
        assert (tmp_path / f"picture{suffix}").read_text() == text(genotype)


def test_an_svg_is_xml_and_its_labels_are_text(genotype: Genotype, tmp_path: Path) -> None:
    draw(genotype, tmp_path / "picture.svg")
    root = ET.fromstring((tmp_path / "picture.svg").read_text())  # noqa: S314 - our own file
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    shown = [element.text for element in root.iter(SVG_TEXT)]
    for cell_ in genotype.cells.values():
        for edge in cell_.edges:
            assert shown.count(edge.operation) == sum(genotype.count(edge.operation).values())
    identifiers = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(identifiers) == len(set(identifiers))


def test_the_committed_picture_is_what_is_drawn(tmp_path: Path) -> None:
    draw(SHIPPED["darts_v2"], tmp_path / "picture.svg")
    paths = tmp_path / "picture.svg", shipped()["darts_v2"].with_suffix(".svg")
    # Widths of letters differ between versions of matplotlib, and with them positions.
    drawn, committed = (
        re.findall(r'id="(?:normal|reduce)-[^"]+"|>[^<\s][^<]*</text>|fill: #\w+', path.read_text())
        for path in paths
    )
    assert len(drawn) > 100
    assert drawn == committed


@pytest.mark.parametrize("suffix", [".svg", ".png", ".pdf", ".dot", ".mmd"])
def test_the_same_genotype_gives_the_same_bytes_twice(suffix: str, tmp_path: Path) -> None:
    one, two = tmp_path / f"one{suffix}", tmp_path / f"two{suffix}"
    draw(SHIPPED["nasnet"], one)
    draw(SHIPPED["nasnet"], two)
    assert one.read_bytes() == two.read_bytes()
    assert sorted(tmp_path.iterdir()) == [one, two]


def test_a_name_may_hold_anything(tmp_path: Path) -> None:
    name = "<$x_{1}$ & [bold]\x01\n" + "long " * 100
    genotype = cnn(name, cell([[(SEP, 0)]], [2]))
    draw(genotype, tmp_path / "picture.svg", style=Style(legend=True))
    ET.fromstring((tmp_path / "picture.svg").read_text())  # noqa: S314 - our own file
    check(genotype, Style(legend=True))


@pytest.mark.parametrize(("name", "found"), [("a.gif", "suffix '.gif'"), ("a", "no suffix")])
def test_another_suffix_is_an_error_that_names_the_formats(
    name: str, found: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    with pytest.raises(ConfigError) as error:
        draw(SHIPPED["darts_v2"], path)
    assert (
        str(error.value) == f"{path}: found {found}, expected one of .svg, .png, .pdf, .dot, .mmd"
    )
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_is_an_error_of_one_line(tmp_path: Path) -> None:
    path = tmp_path / "none" / "cell.svg"
    with pytest.raises(ConfigError) as error:
        draw(SHIPPED["darts_v2"], path)
    assert str(error.value) == f"{path}: found no folder {path.parent}, expected one that exists"


def test_a_picture_that_fails_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cell.svg"
    path.write_text("old")

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(WriteError, match="No space left on device"):
        draw(SHIPPED["darts_v2"], path)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["cell.svg"]


def test_drawing_imports_no_torch_and_no_pyplot() -> None:
    code = (
        "import sys, darts_cli.viz.cells;"
        "sys.exit(bool({'torch', 'matplotlib.pyplot'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
