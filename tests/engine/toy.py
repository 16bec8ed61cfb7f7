"""A space of two tiny cells for tests of the engine: a softmax regression with dropout."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional as F

from darts_cli.config import (
    AlphasConfig,
    Config,
    ConvNetworkConfig,
    ImageDataConfig,
    WeightsConfig,
)
from darts_cli.engine.architect import Architect
from darts_cli.engine.artifacts import RunContext
from darts_cli.engine.meter import Meter
from darts_cli.engine.state import State
from darts_cli.engine.strategies import STRATEGIES, Mixture
from darts_cli.engine.task import Batch, BatchLoader, Loaders, Output, TrainingModule
from darts_cli.run.directory import Run
from darts_cli.runtime.randomness import generator_for
from darts_cli.space import SearchSpace
from darts_cli.terminal.reporter import Reporter

SPACE = SearchSpace(
    name="toy",
    cells=("cell",),
    inputs=1,
    nodes=2,
    edges_per_node=1,
    primitives=("none", "tanh", "relu", "skip_connect"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyOutput(Output):
    logits: Tensor


class ToyNetwork(nn.Module):
    """Candidates between two linear layers, BatchNorm's statistics and dropout's draws included."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 5)
        self.norm = nn.BatchNorm1d(5)
        self.outer = nn.Linear(5, 3)

    def regions(self) -> list[nn.Module]:
        return [self.inner]

    def forward(self, x: Tensor, mixture: Mixture) -> ToyOutput:
        hidden = F.dropout(self.norm(self.inner(x)), 0.3, self.training)
        if mixture:
            weights = mixture["cell"].mean(dim=0)
            hidden = weights[1] * hidden.tanh() + weights[2] * hidden.relu() + weights[3] * hidden
        return ToyOutput(logits=self.outer(hidden))


class ToyModule(TrainingModule[ToyOutput]):
    """Classification of random points."""

    network: ToyNetwork
    metric_names = ("loss", "top1")

    def __init__(self) -> None:
        super().__init__(ToyNetwork())
        self.epochs_begun: list[int] = []
        self.factor = 1.0

    def begin_epoch(self, epoch: int) -> None:
        self.epochs_begun.append(epoch)

    def loss(self, output: ToyOutput, batch: Batch) -> Tensor:
        return self.factor * F.cross_entropy(output.logits, batch.targets)

    @torch.no_grad()
    def metric_sums(self, output: ToyOutput, batch: Batch) -> Tensor:
        size = len(batch.targets)
        right = (output.logits.argmax(dim=1) == batch.targets).sum()
        return torch.stack([size * self.loss(output, batch), right.float(), torch.tensor(size)])


@dataclass
class ToyLoader:
    """`length` batches of points, shuffled by epoch."""

    purpose: str
    length: int = 4
    batch: int = 6
    read: list[tuple[int, int]] = field(default_factory=list)

    def steps(self, _epoch: int) -> int:
        return self.length

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        for index in range(start, self.length):
            self.read.append((epoch, index))
            draws = generator_for(7, self.purpose, epoch, index)
            inputs = torch.randn(self.batch, 4, generator=draws)
            yield Batch(inputs, (inputs.sum(dim=1) > 0).long() + (inputs[:, 0] > 1).long())


def make_config(*, search: bool, epochs: int = 3, order: str = "second") -> Config:
    return Config(
        recipe="cifar",
        epochs=epochs,
        data=ImageDataConfig(),
        network=ConvNetworkConfig(),
        weights=WeightsConfig(lr=0.1),
        alphas=AlphasConfig(lr=0.05, order="first" if order == "first" else "second")
        if search
        else None,
    )


def make_state(config: Config, make_module: Callable[[], ToyModule] = ToyModule) -> State:
    torch.manual_seed(3)
    module = make_module()
    optimizer = torch.optim.SGD(
        module.network.parameters(), lr=1.0, momentum=config.weights.momentum, weight_decay=3e-4
    )
    architect = None
    if config.alphas is not None:
        alphas = STRATEGIES["darts"].initial(SPACE, 1e-3, generator_for(0, "alphas"))
        architect = Architect(alphas, config.alphas)
    meter = Meter(module.metric_names, torch.device("cpu"))
    return State(module=module, optimizer=optimizer, architect=architect, meter=meter)


def make_context(config: Config, path: Path, **changes: Any) -> RunContext:
    watched: BatchLoader = ToyLoader("watched", length=2)
    run = Run.open(path) if path.exists() else Run.create(path)
    run.config.touch()
    settings: dict[str, Any] = {
        "config": config,
        "space": SPACE,
        "loaders": Loaders(
            train=ToyLoader("weights"),
            arch=ToyLoader("alphas", length=3) if config.alphas else None,
            eval=watched,
        ),
        "run": run,
        "reporter": Reporter(Console(file=StringIO()), run.log),
        "metadata": {
            "kind": "search" if config.alphas else "train",
            "config": {
                "seed": config.seed,
                "alphas": {"order": "second", "strategy": "darts"},
                "data": {"name": "toy"},
            },
            "facts": {},
        },
        "resume_command": "darts search toy --resume here",
    }
    return RunContext(**{**settings, **changes})
