"""The epochs of a run as plain values, which plots and pages are made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darts_cli.genotype.types import Genotype
from darts_cli.run.signals import SearchSnapshot, warn
from darts_cli.space import SearchSpace


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    """The content of a run directory, without its checkpoints."""

    path: Path
    command: str
    """`search` or `train`."""
    space: SearchSpace
    settings: Mapping[str, Any]
    """Settings of `config.yaml`, notes included."""
    records: Sequence[Mapping[str, Any]]
    """Records of `metrics.jsonl`, one per epoch."""
    snapshots: Sequence[SearchSnapshot]
    """Snapshots of a search after each epoch; empty for a training."""
    genotype: Genotype | None
    """Genotype of the newest alphas, or the trained one; None before a search's first epoch."""

    @property
    def name(self) -> str:
        """Name of the directory."""
        return self.path.resolve().name

    @property
    def epochs(self) -> int:
        """Number of epochs that the run will have."""
        return int(self.settings["epochs"])

    def warnings(self) -> list[str]:
        """Return the warnings after the newest epoch; see `signals.warn`."""
        return warn(self.space, [snapshot.signals for snapshot in self.snapshots], self.epochs)
