"""The state of a run: all that changes in it, and hence all that a checkpoint holds."""

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from darts_cli.config import WeightsConfig
from darts_cli.engine import optimizers
from darts_cli.engine.architect import Architect
from darts_cli.engine.averaging import Average
from darts_cli.engine.capabilities import from_reference_names, to_reference_names
from darts_cli.engine.execution import DEFAULT, StepExecution
from darts_cli.engine.meter import Meter
from darts_cli.engine.task import TrainingModule
from darts_cli.errors import DivergenceError
from darts_cli.run.files import WriteError
from darts_cli.run.tensors import below_prefix, take, take_all, with_prefix
from darts_cli.runtime.compilation import Compilation
from darts_cli.runtime.randomness import seed_for

# More epochs than a run may have, so that data is read in epochs of its own after a rollback.
_EPOCHS_APART = 2**20


@dataclass(slots=True)
class Position:
    """Progress of a run: the next step is number `step` of `epoch`, both counted from 0."""

    epoch: int = 0
    step: int = 0
    total: int = 0
    """Steps taken since the run began."""

    def next_step(self) -> None:
        """Count a step."""
        self.step += 1
        self.total += 1

    def next_epoch(self) -> None:
        """Count an epoch."""
        self.epoch += 1
        self.step = 0


@dataclass(kw_only=True, slots=True)
class State:
    """A network in training."""

    module: TrainingModule[Any]
    optimizer: torch.optim.Optimizer
    """SGD on the weights."""
    architect: Architect | None
    """Alphas with their optimizer; None in the training of a discrete network."""
    meter: Meter
    """Training metrics of the epoch so far."""
    position: Position = field(default_factory=Position)
    best: float = math.inf
    """Smallest validation loss so far."""
    hidden: dict[str, Tensor] = field(default_factory=dict)
    """Final hidden states of the last batches, `[B, D]`: of `weights` and of `alphas`."""
    average: Average | None = None
    """Running mean of the weights, once validation has stalled."""
    val_losses: list[float] = field(default_factory=list)
    """Validation loss of every epoch so far, where the weights may be averaged."""
    execution: StepExecution = DEFAULT
    """Execution of the passes; a run may be resumed with another one."""
    compilation: Compilation | None = None
    """Compiled regions of the network."""
    rollbacks: int = 0
    """Number of rollbacks to the best checkpoint so far."""

    @property
    def network(self) -> nn.Module:
        """The network in training."""
        return self.module.network

    @property
    def weights(self) -> dict[str, Tensor]:
        """Parameters of the network by its own names."""
        return dict(self.network.named_parameters())

    @property
    def data_epoch(self) -> int:
        """Epoch of the loaders: after a rollback one that the run has not read before."""
        return self.position.epoch + self.rollbacks * _EPOCHS_APART

    def train_seed(self, seed: int) -> int:
        """Return the seed of all random numbers in training, another one after each rollback."""
        return seed_for(seed, "rollback", self.rollbacks) if self.rollbacks else seed

    def set_learning_rate(self, rate: float) -> None:
        """Set the learning rate of the weights."""
        self.optimizer.param_groups[0]["lr"] = rate

    def start_averaging(self) -> None:
        """Average the weights from now on."""
        self.average = Average(self.weights)

    def evaluated_weights(self) -> AbstractContextManager[None]:
        """Return a context in which the average of the weights, if any, replaces them."""
        return self.average.applied() if self.average is not None else nullcontext()

    def check_finite(self) -> None:
        """Wait for the device and check that all weights, statistics and alphas are finite.

        Raises:
            DivergenceError: if one of them is not.
        """
        tensors = list(self.network.state_dict().values())
        if self.architect is not None:
            tensors += self.architect.alphas.values()
        # Stacked, so that the device is waited for once.
        if not torch.stack([tensor.isfinite().all() for tensor in tensors]).all():
            raise self.divergence("a weight is not a finite number any more")

    def divergence(self, what: str) -> DivergenceError:
        """Return the error for a run that has diverged in the way that `what` says."""
        position, rate = self.position, self.optimizer.param_groups[0]["lr"]
        return DivergenceError(
            f"{what} (epoch {position.epoch + 1}, step {position.step}, learning rate {rate:.4g})"
        )

    @contextmanager
    def reverted_on_write_error(self) -> Iterator[None]:
        """Undo the end of an epoch if a file cannot be written, so that it can end again."""
        before = replace(self.position), self.best, list(self.val_losses), self.average
        # A copy, since the meter starts again from zero at the end of an epoch.
        sums = self.meter.sums.clone()
        try:
            yield
        except WriteError:
            self.position, self.best, self.val_losses, self.average = before
            self.meter.sums.copy_(sums)
            raise

    def state_dict(self) -> dict[str, Tensor]:
        """Return all tensors by the names of checkpoints; all ranks have to call it."""
        network, weights = self.network, self.weights
        tensors = with_prefix("network", to_reference_names(network, network.state_dict()))
        tensors |= optimizers.state_dict(self.optimizer, "optimizer", weights, network)
        if self.architect is not None:
            tensors |= self.architect.state_dict()
        if self.average is not None:
            tensors |= with_prefix("average", to_reference_names(network, self.average.means))
        # [b, D] of each rank -> [B, D]: a run may be resumed on another number of ranks.
        gather = self.execution.ranks.all_gather
        tensors |= with_prefix("hidden", {name: gather(rows) for name, rows in self.hidden.items()})
        if self.execution.grad_scaler is not None:
            tensors |= with_prefix("scale", self.execution.grad_scaler.state_dict())
        tensors["meter"] = self.meter.sums
        return tensors

    def metadata(self) -> dict[str, Any]:
        """Return the rest of the state as JSON values, by the keys of checkpoints."""
        return {
            "position": asdict(self.position),
            # JSON has no infinity.
            "best": self.best if math.isfinite(self.best) else None,
            "averaged": self.average.count if self.average is not None else None,
            "watched": self.val_losses,
            "rollbacks": self.rollbacks,
        }

    def copy_to_cpu(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return copies of `state_dict` and `metadata` for `load_state_dict`."""
        tensors = {
            name: tensor.detach().to("cpu", copy=True) for name, tensor in self.state_dict().items()
        }
        return tensors, self.metadata()

    def load_state_dict(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
        """Load what `state_dict` and `metadata` returned.

        Raises:
            CheckpointError: if they are of another network, or of another kind of run.
        """
        load_network(self.module, tensors)
        # Before its first step an optimizer has no state.
        stepped = metadata["position"]["total"] > 0
        optimizers.load_state_dict(
            self.optimizer, "optimizer", self.weights, tensors, self.network, stepped=stepped
        )
        if self.architect is not None:
            self.architect.load_state_dict(tensors, stepped=stepped)
        else:
            take_all(tensors, "architect", {})
        self._load_average(tensors, metadata["averaged"])
        device, ranks = self.meter.sums.device, self.execution.ranks
        # [B, D] -> [b, D] of this rank
        self.hidden = {
            name: rows[ranks.shard(len(rows))].to(device)
            for name, rows in below_prefix(tensors, "hidden").items()
        }
        if self.execution.grad_scaler is not None:
            self.execution.grad_scaler.load_state_dict(below_prefix(tensors, "scale"))
        self.val_losses, self.rollbacks = list(metadata["watched"]), metadata["rollbacks"]
        self.meter.sums.copy_(take(tensors, "meter", self.meter.sums))
        self.position = Position(**metadata["position"])
        self.best = math.inf if metadata["best"] is None else metadata["best"]

    def _load_average(self, tensors: Mapping[str, Tensor], count: int | None) -> None:
        network, weights = self.network, self.weights
        expected = to_reference_names(network, weights) if count is not None else {}
        means = from_reference_names(network, take_all(tensors, "average", expected))
        self.average = Average(weights, count, means) if count is not None else None


def build_optimizer(network: nn.Module, config: WeightsConfig) -> torch.optim.SGD:
    """Build the SGD of the weights, which updates all of them in one call."""
    return torch.optim.SGD(
        network.parameters(),
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        foreach=True,
    )


def load_network(
    module: TrainingModule[Any], tensors: Mapping[str, Tensor], *, averaged: bool = False
) -> None:
    """Load the weights and buffers of a checkpoint into a network.

    Args:
        module: The network.
        tensors: Tensors of the checkpoint.
        averaged: Whether the mean of the weights is loaded, where the checkpoint has it.

    Raises:
        CheckpointError: naming the first tensor that is missing, or of another shape.
    """
    network = module.network
    named = take_all(tensors, "network", to_reference_names(network, network.state_dict()))
    if averaged and below_prefix(tensors, "average"):
        # Means of the weights; buffers such as BatchNorm's statistics have none.
        weights = dict(network.named_parameters())
        named |= take_all(tensors, "average", to_reference_names(network, weights))
    network.load_state_dict(from_reference_names(network, named))
