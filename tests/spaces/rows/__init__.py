"""A third search space as an example: rows of numbers, and cells of two candidate functions.

A node is the sum of its edges, and an edge is a linear layer with one of the functions.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from darts_cli.config import AlphasConfig, Config, DataConfig, Section, WeightsConfig
from darts_cli.engine import task
from darts_cli.engine.strategies import Mixture
from darts_cli.genotype.types import Genotype
from darts_cli.runtime.randomness import generator_for
from darts_cli.schema import between
from darts_cli.space import SearchSpace
from darts_cli.spaces import SpaceEntry

FUNCTIONS = {"tanh": torch.tanh, "square": torch.square}
PRIMITIVES = ("none", *FUNCTIONS)
# The number of rows of each split.
COUNT = 64
ROWS = SearchSpace(
    name="rows", cells=("cell",), inputs=1, nodes=2, edges_per_node=1, primitives=PRIMITIVES
)


@dataclass(frozen=True, kw_only=True, slots=True)
class LayersConfig(Section):
    """The width of the network."""

    name_in_file: ClassVar[str] = "network"
    width: Annotated[int, between(1, 1000)] = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction(task.Output):
    """Predicted numbers, `[B]`."""

    values: Tensor


class Layers(nn.Module):
    """The cell of a genotype, or the mixed one of a search for None, between two layers."""

    def __init__(self, width: int, genotype: Genotype | None) -> None:
        super().__init__()
        nodes = enumerate(genotype.cells["cell"].nodes) if genotype else ()
        kept = [(node, edge.source, edge.operation) for node, edges in nodes for edge in edges]
        self.edges = kept or [(node, source, "") for node, source in ROWS.edges]
        self.first, self.last = nn.Linear(2, width), nn.Linear(width, 1)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in self.edges)

    def forward(self, rows: Tensor, mixture: Mixture) -> Prediction:
        states = [self.first(rows), rows.new_zeros(()), rows.new_zeros(())]
        for index, (node, source, operation) in enumerate(self.edges):
            x = self.layers[index](states[source])
            chosen = {operation: 1.0}
            if not operation:
                chosen = dict(zip(PRIMITIVES, mixture["cell"][index], strict=True))
            terms = [chosen[name] * run(x) for name, run in FUNCTIONS.items() if name in chosen]
            states[node + 1] = states[node + 1] + torch.stack(terms).sum(dim=0)
        return Prediction(values=self.last(states[1] + states[2]).squeeze(1))


class RowsModule(task.TrainingModule[Prediction]):
    """A network with its squared error."""

    def loss(self, output: Prediction, batch: task.Batch) -> Tensor:
        return F.mse_loss(output.values, batch.targets)


@dataclass(frozen=True)
class RowsLoader:
    """Batches of random rows, whose target is their product; the same ones in every epoch."""

    rows: Tensor

    def steps(self, _epoch: int) -> int:
        return COUNT // 16

    def batches(self, _epoch: int, start: int = 0) -> Iterator[task.Batch]:
        for part in self.rows.split(16)[start:]:
            yield task.Batch(part, part.prod(dim=1))


class RowsData:
    """Splits of random rows."""

    fingerprints: Mapping[str, str] = {}

    def __init__(self) -> None:
        self.counts = dict.fromkeys(("train", "arch", "valid", "test"), COUNT)
        self.loaders = {
            split: RowsLoader(torch.randn(COUNT, 2, generator=generator_for(0, split)))
            for split in self.counts
        }

    def describe(self) -> task.DatasetInfo:
        return {"columns": 2}

    def search_loaders(self, seed: int) -> task.Loaders:
        train, arch, valid, _ = self.loaders.values()
        return task.Loaders(train=train, arch=arch, eval=valid)

    def train_loaders(self, seed: int) -> task.Loaders:
        return task.Loaders(train=self.loaders["train"])

    def evaluation_loader(self, split: str, batch_size: int) -> RowsLoader:
        return self.loaders[split]


class RowsTask(task.Task):
    """Rows of numbers."""

    def load(self, config: Config, device: torch.device, **_: Any) -> RowsData:
        return RowsData()

    def build(self, config: Any, info: Any, genotype: Genotype | None) -> RowsModule:
        return RowsModule(Layers(config.network.width, genotype))

    def example(self, config: Config, info: Any, *, single: bool) -> task.Batch:
        return task.Batch(torch.zeros(1 if single else 16, 2), torch.zeros(1 if single else 16))

    def describe(self, config: Any, info: Any) -> task.Description:
        width = f"width {config.network.width}"
        return task.Description(data="2 columns", fields={}, network=width, batch="16", unit="row")


_DEFAULTS = Config(
    space="rows",
    recipe="small",
    epochs=2,
    data=DataConfig(name="products", batch_size=16),
    network=LayersConfig(),
    weights=WeightsConfig(),
)
ENTRY = SpaceEntry(
    space=ROWS,
    recipes={
        "search": {"small": replace(_DEFAULTS, alphas=AlphasConfig())},
        "train": {"small": _DEFAULTS},
    },
    load_task=RowsTask,
)
