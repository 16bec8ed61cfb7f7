"""The numbers of the display: progress bars, metrics with sparklines, and the device."""

from collections.abc import Mapping, Sequence

from rich.cells import cell_len
from rich.console import OverflowMethod
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from darts_cli.run.metrics import METRICS
from darts_cli.terminal.console import format_seconds
from darts_cli.terminal.frame import FinishedEpochs, Frame
from darts_cli.terminal.progress import StageProgress

GAP = "  "

# Heights of a sparkline, from low to high.
_LEVELS, _ASCII_LEVELS = "▁▂▃▄▅▆▇█", "_.:-=+*#"

# Epochs of a sparkline, at least and at most.
_FEWEST, _MOST = 6, 20

_SHORTEST_BAR = 8

# Columns of a bar's parts at least, so that they do not move when the numbers grow.
_LABEL = 11
_LEAST = {"left": 12, "count": 9, "note": 17}


def bars(run: StageProgress, stage: StageProgress, width: int) -> Table:
    """Return the progress bars of the run and of its stage, each with its label and numbers.

    On a narrow terminal, the time so far and the rate are left out first, then the counts.

    Args:
        run: Progress of the run.
        stage: Progress of its epoch or evaluation.
        width: Columns of the terminal.
    """
    both = (run, stage)
    labels = [one.label.ljust(_LABEL) for one in both]
    texts = {
        "left": [
            f"{format_seconds(one.left)} left" if one.left is not None else "" for one in both
        ],
        "count": [f"{one.step:,}/{one.steps:,}" for one in both],
        "note": [f"for {format_seconds(run.elapsed)}", stage.rate],
    }
    aligned = {name: [text.rjust(_LEAST[name]) for text in texts[name]] for name in texts}
    room = width - widest(labels) - len(GAP) - _SHORTEST_BAR
    columns = fitting(aligned, room, least=0)
    table = Table.grid(padding=(0, len(GAP), 0, 0), expand=True)
    # Widths are given, since measuring the cells would take rich as long as rendering them.
    table.add_column(width=widest(labels), no_wrap=True, overflow="crop", style="bold")
    table.add_column(ratio=1)
    shown = [columns[name] for name in ("count", "note", "left") if name in columns]
    for numbers in shown:
        table.add_column(width=widest(numbers), no_wrap=True, overflow="crop", justify="right")
    for label, one, *numbers in zip(labels, both, *shown, strict=True):
        # Of no steps at all, rich would show all as done.
        done = ProgressBar(one.steps or 1, one.step, complete_style="green")
        table.add_row(Text(label), done, *map(Text, numbers))
    return table


def fitting(
    columns: Mapping[str, Sequence[str]], width: int, *, least: int = 1
) -> dict[str, Sequence[str]]:
    """Return the first columns that fit in `width` with a gap before each, `least` at least."""
    kept = dict(columns)
    while len(kept) > least and _total_width(kept) > width:
        kept.popitem()
    return kept


def _total_width(columns: Mapping[str, Sequence[str]]) -> int:
    return sum(len(GAP) + widest(texts) for texts in columns.values())


def widest(texts: Sequence[str]) -> int:
    """Return the columns that the widest of some texts takes."""
    return max(map(cell_len, texts), default=0)


def metrics(
    finished: FinishedEpochs, current: Mapping[str, float], width: int, *, ascii_only: bool = False
) -> list[Text]:
    """Return one line per split: its metrics, with sparklines of the last epochs where they fit.

    Training metrics are those of the current epoch so far, others those of the newest epoch.

    Args:
        finished: Finished epochs.
        current: Training metrics of the current epoch so far; empty before the first ones.
        width: Columns of the terminal.
        ascii_only: Whether the terminal's encoding lacks the characters of sparklines.
    """
    values = {split: finished.newest(split) for split in finished.splits}
    if current:
        values["train"] = dict(current)
    texts = {
        name: [f"{name} {metric.format(of[name])}" if name in of else "" for of in values.values()]
        for name, metric in METRICS.items()
        if metric.live
    }
    label = widest(finished.splits)
    columns = fitting({name: both for name, both in texts.items() if any(both)}, width - label)
    sparks = _spark_widths(columns, width - label)
    lines = []
    for row, split in enumerate(finished.splits):
        line = Text.assemble((split.ljust(label), "bold"))
        if not values[split] and split != "train":
            line.append(GAP).append("after the epoch", style="dim")
        for name, both in columns.items() if values[split] else ():
            line.append(GAP + both[row].ljust(widest(both)))
            if name in sparks:
                spark = sparkline(finished.series(split, name, sparks[name]), ascii_only=ascii_only)
                line.append(" ").append(spark.ljust(sparks[name]), style="cyan")
        line.rstrip()
        lines.append(line)
    return lines


def _spark_widths(columns: Mapping[str, Sequence[str]], width: int) -> dict[str, int]:
    """Return the width of the sparkline of each metric that has one: of all, or of the loss."""
    free = width - _total_width(columns)
    for names in ([*columns], [*columns][:1]):
        # A space before each.
        each = free // len(names) - 1 if names else 0
        if each >= _FEWEST:
            return dict.fromkeys(names, min(each, _MOST))
    return {}


def sparkline(values: Sequence[float | None], *, ascii_only: bool = False) -> str:
    """Return one character per value, from the lowest to the highest; a space for None."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    levels = _ASCII_LEVELS if ascii_only else _LEVELS
    low, high = min(known), max(known)
    scale = (len(levels) - 1) / (high - low) if high > low else 0.0
    return "".join(
        " " if value is None else levels[round((value - low) * scale)] for value in values
    )


def device(frame: Frame, width: int, overflow: OverflowMethod) -> Text:
    """Return the line of learning rate and device; the device's name is shortened to fit."""
    name, *status = frame.device or ("",)
    lr = f"lr {frame.lr:.4g}" if frame.lr is not None else ""
    room = width - sum(len(GAP) + cell_len(part) for part in (lr, *status) if part)
    shortened = Text(name if room > 1 else "")
    shortened.truncate(max(0, room), overflow=overflow)
    return Text(GAP.join(part for part in (lr, shortened.plain, *status) if part))
