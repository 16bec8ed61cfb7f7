"""Runs as the one JSON object that their page is made of."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from darts_cli import __version__
from darts_cli.run.directory import Run
from darts_cli.run.history import History
from darts_cli.run.signals import Signals
from darts_cli.terminal.console import format_metrics
from darts_cli.viz.page.cells import Pictures, plain_edges, plain_snapshot, spread

RULE = (
    "Multiply-adds of convolutions and linear layers for one example, batch 1, evaluation mode, "
    "without the auxiliary head."
)
"""How the multiply-adds of a network are counted."""

_SIGNALS = {
    "skip_connections": "skips",
    "entropy": "entropy",
    "weakest_margin": "weakest margin",
}
"""What a page calls the signals of a cell."""

_SEEN = 4096
"""Bytes of the end of a log in which its last time is looked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkSize:
    """The size of a derived network."""

    parameters: int
    """Weights in evaluation, without an auxiliary head."""
    macs: int
    """Multiply-adds, as `RULE` counts them."""
    example: str
    """What one example is, such as `image of 3 x 32 x 32`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunPage:
    """What a page tells of a run."""

    history: History
    size: NetworkSize | None = None
    """Of the derived network; None where it is not known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """How much a page shows of each run; more is thinned out evenly."""

    snapshots: int
    """Epochs with their cells and alphas."""
    rows: int
    """Epochs in curves."""


def page_data(pages: Sequence[RunPage], folder: Path, limits: Limits) -> dict[str, Any]:
    """The JSON object of a page that lies in `folder`."""
    pictures = Pictures()
    labels = _labels([page.history.path for page in pages])
    runs = [
        _plain_run(page, label, folder, limits, pictures)
        for page, label in zip(pages, labels, strict=True)
    ]
    return {
        "title": title(pages),
        "darts": __version__,
        "rule": RULE,
        "runs": runs,
        "operations": pictures.operations,
        "layouts": pictures.layouts,
        "differences": _differences([run["settings"] for run in runs]),
    }


def title(pages: Sequence[RunPage]) -> str:
    """What the page is about."""
    history = pages[0].history
    if len(pages) > 1:
        return f"{len(pages)} runs of {history.space.name} compared"
    # A name of bytes that are no text cannot be written as it is.
    name = "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in history.name
    )
    command = {"train": "training"}.get(history.command, history.command)
    return f"{name}: {command} of {history.space.name}"


def _labels(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart."""
    parts = [path.resolve().parts for path in paths]
    for length in range(1, max(map(len, parts)) + 1):
        labels = ["/".join(part[-length:]) for part in parts]
        if len(set(labels)) == len(labels):
            return labels
    return [str(path) for path in paths]


def _plain_run(
    page: RunPage, label: str, folder: Path, limits: Limits, pictures: Pictures
) -> dict[str, Any]:
    history, space = page.history, page.history.space
    genotype, size = history.genotype, page.size
    snapshots = spread(history.snapshots, limits.snapshots)
    columns = _columns(history)
    epochs = sorted({epoch for column in columns.values() for epoch in column})
    rows = spread(epochs, limits.rows)
    return {
        "name": label,
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
        "size": size
        and {"parameters": size.parameters, "macs": size.macs, "example": size.example},
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
    """By name and epoch, every number that a run tells after its epochs.

    What a line of metrics says of the alphas is left out: it is seen on them.
    """
    names = {*Signals.__slots__, "step", "evaluated"}
    columns: dict[str, dict[int, float | None]] = {}
    for record in history.records:
        epoch = record.get("epoch")
        if type(epoch) is not int:
            continue
        for key, value in record.items():
            values = value if isinstance(value, Mapping) else {"": value}
            for measure, number in values.items() if key not in names else ():
                columns.setdefault(f"{key} {measure}".strip(), {})[epoch] = _number(number)
    for snapshot in history.snapshots:
        for field, called in _SIGNALS.items():
            for cell, number in getattr(snapshot.signals, field).items():
                columns.setdefault(f"{called} {cell}", {})[snapshot.epoch] = _number(number)
        unchanged = snapshot.signals.unchanged_epochs
        columns.setdefault("epochs unchanged", {})[snapshot.epoch] = unchanged
    return columns


def _number(value: object) -> float | None:
    """Six digits of a number; None of what is no finite one, which JSON cannot hold."""
    # Whole numbers may be too large to become floats.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e300:
        return None
    return value if isinstance(value, int) else float(f"{value:.6g}")


def _summary(history: History) -> list[list[str]]:
    """What was done, how far it is and how well it went, in words."""
    settings, genotype = history.settings, history.genotype
    data = Path(str(_inner(settings, "data").get("name", "unknown data"))).name
    rows = {}
    if history.command == "search":
        cells = " and ".join(history.space.cells)
        order = _inner(settings, "alphas").get("order")
        rows["Task"] = f"search for the {cells} cell{'s' if ' and ' in cells else ''} on {data}" + (
            f", {order} order" if order else ""
        )
    else:
        rows["Task"] = f"training of a genotype's network on {data}"
    done = max((r["epoch"] for r in history.records if type(r.get("epoch")) is int), default=0)
    done = max([done, *(snapshot.epoch for snapshot in history.snapshots)])
    rows["Epochs"] = f"{done:,} of {history.epochs:,}"
    rows |= _measures(history.records)
    if history.command == "train":
        rows |= _best(history.records)
    if genotype is not None:
        rows["Genotype"] = genotype.name
        rows |= _origin(genotype.origin, searched=history.command == "search")
    rows["Seed"] = str(settings.get("seed", "unknown"))
    if (written := _last_time(Run(history.path).log)) is not None:
        rows["Last written"] = written.isoformat(" ", "minutes")
    if versions := _inner(settings, "versions"):
        rows["Versions"] = ", ".join(f"{name} {version}" for name, version in versions.items())
    return [[name, value] for name, value in rows.items()]


def _origin(origin: Mapping[str, Any], *, searched: bool) -> dict[str, str]:
    """Where a genotype comes from; of one that this run has searched, when it was derived."""
    if searched:
        return {"Derived on": str(origin["date"])} if "date" in origin else {}
    told = {key: value for key, value in origin.items() if key != "versions"}
    text = ", ".join(f"{key} {value}" for key, value in _flatten(told).items())
    return {"Its origin": text} if text else {}


def _measures(records: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The last of each split."""
    rows: dict[str, str] = {}
    splits = dict.fromkeys(
        key
        for record in records
        for key, value in record.items()
        if isinstance(value, Mapping) and key not in Signals.__slots__
    )
    for split in splits:
        told = [metrics for record in records if (metrics := _finite(_inner(record, split)))]
        if told:
            rows[f"Last {split}"] = _say(told[-1])
    return rows


def _best(records: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The epoch of `best.safetensors`: that of the smallest validation loss."""
    told = [(record.get("epoch"), _finite(_inner(record, "valid"))) for record in records]
    told = [(epoch, metrics) for epoch, metrics in told if "loss" in metrics]
    if not told:
        return {}
    epoch, metrics = min(told, key=lambda pair: pair[1]["loss"])
    return {"Best valid": f"{_say(metrics)} (epoch {epoch})"}


def _say(metrics: Mapping[str, float]) -> str:
    return format_metrics(metrics).replace("  ", ", ")


def _finite(metrics: Mapping[str, Any]) -> dict[str, float]:
    numbers = ((name, _number(value)) for name, value in metrics.items())
    return {name: value for name, value in numbers if value is not None}


def _inner(mapping: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = mapping.get(key)
    return value if isinstance(value, Mapping) else {}


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Settings by dotted name, as they would be typed."""
    flat: dict[str, str] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{name}.")
        elif name == "data.name":
            # Where it lies on one machine is nobody else's business.
            flat[name] = Path(str(value)).name
        elif isinstance(value, list | tuple):
            flat[name] = ", ".join(map(str, value))
        elif value is None or isinstance(value, bool):
            flat[name] = {None: "none", True: "true", False: "false"}[value]
        else:
            flat[name] = str(value)
    return flat


def _differences(settings: Sequence[Mapping[str, str]]) -> list[str]:
    """The names of settings that the runs have not in common."""
    keys = dict.fromkeys(key for run in settings for key in run)
    return [key for key in keys if len({run.get(key) for run in settings}) > 1]


def _links(run: Run, folder: Path) -> list[list[str]]:
    """The names of the run's files, and the way to each from the page's folder."""
    files = [run.config, run.metrics, run.genotype, run.log, run.last, run.best, run.previous]
    files += sorted(run.path.glob("*-*.json"))
    return [
        [file.name, quote(os.fsencode(os.path.relpath(file.resolve(), folder.resolve())))]
        for file in files
        if file.is_file()
    ]


def _last_time(log: Path) -> datetime | None:
    """The time of a log's last line; None where there is none."""
    if not log.is_file():
        return None
    with log.open("rb") as file:
        file.seek(max(log.stat().st_size - _SEEN, 0))
        lines = file.read().decode(errors="replace").splitlines()
    for line in reversed(lines):
        try:
            return datetime.fromisoformat(line.split()[0])
        except (ValueError, IndexError):
            continue
    return None
