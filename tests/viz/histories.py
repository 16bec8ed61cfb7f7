"""Made-up histories of searches, built from alphas."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from darts_cli.genotype.types import Alphas
from darts_cli.run.history import History
from darts_cli.run.signals import SearchSnapshot, take_snapshot
from darts_cli.space import SearchSpace
from darts_cli.spaces import SPACES

CNN, RNN = SPACES["cnn"], SPACES["rnn"]
# Three edges: 0 to 1, 0 to 2, 1 to 2.
SMALL = SearchSpace(
    name="small",
    cells=("cell",),
    inputs=1,
    nodes=2,
    edges_per_node=1,
    primitives=("none", "conv", "skip_connect"),
)
FIVE = SearchSpace(
    name="five",
    cells=("top", "middle", "bottom"),
    inputs=2,
    nodes=2,
    edges_per_node=2,
    primitives=("none", "conv", "skip_connect", "pool", "other"),
)

Rows = Sequence[Sequence[float]]


def search(
    space: SearchSpace, alphas: Sequence[Alphas], *, epochs: int | None = None, **changes: Any
) -> History:
    """Build a search with these alphas after its epochs, which is planned for `epochs` epochs."""
    snapshots: list[SearchSnapshot] = []
    for epoch, one in enumerate(alphas, start=1):
        before = snapshots[-1] if snapshots else None
        snapshots.append(
            take_snapshot(space, one, epoch=epoch, name=f"run-epoch-{epoch}", before=before)
        )
    values: dict[str, Any] = {
        "path": Path("runs/run"),
        "command": "search",
        "space": space,
        "settings": {"epochs": len(alphas) if epochs is None else epochs},
        "records": [record(snapshot.epoch) for snapshot in snapshots],
        "snapshots": snapshots,
        "genotype": snapshots[-1].genotype if snapshots else None,
    }
    return History(**values | changes)


def training(records: Sequence[Any], epochs: int = 3) -> History:
    """Build a training with these records of metrics."""
    return search(CNN, [], command="train", records=records, epochs=epochs)


def record(epoch: int, **changes: Any) -> dict[str, Any]:
    """Build a record of metrics of images."""
    metrics = {"loss": 2.0 / epoch, "top1": 1 - 0.9 / epoch, "top5": 1 - 0.5 / epoch}
    return {"epoch": epoch, "lr": 0.1 / epoch, "train": metrics, "valid": dict(metrics)} | changes


def small(*epochs: Rows) -> list[Alphas]:
    """Make alphas of the small space from the probabilities of its three edges in each epoch."""
    return [{"cell": [[math.log(p) for p in row] for row in rows]} for rows in epochs]


def wander(
    space: SearchSpace,
    epochs: int,
    step: Callable[[int], float] = float,
    *,
    slower: bool = False,
) -> list[Alphas]:
    """Make alphas that drift apart, each its own way, with another strongest one now and then.

    Args:
        space: The space.
        epochs: Their number.
        step: How far the alphas are from zero after an epoch, in twentieths.
        slower: Whether the strongest ones change less often from epoch to epoch.
    """

    def alpha(epoch: int, edge: int, column: int) -> float:
        time = 1.5 * math.log(epoch + 1) if slower else 0.6 * epoch
        return step(epoch) * math.sin(7.0 * edge + 3.0 * column + time) / 20

    return [
        {
            cell: [
                [alpha(epoch, edge + 50 * place, column) for column in range(len(space.primitives))]
                for edge in range(len(space.edges))
            ]
            for place, cell in enumerate(space.cells)
        }
        for epoch in range(1, epochs + 1)
    ]
