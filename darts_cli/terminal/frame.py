"""The content of the live display, and the finished epochs that a part of it is about."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from darts_cli.run.signals import SearchSnapshot, Signals, warn
from darts_cli.space import SearchSpace
from darts_cli.terminal.progress import StageProgress


@dataclass(frozen=True, kw_only=True, slots=True)
class FinishedEpochs:
    """The epochs of a run that have ended."""

    space: SearchSpace
    epochs: int
    """Number of epochs that the run will have."""
    splits: tuple[str, ...] = ("train",)
    """Splits with metrics: the training data, and what is evaluated after an epoch."""
    records: Sequence[Mapping[str, Any]] = ()
    """Records of `metrics.jsonl`."""
    snapshot: SearchSnapshot | None = None
    """Snapshot of a search after the newest epoch."""
    before: SearchSnapshot | None = None
    """Snapshot of a search after the epoch before that."""

    def warnings(self) -> list[str]:
        """Return the warnings after the newest epoch of a search; see `signals.warn`."""
        signals = [Signals.from_record(record, self.space) for record in self.records]
        return warn(self.space, [one for one in signals if one is not None], self.epochs)

    def series(self, split: str, name: str, last: int) -> list[float | None]:
        """Return a metric of the `last` epochs; None where an epoch has none."""
        return [finite_metrics(record, split).get(name) for record in self.records[-last:]]

    def newest(self, split: str) -> dict[str, float]:
        """Return the metrics of a split in the newest epoch; empty before there is one."""
        return finite_metrics(self.records[-1], split) if self.records else {}


@dataclass(kw_only=True, slots=True)
class Frame:
    """The content of the display; the reporter updates it, and the display draws it."""

    finished: FinishedEpochs | None = None
    """Finished epochs; None before the run begins."""
    run: StageProgress | None = None
    """Progress of the run; None before it begins."""
    stage: StageProgress | None = None
    """Progress of the epoch, or of its evaluation."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Training metrics of the current epoch so far; empty before the first ones."""
    lr: float | None = None
    device: Sequence[str] = ()
    """Name of the device, then its memory and utilization where they are known."""
    warnings: Sequence[str] = ()


def finite_metrics(record: Mapping[str, Any], split: str) -> dict[str, float]:
    """Return the finite metrics of a split in a record of `metrics.jsonl`, even a damaged one."""
    found = record.get(split)
    if not isinstance(found, Mapping):
        return {}
    return {
        name: float(value)
        for name, value in found.items()
        # A bound and not isfinite, which overflows on very large integers.
        if isinstance(value, int | float) and abs(value) < 1e300
    }
