"""The lines of numbers: bars, measures with their sparklines, the device."""

from collections.abc import Mapping, Sequence

from rich.cells import cell_len
from rich.text import Text

from darts_cli.terminal.console import format_metric, format_seconds
from darts_cli.terminal.picture import UNICODE, Bar, Glyphs, Picture

SHOWN = ("loss", "perplexity", "top1", "top5")
"""The measures that have a place here; all of them are in `metrics.jsonl`."""

GAP = "  "

_FEWEST, _MOST = 6, 20
"""Epochs that a sparkline shows."""

_SHORTEST_BAR = 8

_LABEL, _COUNT, _LEFT, _NOTE = 11, 9, 12, 17
"""Columns of a bar's parts at the least, so that they stay where they are when numbers grow."""


def bars(those: Sequence[Bar], width: int, glyphs: Glyphs) -> list[Text]:
    """A line a bar, with its label, count, note and time left.

    Where it is narrow, the note is left out first, then the count.
    """
    lefts = [f"{format_seconds(bar.left)} left" if bar.left is not None else "" for bar in those]
    columns = {
        "left": _column(lefts, _LEFT),
        "count": _column([f"{bar.done:,}/{bar.total:,}" for bar in those], _COUNT),
        "note": _column([bar.note for bar in those], _NOTE),
    }
    label = 1 + _widest([bar.label for bar in those], _LABEL)
    while columns and _room(width - label, columns) < _SHORTEST_BAR:
        columns.popitem()
    room = _room(width - label, columns)
    lines = []
    for number, bar in enumerate(those):
        share = bar.done / bar.total if bar.total else 0.0
        line = Text.assemble((bar.label.ljust(label), "bold"), _filled(share, room, glyphs))
        for name in ("count", "note", "left"):
            if name in columns:
                line.append(GAP + columns[name][number])
        lines.append(line)
    return lines


def _column(texts: Sequence[str], least: int) -> list[str]:
    width = _widest(texts, least)
    return [text.rjust(width) for text in texts]


def _widest(texts: Sequence[str], least: int = 0) -> int:
    return max([least, *map(cell_len, texts)])


def _room(width: int, columns: Mapping[str, Sequence[str]]) -> int:
    return max(0, width - sum(len(GAP) + _widest(column) for column in columns.values()))


def _filled(share: float, width: int, glyphs: Glyphs) -> Text:
    halves = int(2 * width * min(max(share, 0.0), 1.0))
    done = glyphs.full * (halves // 2) + (glyphs.half if halves % 2 else "")
    return Text.assemble((done, "green"), (glyphs.rest * (width - len(done)), "dim"))


def metrics(picture: Picture, width: int, glyphs: Glyphs) -> list[Text]:
    """A line a split: its measures, each with a sparkline of the last epochs where it fits.

    Of the training data they are those of the epoch so far, of others those of the newest epoch.
    """
    past = picture.past
    values = {split: past.newest(split) for split in past.splits}
    if picture.metrics:
        values["train"] = dict(picture.metrics)
    cells = {
        name: [
            f"{name} {format_metric(name, of[name])}" if name in of else ""
            for of in values.values()
        ]
        for name in SHOWN
        if any(name in of for of in values.values())
    }
    label = _widest(past.splits)
    names, sparks = _fit(cells, width - label)
    lines = []
    for row, split in enumerate(past.splits):
        line = Text.assemble((split.ljust(label), "bold"))
        for name in names:
            line.append(GAP + cells[name][row].ljust(_widest(cells[name])))
            if name in sparks:
                spark = sparkline(past.series(split, name, sparks[name]), glyphs)
                line.append(" ").append(spark.ljust(sparks[name]), style="cyan")
        if not values[split]:
            later = "" if split == "train" else "after the epoch"
            line = Text.assemble((split.ljust(label), "bold"), GAP, (later, "dim"))
        line.rstrip()
        lines.append(line)
    return lines


def _fit(cells: Mapping[str, Sequence[str]], width: int) -> tuple[list[str], dict[str, int]]:
    """The measures that fit in a line, and how wide the sparklines of some of them are."""
    names = list(cells)

    def free() -> int:
        return width - sum(len(GAP) + _widest(cells[name]) for name in names)

    while len(names) > 1 and free() < 0:
        names.pop()
    # Of all of them, or of the loss alone.
    for some in (names, names[:1]):
        each = free() // len(some) - 1 if some else 0
        if each >= _FEWEST:
            return names, dict.fromkeys(some, min(each, _MOST))
    return names, {}


def sparkline(values: Sequence[float | None], glyphs: Glyphs = UNICODE) -> str:
    """A letter a value, from the lowest to the highest of them; a gap where there is none."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    low, high = min(known), max(known)
    scale = (len(glyphs.levels) - 1) / (high - low) if high > low else 0.0
    return "".join(
        " " if value is None else glyphs.levels[round((value - low) * scale)] for value in values
    )


def device(picture: Picture, width: int, glyphs: Glyphs) -> Text:
    """Learning rate and device; where it is narrow, the device's name is cut short."""
    name, *info = picture.device or ("",)
    lr = f"lr {picture.lr:.4g}" if picture.lr is not None else ""
    others = [lr, *info]
    room = width - sum(len(GAP) + cell_len(part) for part in others if part)
    parts = (lr, shortened(Text(name), room, glyphs).plain, *info)
    return Text(GAP.join(part for part in parts if part))


def shortened(line: Text, width: int, glyphs: Glyphs) -> Text:
    """The same line, ending in an ellipsis where it is wider."""
    if line.cell_len > width:
        mark = glyphs.ellipsis if width > len(glyphs.ellipsis) else ""
        line.truncate(max(0, width - len(mark)))
        line.append(mark)
    return line
