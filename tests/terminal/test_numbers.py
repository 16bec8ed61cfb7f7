"""Bars, measures and the device as lines."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from darts_cli.terminal import numbers
from darts_cli.terminal.frame import FinishedEpochs, Frame
from darts_cli.terminal.numbers import sparkline
from darts_cli.terminal.progress import StageProgress
from tests.terminal.frames import CONSOLE, FixedProgress, draw_plain, make_finished, make_frame


def bar(progress: StageProgress, width: int, console: Console = CONSOLE) -> str:
    """The lower one of two bars."""
    options = console.options.update(width=width)
    table = numbers.bars(FixedProgress("run", 0, 9), progress, width)
    (_, line) = console.render_lines(table, options)
    return "".join(segment.text for segment in line)


def test_a_bar_is_as_full_as_the_steps_that_are_done() -> None:
    def shown(done: int, total: int) -> str:
        # Of 46 columns, 8 are the bar's.
        return bar(FixedProgress("epoch", done, total), 46)[13:21]

    assert shown(0, 8) == "        "
    assert shown(3, 8) == "━━━     "
    assert shown(5, 16) == "━━╸     "
    assert shown(8, 8) == shown(9, 8) == "━━━━━━━━"
    assert shown(0, 0) == "        "


def test_the_rest_of_a_bar_has_a_colour() -> None:
    coloured = Console(file=io.StringIO(), force_terminal=True, color_system="256", width=200)
    assert bar(FixedProgress("epoch", 3, 8), 46, coloured)[13:21] == "━━━╺━━━━"


def test_a_bar_keeps_its_time_left_longer_than_its_count_and_this_longer_than_its_rate() -> None:
    one = FixedProgress("epoch 1/9", 3, 40, rate="160.0 images/s", left=12.0)
    shown = {width: bar(one, width) for width in (70, 50, 40, 25)}
    assert [part in shown[70] for part in ("3/40", "160.0 images/s", "0:00:12 left")] == [True] * 3
    assert [part in shown[50] for part in ("3/40", "images/s", "0:00:12 left")] == [
        *(True, False, True)
    ]
    assert [part in shown[40] for part in ("3/40", "0:00:12 left")] == [False, True]
    assert "left" not in shown[25]
    assert [len(line) for line in shown.values()] == list(shown)


def test_a_sparkline_goes_from_the_lowest_to_the_highest() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([7.0, 0.0], ascii_only=True) == "#_"
    assert sparkline([2.0, None, 1.0]) == "█ ▁"
    assert sparkline([3.0, 3.0]) == "▁▁"
    assert sparkline([None]) == ""
    assert sparkline([]) == ""


def metrics(frame: Frame, width: int) -> list[str]:
    assert frame.finished is not None
    return [line.plain for line in numbers.metrics(frame.finished, frame.metrics, width)]


def test_the_training_half_shows_the_epoch_so_far_and_the_other_the_newest() -> None:
    frame = make_frame("search cnn", done=2)
    shown = metrics(replace(frame, metrics={"loss": 1.5, "top1": 0.5}), 79)
    assert shown[0].startswith("train  loss 1.5000 █▁ ")
    assert frame.finished is not None
    newest = frame.finished.records[-1]["valid"]["loss"]
    assert shown[1].startswith(f"valid  loss {newest:.4f} █▁ ")


def test_before_the_first_numbers_of_an_epoch_those_of_the_one_before_stand() -> None:
    frame = replace(make_frame("search cnn", done=2), metrics={})
    assert frame.finished is not None
    newest = frame.finished.records[-1]["train"]["loss"]
    assert metrics(frame, 79)[0].startswith(f"train  loss {newest:.4f} █▁ ")


def test_in_the_first_epoch_the_other_half_is_still_to_come() -> None:
    shown = metrics(make_frame("search cnn", done=0), 79)
    assert shown == ["train  loss 2.1850            " + shown[0][30:], "valid  after the epoch"]
    assert "top1" in shown[0]


@pytest.mark.parametrize(
    ("width", "parts"),
    [
        (79, ("loss 0.4455 █", "top1 85.15 % ▁", "top5 95.05 % ▁")),
        (60, ("loss 0.4455 █", "top1 85.15 % ", "top5 95.05 %")),
        (40, ("loss 0.4455 █", "top1 85.15 %")),
        (33, ("loss 0.4455", "top1 85.15 %")),
        (20, ("loss 0.4455",)),
    ],
)
def test_where_it_is_narrow_sparklines_go_first_and_then_measures(
    width: int, parts: tuple[str, ...]
) -> None:
    line = metrics(make_frame("train cnn"), width)[0]
    assert len(line) <= width
    assert all(part in line for part in parts)
    assert sum(name in line for name in ("loss", "top1", "top5")) == len(parts)
    assert sum(mark in line for mark in "█▁") == 2 * ("█" in "".join(parts))


def test_a_sparkline_shows_the_last_epochs() -> None:
    records = [{"epoch": epoch, "train": {"loss": float(epoch > 28)}} for epoch in range(1, 31)]
    finished = replace(make_finished("train cnn"), splits=("train",), records=records)
    (line,) = metrics(Frame(finished=finished), 79)
    assert line == "train  loss 1.0000 " + "▁" * 18 + "██"


@pytest.mark.parametrize(
    "record",
    [{"epoch": 1}, {"train": None}, {"train": {"loss": "low", "top1": float("nan")}}],
)
def test_a_line_of_metrics_without_measures_is_a_gap(record: dict[str, object]) -> None:
    finished = FinishedEpochs(space=make_finished("train cnn").space, epochs=2, records=[record])
    assert metrics(Frame(finished=finished), 79) == ["train"]


def test_the_name_of_a_device_is_what_is_cut_short() -> None:
    frame = make_frame("search cnn")
    shown = {width: numbers.device(frame, width, "ellipsis").plain for width in (79, 50, 40)}
    assert shown[79] == "lr 0.01235  NVIDIA H100 80GB HBM3  12.3 of 79.1 GiB  98 % busy"
    assert shown[50] == "lr 0.01235  NVIDIA H…  12.3 of 79.1 GiB  98 % busy"
    assert shown[40] == "lr 0.01235  12.3 of 79.1 GiB  98 % busy"
    nothing = replace(frame, lr=None, device=())
    assert numbers.device(nothing, 79, "ellipsis").plain == ""


def test_a_line_that_is_too_wide_ends_in_an_ellipsis() -> None:
    lines = draw_plain(make_frame("search cnn"), 17, 5)
    assert lines[2:4] == ["train  loss 0.44…", "valid  loss 0.66…"]
