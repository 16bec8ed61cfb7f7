"""Cells, signals and warnings as lines."""

import io
from collections.abc import Sequence
from dataclasses import replace

import pytest
from rich.console import Console
from rich.segment import Segment
from rich.text import Text

from darts_cli.run.signals import SearchSnapshot, Signals, take_snapshot
from darts_cli.space import SearchSpace
from darts_cli.terminal import architecture
from darts_cli.terminal.frame import FinishedEpochs
from tests.terminal.frames import CONSOLE, make_finished, plain

SPACE = SearchSpace(
    name="small",
    cells=("normal", "reduce"),
    inputs=2,
    nodes=2,
    edges_per_node=2,
    primitives=("none", "sep_conv_3x3", "skip_connect"),
)
CONV, SKIP = [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]
NODE_2 = [CONV, SKIP]
# The weak first edge is not kept.
WEAK = [0.0, 0.1, 0.0]
COLOURFUL = Console(file=io.StringIO(), force_terminal=True, color_system="256")
COLOURS = {"sep_conv_3x3": "#0072B2", "skip_connect": "#7A7A7A"}


def look(
    node_3: Sequence[Sequence[float]],
    before: SearchSnapshot | None = None,
    cells: Sequence[str] = (),
) -> SearchSnapshot:
    rows = [*NODE_2, *node_3]
    epoch = before.epoch + 1 if before else 1
    return take_snapshot(
        SPACE, dict.fromkeys(SPACE.cells, rows), epoch=epoch, name="it", before=before
    )


def draw(finished: FinishedEpochs, *, width: int = 79) -> list[list[str]]:
    """The lines of each block of cells."""
    blocks = architecture.cells(finished, width, COLOURS.__getitem__)
    options = CONSOLE.options.update(width=width)
    return [plain(CONSOLE.render_lines(block, options, pad=False)) for block in blocks]


def draw_narrow(finished: FinishedEpochs) -> list[Text]:
    """The lines of the normal cell, which has no place beside the other."""
    (normal, _) = architecture.cells(finished, 50, COLOURS.__getitem__)
    assert isinstance(normal, Text)
    return list(normal.split("\n"))


def change() -> FinishedEpochs:
    """A search whose third node has another edge than before."""
    first = look([WEAK, CONV, CONV])
    second = look([CONV, WEAK, CONV], first)
    return FinishedEpochs(space=SPACE, epochs=9, snapshot=second, before=first)


def test_a_new_edge_has_a_plus_and_is_counted_in_words() -> None:
    (block,) = draw(change())
    assert block == [
        "normal cell  1 edge changed        reduce cell  1 edge changed",
        "2  sep_conv_3x3 0  skip_connect 1  2  sep_conv_3x3 0  skip_connect 1",
        "3 +sep_conv_3x3 0  sep_conv_3x3 2  3 +sep_conv_3x3 0  sep_conv_3x3 2",
    ]


def test_a_new_edge_is_bold_and_every_edge_in_the_colour_of_its_operation() -> None:
    line = draw_narrow(change())[2]
    styles = {line.plain[span.start : span.end].strip(): str(span.style) for span in line.spans}
    assert styles["sep_conv_3x3 2"] == "#0072B2"
    assert styles["sep_conv_3x3 0"] == "bold #0072B2"
    line = draw_narrow(change())[1]
    skip = next(span for span in line.spans if str(span.style) == "#7A7A7A")
    assert line.plain[skip.start : skip.end].strip() == "skip_connect 1"


def test_a_change_of_the_operation_alone_is_a_change() -> None:
    first = look([WEAK, CONV, CONV])
    second = look([WEAK, SKIP, CONV], first)
    finished = FinishedEpochs(space=SPACE, epochs=9, snapshot=second, before=first)
    assert draw(finished)[0][2].startswith("3 +skip_connect 1  sep_conv_3x3 2")


def test_two_edges_that_changed_are_two() -> None:
    first = look([WEAK, CONV, CONV])
    second = look([WEAK, SKIP, SKIP], first)
    finished = FinishedEpochs(space=SPACE, epochs=9, snapshot=second, before=first)
    assert draw(finished)[0][0].startswith("normal cell  2 edges changed ")


def test_edges_in_another_order_are_the_same() -> None:
    first = look([WEAK, [0.0, 1.1, 0.0], CONV])
    second = look([WEAK, CONV, [0.0, 1.1, 0.0]], first)
    finished = FinishedEpochs(space=SPACE, epochs=9, snapshot=second, before=first)
    assert not any("+" in line for line in draw(finished)[0])


def test_after_the_first_epoch_nothing_has_changed() -> None:
    finished = replace(change(), before=None)
    assert draw(finished)[0][0].split() == ["normal", "cell", "reduce", "cell"]
    assert draw(replace(finished, snapshot=None)) == []


def test_cells_that_do_not_fit_side_by_side_are_blocks_of_their_own() -> None:
    heads = ["normal cell  1 edge changed", "reduce cell  1 edge changed"]
    assert [block[0] for block in draw(change(), width=50)] == heads
    assert [len(block) for block in draw(change(), width=50)] == [3, 3]
    assert draw(change(), width=20) == []


def table(space: SearchSpace, signals: Signals, width: int) -> list[list[Segment]]:
    options = COLOURFUL.options.update(width=width)
    return COLOURFUL.render_lines(architecture.signals(space, signals, width), options, pad=False)


def test_the_signals_of_each_cell_are_named() -> None:
    finished = make_finished("search cnn")
    assert finished.snapshot is not None
    signals = replace(
        finished.snapshot.signals,
        skip_connections={"normal": 2, "reduce": 8},
        entropy={"normal": 0.9, "reduce": 0.81234},
        weakest_margin={"normal": 0.0123, "reduce": 0.5},
        unchanged_epochs=3,
    )

    def lines(width: int) -> list[str]:
        return plain(table(finished.space, signals, width))

    assert lines(79) == [
        "         skips  unchanged  entropy  weakest margin",
        "normal  2 of 8   3 epochs    0.900          0.0123",
        "reduce  8 of 8               0.812          0.5000",
    ]
    assert lines(40)[1] == "normal  2 of 8   3 epochs    0.900"
    assert lines(20)[1] == "normal  2 of 8"
    once = replace(signals, unchanged_epochs=1)
    assert "1 epoch " in plain(table(finished.space, once, 79))[1]


@pytest.mark.parametrize(("skips", "style"), [(3, ""), (4, "yellow")])
def test_a_normal_cell_that_collapses_is_yellow_and_a_reduction_cell_never(
    skips: int, style: str
) -> None:
    finished = make_finished("search cnn")
    assert finished.snapshot is not None
    signals = replace(finished.snapshot.signals, skip_connections={"normal": skips, "reduce": 8})
    head, normal, reduce = table(finished.space, signals, 79)

    def styled(line: list[Segment]) -> list[tuple[str, str]]:
        parts = [(part.text.strip(), str(part.style or "none")) for part in line]
        return [(text, style) for text, style in parts if text and style != "none"]

    assert styled(normal) == ([(f"{skips} of 8", style)] if style else [])
    assert styled(reduce) == []
    assert {style for _, style in styled(head)} == {"dim"}


def test_warnings_are_wrapped_between_words_and_yellow() -> None:
    text = (
        "the normal cell is turning into skip connections (6 of 8 edges); consider an earlier "
        "epoch with darts derive --epoch 31"
    )
    lines = architecture.warnings([text], 60, 9)
    assert [line.plain for line in lines] == [
        "! the normal cell is turning into skip connections (6 of 8",
        "  edges); consider an earlier epoch with darts derive",
        "  --epoch 31",
    ]
    assert {str(span.style) for line in lines for span in line.spans} == {"yellow"}


def test_warnings_that_have_no_place_are_counted() -> None:
    def lines(height: int) -> list[str]:
        three = ["first " * 12, "second", "third"]
        return [line.plain.rstrip() for line in architecture.warnings(three, 60, height)]

    assert lines(4)[2:] == ["! second", "! third"]
    assert lines(3)[2:] == ["! 2 more warnings in log.txt"]
    assert lines(2) == ["! 3 warnings in log.txt"]
    assert lines(0) == []
