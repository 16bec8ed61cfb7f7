"""Runs as the one JSON object that their page is made of."""

import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from darts_cli import __version__
from darts_cli.run.directory import Run
from darts_cli.run.history import History
from darts_cli.run.metrics import METRICS, format_metrics
from darts_cli.run.signals import Signals
from darts_cli.viz.page.cells import Pictures, plain_edges, plain_snapshot, spread
from darts_cli.viz.text import printable

# How the multiply-adds of a network are counted.
RULE = (
    "Multiply-adds of convolutions and linear layers for one example, batch 1, evaluation mode, "
    "without the auxiliary head."
)

# Columns and chart titles of the signals of a cell.
_SIGNALS = {
    "skip_connections": ("skips", "Skip connections of the derived cell"),
    "entropy": ("entropy", "Entropy of the alphas (1: undecided)"),
    "weakest_margin": ("weakest margin", "Weakest margin of a choice"),
}

# Bytes at the end of a log that are searched for its last time.
_SEEN = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkSize:
    """The size of a derived network."""

    parameters: int
    """Number of weights in evaluation, without an auxiliary head."""
    macs: int
    """Number of multiply-adds, as `RULE` counts them."""
    example: str
    """Kind and shape of an example, such as `image of 3 x 32 x 32`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunPage:
    """The run of a page, and the size of its network."""

    history: History
    size: NetworkSize | None = None
    """Size of the derived network; None if it is not known."""


def page_data(pages: Sequence[RunPage], folder: Path, snapshots: int, rows: int) -> dict[str, Any]:
    """Build the JSON object of a page.

    Args:
        pages: The runs of the page.
        folder: The folder of the page.
        snapshots: Largest number of epochs of a run with their cells and alphas.
        rows: Largest number of epochs of a run in curves; epochs beyond are thinned out evenly.
    """
    pictures = Pictures()
    labels = _labels([page.history.path for page in pages])
    runs = [
        {"name": label, **_plain_run(page, folder, snapshots, rows, pictures)}
        for page, label in zip(pages, labels, strict=True)
    ]
    settings = [run["settings"] for run in runs]
    return {
        "title": title(pages),
        "darts": __version__,
        "rule": RULE,
        "curves": _curves(),
        "runs": runs,
        **pictures.plain(),
        "differences": [
            key
            for key in dict.fromkeys(key for run in settings for key in run)
            if len({run.get(key) for run in settings}) > 1
        ],
    }


def _curves() -> list[dict[str, Any]]:
    """Return the charts over epochs: titles, and patterns of the columns that each draws.

    The group of a pattern is the split or the cell, which names the line.
    """
    drawn = [
        (f"{metric.title[0].upper()}{metric.title[1:]}", rf"^(.+) {name}$", metric.percent)
        for name, metric in METRICS.items()
        if metric.plotted
    ]
    signals = [(title, rf"^{name} (.+)$", False) for name, title in _SIGNALS.values()]
    return [
        {"title": title, "column": column, "percent": percent}
        for title, column, percent in [*drawn, ("Learning rate", "^(lr)$", False), *signals]
    ]


def title(pages: Sequence[RunPage]) -> str:
    """Return the title of the page."""
    history = pages[0].history
    if len(pages) > 1:
        return f"{len(pages)} runs of {history.space.name} compared"
    command = {"train": "training"}.get(history.command, history.command)
    return f"{printable(history.name)}: {command} of {history.space.name}"


def _labels(paths: Sequence[Path]) -> list[str]:
    """Return the shortest ends of the paths that are all different."""
    parts = [path.resolve().parts for path in paths]
    lengths = range(1, max(map(len, parts)) + 1)
    ends = (["/".join(part[-length:]) for part in parts] for length in lengths)
    return next(labels for labels in ends if len(set(labels)) == len(labels))


def _plain_run(
    page: RunPage, folder: Path, most_snapshots: int, most_rows: int, pictures: Pictures
) -> dict[str, Any]:
    history, space, genotype = page.history, page.history.space, page.history.genotype
    snapshots = spread(history.snapshots, most_snapshots)
    columns = _columns(history)
    epochs = sorted({epoch for column in columns.values() for epoch in column})
    rows = spread(epochs, most_rows)
    return {
        "command": history.command,
        "planned": history.epochs,
        "summary": _summary(history),
        "warnings": history.warnings(),
        "notes": [
            f"{what} {len(shown):,} of {len(all_):,} epochs, evenly spread, to keep the page small."
            for what, shown, all_ in (
                ("The slider has", snapshots, history.snapshots),
                ("Curves and their tables have", rows, epochs),
            )
            if len(shown) < len(all_)
        ],
        "size": page.size and asdict(page.size),
        "settings": _flatten(history.settings),
        "links": _links(Run(history.path), folder),
        "epochs": rows,
        "columns": {
            name: [column.get(epoch) for epoch in rows] for name, column in columns.items()
        },
        "primitives": space.primitives,
        "edges": plain_edges(space, snapshots[-1].genotype) if snapshots else [],
        "snapshots": [plain_snapshot(snapshot, space, pictures) for snapshot in snapshots],
        "cells": pictures.number_all(genotype, space) if genotype is not None else {},
    }


def _columns(history: History) -> dict[str, dict[int, float | None]]:
    """Collect every number of a run by name and epoch.

    The signals in the records are left out, since the snapshots have them.
    """
    names = {*Signals.__slots__, "step", "evaluated"}
    columns: dict[str, dict[int, float | None]] = {}

    def add(epoch: int, called: str, value: object) -> None:
        for part, number in (value if isinstance(value, Mapping) else {"": value}).items():
            columns.setdefault(f"{called} {part}".strip(), {})[epoch] = _number(number)

    for record in history.records:
        if type(epoch := record.get("epoch")) is int:
            for key in record:
                if key not in names:
                    add(epoch, key, record[key])
    for snapshot in history.snapshots:
        for field, (called, _) in _SIGNALS.items():
            add(snapshot.epoch, called, getattr(snapshot.signals, field))
        add(snapshot.epoch, "epochs unchanged", snapshot.signals.unchanged_epochs)
    return columns


def _number(value: object) -> float | None:
    """Round a number to six digits; return None if it is not finite, which JSON cannot hold."""
    # A bound instead of math.isfinite, since an integer may be too large for a float.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e300:
        return None
    return value if isinstance(value, int) else float(f"{value:.6g}")


def _summary(history: History) -> list[list[str]]:
    """Describe the task of a run, its progress and its results, as names and values."""
    settings, genotype = history.settings, history.genotype
    data = Path(str(_inner(settings, "data").get("name", "unknown data"))).name
    rows = {"Task": f"training of a genotype's network on {data}"}
    if history.command == "search":
        cells, order = history.space.cells, _inner(settings, "alphas").get("order")
        searched = f"{' and '.join(cells)} cell{'s' * (len(cells) > 1)}"
        order = f", {order} order" if order else ""
        rows["Task"] = f"search for the {searched} on {data}{order}"
    done = [r["epoch"] for r in history.records if type(r.get("epoch")) is int]
    done += [snapshot.epoch for snapshot in history.snapshots]
    rows["Epochs"] = f"{max(done, default=0):,} of {history.epochs:,}"
    rows |= _measures(history.records)
    if history.command == "train":
        rows |= _best(history.records)
    if genotype is not None:
        rows["Genotype"] = genotype.name
        rows |= _origin(genotype.origin, searched=history.command == "search")
    rows["Seed"] = str(settings.get("seed", "unknown"))
    rows |= _last_written(Run(history.path).log)
    if versions := _inner(settings, "versions"):
        rows["Versions"] = ", ".join(f"{name} {version}" for name, version in versions.items())
    return [[name, value] for name, value in rows.items()]


def _origin(origin: Mapping[str, Any], *, searched: bool) -> dict[str, str]:
    """Describe the origin of a genotype; if this run has searched it, only the date."""
    if searched:
        return {"Derived on": str(origin["date"])} if "date" in origin else {}
    shown = {key: value for key, value in origin.items() if key != "versions"}
    text = ", ".join(f"{key} {value}" for key, value in _flatten(shown).items())
    return {"Its origin": text} if text else {}


def _measures(records: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Describe the last metrics of each split."""
    return {
        f"Last {split}": _say(metrics)
        for record in records
        for split in record
        if split not in Signals.__slots__ and (metrics := _finite(record, split))
    }


def _best(records: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Describe the epoch of `best.safetensors`, which has the smallest validation loss."""
    found = [(record.get("epoch"), _finite(record, "valid")) for record in records]
    epoch, best = min(found, key=lambda pair: pair[1].get("loss", math.inf), default=(None, {}))
    return {"Best valid": f"{_say(best)} (epoch {epoch})"} if "loss" in best else {}


def _say(metrics: Mapping[str, float]) -> str:
    return format_metrics(metrics).replace("  ", ", ")


def _finite(record: Mapping[str, Any], split: str) -> dict[str, float]:
    numbers = ((name, _number(value)) for name, value in _inner(record, split).items())
    return {name: value for name, value in numbers if value is not None}


def _inner(mapping: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = mapping.get(key)
    return value if isinstance(value, Mapping) else {}


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return settings by dotted name, as they would be typed."""
    flat: dict[str, str] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{name}.")
        elif name == "data.name":
            # The folder is private to the machine of the run.
            flat[name] = Path(str(value)).name
        elif isinstance(value, list | tuple):
            flat[name] = ", ".join(map(str, value))
        else:
            plain = value is None or isinstance(value, bool)
            flat[name] = str(value).lower() if plain else str(value)
    return flat


def _links(run: Run, folder: Path) -> list[list[str]]:
    """Return the names of the run's files and their paths relative to the page's folder."""
    files = [run.config, run.metrics, run.genotype, run.log, run.last, run.best, run.previous]
    return [
        [file.name, quote(os.fsencode(os.path.relpath(file.resolve(), folder.resolve())))]
        for file in [*files, *sorted(run.path.glob("*-*.json"))]
        if file.is_file()
    ]


def _last_written(log: Path) -> dict[str, str]:
    """Describe the time of a log's last line."""
    if not log.is_file():
        return {}
    with log.open("rb") as file:
        file.seek(max(log.stat().st_size - _SEEN, 0))
        lines = file.read().decode(errors="replace").splitlines()
    for line in reversed(lines):
        with suppress(ValueError, IndexError):
            written = datetime.fromisoformat(line.split()[0])
            return {"Last written": written.isoformat(" ", "minutes")}
    return {}
