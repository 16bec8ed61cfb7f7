"""What `make bench` compares: whole steps, plain and ours, of the same sizes and settings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from darts_cli.config import (
    AlphasConfig,
    Config,
    ConvNetworkConfig,
    RecurrentNetworkConfig,
)
from darts_cli.engine.architect import Architect
from darts_cli.engine.capabilities import save_memory
from darts_cli.engine.meter import Meter
from darts_cli.engine.state import State, build_optimizer
from darts_cli.engine.steps import search_step, train_step
from darts_cli.engine.task import Batch, DatasetInfo, Task
from darts_cli.genotype.file import load
from darts_cli.genotype.types import Genotype
from darts_cli.recipes import RECIPES
from darts_cli.spaces import SPACES, load_task
from darts_cli.spaces.cnn.network import Network
from tests.benchmarks.plain.images import PlainNetwork, PlainSupernet
from tests.benchmarks.plain.step import PlainSearch
from tests.benchmarks.plain.text import PlainLanguageModel

_CPU = torch.device("cpu")
Step = Callable[[], None]
_DROP_PATH = 0.1


@dataclass(frozen=True, kw_only=True)
class Case:
    """A row of the table."""

    name: str
    config: Config
    info: DatasetInfo
    genotype: Genotype | None
    target: float
    """The least that a plain step's time over ours has to be."""

    def batches(self) -> tuple[Batch, Batch]:
        """Random ones for the weights and for the alphas."""
        generator = torch.Generator().manual_seed(0)
        return self.random_batch(generator), self.random_batch(generator)

    def random_batch(self, generator: torch.Generator) -> Batch:
        """Noise and arbitrary targets."""
        data, info = self.config.data, self.info
        if self.config.space == "rnn":
            shape, words = (35, data.batch_size), len(info["vocabulary"])
            inputs, targets = (torch.randint(words, shape, generator=generator) for _ in range(2))
            return Batch(inputs, targets)
        size = info["size"]
        images = torch.randn(data.batch_size, info["channels"], size, size, generator=generator)
        targets = torch.randint(len(info["classes"]), (data.batch_size,), generator=generator)
        return Batch(images.to(memory_format=torch.channels_last), targets)

    def ours(self, memory: str = "fast") -> Step:
        """A step of alphas and weights, or of weights alone, by the engine."""
        state = make_state(self.config, self.info, self.genotype, memory)
        train, valid = self.batches()

        def step() -> None:
            if state.architect is not None:
                search_step(state, train, valid, seed=0)
            train_step(state, train, self.config)

        state.module.network.train()
        _fix_drop_path(state.module.network)
        return step

    def plain(self) -> Step:
        """The same by the plain networks."""
        train, valid = self.batches()
        if self.genotype is not None:
            return _plain_training(self.genotype, self.config, train)
        search, loss, training_loss = make_plain(self.config, self.info)

        def step() -> None:
            search.move_alphas(
                lambda network, mixture: loss(network, mixture, train),
                lambda network, mixture: loss(network, mixture, valid),
            )
            search.move_weights(lambda network, mixture: training_loss(network, mixture, train))

        return step


def make_state(
    config: Config,
    info: DatasetInfo,
    genotype: Genotype | None,
    memory: str = "fast",
    device: torch.device = _CPU,
) -> State:
    """A network ready for its first step."""
    task: Task = load_task(config.space)
    module = task.build(config, info, genotype)
    if memory == "save":
        save_memory(module.network)
    module.network.to(device)
    architect = None
    if config.alphas is not None and genotype is None:
        alphas = {cell: alpha.to(device) for cell, alpha in make_alphas(config).items()}
        architect = Architect(alphas, config.alphas)
    return State(
        module=module,
        optimizer=build_optimizer(module.network, config.weights),
        architect=architect,
        meter=Meter(module.metric_names, device),
    )


def make_alphas(config: Config) -> dict[str, Tensor]:
    """The same for both, and not all alike."""
    space = load_task(config.space).space
    generator = torch.Generator().manual_seed(1)
    shape = (len(space.edges), len(space.primitives))
    return {cell: 0.1 * torch.randn(shape, generator=generator) for cell in space.cells}


BatchLoss = Callable[[nn.Module, dict[str, Tensor], Batch], Tensor]


def make_plain(config: Config, info: DatasetInfo) -> tuple[PlainSearch, BatchLoss, BatchLoss]:
    """The plain search of a config, the loss of a batch, and what trains the weights."""
    network, loss, training_loss = (
        _plain_images(config.network, info)
        if isinstance(config.network, ConvNetworkConfig)
        else _plain_text(cast(RecurrentNetworkConfig, config.network), info)
    )
    alphas, weights = config.alphas, config.weights
    if alphas is None:
        raise ValueError("a search has alphas")
    search = PlainSearch.make(
        network,
        make_alphas(config),
        second_order=alphas.order == "second",
        weights={
            "lr": weights.lr,
            "momentum": weights.momentum,
            "weight_decay": weights.weight_decay,
        },
        clip=weights.clip,
        adam={"lr": alphas.lr, "betas": alphas.betas, "weight_decay": alphas.weight_decay},
        virtual_clip=alphas.virtual_clip,
    )
    return search, loss, training_loss


def _plain_images(
    config: ConvNetworkConfig, info: DatasetInfo
) -> tuple[nn.Module, BatchLoss, BatchLoss]:
    classes, channels = len(info["classes"]), info["channels"]
    network = PlainSupernet(
        config.channels, config.layers, classes=classes, image_channels=channels
    )

    def loss(network: nn.Module, mixture: dict[str, Tensor], batch: Batch) -> Tensor:
        return F.cross_entropy(network(batch.inputs.contiguous(), mixture), batch.targets)

    return network, loss, loss


def _plain_text(
    config: RecurrentNetworkConfig, info: DatasetInfo
) -> tuple[nn.Module, BatchLoss, BatchLoss]:
    network = PlainLanguageModel(config, len(info["vocabulary"]))

    def run(
        network: nn.Module, mixture: dict[str, Tensor], batch: Batch
    ) -> tuple[Tensor, Tensor, Tensor]:
        (shares,) = mixture.values()
        hidden = shares.new_zeros(batch.inputs.shape[1], config.width)
        output: tuple[Tensor, Tensor, Tensor] = network(batch.inputs, hidden, mixture)
        return output

    def loss(network: nn.Module, mixture: dict[str, Tensor], batch: Batch) -> Tensor:
        logits, _, _ = run(network, mixture, batch)
        return F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())

    def training_loss(network: nn.Module, mixture: dict[str, Tensor], batch: Batch) -> Tensor:
        logits, states, dropped = run(network, mixture, batch)
        slowness = config.slowness * (states[1:] - states[:-1]).square().mean()
        activation = config.activation * dropped.square().mean()
        return (
            F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten()) + activation + slowness
        )

    return network, loss, training_loss


def _plain_training(genotype: Genotype, config: Config, batch: Batch) -> Step:
    settings = config.network
    if not isinstance(settings, ConvNetworkConfig):
        raise TypeError("expected a convolutional network")
    network = PlainNetwork(genotype, settings.channels, settings.layers, classes=10)
    network.drop_path = _DROP_PATH
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=config.weights.lr,
        momentum=config.weights.momentum,
        weight_decay=config.weights.weight_decay,
    )
    images = batch.inputs.contiguous()

    def step() -> None:
        optimizer.zero_grad()
        logits, auxiliary = network(images)
        loss = F.cross_entropy(logits, batch.targets)
        loss = loss + settings.auxiliary * F.cross_entropy(auxiliary, batch.targets)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), config.weights.clip)
        optimizer.step()

    return step


def _fix_drop_path(module: nn.Module) -> None:
    """In the middle of training it is half of what it ends at."""
    if isinstance(module, Network):
        module.drop_path = _DROP_PATH


def _images(channels: int, layers: int, size: int, batch: int, order: str) -> Config:
    config = RECIPES["search"]["cnn"]["cifar"]
    return replace(
        config,
        data=replace(config.data, batch_size=batch),
        network=ConvNetworkConfig(channels=channels, layers=layers),
        alphas=AlphasConfig(order="first" if order == "first" else "second"),
    )


def _text(width: int, batch: int) -> Config:
    config = RECIPES["search"]["rnn"]["ptb"]
    return replace(
        config,
        data=replace(config.data, batch_size=batch),
        network=RecurrentNetworkConfig(width=width),
    )


def _training(batch: int) -> Config:
    config = RECIPES["train"]["cnn"]["cifar"]
    return replace(config, data=replace(config.data, batch_size=batch))


_CIFAR = {"classes": [str(number) for number in range(10)], "channels": 3, "size": 32}
_DIGITS = {"classes": [str(number) for number in range(10)], "channels": 1, "size": 8}


def _vocabulary(words: int) -> DatasetInfo:
    return {"vocabulary": [str(number) for number in range(words)]}


def _search(name: str, config: Config, info: DatasetInfo, target: float) -> Case:
    return Case(name=name, config=config, info=info, genotype=None, target=target)


def make_cases() -> dict[str, Case]:
    """All rows by name."""
    rows: Sequence[Case] = (
        _search("cnn-16x8-b64-second", _images(16, 8, 32, 64, "second"), _CIFAR, 3.0),
        _search("cnn-16x8-b8-second", _images(16, 8, 32, 8, "second"), _CIFAR, 3.0),
        _search("cnn-16x8-b64-first", _images(16, 8, 32, 64, "first"), _CIFAR, 3.3),
        _search("cnn-16x8-b8-first", _images(16, 8, 32, 8, "first"), _CIFAR, 3.3),
        _search("cnn-4x5-8px-b64-second", _images(4, 5, 8, 64, "second"), _DIGITS, 3.3),
        _search("rnn-300-b64-second", _text(300, 64), _vocabulary(10_000), 1.2),
        # The vocabulary of the pydoc recipe.
        _search("rnn-32-b16-second", _text(32, 16), _vocabulary(1_816), 1.9),
        Case(
            name="train-36x20-b8",
            config=_training(8),
            info=_CIFAR,
            genotype=load("darts_v2", SPACES),
            target=1.2,
        ),
    )
    return {case.name: case for case in rows}
