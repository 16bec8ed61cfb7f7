"""A run from its first epoch to its newest as plain values, which pictures are made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darts_cli.genotype.types import Genotype
from darts_cli.run.signals import SearchSnapshot, warn
from darts_cli.space import SearchSpace


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    """What the directory of a search or training tells, without its checkpoints."""

    path: Path
    command: str
    """`search` or `train`."""
    space: SearchSpace
    settings: Mapping[str, Any]
    """All of `config.yaml`, notes included."""
    records: Sequence[Mapping[str, Any]]
    """The lines of `metrics.jsonl`, one an epoch."""
    snapshots: Sequence[SearchSnapshot]
    """A search after each of its epochs; empty for a training."""
    genotype: Genotype | None
    """Of the newest alphas, or the one that is trained; None before a search's first epoch."""

    @property
    def name(self) -> str:
        """The directory's."""
        return self.path.resolve().name

    @property
    def epochs(self) -> int:
        """How many the run is to have."""
        return int(self.settings["epochs"])

    def warnings(self) -> list[str]:
        """What looks bad after the newest epoch: see `collapse.warn`."""
        return warn(self.space, [snapshot.signals for snapshot in self.snapshots], self.epochs)
