"""Interfaces between the engine and the search spaces, and the values that they exchange."""

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn

from darts_cli.config import Config
from darts_cli.engine.strategies import Mixture
from darts_cli.genotype.types import Genotype
from darts_cli.runtime.ranks import SINGLE_PROCESS, Ranks
from darts_cli.space import SearchSpace

# Facts about the data that a network needs, as JSON values: classes, sizes, statistics.
DatasetInfo = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch: images `[B, C, H, W]` and classes `[B]`, or words and next words, `[T, B]` each."""

    inputs: Tensor
    targets: Tensor
    hidden: Tensor | None = None
    """Initial state of a recurrent network, `[B, D]`; None: zeros."""
    carries_hidden: bool = False
    """Whether this batch continues the previous one, so that its final state is the initial one."""
    lr_scale: float = 1.0
    """Factor of the learning rate in this step: length of the segment over the usual one."""
    weight: float = 1.0
    """Fraction of the global batch in this micro-batch."""
    min_rank_size: int | None = None
    """Examples on the rank that has fewest of this batch; None: as many as here."""

    @property
    def examples(self) -> int:
        """Number of examples, `B`."""
        return self.targets.shape[-1]

    def split(self, parts: int) -> list["Batch"]:
        """Split into at most `parts` micro-batches of nearly equal size, two examples or more each.

        BatchNorm cannot normalize a single value. All ranks get the same number
        of micro-batches, since they synchronize in each of them.
        """
        parts = min(parts, max(1, (self.min_rank_size or self.examples) // 2))
        if parts == 1:
            return [self]
        # The batch dimension is the last one of targets: 0 of classes [B], 1 of words [T, B].
        batch_dim = self.targets.dim() - 1
        # [B, C, H, W] -> [b, C, H, W], or [T, B] -> [T, b]
        inputs = self.inputs.tensor_split(parts, batch_dim)
        targets = self.targets.tensor_split(parts, batch_dim)
        # [B, D] -> [b, D]
        states = self.hidden.tensor_split(parts) if self.hidden is not None else [None] * parts
        return [
            replace(
                self,
                inputs=some,
                targets=its_targets,
                hidden=state,
                weight=self.weight * its_targets.shape[-1] / self.examples,
            )
            for some, its_targets, state in zip(inputs, targets, states, strict=True)
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """The result of a forward pass; each space adds the fields that its losses read."""

    hidden: Tensor | None = None
    """Final state of a recurrent network, `[B, D]`."""

    def float(self) -> Self:
        """Convert half precision to float32; float64 stays as it is."""
        return replace(
            self, **{field.name: _float(getattr(self, field.name)) for field in fields(self)}
        )


def _float(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_float, value))
    if isinstance(value, Tensor) and value.dtype.itemsize < torch.float32.itemsize:
        return value.float()
    return value


OutputT = TypeVar("OutputT", bound=Output)


class BatchLoader(Protocol):
    """A split of the data in batches; those of an epoch are a function of its number."""

    def steps(self, epoch: int) -> int:
        """Return the number of batches in `epoch`, one or more."""

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of `epoch` from index `start`, on the network's device."""


class TrainingModule(ABC, Generic[OutputT]):
    """A network with its losses and metrics: what the engine optimizes."""

    network: nn.Module
    """The network; `engine.capabilities` lists what it may offer besides."""
    metric_names: tuple[str, ...] = ("loss",)
    """Names of the sums of `metric_sums`, in order; the first is `loss`."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def begin_epoch(self, epoch: int) -> None:
        """Set what changes from epoch to epoch, such as the drop path probability."""

    def forward(self, batch: Batch, mixture: Mixture) -> OutputT:
        """Run the network; `mixture` is empty for a discrete one."""
        output: OutputT = self.network(batch.inputs, mixture)
        return output

    @abstractmethod
    def loss(self, output: OutputT, batch: Batch) -> Tensor:
        """Compute the plain loss, a mean over the batch: for validation and the virtual step."""

    def training_loss(self, output: OutputT, batch: Batch) -> Tensor:
        """Compute the loss that trains the weights: the plain one plus regularizers."""
        return self.loss(output, batch)

    @torch.no_grad()
    def metric_sums(self, output: OutputT, batch: Batch) -> Tensor:
        """Return detached sums over the batch and their count, `[len(metric_names) + 1]`."""
        loss = self.loss(output, batch)
        return torch.stack([loss * batch.examples, loss.new_tensor(batch.examples)])

    def summarize(self, means: Mapping[str, float]) -> dict[str, float]:
        """Return the means with the metrics that follow from them, such as perplexity."""
        return dict(means)


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaders:
    """The data that a run reads."""

    train: BatchLoader
    """Batches that train the weights."""
    arch: BatchLoader | None = None
    """Batches that train the alphas; None in a training."""
    eval: BatchLoader | None = None
    """Batches that are evaluated after every epoch; None: nothing is evaluated."""
    eval_split: str = "valid"
    """Split of `eval`: `valid` or `test`. The best epoch is chosen by `valid` only."""


class Data(Protocol):
    """A loaded data set."""

    def describe(self) -> DatasetInfo:
        """Return what a network made for this data has to remember."""

    @property
    def counts(self) -> Mapping[str, int]:
        """Number of examples by split."""

    @property
    def fingerprints(self) -> Mapping[str, str]:
        """Digest of the content of each split that was read so far."""

    def search_loaders(self, seed: int) -> Loaders:
        """Return loaders over disjoint training data for weights and alphas."""

    def train_loaders(self, seed: int) -> Loaders:
        """Return loaders that train the weights on all training data."""

    def evaluation_loader(self, split: str, batch_size: int) -> BatchLoader:
        """Return a loader over a split, in order and not augmented.

        Raises:
            DataError: if the data has no such split.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class Description:
    """Texts about a run for its plan table."""

    data: str
    """The data, besides its name and size."""
    fields: Mapping[str, Any]
    """The same as JSON values."""
    network: str
    """Size of the network."""
    batch: str
    """Content of a batch."""
    unit: str
    """Name of one example: `image`, `word`."""


class Task(ABC):
    """A search space with its networks, losses and data."""

    space: SearchSpace
    """Cells, edges and primitives."""
    data_names: Collection[str] = ()
    """Names that `--data` knows; a folder of the same name does not hide them."""
    evaluation_splits: tuple[str, ...] = ("test",)
    """Splits that `darts eval` measures by default."""

    def __init__(self, space: SearchSpace) -> None:
        self.space = space

    def evaluation_batch(self, device: torch.device, ranks: Ranks) -> int:  # noqa: ARG002
        """Return the default batch size of an evaluation, over all ranks."""
        return 256

    def outline(self, config: Config, *, search: bool) -> tuple[DatasetInfo, Mapping[str, int]]:
        """Return facts about the data and the examples by split, reading as little as possible.

        Raises:
            DataError: if the data is missing, or too small for one batch.
        """
        data = self.load(config, torch.device("cpu"), search=search)
        # Data that is too small for a run is too small for its plan.
        _ = data.search_loaders(config.seed) if search else data.train_loaders(config.seed)
        return data.describe(), data.counts

    @abstractmethod
    def load(
        self,
        config: Config,
        device: torch.device,
        *,
        search: bool,
        info: DatasetInfo | None = None,
        ranks: Ranks = SINGLE_PROCESS,
    ) -> Data:
        """Read the data.

        Args:
            config: Settings of the run.
            device: Where batches are wanted.
            search: Whether test data is left unread.
            info: What a trained network knows of its data; it is kept to.
            ranks: Each of them gets its shard of every batch.

        Raises:
            DataError: if it is missing, damaged, or does not match `info`.
        """

    def check_info(self, info: DatasetInfo) -> None:  # noqa: B027 (a space may have none)
        """Check the dataset info of a checkpoint.

        Raises:
            CheckpointError: naming the first wrong value.
        """

    @abstractmethod
    def build(
        self, config: Config, info: DatasetInfo, genotype: Genotype | None
    ) -> TrainingModule[Any]:
        """Build the network of a genotype, or the supernet for None."""

    @abstractmethod
    def example(self, config: Config, info: DatasetInfo, *, single: bool) -> Batch:
        """Return a batch of zeros on torch's default device: one example, or a training batch."""

    def steps(
        self,
        config: Config,
        counts: Mapping[str, int],
        *,
        search: bool,  # noqa: ARG002
        processes: int = 1,  # noqa: ARG002
    ) -> int:
        """Return the steps of an epoch; an average where their number is random."""
        return math.ceil(counts["train"] / config.data.batch_size)

    def hidden(
        self,
        config: Config,  # noqa: ARG002
        *,
        search: bool,  # noqa: ARG002
    ) -> Mapping[str, tuple[int, ...]]:
        """Return the shapes of carried hidden states by what they train; see `State.hidden`."""
        return {}

    @abstractmethod
    def describe(self, config: Config, info: DatasetInfo) -> Description:
        """Describe the run for the plan table."""
