"""Pictures of genotypes: nothing covers anything else, and every format is what it says."""

import subprocess
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.transforms import Bbox
from rich.console import Console

from darts_cli.errors import ConfigError
from darts_cli.files import WriteError
from darts_cli.genotype import CellGenotype, Edge, Genotype
from darts_cli.genotype_file import load
from darts_cli.space import SearchSpace
from darts_cli.spaces import SPACES
from darts_cli.viz.cells import draw, figure
from darts_cli.viz.text import COLOURS, dot, names, terminal

SHIPPED = ("darts_v1", "darts_v2", "nasnet", "amoebanet")
RECURRENT = SearchSpace(
    name="rnn", cells=("recurrent",), inputs=1, nodes=8, kept_inputs=1, primitives=("none", "tanh")
)

Nodes = Sequence[Sequence[tuple[str, int]]]


def cell(nodes: Nodes, concat: Sequence[int]) -> CellGenotype:
    return CellGenotype(
        tuple(tuple(Edge(operation, source) for operation, source in node) for node in nodes),
        tuple(concat),
    )


def cnn(name: str, normal: CellGenotype, reduce: CellGenotype | None = None) -> Genotype:
    return Genotype(space="cnn", name=name, cells={"normal": normal, "reduce": reduce or normal})


def recurrent(name: str, edges: Sequence[tuple[str, int]], concat: Sequence[int]) -> Genotype:
    cells = {"recurrent": cell([[edge] for edge in edges], concat)}
    return Genotype(space="rnn", name=name, cells=cells)


SKIP, SEP, POOL = "skip_connect", "sep_conv_3x3", "max_pool_3x3"
HARD = {
    "all skip, in a chain": cnn(
        "skip",
        cell([[(SKIP, 0), (SKIP, 1)], *[[(SKIP, 0), (SKIP, node)] for node in (2, 3, 4)]], [5]),
    ),
    "all edges from state 0": cnn("zero", cell([[(SEP, 0), (POOL, 0)]] * 4, [2, 3, 4, 5])),
    "five edges in a node": cnn(
        "five",
        cell(
            [
                [(SEP, 0), ("dil_conv_5x5", 1), (POOL, 0), ("avg_pool_3x3", 1), (SKIP, 0)],
                [(SEP, 2), (SEP, 2), (SKIP, 0)],
                [("sep_conv_5x5", 0), (SEP, 3), (POOL, 1), ("avg_pool_3x3", 2), (SKIP, 3)],
            ],
            [3, 4],
        ),
        cell([[("conv_7x1_1x7", 1)]], [2]),
    ),
    "a recurrent cell of eleven nodes": recurrent(
        "enas",
        [
            *(("tanh", 0), ("tanh", 1), ("relu", 1), ("tanh", 3), ("tanh", 3), ("relu", 3)),
            *(("relu", 4), ("relu", 7), ("relu", 8), ("relu", 8), ("relu", 8)),
        ],
        [2, 5, 6, 9, 10, 11],
    ),
    "a recurrent chain": recurrent("chain", [("identity", node) for node in range(11)], [11]),
    "a recurrent fan": recurrent("fan", [("sigmoid", 0)] * 11, range(1, 12)),
}


@pytest.fixture(params=[*SHIPPED, *HARD])
def genotype(request: pytest.FixtureRequest) -> Genotype:
    name: str = request.param
    return HARD[name] if name in HARD else load(name, SPACES)


def boxes(axes: Axes, kind: str) -> list[Bbox]:
    """The boxes of all labels or states, as the renderer sees them."""
    return [
        patch.get_window_extent()
        for patch in axes.patches
        if isinstance(patch, FancyBboxPatch) and f"-{kind}-" in str(patch.get_gid())
    ]


def overlap(one: Bbox, other: Bbox) -> bool:
    both = Bbox.intersection(one, other)
    return both is not None and both.width > 0 and both.height > 0


def check_nothing_is_covered(genotype: Genotype, space: SearchSpace | None = None) -> None:
    picture = figure(genotype, space=space)
    (axes,) = picture.axes
    labels, states = boxes(axes, "label"), boxes(axes, "state")
    assert len(labels) == sum(len(cell.edges) for cell in genotype.cells.values())
    assert not [pair for pair in combinations(labels + states, 2) if overlap(*pair)]
    extents = [text.get_window_extent() for text in axes.texts]
    assert not [pair for pair in combinations(extents, 2) if overlap(*pair)]
    for text in axes.texts:
        extent = text.get_window_extent()
        assert picture.bbox.containsx(extent.x0)
        assert picture.bbox.containsx(extent.x1)
        if "-text" in str(text.get_gid()):
            around = [box for box in labels + states if overlap(box, extent)]
            assert len(around) == 1
            assert Bbox.union([around[0], extent]).bounds == around[0].bounds


def check_lines_pass_boxes_by(genotype: Genotype, space: SearchSpace | None = None) -> None:
    (axes,) = figure(genotype, space=space).axes
    labels, states = boxes(axes, "label"), boxes(axes, "state")
    for patch in axes.patches:
        if not isinstance(patch, PathPatch):
            continue
        flat = patch.get_path().interpolated(1).to_polygons(closed_only=False)
        line = patch.get_transform().transform(flat[0])
        touched = [sum(box.contains(x, y) for x, y in line) > 0 for box in labels]
        # An edge passes through its own label; a line into the output through none.
        assert sum(touched) <= 1
        inside = [box for box in states if any(box.contains(x, y) for x, y in line)]
        # It begins under the box that it leaves, and its arrow stops at the box that it reaches.
        assert len(inside) == 1
        assert inside[0].contains(*line[0])
        assert not inside[0].contains(*line[-1])


def test_no_label_covers_another_label_or_a_state(genotype: Genotype) -> None:
    check_nothing_is_covered(genotype)


def test_no_line_runs_through_a_label_or_state_of_others(genotype: Genotype) -> None:
    check_lines_pass_boxes_by(genotype)


@st.composite
def any_genotype(draw_: st.DrawFn) -> Genotype:
    operations = st.sampled_from([name for name in COLOURS if name != "none"])
    inputs = draw_(st.integers(1, 3))
    nodes = []
    for node in range(draw_(st.integers(1, 6))):
        edges = st.tuples(operations, st.integers(0, node + inputs - 1))
        nodes.append(draw_(st.lists(edges, min_size=1, max_size=4)))
    states = st.integers(inputs, inputs + len(nodes) - 1)
    concat = draw_(st.lists(states, min_size=1, unique=True))
    return Genotype(space=f"space of {inputs}", name="any", cells={"cell": cell(nodes, concat)})


@settings(max_examples=15, deadline=None)
@given(any_genotype())
def test_no_genotype_at_all_is_drawn_over_itself(genotype: Genotype) -> None:
    space = SearchSpace(
        name=genotype.space,
        cells=("cell",),
        inputs=int(genotype.space[-1]),
        nodes=6,
        kept_inputs=2,
        primitives=tuple(COLOURS),
    )
    check_nothing_is_covered(genotype, space)
    check_lines_pass_boxes_by(genotype, space)


def test_states_outside_concat_are_not_joined_to_the_output() -> None:
    genotype = load("amoebanet", SPACES)
    text = dot(genotype)
    assert '"normal 4" -> "normal output";' in text
    assert '"normal 2" -> "normal output";' not in text
    (axes,) = figure(genotype).axes
    lines = [patch for patch in axes.patches if isinstance(patch, PathPatch)]
    assert len(lines) == 20 + 3 + 3


def test_an_operation_has_one_colour_in_every_picture() -> None:
    (axes,) = figure(load("darts_v2", SPACES)).axes
    labels = {text.get_gid(): text.get_text() for text in axes.texts}
    for patch in axes.patches:
        if "-label-" in str(patch.get_gid()):
            shown = to_hex(patch.get_edgecolor()).upper()
            assert shown == COLOURS[labels[f"{patch.get_gid()}-text"]]


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_every_operation_has_a_colour_of_its_own(space: SearchSpace) -> None:
    assert len({COLOURS[operation] for operation in space.operations}) == len(space.operations)


def test_inputs_joined_into_one_state_are_drawn_before_it() -> None:
    genotype = HARD["a recurrent cell of eleven nodes"]
    (axes,) = figure(genotype, space=RECURRENT).axes
    shown = [text.get_text() for text in axes.texts]
    assert {"$x_{t}$", "$h_{t-1}$", "$h_{t}$", "average", "0", "11"} <= set(shown)


@pytest.mark.parametrize(
    "operation", ["a name that is much longer than that of any operation", "x"]
)
def test_labels_are_as_wide_as_what_they_say(operation: str) -> None:
    check_nothing_is_covered(cnn("long", cell([[(operation, 0), (operation, 1)]] * 2, [2, 3])))


def test_a_space_without_names_of_its_own_gets_plain_ones() -> None:
    genotype = Genotype(
        space="other", name="other", cells={"cell": cell([[("op", 2)], [("op", 0)]], [4])}
    )
    assert names(genotype).inputs == (("input 0",), ("input 1",), ("input 2",))
    assert names(genotype, RECURRENT).inputs == (("input 0",),)
    check_nothing_is_covered(genotype)


def test_a_png_is_a_png(genotype: Genotype, tmp_path: Path) -> None:
    draw(genotype, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_a_pdf_is_a_pdf(genotype: Genotype, tmp_path: Path) -> None:
    draw(genotype, tmp_path / "picture.PDF")
    assert (tmp_path / "picture.PDF").read_bytes().startswith(b"%PDF-")


def test_an_svg_is_xml_and_its_labels_are_text(genotype: Genotype, tmp_path: Path) -> None:
    draw(genotype, tmp_path / "picture.svg")
    root = ET.fromstring((tmp_path / "picture.svg").read_text())  # noqa: S314 - our own file
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    shown = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    for cell_ in genotype.cells.values():
        for edge in cell_.edges:
            assert shown.count(edge.operation) == sum(genotype.count(edge.operation).values())
    identifiers = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(identifiers) == len(set(identifiers))


def test_dot_text_has_every_edge(genotype: Genotype, tmp_path: Path) -> None:
    draw(genotype, tmp_path / "picture.dot")
    text = (tmp_path / "picture.dot").read_text()
    assert text == dot(genotype)
    assert text.startswith("digraph ")
    assert text.count("{") - text.count("_{") == text.count("}") - text.count("_{")
    inputs = len(names(genotype).inputs)
    for name, cell_ in genotype.cells.items():
        for node, edges in enumerate(cell_.nodes, start=inputs):
            for edge in edges:
                start = f'"{name} {edge.source}" -> "{name} {node}" [label="{edge.operation}"'
                assert text.count(start) == edges.count(edge)


def test_dot_text_escapes_what_graphviz_would_read() -> None:
    assert r'digraph "a\"b\\n"' in dot(cnn('a"b\\n', cell([[(SEP, 0)]], [2])))


@pytest.mark.parametrize("suffix", [".svg", ".png", ".pdf", ".dot"])
def test_the_same_genotype_gives_the_same_bytes_twice(suffix: str, tmp_path: Path) -> None:
    one, two = tmp_path / f"one{suffix}", tmp_path / f"two{suffix}"
    draw(load("nasnet", SPACES), one)
    draw(load("nasnet", SPACES), two)
    assert one.read_bytes() == two.read_bytes()
    assert sorted(tmp_path.iterdir()) == [one, two]


def test_a_name_may_hold_anything(tmp_path: Path) -> None:
    name = "<$x_{1}$ & [bold]\x01\n" + "long " * 100
    genotype = cnn(name, cell([[(SEP, 0)]], [2]))
    draw(genotype, tmp_path / "picture.svg")
    ET.fromstring((tmp_path / "picture.svg").read_text())  # noqa: S314 - our own file
    check_nothing_is_covered(genotype)
    assert "<$x_{1}$ & [bold]" in printed(genotype)


@pytest.mark.parametrize(("name", "found"), [("a.gif", "suffix '.gif'"), ("a", "no suffix")])
def test_another_suffix_is_an_error_that_names_the_formats(
    name: str, found: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    with pytest.raises(ConfigError) as error:
        draw(load("darts_v2", SPACES), path)
    assert str(error.value) == f"{path}: found {found}, expected one of .svg, .png, .pdf, .dot"
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_is_an_error_of_one_line(tmp_path: Path) -> None:
    path = tmp_path / "none" / "cell.svg"
    with pytest.raises(ConfigError) as error:
        draw(load("darts_v2", SPACES), path)
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
        draw(load("darts_v2", SPACES), path)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["cell.svg"]


def printed(genotype: Genotype) -> str:
    console = Console(width=80, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(terminal(genotype))
    return capture.get()


def test_the_terminal_drawing_fits_80_columns(genotype: Genotype) -> None:
    lines = printed(genotype).splitlines()
    assert max(map(len, lines)) <= 80
    for cell_ in genotype.cells.values():
        for edge in cell_.edges:
            source = names(genotype).state(edge.source)
            assert any(f"{edge.operation}({source})" in line for line in lines)


def test_the_terminal_drawing_reads_as_equations() -> None:
    chain = printed(HARD["all skip, in a chain"]).splitlines()
    lines = [" ".join(line.strip("│ ").split()) for line in chain]
    assert "node 2 = skip_connect(c_{k-2}) + skip_connect(c_{k-1})" in lines
    assert "node 3 = skip_connect(c_{k-2}) + skip_connect(node 2)" in lines
    assert "c_{k} = concat of node 5" in lines
    joined = printed(HARD["a recurrent chain"])
    assert "node 0  = x_{t} joined with h_{t-1}" in joined
    assert "h_{t}   = average of node 11" in joined


def test_drawing_imports_no_torch_and_no_pyplot() -> None:
    code = (
        "import sys, darts_cli.viz.cells;"
        "sys.exit(bool({'torch', 'matplotlib.pyplot'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
