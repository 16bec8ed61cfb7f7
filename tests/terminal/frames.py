"""Searches and trainings to draw, and their frames as text, without a run."""

import io
import math
import random
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.segment import Segment

from darts_cli.run.signals import SearchSnapshot, take_snapshot
from darts_cli.space import SearchSpace
from darts_cli.spaces import SPACES
from darts_cli.terminal.frame import FinishedEpochs, Frame
from darts_cli.terminal.layout import draw, uncoloured
from darts_cli.terminal.progress import StageProgress

EPOCHS = 50
DEVICE = ("NVIDIA H100 80GB HBM3", "12.3 of 79.1 GiB", "98 % busy")

# Without colours, the rest of a bar is empty.
CONSOLE = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=200)

KINDS = ("search cnn", "search rnn", "train cnn", "train rnn")


def make_snapshots(space: SearchSpace, epochs: int, *, skips: float = 0.0) -> list[SearchSnapshot]:
    """Epochs of alphas that drift, to skip connections by `skips` an epoch."""
    draws = random.Random(0)  # noqa: S311
    alphas = {
        cell: [[draws.gauss(0, 0.3) for _ in space.primitives] for _ in space.edges]
        for cell in space.cells
    }
    snapshots: list[SearchSnapshot] = []
    for epoch in range(1, epochs + 1):
        for row in (row for rows in alphas.values() for row in rows):
            row[:] = [alpha + draws.gauss(0, 0.06) for alpha in row]
            row[space.primitives.index(space.skip)] += skips
        rows = {cell: [list(row) for row in alphas[cell]] for cell in space.cells}
        before = snapshots[-1] if snapshots else None
        snapshots.append(take_snapshot(space, rows, epoch=epoch, name="it", before=before))
    return snapshots


def make_measures(kind: str, epoch: int, offset: float = 0.0) -> dict[str, float]:
    loss = 2.3 * 0.95**epoch + offset
    if kind.endswith("rnn"):
        return {"loss": loss, "perplexity": math.exp(loss), "bits_per_word": loss / math.log(2)}
    top5 = {} if kind.startswith("search") else {"top5": 1 - loss / 9}
    return {"loss": loss, "top1": 1 - loss / 3, **top5}


def make_finished(kind: str, *, done: int = 31, skips: float = 0.0) -> FinishedEpochs:
    """So many epochs of a search or training."""
    space = SPACES[kind.split()[1]]
    search = kind.startswith("search")
    other = "valid" if search else "test"
    snapshots = make_snapshots(space, done, skips=skips) if search else []
    records: list[dict[str, Any]] = [
        {
            "epoch": epoch,
            "train": make_measures(kind, epoch),
            other: make_measures(kind, epoch, 0.2),
            **(asdict(snapshots[epoch - 1].signals) if search else {}),
        }
        for epoch in range(1, done + 1)
    ]
    return FinishedEpochs(
        space=space,
        epochs=EPOCHS,
        splits=("train", other),
        records=records,
        snapshot=snapshots[-1] if snapshots else None,
        before=snapshots[-2] if len(snapshots) > 1 else None,
    )


class FixedProgress(StageProgress):
    """Progress whose time stands still."""

    def __init__(
        self,
        label: str,
        step: int,
        steps: int,
        *,
        rate: str = "",
        elapsed: float = 0.0,
        left: float | None = None,
    ) -> None:
        super().__init__(label, "steps", step=step, steps=steps)
        self._fixed = elapsed, rate, left

    @property
    def elapsed(self) -> float:
        return self._fixed[0]

    @property
    def rate(self) -> str:
        return self._fixed[1]

    @property
    def left(self) -> float | None:
        return self._fixed[2]


def plain(lines: Sequence[Sequence[Segment]]) -> list[str]:
    """The texts of rendered lines."""
    return ["".join(segment.text for segment in line).rstrip() for line in lines]


def draw_plain(frame: Frame, width: int, height: int, console: Console = CONSOLE) -> list[str]:
    return plain(draw(frame, console, uncoloured, width, height))


def make_frame(
    kind: str, *, done: int = 31, skips: float = 0.0, warnings: Sequence[str] | None = None
) -> Frame:
    """A run in the epoch after those, as busy as it can be."""
    finished = make_finished(kind, done=done, skips=skips)
    return Frame(
        run=FixedProgress("run", 12_301, 19_500, elapsed=18_123, left=11_000.0),
        stage=FixedProgress(
            f"epoch {done + 1}/{EPOCHS}", 212, 390, rate="12,345.6 images/s", left=131.0
        ),
        finished=finished,
        metrics=make_measures(kind, done + 1),
        lr=0.012345,
        device=DEVICE,
        warnings=finished.warnings() if warnings is None else warnings,
    )
