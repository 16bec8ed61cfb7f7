"""What a run says: live on a terminal, in lines elsewhere, and in its log."""

import errno
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from darts_cli.run.files import WriteError
from darts_cli.terminal.frame import FinishedEpochs
from darts_cli.terminal.reporter import Mode, Reporter, summarize
from tests.terminal.frames import DEVICE, make_finished, make_measures
from tests.terminal.screen import Screen

METRICS = {"loss": 1.25, "top1": 0.5}


class Clock:
    """Time that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in ("terminal.reporter", "terminal.progress"):
        time = SimpleNamespace(monotonic=clock.monotonic)
        monkeypatch.setattr(f"darts_cli.{module}.time", time)
    return clock


@pytest.fixture
def screen() -> StringIO:
    return StringIO()


@pytest.fixture
def terminal(screen: StringIO, monkeypatch: pytest.MonkeyPatch) -> Console:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "JPY_PARENT_PID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    return Console(force_terminal=True, width=80, height=24, highlight=False, file=screen)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.txt"


def shown(screen: StringIO, width: int = 80) -> list[str]:
    """What a terminal shows of all that was written so far."""
    return Screen.of(screen.getvalue(), width).lines()


def logged(log: Path) -> list[str]:
    """The lines of a log without their times."""
    return [line.split("  ", 1)[1] for line in log.read_text(encoding="utf-8").splitlines()]


def end(reporter: Reporter, finished: FinishedEpochs) -> None:
    reporter.end_epoch(f"epoch {len(finished.records)}/50  train loss 1.0000", finished)


# Plain lines.


def test_without_a_terminal_numbers_are_plain_lines(screen: StringIO, clock: Clock) -> None:
    with Reporter(Console(file=screen, width=40), unit="image") as reporter:
        reporter.begin_epoch(epoch=2, epochs=9, step=0, steps=40)
        for _ in range(10):
            reporter.advance(64)
        clock.now += 4
        reporter.show(METRICS, lr=0.1)
    assert screen.getvalue() == (
        "epoch 2/9  step 10/40  160.0 images/s  loss 1.2500  top1 50.00 %  lr 0.1  "
        "epoch ends in 0:00:12\n"
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
        reporter.show({"loss": 1.0}, lr=0.1, device=("cpu", "1.00 GiB"))
    assert screen.getvalue() == (
        "epoch 1/1  step 32/40  64.0 examples/s  loss 1.0000  lr 0.1  cpu  1.00 GiB  "
        "epoch ends in 0:00:08\n"
    )


def test_numbers_shown_at_once_have_no_rate_yet(screen: StringIO, clock: Clock) -> None:
    with Reporter(Console(file=screen)) as reporter:
        reporter.begin_epoch(epoch=1, epochs=1, step=0, steps=4)
        reporter.show({"loss": 1.0}, lr=0.1, device=("cpu", "1.00 GiB"))
    assert screen.getvalue() == (
        "epoch 1/1  step 0/4  0.0 examples/s  loss 1.0000  lr 0.1  cpu  1.00 GiB  "
        "epoch ends in 0:00:00\n"
    )


def test_lines_are_due_twice_a_minute_and_a_display_twice_a_second(
    screen: StringIO, terminal: Console, clock: Clock
) -> None:
    for console, pause in ((Console(file=screen), 30.0), (terminal, 0.5)):
        reporter = Reporter(console)
        assert not reporter.due()
        clock.now += pause - 0.125
        assert not reporter.due()
        clock.now += 0.125
        assert reporter.due()
        reporter.show({"loss": 1.0}, lr=0.1, device=("cpu", "1.00 GiB"))
        assert not reporter.due()


def test_a_dumb_terminal_gets_plain_lines(
    screen: StringIO, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    with Reporter(Console(force_terminal=True, width=80, file=screen)) as reporter:
        reporter.begin_epoch(epoch=1, epochs=1, step=0, steps=4)
        reporter.show({"loss": 1.0}, lr=0.1, device=("cpu", "1.00 GiB"))
    assert screen.getvalue().startswith("epoch 1/1  step 0/4")


def test_an_evaluation_says_so_in_its_lines(screen: StringIO, clock: Clock) -> None:
    with Reporter(Console(file=screen)) as reporter:
        reporter.begin_epoch(epoch=3, epochs=9, step=0, steps=4)
        reporter.begin_evaluation(10)
        for _ in range(4):
            clock.now += 1
            reporter.advance(1)
        reporter.show_evaluation()
    assert screen.getvalue() == (
        "epoch 3/9  evaluation  step 4/10  1.0 batches/s  evaluation ends in 0:00:06\n"
    )


# Messages and the log.


def test_a_message_is_printed_and_logged_with_the_time(log: Path, screen: StringIO) -> None:
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


def test_plain_numbers_are_logged_too(log: Path, screen: StringIO) -> None:
    with Reporter(Console(file=screen), log) as reporter:
        reporter.begin_epoch(epoch=1, epochs=1, step=0, steps=4)
        reporter.show({"loss": 1.0}, lr=0.1, device=("cpu", "1.00 GiB"))
    assert log.read_text(encoding="utf-8").split("  ", 1)[1] == screen.getvalue()


def test_a_message_is_shown_as_it_is(log: Path, screen: StringIO) -> None:
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


# The end of an epoch.


def test_an_epoch_ends_with_its_line_its_genotype_and_its_warnings(
    log: Path, screen: StringIO
) -> None:
    finished = make_finished("search cnn", skips=0.05)
    assert finished.snapshot is not None
    with Reporter(Console(file=screen), log) as reporter:
        end(reporter, finished)
    warnings = finished.warnings()
    assert len(warnings) == 2
    expected = [
        "epoch 31/50  train loss 1.0000",
        *summarize(finished.snapshot.genotype, "skip_connect").splitlines(),
        *(f"  warning: {warning}" for warning in warnings),
    ]
    assert screen.getvalue().splitlines() == expected
    assert logged(log) == expected


def test_a_warning_is_printed_again_when_it_has_changed_and_logged_every_time(
    log: Path, screen: StringIO
) -> None:
    collapsed = make_finished("search cnn", skips=0.05)
    sound = replace(collapsed, records=[])
    (first, second) = collapsed.warnings()
    with Reporter(Console(file=screen), log) as reporter:
        for finished in (collapsed, collapsed, sound, collapsed):
            end(reporter, finished)
    for text in (first, second):
        assert screen.getvalue().count(f"  warning: {text}\n") == 2
        assert logged(log).count(f"  warning: {text}") == 3


def test_a_run_that_goes_on_repeats_no_warning(log: Path, screen: StringIO) -> None:
    finished = make_finished("search cnn", skips=0.05)
    with Reporter(Console(file=screen), log) as reporter:
        reporter.recall(finished)
        end(reporter, finished)
    assert "warning" not in screen.getvalue()
    assert sum("warning" in line for line in logged(log)) == 2


def test_a_training_has_no_genotype_to_tell_of(screen: StringIO) -> None:
    with Reporter(Console(file=screen)) as reporter:
        end(reporter, make_finished("train rnn"))
    assert screen.getvalue() == "epoch 31/50  train loss 1.0000\n"


# The terminal.


def begin(reporter: Reporter, finished: FinishedEpochs, *, step: int = 0) -> None:
    """The epoch after those of `finished`, of which some steps are done."""
    reporter.recall(finished)
    reporter.begin_epoch(epoch=len(finished.records) + 1, epochs=50, step=step, steps=390)


def show(reporter: Reporter, metrics: Mapping[str, float] | None = None) -> None:
    numbers = make_measures("search cnn", 32) if metrics is None else metrics
    reporter.show(numbers, lr=0.0125, device=DEVICE)


def test_the_display_shows_the_step_the_numbers_and_the_architecture(
    screen: StringIO, terminal: Console, clock: Clock
) -> None:
    with Reporter(terminal, unit="image") as reporter:
        begin(reporter, make_finished("search cnn"))
        for _ in range(10):
            reporter.advance(64)
        clock.now += 4
        show(reporter)
        lines = shown(screen)
        assert lines[0].split()[2:] == ["12,100/19,500", "for", "0:00:04", "0:49:20", "left"]
        assert lines[1].split()[3:] == ["10/390", "160.0", "images/s", "0:02:32", "left"]
        assert [line.split()[0] for line in lines[2:5]] == ["train", "valid", "lr"]
        assert lines[4] == "lr 0.0125  NVIDIA H100 80GB HBM3  12.3 of 79.1 GiB  98 % busy"
        assert lines[5].startswith("normal cell")
        assert max(map(len, lines)) < 80


def test_a_run_that_goes_on_shows_the_epochs_before(
    screen: StringIO, terminal: Console, clock: Clock
) -> None:
    with Reporter(terminal) as reporter:
        begin(reporter, make_finished("search cnn", skips=0.05), step=200)
        show(reporter)
        lines = shown(screen)
    assert " 200/390 " in lines[1]
    assert "left" not in lines[1]
    assert "█▇▇▆▆▅▅▅▄▄▃▃▃▃▂▂▂▁▁▁" in lines[2]
    assert "█▇▇▆▆▅▅▅▄▄▃▃▃▃▂▂▂▁▁▁" in lines[3]
    assert lines[13].startswith("! the normal cell is turning into skip connections (8 of 8 edges)")
    assert lines[14] == "  earlier epoch with darts derive --epoch 10"


def test_the_evaluation_takes_the_place_of_the_epoch(
    screen: StringIO, terminal: Console, clock: Clock
) -> None:
    with Reporter(terminal) as reporter:
        begin(reporter, make_finished("search cnn"))
        show(reporter)
        height = len(shown(screen))
        reporter.begin_evaluation(20)
        clock.now += 2
        for _ in range(5):
            reporter.advance(1)
        reporter.show_evaluation()
        lines = shown(screen)
    assert lines[1].split()[0] == "evaluation"
    assert lines[1].split()[2:] == ["5/20", "2.5", "batches/s", "0:00:06", "left"]
    assert lines[0].split()[2] == "12,090/19,500"
    assert len(lines) == height


def test_a_run_that_goes_back_counts_its_time_left_from_there(
    screen: StringIO, terminal: Console, clock: Clock
) -> None:
    with Reporter(terminal) as reporter:
        begin(reporter, make_finished("train rnn"))
        clock.now += 1000
        reporter.advance(64)
        begin(reporter, make_finished("train rnn", done=9))
        clock.now += 2
        reporter.advance(64)
        show(reporter)
        (run, *_) = shown(screen)
    left = f"{2 * (50 * 390 - 3511) // 3600}:{2 * (50 * 390 - 3511) // 60 % 60:02}"
    assert run.split()[2:5] == ["3,511/19,500", "for", "0:00:02"]
    assert run.split()[5].startswith(left)


def test_an_epoch_that_is_shorter_than_the_one_before_starts_no_clock_again(
    screen: StringIO, terminal: Console, clock: Clock
) -> None:
    with Reporter(terminal) as reporter:
        reporter.recall(make_finished("train rnn", done=0))
        for epoch, steps in ((1, 40), (2, 38)):
            reporter.begin_epoch(epoch=epoch, epochs=2, step=0, steps=steps)
            for _ in range(steps):
                clock.now += 1
                reporter.advance(64)
        show(reporter)
        (run, *_) = shown(screen)
    assert run.split()[2:6] == ["76/76", "for", "0:01:18", "0:00:00"]


def test_above_the_display_an_epoch_is_one_line_and_below_it_the_rest(
    log: Path, screen: StringIO, terminal: Console
) -> None:
    finished = make_finished("search cnn", skips=0.05)
    with Reporter(terminal, log) as reporter:
        begin(reporter, finished)
        end(reporter, finished)
        lines = shown(screen)
        assert lines[0] == "epoch 31/50  train loss 1.0000"
        assert lines[1].startswith("run ")
        assert not any("  warning: " in line for line in lines)
    # The log has what the display tells otherwise.
    assert len(logged(log)) == 5


def test_at_the_end_the_display_is_gone_and_what_it_told_of_the_genotype_is_there(
    screen: StringIO, terminal: Console
) -> None:
    finished = make_finished("search cnn", skips=0.05)
    assert finished.snapshot is not None
    with Reporter(terminal) as reporter:
        begin(reporter, finished)
        reporter.say("a message")
        show(reporter)
    reporter.say("stopped; go on with: darts search cnn --resume " + "a-long-path" * 5)
    expected = [
        "a message",
        *summarize(finished.snapshot.genotype, "skip_connect").splitlines(),
        *(f"  warning: {warning}" for warning in finished.warnings()),
        "stopped; go on with: darts search cnn --resume " + "a-long-path" * 5,
    ]
    # Lines that the terminal breaks are lines that can be copied.
    assert shown(screen, 1000) == expected


def test_the_display_is_gone_after_an_error(screen: StringIO, terminal: Console) -> None:
    def fail() -> None:
        with Reporter(terminal) as reporter:
            begin(reporter, make_finished("train cnn"))
            show(reporter)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert shown(screen) == []
    assert screen.getvalue().endswith("\x1b[?25h")


def test_a_terminal_gets_the_lines_of_a_log_into_its_log_alone(
    log: Path, screen: StringIO, terminal: Console, clock: Clock
) -> None:
    with Reporter(terminal, log) as reporter:
        begin(reporter, make_finished("train cnn"))
        for _ in range(61):
            clock.now += 1
            show(reporter, {"loss": 1.0})
        assert shown(screen)[0].startswith("run ")
    assert [line.split("  ")[0] for line in logged(log)] == ["epoch 32/50"] * 2


def test_nothing_is_drawn_before_there_is_something_to_tell(
    screen: StringIO, terminal: Console
) -> None:
    with Reporter(terminal) as reporter:
        reporter.say("a message")
        assert shown(screen) == ["a message"]


def test_an_encoding_without_blocks_gets_letters(
    monkeypatch: pytest.MonkeyPatch, terminal: Console, screen: StringIO
) -> None:
    monkeypatch.setattr(Console, "encoding", "ascii")
    with Reporter(terminal) as reporter:
        begin(reporter, make_finished("search cnn"))
        show(reporter)
    assert screen.getvalue().isascii()
    assert "----" in screen.getvalue()
    assert "#" in screen.getvalue()


# Less of it.


def test_no_live_is_lines_on_a_terminal_too(screen: StringIO, terminal: Console) -> None:
    with Reporter(terminal, mode=Mode.PLAIN) as reporter:
        begin(reporter, make_finished("train cnn"))
        show(reporter, {"loss": 1.0})
    assert "\x1b" not in screen.getvalue()
    assert screen.getvalue().startswith("epoch 32/50  step 0/390  ")


@pytest.mark.parametrize("live", [True, False])
def test_quiet_shows_how_to_go_on_and_nothing_else(
    log: Path, screen: StringIO, terminal: Console, live: bool, clock: Clock
) -> None:
    console = terminal if live else Console(file=screen)
    finished = make_finished("search cnn", skips=0.05)
    with Reporter(console, log, mode=Mode.QUIET) as reporter:
        begin(reporter, finished)
        show(reporter)
        end(reporter, finished)
        reporter.say("a message")
    reporter.say("go on with: darts", always=True)
    assert screen.getvalue() == "go on with: darts\n"
    lines = logged(log)
    assert lines[0].startswith("epoch 32/50  step 0/390  ")
    assert lines[1] == "epoch 31/50  train loss 1.0000"
    assert [line.split()[0] for line in lines[2:6]] == ["normal", "reduce", "warning:", "warning:"]
    assert lines[6:] == ["a message", "go on with: darts"]
