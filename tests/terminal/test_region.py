"""Lines that stay at the bottom of a terminal, seen as a terminal shows what is written to it."""

import sys
from collections.abc import Iterator
from io import StringIO

import pytest
from rich.console import Console
from rich.text import Text

from darts_cli.terminal.region import Region
from tests.terminal.screen import Screen


class Drawing:
    """What is to be drawn."""

    def __init__(self) -> None:
        self.lines = ["one", "two"]
        self.asked: list[tuple[int, int]] = []

    def __call__(self, width: int, height: int) -> list[Text]:
        self.asked.append((width, height))
        return [Text(line) for line in self.lines]


@pytest.fixture
def console(monkeypatch: pytest.MonkeyPatch) -> Console:
    monkeypatch.setenv("TERM", "xterm-256color")
    return Console(force_terminal=True, width=20, height=10, file=StringIO())


@pytest.fixture
def drawing() -> Drawing:
    return Drawing()


@pytest.fixture
def region(console: Console, drawing: Drawing) -> Iterator[Region]:
    region = Region(console, drawing)
    region.start()
    yield region
    region.stop()


def shown(region: Region, width: int = 20) -> list[str]:
    """What a terminal shows of all that was written so far."""
    file = region.console.file
    assert isinstance(file, StringIO)
    return Screen.of(file.getvalue(), width).lines()


def test_lines_are_drawn_in_the_place_of_those_before(region: Region, drawing: Drawing) -> None:
    region.refresh()
    drawing.lines = ["1", "two more"]
    region.refresh()
    assert shown(region) == ["1", "two more"]


def test_fewer_lines_leave_nothing_of_the_others(region: Region, drawing: Drawing) -> None:
    region.refresh()
    drawing.lines = ["short"]
    region.refresh()
    assert shown(region) == ["short"]


def test_what_is_printed_stands_above_and_stays(region: Region, drawing: Drawing) -> None:
    region.refresh()
    region.print("a message that is longer than a line\nand more")
    drawing.lines = ["three"]
    region.print("another")
    assert shown(region) == [
        *("a message that is", "  longer than a line", "and more", "another", "three")
    ]


def test_no_word_is_lost_where_a_line_is_broken(region: Region) -> None:
    region.print("valid loss 2.0  top1 32.96 %")
    region.print("valid loss 2.00  top1 3 %")
    assert shown(region) == [
        *("valid loss 2.0  top1", "  32.96 %", "valid loss 2.00", "  top1 3 %", "one", "two")
    ]


def test_what_is_written_to_standard_error_stands_above_too(
    console: Console, drawing: Drawing
) -> None:
    region = Region(console, drawing)
    region.start()
    print("a warning", file=sys.stderr)
    assert shown(region) == ["a warning", "one", "two"]
    region.stop()
    assert shown(region) == ["a warning"]


def test_an_echo_of_ctrl_c_is_drawn_over(region: Region) -> None:
    region.refresh()
    region.console.file.write("^C")
    region.refresh()
    assert shown(region) == ["one", "two"]


def test_at_the_end_messages_are_left_alone_and_the_cursor_is_seen(
    console: Console, drawing: Drawing
) -> None:
    before = sys.stderr
    region = Region(console, drawing)
    region.start()
    region.print("a message")
    region.stop()
    console.print("after")
    assert shown(region) == ["a message", "after"]
    assert sys.stderr is before
    written = region.console.file
    assert isinstance(written, StringIO)
    assert written.getvalue().rindex("\x1b[?25h") > written.getvalue().rindex("\x1b[?25l")


def test_a_refresh_clears_no_line_before_it_is_written(region: Region) -> None:
    region.refresh()
    file = region.console.file
    assert isinstance(file, StringIO)
    before = len(file.getvalue())
    region.refresh()
    assert file.getvalue()[before:] == "\r\x1b[2Aone\x1b[0K\ntwo\x1b[0K\n\x1b[J"


def test_a_terminal_that_became_narrower_keeps_no_halves(
    console: Console, region: Region, drawing: Drawing
) -> None:
    drawing.lines = ["a line of 19 letters", "another of them, too"]
    drawing.lines = [line[:19] for line in drawing.lines]
    region.refresh()
    # Each of the lines is broken in two.
    console.size = (12, 10)
    drawing.lines = ["short"]
    before = len(console.file.getvalue())  # type: ignore[attr-defined]
    region.refresh()
    assert console.file.getvalue()[before:].startswith("\r\x1b[4A")  # type: ignore[attr-defined]


def test_lines_leave_a_column_and_two_lines_free(region: Region, drawing: Drawing) -> None:
    region.refresh()
    assert drawing.asked[-1] == (19, 8)


def test_lines_are_drawn_again_when_nothing_came_for_a_second(
    console: Console, drawing: Drawing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("darts_cli.terminal.region._IDLE_SECONDS", 0.01)
    region = Region(console, drawing)
    region.start()
    while len(drawing.asked) < 3:
        region._stopped.wait(0.005)
    region.stop()
    assert shown(region) == []
