"""The console, the table of a plan, a bar, and how numbers are written."""

import re
from collections.abc import Iterator
from io import StringIO

import pytest
from rich.cells import cell_len
from rich.console import Console

from darts_cli.terminal.console import (
    bar,
    error_console,
    format_seconds,
    plan_table,
    redraws,
)

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
LONG = {
    "device": "NVIDIA H100 80GB HBM3 with a very long description that goes on and on and on",
    "data": "/a/folder/deep/in/the/file/system/" + "with-a-name-that-has-no-space" * 4,
    "output": "runs/[red]a[/] :on:",
}


@pytest.fixture
def screen() -> StringIO:
    return StringIO()


@pytest.fixture
def terminal(screen: StringIO, monkeypatch: pytest.MonkeyPatch) -> Console:
    set_terminal(monkeypatch)
    return Console(force_terminal=True, width=80, file=screen)


def set_terminal(monkeypatch: pytest.MonkeyPatch, **environment: str) -> None:
    """The environment of a terminal, whatever these tests run in."""
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "JPY_PARENT_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm-256color", **environment}.items():
        monkeypatch.setenv(name, value)


def lines(text: str) -> Iterator[str]:
    """What is on the screen, line by line, without colours and cursor movements."""
    return (line for line in re.split(r"[\r\n]+", CONTROL.sub("", text)) if line.strip())


def test_messages_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    error_console().print("a message 12 :on:")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "a message 12 :on:\n")


class Screen(StringIO):
    """What says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("term", ["xterm-256color", "screen-256color", "tmux-256color", "linux"])
def test_lines_are_drawn_over_on_terminals(monkeypatch: pytest.MonkeyPatch, term: str) -> None:
    set_terminal(monkeypatch, TERM=term)
    assert redraws(Console(file=Screen()))


@pytest.mark.parametrize("name", ["NO_COLOR", "FORCE_COLOR"])
def test_colours_make_no_difference_to_a_terminal(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    set_terminal(monkeypatch, **{name: "1"})
    assert redraws(Console(file=Screen()))


def test_nothing_is_drawn_over_in_a_file_even_in_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    set_terminal(monkeypatch)
    assert not redraws(Console(file=StringIO()))
    set_terminal(monkeypatch, FORCE_COLOR="1")
    assert not redraws(Console(file=StringIO()))


@pytest.mark.parametrize("setting", [("TERM", "dumb"), ("TTY_INTERACTIVE", "0")])
def test_nothing_is_drawn_over_where_the_terminal_cannot(
    monkeypatch: pytest.MonkeyPatch, setting: tuple[str, str]
) -> None:
    set_terminal(monkeypatch, **dict([setting]))
    assert not redraws(Console(file=Screen()))


def test_nothing_is_drawn_over_by_a_process_that_does_not_speak(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_terminal(monkeypatch)
    assert not redraws(Console(file=Screen(), quiet=True))


def test_nothing_is_drawn_over_in_a_notebook_that_calls_itself_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_terminal(monkeypatch, JPY_PARENT_PID="12", TERM="xterm-color", FORCE_COLOR="1")
    assert not redraws(Console(file=Screen()))


def test_the_plan_fits_in_eighty_columns_and_hides_nothing(
    screen: StringIO, terminal: Console
) -> None:
    terminal.print(plan_table("darts search cnn", LONG))
    shown = list(lines(screen.getvalue()))
    assert max(map(cell_len, shown)) <= 80
    assert shown[0].strip() == "darts search cnn"
    for name in LONG:
        assert any(line.startswith(f"{name} ") for line in shown)
    folded = "".join(line[len("device  ") :].rstrip() for line in shown[1:])
    assert folded.replace(" ", "") == "".join(LONG.values()).replace(" ", "")


def test_the_plan_without_a_terminal_is_plain_text(screen: StringIO) -> None:
    rows = {"device": "cpu, 2 threads", "seed": "0"}
    table = plan_table("darts train darts_v2", rows)
    Console(file=screen, width=80).print(table)
    assert [line.rstrip() for line in screen.getvalue().splitlines()] == [
        "darts train darts_v2",
        "device  cpu, 2 threads",
        "seed    0",
    ]


def test_a_bar_counts_steps_on_a_terminal_alone(screen: StringIO, terminal: Console) -> None:
    with bar(terminal, "valid", 40) as advance:
        for _ in range(7):
            advance()
        terminal.print("here")
    shown = list(lines(screen.getvalue()))
    assert any(line.startswith("valid ") and "7/40" in line for line in shown)
    assert max(map(cell_len, shown)) <= 80
    plain = StringIO()
    with bar(Console(file=plain), "valid", 40) as advance:
        advance()
    assert plain.getvalue().strip() == ""


# Numbers.


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00:00"),
        (0.4, "0:00:00"),
        (59.6, "0:01:00"),
        (3723, "1:02:03"),
        (86_400 + 1, "1 day, 0:00:01"),
    ],
)
def test_seconds_are_hours_minutes_and_seconds(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text
