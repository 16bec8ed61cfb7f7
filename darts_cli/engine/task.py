"""What a space has to provide, and what travels between it and the engine."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from darts_cli.config import Config
from darts_cli.engine.ranks import ALONE, Ranks
from darts_cli.engine.strategies import Mixture
from darts_cli.genotype import Genotype
from darts_cli.space import SearchSpace

Facts = Mapping[str, Any]
"""What a network has to remember about its data, as JSON values: classes, sizes, statistics."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch: images `[B, C, H, W]` and their classes `[B]`, or words and the next, `[T, B]`."""

    inputs: Tensor
    targets: Tensor
    hidden: Tensor | None = None
    """The state that a recurrent network starts from; None: its first one."""
    continues: bool = False
    """Whether this batch goes on where the one before ended, so that the state is carried over."""
    lr_scale: float = 1.0
    """Factor of the learning rate in this step: a segment's length over the usual one."""
    share: float = 1.0
    """Of the whole batch's examples, those that are here: the rest is elsewhere, or comes later."""
    fewest: int | None = None
    """Examples of the process that has fewest of this batch; None: of this one."""

    @property
    def examples(self) -> int:
        """How many stand side by side."""
        return self.targets.shape[-1]

    def split(self, parts: int) -> list["Batch"]:
        """Parts of nearly equal size, at most so many, that have two examples or more.

        BatchNorm cannot normalise one value. All processes have as many parts, since they may
        wait for one another in each.
        """
        parts = min(parts, max(1, (self.fewest or self.examples) // 2))
        if parts == 1:
            return [self]
        # Words stand in columns; images, classes and states in rows.
        columns = self.targets.dim() - 1
        inputs = self.inputs.tensor_split(parts, columns)
        targets = self.targets.tensor_split(parts, columns)
        states = self.hidden.tensor_split(parts) if self.hidden is not None else [None] * parts
        return [
            replace(
                self,
                inputs=some,
                targets=of_them,
                hidden=state,
                share=self.share * of_them.shape[-1] / self.examples,
            )
            for some, of_them, state in zip(inputs, targets, states, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Output:
    """What a network makes of a batch."""

    outcome: Tensor
    """What losses are computed from: logits of images, `[B, classes]`; of words, the sum of their
    cross-entropies, `[]`, since their logits are more than memory should hold."""
    auxiliary: tuple[Tensor, ...] = ()
    """What regularisers need besides: logits of the auxiliary head, states of a recurrent cell."""
    hidden: Tensor | None = None
    """The state that a recurrent network ends in."""

    def float(self) -> "Output":
        """The same in single precision, where it is of less; double stays double."""
        return Output(
            _single(self.outcome),
            tuple(_single(tensor) for tensor in self.auxiliary),
            _single(self.hidden) if self.hidden is not None else None,
        )


def _single(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype.itemsize < torch.float32.itemsize else tensor


class Stream(Protocol):
    """A split of the data in batches; those of an epoch are a function of the epoch's number."""

    def steps(self, epoch: int) -> int:
        """Batches in `epoch`, one or more."""
        ...

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of `epoch` from number `start` on, on the network's device."""
        ...


class Network(Protocol):
    """A module that can name its tensors as published DARTS checkpoints do.

    Checkpoints hold those names, so that they outlive the layout in which a
    network keeps its tensors.
    """

    @property
    def training_only(self) -> tuple[str, ...]:
        """How the names of parameters begin that evaluation does without."""
        ...

    def save_memory(self) -> None:
        """Keep as little as can be for the way back, from now on; the numbers stay the same.

        Raises:
            ConfigError: if there is nothing to be saved.
        """
        ...

    def synchronize(self) -> None:
        """Make BatchNorm one over all processes of a run, from now on.

        Raises:
            ConfigError: if there is none that could be.
        """
        ...

    def regions(self) -> Sequence[nn.Module]:
        """The parts that are compiled, each by itself.

        Raises:
            ConfigError: if there is none.
        """
        ...

    def to_published(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Cut and rename parameters, buffers or momenta, given by the network's own names."""
        ...

    def from_published(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The inverse of `to_published`."""
        ...


class Task(Protocol):
    """A network and its losses: what the engine optimises."""

    @property
    def module(self) -> nn.Module:
        """The network as a module."""
        ...

    @property
    def network(self) -> Network:
        """The same network, as the keeper of its published names."""
        ...

    @property
    def measures(self) -> tuple[str, ...]:
        """What `tally` sums up, in order; the first is `loss`."""
        ...

    def begin_epoch(self, epoch: int) -> None:
        """Set what changes from epoch to epoch, such as the drop path probability."""
        ...

    def forward(self, batch: Batch, mixture: Mixture) -> Output:
        """Run the network; `mixture` is empty for a discrete one."""
        ...

    def loss(self, output: Output, batch: Batch) -> Tensor:
        """The plain loss, a mean over the batch: of validation, and of the virtual step."""
        ...

    def objective(self, output: Output, batch: Batch) -> Tensor:
        """The loss that trains the weights: the plain one with the regularisers of the space."""
        ...

    def tally(self, output: Output, batch: Batch) -> Tensor:
        """Sums over the batch and their count, `[len(measures) + 1]`, outside the graph."""
        ...

    def report(self, means: Mapping[str, float]) -> dict[str, float]:
        """The means of the measures, with what follows from them, such as a perplexity."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Streams:
    """What a run reads."""

    weights: Stream
    """Trains the weights."""
    alphas: Stream | None = None
    """Trains the alphas; None where there are none."""
    watched: Stream | None = None
    """What is evaluated after every epoch."""
    watched_name: str = "valid"
    """Its split: `valid` or `test`. Only by `valid` is the best epoch chosen."""


class Data(Protocol):
    """A data set, loaded."""

    def describe(self) -> Facts:
        """What a network made for this data has to remember."""
        ...

    @property
    def counts(self) -> Mapping[str, int]:
        """Examples in each split that is there."""
        ...

    @property
    def fingerprints(self) -> Mapping[str, str]:
        """A number for what is in each split that was read so far: other data has another."""
        ...

    def search_streams(self, seed: int) -> Streams:
        """Disjoint parts of the training data for weights and alphas."""
        ...

    def train_streams(self, seed: int) -> Streams:
        """All training data for the weights."""
        ...

    def evaluation_stream(self, split: str, batch_size: int) -> Stream:
        """A split in order, as it is.

        Raises:
            DataError: if the data has no such split.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Description:
    """What a run's plan says in the words of its space."""

    data: str
    """What there is to know of the data besides its size."""
    fields: Mapping[str, Any]
    """The same for a program."""
    network: str
    """The network's size."""
    batch: str
    """What a step reads."""
    unit: str
    """What is counted: `image`, `word`."""


class Domain(Protocol):
    """A space with the networks and the data that belong to it."""

    @property
    def space(self) -> SearchSpace:
        """Cells, edges and primitives."""
        ...

    @property
    def data_names(self) -> Collection[str]:
        """What `--data` means by name, even where a folder is called the same."""
        ...

    @property
    def evaluation_splits(self) -> tuple[str, ...]:
        """What `darts eval` measures where nothing is said."""
        ...

    def evaluation_batch(self, device: torch.device, ranks: Ranks) -> int:
        """How much `darts eval` reads at once where nothing is said."""
        ...

    def outline(self, config: Config, *, search: bool) -> tuple[Facts, Mapping[str, int]]:
        """Facts about the data, and the examples in each split, read as little as that takes.

        Raises:
            DataError: if the data is missing, or too little for one batch.
        """
        ...

    def load(
        self,
        config: Config,
        device: torch.device,
        *,
        search: bool,
        facts: Facts | None = None,
        ranks: Ranks = ALONE,
    ) -> Data:
        """Read the data; `facts` of a trained network are kept to, where given.

        Each of the `ranks` gets its part of every batch.

        Raises:
            DataError: if it is missing, broken, or not what `facts` say.
        """
        ...

    def check_facts(self, facts: Facts) -> None:
        """Make sure that what a checkpoint remembers of its data can be.

        Raises:
            CheckpointError: naming what cannot.
        """
        ...

    def build(self, config: Config, facts: Facts, genotype: Genotype | None) -> Task:
        """The network of a genotype, or the supernet where that is None."""
        ...

    def example(self, config: Config, facts: Facts, *, single: bool) -> Batch:
        """One unit alone, or a training batch, of the right shapes, on torch's default device."""
        ...

    def steps(
        self, config: Config, counts: Mapping[str, int], *, search: bool, processes: int = 1
    ) -> int:
        """Steps of an epoch; where they are drawn, about as many."""
        ...

    def hidden(self, config: Config, *, search: bool) -> Mapping[str, tuple[int, ...]]:
        """Shapes of the states that batches leave behind, by what these train; see `State`."""
        ...

    def describe(self, config: Config, facts: Facts) -> Description:
        """Words about a run, for its plan."""
        ...
