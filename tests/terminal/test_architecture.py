"""Cells, signals and warnings as lines."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from rich.text import Text

from darts_cli.run.signals import SearchSnapshot, take_snapshot
from darts_cli.space import SearchSpace
from darts_cli.terminal import architecture
from darts_cli.terminal.picture import Past
from tests.terminal.pictures import make_past

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


def draw(past: Past, *, width: int = 79, height: int = 22) -> list[Text]:
    return architecture.cells(past, width, height, COLOURS.__getitem__)


def change() -> Past:
    """A search whose third node has another edge than before."""
    first = look([WEAK, CONV, CONV])
    second = look([CONV, WEAK, CONV], first)
    return Past(space=SPACE, epochs=9, snapshot=second, before=first)


def test_a_new_edge_has_a_plus_and_is_counted_in_words() -> None:
    assert [line.plain for line in draw(change())] == [
        "normal cell  1 edge changed        reduce cell  1 edge changed",
        "2  sep_conv_3x3 0  skip_connect 1  2  sep_conv_3x3 0  skip_connect 1",
        "3 +sep_conv_3x3 0  sep_conv_3x3 2  3 +sep_conv_3x3 0  sep_conv_3x3 2",
    ]


def test_a_new_edge_is_bold_and_every_edge_in_the_colour_of_its_operation() -> None:
    line = draw(change())[2]
    styles = {line.plain[span.start : span.end].strip(): str(span.style) for span in line.spans}
    assert styles["sep_conv_3x3 2"] == "#0072B2"
    assert styles["sep_conv_3x3 0"] == "bold #0072B2"
    skip = next(span for span in draw(change())[1].spans if str(span.style) == "#7A7A7A")
    assert draw(change())[1].plain[skip.start : skip.end] == "skip_connect 1"


def test_a_change_of_the_operation_alone_is_a_change() -> None:
    first = look([WEAK, CONV, CONV])
    second = look([WEAK, SKIP, CONV], first)
    past = Past(space=SPACE, epochs=9, snapshot=second, before=first)
    assert draw(past)[2].plain.startswith("3 +skip_connect 1  sep_conv_3x3 2")


def test_two_edges_that_changed_are_two() -> None:
    first = look([WEAK, CONV, CONV])
    second = look([WEAK, SKIP, SKIP], first)
    past = Past(space=SPACE, epochs=9, snapshot=second, before=first)
    assert draw(past)[0].plain.startswith("normal cell  2 edges changed ")


def test_edges_in_another_order_are_the_same() -> None:
    first = look([WEAK, [0.0, 1.1, 0.0], CONV])
    second = look([WEAK, CONV, [0.0, 1.1, 0.0]], first)
    past = Past(space=SPACE, epochs=9, snapshot=second, before=first)
    assert not any("+" in line.plain for line in draw(past))


def test_after_the_first_epoch_nothing_has_changed() -> None:
    past = replace(change(), before=None)
    assert draw(past)[0].plain.split() == ["normal", "cell", "reduce", "cell"]
    assert draw(replace(past, snapshot=None)) == []


def test_cells_that_do_not_fit_side_by_side_stand_below_one_another_as_many_as_fit() -> None:
    heads = ["normal cell  1 edge changed", "reduce cell  1 edge changed"]
    assert [draw(change(), width=50)[row].plain for row in (0, 3)] == heads
    assert len(draw(change(), width=50, height=5)) == 3
    assert draw(change(), width=50, height=2) == []
    assert draw(change(), width=20) == []


def test_the_signals_of_each_cell_are_named() -> None:
    past = make_past("search cnn")
    assert past.snapshot is not None
    signals = replace(
        past.snapshot.signals,
        skip_connections={"normal": 2, "reduce": 8},
        entropy={"normal": 0.9, "reduce": 0.81234},
        weakest_margin={"normal": 0.0123, "reduce": 0.5},
        unchanged_epochs=3,
    )

    def lines(width: int) -> list[str]:
        return [line.plain for line in architecture.signals(past.space, signals, width)]

    assert lines(79) == [
        "         skips  unchanged  entropy  weakest margin",
        "normal  2 of 8   3 epochs    0.900          0.0123",
        "reduce  8 of 8               0.812          0.5000",
    ]
    assert lines(40)[1] == "normal  2 of 8   3 epochs    0.900"
    assert lines(20)[1] == "normal  2 of 8"
    once = replace(signals, unchanged_epochs=1)
    assert "1 epoch " in architecture.signals(past.space, once, 79)[1].plain


@pytest.mark.parametrize(("skips", "style"), [(3, ""), (4, "yellow")])
def test_a_normal_cell_that_collapses_is_yellow_and_a_reduction_cell_never(
    skips: int, style: str
) -> None:
    past = make_past("search cnn")
    assert past.snapshot is not None
    signals = replace(past.snapshot.signals, skip_connections={"normal": skips, "reduce": 8})
    _, normal, reduce = architecture.signals(past.space, signals, 79)
    assert [str(span.style) for span in normal.spans] == ([style] if style else [])
    assert reduce.spans == []


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
