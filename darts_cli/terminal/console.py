"""The rich console, the table of a plan, a progress bar, and the format of times.

Messages and progress go to standard error, since standard output is for results.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TextIO, cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from darts_cli.terminal.stdio import BestEffortStderr


def error_console() -> Console:
    """Return a console on the present standard error; what cannot be written is dropped."""
    # A process may be started without one.
    stream = BestEffortStderr(sys.stderr) if sys.stderr is not None else None
    return Console(file=cast("TextIO | None", stream), stderr=True, highlight=False, emoji=False)


def plan_table(title: str, rows: Mapping[str, str]) -> Table:
    """Return the plan of a command as a table of names and values."""
    # Text and not strings, in which brackets and colons of a path would be markup.
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


def redraws(console: Console) -> bool:
    """Return whether lines on the console can be drawn over: not in a file or on a dumb terminal.

    Two consoles pretend that they can: a notebook runs `!darts` on a terminal, but its page shows
    characters alone; and FORCE_COLOR asks for colours in a file.
    """
    file_of_colours = "FORCE_COLOR" in os.environ and not console.file.isatty()
    notebook = "JPY_PARENT_PID" in os.environ
    return console.is_interactive and not (console.quiet or file_of_colours or notebook)


@contextmanager
def bar(console: Console, label: str, steps: int) -> Iterator[Callable[[], None]]:
    """Show a progress bar inside the block if the terminal can redraw.

    Args:
        console: Console of standard error.
        label: Name of what is done.
        steps: Steps in all.

    Yields:
        A function that counts a step.
    """
    columns = TextColumn("{task.description}"), BarColumn(bar_width=None), MofNCompleteColumn()
    left = TextColumn("left"), TimeRemainingColumn()
    with Progress(
        *columns, *left, console=console, transient=True, expand=True, disable=not redraws(console)
    ) as progress:
        task = progress.add_task(label, total=steps)
        yield lambda: progress.advance(task)


def format_seconds(seconds: float) -> str:
    """Format a time: `1:02:03` for 3723 seconds."""
    return str(timedelta(seconds=round(seconds)))
