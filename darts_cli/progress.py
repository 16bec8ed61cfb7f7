"""The one rich console, and everything that a run shows on it while it goes on.

Messages and progress go to standard error: standard output is for results.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from darts_cli.files import WriteError

_REFRESH_SECONDS = 0.25
"""How often numbers are read from the device for a terminal."""

_PLAIN_SECONDS = 30.0
"""How often a line is printed where there is no terminal."""

_FORMATS: dict[str, Callable[[float], str]] = {
    "top1": lambda share: f"{100 * share:.2f} %",
    "top5": lambda share: f"{100 * share:.2f} %",
    "perplexity": "{:.2f}".format,
}
"""How measures are shown that do not have four digits after the point."""


def error_console() -> Console:
    """The console on standard error, as it is at this moment."""
    return Console(stderr=True, highlight=False, emoji=False)


def plan_table(title: str, rows: Mapping[str, str]) -> Table:
    """What a command is about to do, in two columns."""
    # Text is shown as it is: the brackets and colons of a path would be markup in a string.
    table = Table(
        title=Text(title, style="table.title"),
        title_justify="left",
        show_header=False,
        box=None,
        pad_edge=False,
    )
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(Text(name), Text(value))
    return table


def format_measures(measures: Mapping[str, float]) -> str:
    """`loss 1.2340  top1 56.70 %` for `{"loss": 1.234, "top1": 0.567}`."""
    return "  ".join(
        f"{name} {_FORMATS.get(name, '{:.4f}'.format)(value)}" for name, value in measures.items()
    )


def _redraws(console: Console) -> bool:
    """Whether bars can be shown: a dumb terminal cannot redraw a line, and would show none."""
    return console.is_terminal and not console.is_dumb_terminal


@contextmanager
def bar(console: Console, label: str, steps: int) -> Iterator[Callable[[], None]]:
    """A bar on a terminal while some steps last, and the function that counts one."""
    columns = TextColumn("{task.description}"), BarColumn(bar_width=None), MofNCompleteColumn()
    with Progress(
        *columns,
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        expand=True,
        disable=not _redraws(console),
    ) as progress:
        task = progress.add_task(label, total=steps)
        yield lambda: progress.advance(task)


class _Bars(Progress):
    """Bars with a line of numbers below."""

    numbers = Text()

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        yield self.numbers


class Reporter:
    """Shows the steps of a run: live bars on a terminal, plain lines elsewhere, and a log file.

    A context manager: the bars are there from its entry to its exit.
    """

    def __init__(self, console: Console, log: Path | None = None, unit: str = "example") -> None:
        self.console = console
        self._log = log
        self._unit = unit
        self._live = _redraws(console)
        self._bars = _Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            expand=True,
            disable=not self._live,
        )
        self._run: TaskID | None = None
        self._epoch: TaskID | None = None
        self._label = ""
        self._shown_at = self._first_at = time.monotonic()
        self._step = self._steps = self._first_step = 0
        self._examples = 0

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def begin_epoch(self, *, epoch: int, epochs: int, step: int, steps: int) -> None:
        """Start an epoch, counted from 1, at `step` of its `steps`."""
        if self._run is None:
            self._run = self._bars.add_task("run", total=epochs * steps)
        if self._epoch is not None:
            self._bars.remove_task(self._epoch)
        self._label = f"epoch {epoch}/{epochs}"
        self._epoch = self._bars.add_task(self._label, total=steps, completed=step)
        self._bars.update(self._run, completed=(epoch - 1) * steps + step)
        self._step, self._steps = step, steps
        self._first_at, self._first_step, self._examples = time.monotonic(), step, 0

    def due(self) -> bool:
        """Whether it is time to read numbers and show them."""
        pause = _REFRESH_SECONDS if self._live else _PLAIN_SECONDS
        return time.monotonic() - self._shown_at >= pause

    def advance(self, examples: int) -> None:
        """Count a step and the examples in it: images or words."""
        self._step += 1
        self._examples += examples
        if self._live and self._epoch is not None and self._run is not None:
            self._bars.advance(self._epoch)
            self._bars.advance(self._run)

    def show(self, numbers: str) -> None:
        """Show the numbers of the moment."""
        self._shown_at = time.monotonic()
        elapsed = self._shown_at - self._first_at
        steps = self._step - self._first_step
        rate = self._examples / elapsed if elapsed > 0 else 0.0
        line = f"{rate:,.1f} {self._unit}s/s  {numbers}"
        if self._live:
            self._bars.numbers = Text(line, overflow="ellipsis", no_wrap=True)
        else:
            left = (self._steps - self._step) * elapsed / steps if steps else 0.0
            self._print(
                f"{self._label}  step {self._step}/{self._steps}  {line}  "
                f"epoch ends in {format_seconds(left)}"
            )

    def say(self, text: str) -> None:
        """Print a message and note it in the log.

        Raises:
            WriteError: if the disk is full or the log cannot be written.
        """
        self._print(text)

    def _print(self, text: str) -> None:
        self.console.print(text, soft_wrap=True, markup=False, emoji=False)
        if self._log is not None:
            stamp = datetime.now().astimezone().isoformat(timespec="seconds")
            try:
                # Paths may hold bytes that are no text.
                with self._log.open("a", encoding="utf-8", errors="backslashreplace") as file:
                    file.writelines(f"{stamp}  {line}\n" for line in text.splitlines())
            except OSError as error:
                raise WriteError(f"{self._log}: cannot be written ({error.strerror})") from None


def format_seconds(seconds: float) -> str:
    """`1:02:03` for 3723 seconds."""
    return str(timedelta(seconds=round(seconds)))
