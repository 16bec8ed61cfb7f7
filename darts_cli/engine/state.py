"""All that changes while a run goes on, and hence all that a checkpoint holds."""

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
from darts_cli.errors import CheckpointError, DivergenceError
from darts_cli.run.files import WriteError
from darts_cli.runtime.compilation import Compilation
from darts_cli.runtime.randomness import seed_for

_EPOCHS_APART = 2**20
"""More epochs than any run has, so that those after a rollback are others."""


@dataclass(slots=True)
class Position:
    """Where a run stands: the next step is number `step` of `epoch`, both counted from 0."""

    epoch: int = 0
    step: int = 0
    total: int = 0
    """Steps done since the run began."""


@dataclass(kw_only=True, slots=True)
class State:
    """A network in training."""

    module: TrainingModule[Any]
    optimizer: torch.optim.Optimizer
    architect: Architect | None
    """None when a discrete network is trained."""
    meter: Meter
    """Training measures of the epoch so far."""
    position: Position = field(default_factory=Position)
    best: float = math.inf
    """The smallest validation loss so far."""
    hidden: dict[str, Tensor] = field(default_factory=dict)
    """What a recurrent network's last batches left behind, for `weights` and for `alphas`."""
    average: Average | None = None
    """Of the weights, once validation has stalled."""
    val_losses: list[float] = field(default_factory=list)
    """The validation loss of every epoch so far, where the weights may be averaged."""
    execution: StepExecution = DEFAULT
    """How steps are computed, which a run may be resumed with another of."""
    compilation: Compilation | None = None
    """Of the network's regions, where they are compiled."""
    rollbacks: int = 0
    """How often a divergence was answered by going back to the best checkpoint."""

    def tensors(self) -> dict[str, Tensor]:
        """Everything, by the names that checkpoints use; all ranks have to ask for it."""
        network = self.module.network
        named = _prefixed("network", to_reference_names(network, network.state_dict()))
        weights = dict(network.named_parameters())
        for key, values in optimizers.tensors(self.optimizer, weights).items():
            named |= _prefixed(f"optimizer.{key}", to_reference_names(network, values))
        if self.architect is not None:
            alphas = self.architect.alphas
            named |= _prefixed("alphas", alphas)
            for key, values in optimizers.tensors(self.architect.optimizer, alphas).items():
                named |= _prefixed(f"architect.{key}", values)
        if self.average is not None:
            named |= _prefixed("average", to_reference_names(network, self.average.means))
        join = self.execution.ranks.all_gather
        named |= _prefixed("hidden", {name: join(rows) for name, rows in self.hidden.items()})
        if self.execution.grad_scaler is not None:
            named |= _prefixed("scale", self.execution.grad_scaler.tensors())
        named["meter"] = self.meter.sums
        return named

    def begin_averaging(self) -> None:
        """Average the weights from here on."""
        self.average = Average(dict(self.module.network.named_parameters()))

    def evaluated(self) -> AbstractContextManager[None]:
        """The weights that evaluation is of, their average where there is one, while it lasts."""
        return self.average.applied() if self.average is not None else nullcontext()

    def draws(self, seed: int) -> int:
        """The seed of all draws in training: another one after every rollback."""
        return seed_for(seed, "rollback", self.rollbacks) if self.rollbacks else seed

    @property
    def reading(self) -> int:
        """The epoch of the streams that is read: after a rollback one that no run has read."""
        return self.position.epoch + self.rollbacks * _EPOCHS_APART

    def check_finite(self) -> None:
        """Wait for the device and make sure that no weight, statistic or alpha has diverged.

        Raises:
            DivergenceError: if one of them is not a finite number.
        """
        tensors = list(self.module.network.state_dict().values())
        if self.architect is not None:
            tensors += self.architect.alphas.values()
        if not torch.stack([tensor.isfinite().all() for tensor in tensors]).all():
            raise self.divergence("a weight is not a finite number any more")

    def divergence(self, what: str) -> DivergenceError:
        """The error for a run that has gone wrong in the way that `what` says."""
        position, rate = self.position, self.optimizer.param_groups[0]["lr"]
        return DivergenceError(
            f"{what} (epoch {position.epoch + 1}, step {position.step}, learning rate {rate:.4g})"
        )

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """A copy of everything in the memory of the CPU, for `restore`."""
        tensors = {
            name: tensor.detach().to("cpu", copy=True) for name, tensor in self.tensors().items()
        }
        return tensors, self.metadata()

    @contextmanager
    def ending_an_epoch(self) -> Iterator[None]:
        """A block after whose `WriteError` the epoch has not ended, so that it can end again."""
        before = replace(self.position), self.best, list(self.val_losses), self.average
        sums = self.meter.sums.clone()
        try:
            yield
        except WriteError:
            self.position, self.best, self.val_losses, self.average = before
            self.meter.sums.copy_(sums)
            raise

    def metadata(self) -> dict[str, Any]:
        """What a checkpoint says besides tensors."""
        best = self.best if math.isfinite(self.best) else None
        return {
            "position": asdict(self.position),
            "best": best,
            "averaged": self.average.count if self.average is not None else None,
            "watched": self.val_losses,
            "rollbacks": self.rollbacks,
        }

    def restore(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
        """Become what a checkpoint holds.

        Raises:
            CheckpointError: if it is of another network, or of another kind of run.
        """
        network = self.module.network
        load_network(self.module, tensors)
        weights = dict(network.named_parameters())
        stepped = metadata["position"]["total"] > 0
        found = self._optimizer_tensors("optimizer", tensors, stepped=stepped)
        optimizers.load(
            self.optimizer,
            weights,
            {key: from_reference_names(network, values) for key, values in found.items()},
        )
        found = self._optimizer_tensors("architect", tensors, stepped=stepped)
        if self.architect is not None:
            load_alphas(self.architect.alphas, tensors)
            optimizers.load(self.architect.optimizer, self.architect.alphas, found)
        means = to_reference_names(network, weights) if metadata["averaged"] is not None else {}
        means = take_all(tensors, "average", means)
        self.average = None
        if metadata["averaged"] is not None:
            self.average = Average(weights)
            self.average.count = metadata["averaged"]
            self.average.load(from_reference_names(network, means))
        device, ranks = self.meter.sums.device, self.execution.ranks
        self.hidden = {
            name: rows[ranks.shard(len(rows))].to(device)
            for name, rows in _with_prefix(tensors, "hidden").items()
        }
        if self.execution.grad_scaler is not None:
            self.execution.grad_scaler.load(_with_prefix(tensors, "scale"))
        self.val_losses, self.rollbacks = list(metadata["watched"]), metadata["rollbacks"]
        self.meter.sums.copy_(_take(tensors, "meter", self.meter.sums))
        self.position = Position(**metadata["position"])
        self.best = math.inf if metadata["best"] is None else metadata["best"]

    def _optimizer_tensors(
        self, name: str, tensors: Mapping[str, Tensor], *, stepped: bool
    ) -> dict[str, dict[str, Tensor]]:
        """What a checkpoint holds of one of the optimizers, by key, then by published name.

        Raises:
            CheckpointError: if that is not all of it, and nothing else.
        """
        if name == "optimizer":
            optimizer: torch.optim.Optimizer | None = self.optimizer
            parameters = to_reference_names(
                self.module.network, dict(self.module.network.named_parameters())
            )
        else:
            optimizer = self.architect.optimizer if self.architect is not None else None
            parameters = dict(self.architect.alphas) if self.architect is not None else {}
        # Before its first step it keeps nothing.
        keys = optimizers.keys(optimizer) if optimizer is not None and stepped else {}
        like = {
            f"{key}.{parameter_name}": parameter.new_empty(()) if is_count else parameter
            for key, is_count in keys.items()
            for parameter_name, parameter in parameters.items()
        }
        found: dict[str, dict[str, Tensor]] = {key: {} for key in keys}
        for full_name, tensor in take_all(tensors, name, like).items():
            key, _, parameter_name = full_name.partition(".")
            found[key][parameter_name] = tensor
        return found


def build_optimizer(network: nn.Module, config: WeightsConfig) -> torch.optim.SGD:
    """The weights' SGD, all of them in one call."""
    return torch.optim.SGD(
        network.parameters(),
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        foreach=True,
    )


def load_alphas(alphas: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Load the alphas of a checkpoint.

    Raises:
        CheckpointError: if one is missing, or of another shape.
    """
    with torch.no_grad():
        for cell, alpha in alphas.items():
            alpha.copy_(_take(tensors, f"alphas.{cell}", alpha))


def load_network(
    module: TrainingModule[Any], tensors: Mapping[str, Tensor], *, averaged: bool = False
) -> None:
    """Load the weights and buffers of a checkpoint into a network.

    Args:
        module: Whose network it is.
        tensors: Of the checkpoint.
        averaged: Whether the means of the weights take their place, where there are some.

    Raises:
        CheckpointError: naming the first tensor that is missing, or of another shape.
    """
    expected = to_reference_names(module.network, module.network.state_dict())
    published = take_all(tensors, "network", expected)
    if averaged and _with_prefix(tensors, "average"):
        weights = to_reference_names(module.network, dict(module.network.named_parameters()))
        published |= take_all(tensors, "average", weights)
    module.network.load_state_dict(from_reference_names(module.network, published))


def take_all(
    tensors: Mapping[str, Tensor], prefix: str, like: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The tensors of a checkpoint under a prefix, which are as those that there are to be.

    Raises:
        CheckpointError: naming the first that is missing, of another shape or kind, or unknown.
    """
    taken = {name: _take(tensors, f"{prefix}.{name}", tensor) for name, tensor in like.items()}
    for name in _with_prefix(tensors, prefix):
        if name not in like:
            raise CheckpointError(f"{prefix}.{name}: in the checkpoint, but not in this network")
    return taken


def _take(tensors: Mapping[str, Tensor], name: str, like: Tensor) -> Tensor:
    """A tensor of a checkpoint, of the shape that the network has."""
    if name not in tensors:
        raise CheckpointError(f"{name}: not in the checkpoint, which is of another network")
    found = tensors[name]
    if found.shape != like.shape:
        raise CheckpointError(
            f"{name}: found shape {list(found.shape)} in the checkpoint, "
            f"expected {list(like.shape)}"
        )
    if found.dtype != like.dtype:
        raise CheckpointError(
            f"{name}: found {found.dtype} in the checkpoint, expected {like.dtype}"
        )
    return found


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors named `prefix.name`, by name."""
    start = f"{prefix}."
    return {
        name.removeprefix(start): tensor
        for name, tensor in tensors.items()
        if name.startswith(start)
    }
