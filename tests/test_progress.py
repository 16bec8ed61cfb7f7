"""What a run shows: live on a terminal, in lines elsewhere, and in its log."""

import errno
import re
from collections.abc import Iterator
from datetime import datetime
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.cells import cell_len
from rich.console import Console

from darts_cli.files import WriteError
from darts_cli.progress import (
    Reporter,
    bar,
    error_console,
    format_measures,
    format_seconds,
    plan_table,
)

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
LONG = {
    "device": "NVIDIA H100 80GB HBM3 with a very long description that goes on and on and on",
    "data": "/a/folder/deep/in/the/file/system/" + "with-a-name-that-has-no-space" * 4,
    "output": "runs/[red]a[/] :on:",
}


class Clock:
    """Time that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("darts_cli.progress.time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


@pytest.fixture
def screen() -> StringIO:
    return StringIO()


@pytest.fixture
def terminal(screen: StringIO, monkeypatch: pytest.MonkeyPatch) -> Console:
    monkeypatch.setenv("TERM", "xterm-256color")
    return Console(force_terminal=True, width=80, file=screen)


def lines(text: str) -> Iterator[str]:
    """What is on the screen, line by line, without colours and cursor movements."""
    return (line for line in re.split(r"[\r\n]+", CONTROL.sub("", text)) if line.strip())


# Plain lines.


def test_without_a_terminal_numbers_are_plain_lines(screen: StringIO, clock: Clock) -> None:
    with Reporter(Console(file=screen, width=40), unit="image") as reporter:
        reporter.begin_epoch(epoch=2, epochs=9, step=0, steps=40)
        for _ in range(10):
            reporter.advance(64)
        clock.now += 4
        reporter.show("loss 1.2500  top1 50.00 %")
    assert screen.getvalue() == (
        "epoch 2/9  step 10/40  160.0 images/s  loss 1.2500  top1 50.00 %  epoch ends in 0:00:12\n"
    )


def test_an_epoch_that_is_resumed_counts_its_own_steps_for_the_rate(
    screen: StringIO, clock: Clock
) -> None:
    with Reporter(Console(file=screen)) as reporter:
        reporter.begin_epoch(epoch=1, epochs=1, step=30, steps=40)
        clock.now += 1
        reporter.advance(64)
        clock.now += 1
        reporter.advance(64)
        reporter.show("loss 1.0000")
    assert screen.getvalue() == (
        "epoch 1/1  step 32/40  64.0 examples/s  loss 1.0000  epoch ends in 0:00:08\n"
    )


def test_numbers_shown_at_once_have_no_rate_yet(screen: StringIO, clock: Clock) -> None:
    with Reporter(Console(file=screen)) as reporter:
        reporter.begin_epoch(epoch=1, epochs=1, step=0, steps=4)
        reporter.show("loss 1.0000")
    assert screen.getvalue() == (
        "epoch 1/1  step 0/4  0.0 examples/s  loss 1.0000  epoch ends in 0:00:00\n"
    )


def test_lines_are_due_twice_a_minute_and_bars_four_times_a_second(
    screen: StringIO, terminal: Console, clock: Clock
) -> None:
    for console, pause in ((Console(file=screen), 30.0), (terminal, 0.25)):
        reporter = Reporter(console)
        assert not reporter.due()
        clock.now += pause - 0.125
        assert not reporter.due()
        clock.now += 0.125
        assert reporter.due()
        reporter.show("loss 1.0000")
        assert not reporter.due()


def test_a_dumb_terminal_gets_plain_lines(
    screen: StringIO, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    with Reporter(Console(force_terminal=True, width=80, file=screen)) as reporter:
        reporter.begin_epoch(epoch=1, epochs=1, step=0, steps=4)
        reporter.show("loss 1.0000")
    assert screen.getvalue().startswith("epoch 1/1  step 0/4")


# Messages and the log.


def test_a_message_is_printed_and_logged_with_the_time(tmp_path: Path, screen: StringIO) -> None:
    log = tmp_path / "log.txt"
    reporter = Reporter(Console(file=screen, width=20), log)
    start = datetime.now().astimezone().replace(microsecond=0)
    reporter.say("the first message, longer than a line\n  and its second line")
    reporter.say("größer")
    assert screen.getvalue() == (
        "the first message, longer than a line\n  and its second line\ngrößer\n"
    )
    stamped = [line.split("  ", 1) for line in log.read_text(encoding="utf-8").splitlines()]
    assert [text for _, text in stamped] == [
        "the first message, longer than a line",
        "  and its second line",
        "größer",
    ]
    for stamp, _ in stamped:
        when = datetime.fromisoformat(stamp)
        assert when.tzinfo is not None
        assert start <= when <= datetime.now().astimezone()


def test_plain_numbers_are_logged_too(tmp_path: Path, screen: StringIO) -> None:
    log = tmp_path / "log.txt"
    with Reporter(Console(file=screen), log) as reporter:
        reporter.begin_epoch(epoch=1, epochs=1, step=0, steps=4)
        reporter.show("loss 1.0000")
    assert log.read_text(encoding="utf-8").split("  ", 1)[1] == screen.getvalue()


def test_a_message_is_shown_as_it_is(tmp_path: Path, screen: StringIO) -> None:
    log = tmp_path / "log.txt"
    Reporter(Console(file=screen), log).say("runs/[red]a[/x] :on: \udc80")
    assert screen.getvalue() == "runs/[red]a[/x] :on: \udc80\n"
    assert log.read_text(encoding="utf-8").endswith("  runs/[red]a[/x] :on: \\udc80\n")


def test_a_log_that_cannot_be_written_is_one_line(tmp_path: Path, screen: StringIO) -> None:
    log = tmp_path / "none" / "log.txt"
    with pytest.raises(WriteError) as caught:
        Reporter(Console(file=screen), log).say("hello")
    assert str(caught.value) == f"{log}: cannot be written (No such file or directory)"


def test_a_full_disk_is_one_line(
    tmp_path: Path, screen: StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(WriteError) as caught:
        Reporter(Console(file=screen), tmp_path / "log.txt").say("hello")
    assert str(caught.value) == (
        f"{tmp_path / 'log.txt'}: cannot be written (No space left on device)"
    )


def test_messages_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    error_console().print("a message 12 :on:")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "a message 12 :on:\n")


# The terminal.


def test_live_bars_fit_in_eighty_columns(screen: StringIO, terminal: Console) -> None:
    with Reporter(terminal) as reporter:
        for epoch in (598, 599):
            reporter.begin_epoch(epoch=epoch, epochs=600, step=0, steps=12_345)
            for _ in range(3):
                reporter.advance(64)
            reporter.show("loss 1.2345  top1 56.70 %  top5 99.90 %  " + "NVIDIA H100 80 GiB " * 4)
            reporter._bars.refresh()
    shown = list(lines(screen.getvalue()))
    assert max(map(cell_len, shown)) <= 80
    assert any(line.startswith("epoch 599/600 ") and "3/12345" in line for line in shown)
    total = 600 * 12_345
    assert any(line.startswith("run ") and f"{598 * 12_345 + 3}/{total}" in line for line in shown)
    numbers = [line for line in shown if "examples/s  loss 1.2345  top1 56.70 %" in line]
    assert numbers
    assert all(line.rstrip().endswith("…") for line in numbers)


def test_the_bar_of_an_epoch_takes_the_place_of_the_one_before(
    screen: StringIO, terminal: Console
) -> None:
    with Reporter(terminal) as reporter:
        for epoch in (1, 2, 3):
            reporter.begin_epoch(epoch=epoch, epochs=3, step=1, steps=4)
        tasks = [(task.description, task.completed, task.total) for task in reporter._bars.tasks]
    assert tasks == [("run", 9, 12), ("epoch 3/3", 1, 4)]


def test_bars_are_gone_at_the_end_and_messages_stay(screen: StringIO, terminal: Console) -> None:
    with Reporter(terminal) as reporter:
        reporter.begin_epoch(epoch=1, epochs=1, step=0, steps=4)
        reporter._bars.refresh()
        reporter.say("epoch 1/1 done")
    text = screen.getvalue()
    assert "epoch 1/1 done\n" in CONTROL.sub("", text).replace("\r", "")
    # The last thing written erases the two bars and the line of numbers.
    assert text.endswith("\x1b[1A\x1b[2K\x1b[1A\x1b[2K\x1b[1A\x1b[2K")


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
    ("measures", "text"),
    [
        ({}, ""),
        ({"loss": 1.23456}, "loss 1.2346"),
        ({"loss": 1.0, "top1": 0.56789, "top5": 1.0}, "loss 1.0000  top1 56.79 %  top5 100.00 %"),
        ({"loss": float("nan")}, "loss nan"),
        ({"perplexity": 59.123, "bits_per_word": 5.9}, "perplexity 59.12  bits_per_word 5.9000"),
    ],
)
def test_measures_have_the_digits_that_one_reads(measures: dict[str, float], text: str) -> None:
    assert format_measures(measures) == text


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
