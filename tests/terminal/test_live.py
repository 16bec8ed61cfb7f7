"""Lines that stay at the bottom of a terminal, seen as a terminal shows what is written to it."""

import sys
import time
from collections.abc import Iterator
from io import StringIO

import pytest
from rich.console import Console
from rich.segment import Segment

from darts_cli.terminal.live import LiveDisplay
from tests.terminal.screen import Screen


class Drawing:
    """What is to be drawn."""

    def __init__(self) -> None:
        self.lines = ["one", "two"]
        self.asked: list[tuple[int, int]] = []

    def __call__(self, width: int, height: int) -> list[list[Segment]]:
        self.asked.append((width, height))
        return [[Segment(line)] for line in self.lines]


@pytest.fixture
def console(monkeypatch: pytest.MonkeyPatch) -> Console:
    monkeypatch.setenv("TERM", "xterm-256color")
    return Console(force_terminal=True, width=20, height=10, file=StringIO())


@pytest.fixture
def drawing() -> Drawing:
    return Drawing()


@pytest.fixture
def display(console: Console, drawing: Drawing) -> Iterator[LiveDisplay]:
    display = LiveDisplay(console, drawing)
    display.start()
    yield display
    display.stop()


def shown(display: LiveDisplay, width: int = 20) -> list[str]:
    """What a terminal shows of all that was written so far."""
    file = display.console.file
    assert isinstance(file, StringIO)
    return Screen.of(file.getvalue(), width).lines()


def test_lines_are_drawn_in_the_place_of_those_before(
    display: LiveDisplay, drawing: Drawing
) -> None:
    display.refresh()
    drawing.lines = ["1", "two more"]
    display.refresh()
    assert shown(display) == ["1", "two more"]


def test_fewer_lines_leave_nothing_of_the_others(display: LiveDisplay, drawing: Drawing) -> None:
    display.refresh()
    drawing.lines = ["short"]
    display.refresh()
    assert shown(display) == ["short"]


def test_what_is_printed_stands_above_and_stays(display: LiveDisplay, drawing: Drawing) -> None:
    display.refresh()
    display.print("a message that is longer than a line\nand more")
    drawing.lines = ["three"]
    display.print("another")
    assert shown(display) == [
        *("a message that is", "  longer than a line", "and more", "another", "three")
    ]


def test_no_word_is_lost_where_a_line_is_broken(display: LiveDisplay) -> None:
    display.print("valid loss 2.0  top1 32.96 %")
    display.print("valid loss 2.00  top1 3 %")
    assert shown(display) == [
        *("valid loss 2.0  top1", "  32.96 %", "valid loss 2.00", "  top1 3 %", "one", "two")
    ]


def test_what_is_written_to_standard_error_stands_above_too(
    console: Console, drawing: Drawing
) -> None:
    display = LiveDisplay(console, drawing)
    display.start()
    print("a warning", file=sys.stderr)
    assert shown(display) == ["a warning", "one", "two"]
    display.stop()
    assert shown(display) == ["a warning"]


def test_an_echo_of_ctrl_c_is_drawn_over(display: LiveDisplay) -> None:
    display.refresh()
    display.console.file.write("^C")
    display.refresh()
    assert shown(display) == ["one", "two"]


def test_at_the_end_messages_are_left_alone_and_the_cursor_is_seen(
    console: Console, drawing: Drawing
) -> None:
    before = sys.stderr
    display = LiveDisplay(console, drawing)
    display.start()
    display.print("a message")
    display.stop()
    console.print("after")
    assert shown(display) == ["a message", "after"]
    assert sys.stderr is before
    written = display.console.file
    assert isinstance(written, StringIO)
    assert written.getvalue().rindex("\x1b[?25h") > written.getvalue().rindex("\x1b[?25l")


def test_a_refresh_clears_no_line_before_it_is_written(display: LiveDisplay) -> None:
    display.refresh()
    file = display.console.file
    assert isinstance(file, StringIO)
    before = len(file.getvalue())
    display.refresh()
    assert file.getvalue()[before:] == "\r\x1b[2Aone\ntwo\n\x1b[2K"


def test_a_terminal_that_became_narrower_keeps_no_halves(
    console: Console, display: LiveDisplay, drawing: Drawing
) -> None:
    drawing.lines = ["a line of 19 letters", "another of them, too"]
    drawing.lines = [line[:19] for line in drawing.lines]
    display.refresh()
    # Each of the lines is broken in two.
    console.size = (12, 10)
    drawing.lines = ["short"]
    before = len(console.file.getvalue())  # type: ignore[attr-defined]
    display.refresh()
    written = console.file.getvalue()[before:]  # type: ignore[attr-defined]
    assert written == "\r\x1b[2K" + "\x1b[1A\x1b[2K" * 4 + "short\n\x1b[2K"


def test_lines_leave_a_column_and_two_lines_free(display: LiveDisplay, drawing: Drawing) -> None:
    display.refresh()
    assert drawing.asked[-1] == (19, 8)


def test_lines_are_drawn_again_by_themselves(
    console: Console, drawing: Drawing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("darts_cli.terminal.live._REFRESH_SECONDS", 0.01)
    display = LiveDisplay(console, drawing)
    display.start()
    while len(drawing.asked) < 3:
        time.sleep(0.005)
    display.stop()
    assert shown(display) == []


def test_a_display_that_cannot_be_drawn_leaves_the_cursor_and_standard_error_as_they_were(
    console: Console, drawing: Drawing
) -> None:
    before = sys.stderr
    display = LiveDisplay(console, drawing)
    display.start()
    with pytest.raises(KeyboardInterrupt):
        interrupt(display)
    display.stop()
    assert sys.stderr is before
    assert console.file.getvalue().endswith("\x1b[?25h")  # type: ignore[attr-defined]
    assert shown(display) == []


def interrupt(display: LiveDisplay) -> None:
    def draw(_width: int, _height: int) -> list[list[Segment]]:
        raise KeyboardInterrupt

    display.refresh()
    display._draw, drawn = draw, display._draw
    try:
        display.refresh()
    finally:
        display._draw = drawn
