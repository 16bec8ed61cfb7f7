"""What a run looks like at one moment, as plain values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from darts_cli.run.signals import SearchSnapshot, Signals, warn
from darts_cli.space import SearchSpace


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """How far something is."""

    label: str
    done: int
    total: int
    note: str = ""
    """A rate, or the time so far."""
    left: float | None = None
    """Seconds; None where nobody can tell yet."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Past:
    """The epochs of a run that are done."""

    space: SearchSpace
    epochs: int
    """How many the run is to have."""
    splits: tuple[str, ...] = ("train",)
    """What is measured: the training data, and what is evaluated after an epoch."""
    records: Sequence[Mapping[str, Any]] = ()
    """The lines of `metrics.jsonl`."""
    snapshot: SearchSnapshot | None = None
    """A search after the newest of them."""
    before: SearchSnapshot | None = None
    """And after the one before that."""

    def warnings(self) -> list[str]:
        """What looks bad after the newest epoch of a search: see `collapse.warn`."""
        signals = [Signals.from_record(record, self.space) for record in self.records]
        return warn(self.space, [one for one in signals if one is not None], self.epochs)

    def series(self, split: str, name: str, last: int) -> list[float | None]:
        """A measure in each of the `last` epochs; None where there is none."""
        return [metrics(record, split).get(name) for record in self.records[-last:]]

    def newest(self, split: str) -> dict[str, float]:
        """What the newest epoch measured of a split; empty before there was one."""
        return metrics(self.records[-1], split) if self.records else {}


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """All that is shown at one moment."""

    bars: tuple[Bar, ...]
    past: Past
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Of the training data in this epoch so far; empty before the first numbers of it."""
    lr: float | None = None
    device: Sequence[str] = ()
    """Its name, then its memory and how busy it is, where that is known."""
    warnings: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Glyphs:
    """What lines are drawn with."""

    full: str
    half: str
    """Half of `full`; empty where there is no such letter."""
    rest: str
    levels: str
    """Of a sparkline, from low to high."""
    ellipsis: str


UNICODE = Glyphs(full="━", half="╸", rest="─", levels="▁▂▃▄▅▆▇█", ellipsis="…")
ASCII = Glyphs(full="#", half="", rest="-", levels="_.:-=+*#", ellipsis="...")
"""For a terminal whose encoding has no others."""


def metrics(record: Mapping[str, Any], split: str) -> dict[str, float]:
    """The finite measures of a split in a line of `metrics.jsonl`, whoever wrote it."""
    found = record.get(split)
    if not isinstance(found, Mapping):
        return {}
    return {
        name: float(value)
        for name, value in found.items()
        # By a bound: an integer may be too large to be asked whether it is finite.
        if isinstance(value, int | float) and abs(value) < 1e300
    }
