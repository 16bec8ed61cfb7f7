"""The one rich console, the table of a plan, a bar, and how numbers are written.

Messages and progress go to standard error: standard output is for results.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TextIO, cast

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from darts_cli.terminal.stdio import BestEffortStderr

_FORMATS: dict[str, Callable[[float], str]] = {
    "top1": lambda share: f"{100 * share:.2f} %",
    "top5": lambda share: f"{100 * share:.2f} %",
    "perplexity": "{:.2f}".format,
}
"""How measures are shown that do not have four digits after the point."""


def error_console() -> Console:
    """The console on standard error, as it is at this moment; it shows what can be shown."""
    # None: a process may be started without one.
    stream = cast(TextIO, BestEffortStderr(sys.stderr)) if sys.stderr is not None else None
    return Console(file=stream, stderr=True, highlight=False, emoji=False)


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


def format_metrics(metrics: Mapping[str, float]) -> str:
    """`loss 1.2340  top1 56.70 %` for `{"loss": 1.234, "top1": 0.567}`."""
    return "  ".join(f"{name} {format_metric(name, value)}" for name, value in metrics.items())


def format_metric(name: str, value: float) -> str:
    """A measure with the digits that one reads."""
    return _FORMATS.get(name, "{:.4f}".format)(value)


def redraws(console: Console) -> bool:
    """Whether lines can be drawn over: not in a file, nor on a dumb terminal.

    A notebook's `!darts` is given a terminal, of which its page shows the letters alone, and
    FORCE_COLOR asks for colours in a file.
    """
    file_of_colours = "FORCE_COLOR" in os.environ and not console.file.isatty()
    notebook = "JPY_PARENT_PID" in os.environ
    return console.is_interactive and not (console.quiet or file_of_colours or notebook)


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
        disable=not redraws(console),
    ) as progress:
        module = progress.add_task(label, total=steps)
        yield lambda: progress.advance(module)


def format_seconds(seconds: float) -> str:
    """`1:02:03` for 3723 seconds."""
    return str(timedelta(seconds=round(seconds)))
