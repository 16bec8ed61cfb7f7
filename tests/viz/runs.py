"""Made-up runs, from which pages are built."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from darts_cli.genotype.file import load
from darts_cli.run.history import History
from darts_cli.run.signals import SearchSnapshot, take_snapshot
from darts_cli.space import SearchSpace
from darts_cli.spaces import SPACES

CNN = SPACES["cnn"]

SMALL = SearchSpace(
    name="small",
    cells=("normal",),
    inputs=1,
    nodes=2,
    edges_per_node=1,
    primitives=("none", "conv", "skip_connect"),
)


def search(
    path: Path,
    *,
    epochs: int,
    space: SearchSpace = CNN,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
) -> History:
    """Build a search whose genotype changes in each of its epochs."""
    draws = np.random.default_rng(seed)
    snapshots: list[SearchSnapshot] = []
    for epoch in range(1, epochs + 1):
        alphas = {
            cell: draws.normal(size=(len(space.edges), len(space.primitives))).tolist()
            for cell in space.cells
        }
        before = snapshots[-1] if snapshots else None
        name = f"{path.name}-epoch-{epoch}"
        snapshots.append(take_snapshot(space, alphas, epoch=epoch, name=name, before=before))
    records = [
        {
            "epoch": epoch,
            "step": 10 * epoch,
            "lr": 0.025 / epoch,
            "train": {"loss": 2 / epoch, "top1": 1 - 0.8 / epoch},
            "valid": {"loss": 3 / epoch, "top1": 1 - 0.9 / epoch},
        }
        for epoch in range(1, epochs + 1)
    ]
    plain = {
        "command": "search",
        "seed": seed,
        "epochs": epochs or 5,
        "data": {"name": "/home/someone/flowers", "flip": True, "size": None},
        "alphas": {"order": "second", "betas": [0.5, 0.999]},
        "versions": {"darts": "1.2.3"},
    }
    return History(
        path=path,
        command="search",
        space=space,
        settings={**plain, **(settings or {})},
        records=records,
        snapshots=snapshots,
        genotype=snapshots[-1].genotype if snapshots else None,
    )


def training(path: Path) -> History:
    """Build a training of two epochs of a published genotype."""
    return History(
        path=path,
        command="train",
        space=CNN,
        settings={"command": "train", "seed": 0, "epochs": 2, "data": {"name": "cifar10"}},
        records=[
            {"epoch": epoch, "lr": 0.1, "train": {"loss": 2.0 / epoch}, "test": {"top1": 0.5}}
            for epoch in (1, 2)
        ],
        snapshots=[],
        genotype=load("darts_v2", SPACES),
    )
